"""Parameters that belong to no layer."""

from __future__ import annotations

import numpy as np
from torch import Tensor


class Vector:
    """
    A vector of parameters that is not a layer's, such as the logarithm of the entropy coefficient.

    :param tensor: The parameter, of one dimension.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.size = tensor.numel()
        #: The values and the gradients that it is a part of, from ``start`` on.
        self.arrays: dict[str, np.ndarray] = {}
        self.start = 0

    def __repr__(self) -> str:
        return f"Vector({self.size})"

    @property
    def values(self) -> np.ndarray:
        return self.arrays["value"][self.start : self.start + self.size]

    def address(self) -> int:
        return int(self.arrays["value"].ctypes.data) + 4 * self.start

    def gradient_address(self) -> int:
        return int(self.arrays["gradient"].ctypes.data) + 4 * self.start
