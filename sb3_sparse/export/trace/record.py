"""What a torch module becomes: records, each with the name of its module; and the refusal of one that cannot become any."""

from collections.abc import Mapping
from typing import NamedTuple

import torch as th

from sb3_sparse.export.trace.graph import Affine
from sb3_sparse.runtime.network.records import Activation, Floats, Layer, Norm, Pool, Shape
from sb3_sparse.state import SavedGrid

#: Bits per weight of the layers that were trained with quantized weights, or the grids that weights are on, by full name.
Bits = Mapping[str, int | SavedGrid]


class Reshape(NamedTuple):
    """
    The same numbers in another shape.

    :param shape: The shape, without the batch.
    """

    shape: Shape


#: What a module becomes.
Content = Layer | Affine | Activation | Pool | Norm | Reshape
#: The same, with the full name of its module.
Record = tuple[str, Content]


class At(NamedTuple):
    """
    Where a module stands.

    :param name: Its full name.
    :param bits: See :data:`Bits`.
    :param shape: Shape of its input, without the batch; channels first. That of an ``nn.Conv1d`` behind another one is
        (channels, 1, n).
    """

    name: str
    bits: Bits
    shape: Shape


class Refusal(Exception):
    """
    A module that cannot be exported; :func:`~sb3_sparse.export.trace.modules.refuse` makes a sentence of it.

    :param why: What about the module cannot be, such as "with ceil_mode"; nothing where it is the module itself.
    :param instead: What can be exported in its place.
    """

    def __init__(self, why: str = "", instead: str = "") -> None:
        super().__init__(why, instead)
        self.why, self.instead = why, instead


def as_array(tensor: th.Tensor) -> Floats:
    """
    :param tensor: A tensor.
    :return: The same in float32
    """
    array: Floats = tensor.detach().cpu().numpy().astype("float32")
    return array
