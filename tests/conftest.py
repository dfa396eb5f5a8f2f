"""One thread per process: the networks of the tests are too small for more, and the suite runs in several processes."""

import torch as th

th.set_num_threads(1)
