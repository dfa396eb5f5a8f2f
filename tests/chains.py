"""Modules of torch that follow each other, as a network."""

import numpy as np

from sb3_sparse.export.passes import fold
from sb3_sparse.export.trace import Graph
from sb3_sparse.export.trace.chain import chain
from sb3_sparse.runtime.network.records import Head


def folded(modules, shape, outputs):
    """
    :param modules: Modules, the last of which is linear.
    :param shape: Shape of an observation.
    :param outputs: How many numbers the last module gives.
    :return: Their network, whose actions are these numbers
    """
    operations, names, carriers, view = chain([(str(index), module) for index, module in enumerate(modules)], {}, shape)
    bound = np.full(outputs, np.inf, np.float32)
    head = Head("clip", (outputs,), -bound, bound)
    return fold(Graph(shape, False, None, tuple(operations), tuple(names), head, tuple(carriers), view))
