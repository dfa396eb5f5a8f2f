"""Networks and optimizers of a model in the kernels' layout, and their way from the model and back."""
