"""The head in the compact file to bytes and back; ``docs/guide/format.md`` describes it byte by byte."""

from math import prod

import numpy as np

from sb3_sparse.runtime.format.bytestream import Reader, Writer, require
from sb3_sparse.runtime.network.records import Head, Shape

#: Heads by their numbers in the file: a new one goes to the end.
HEADS = ("unscale", "clip", "argmax", "positive")


def write_head(writer: Writer, head: Head) -> None:
    """
    :param writer: The file to write to.
    :param head: A head.
    :raises ValueError: if it is larger than the format allows
    """
    writer.pack("B", HEADS.index(head.kind))
    writer.shape(head.shape)
    if head.kind == "argmax":
        writer.pack(f"H{len(head.groups)}H", len(head.groups), *head.groups)
    elif head.low is not None and head.high is not None:
        # Bounds that are all the same are written once.
        uniform = len(set(head.low.tolist())) == len(set(head.high.tolist())) == 1
        writer.pack("B", uniform)
        for bound in (head.low, head.high):
            writer.array(bound[:1] if uniform else bound, "f4")


def read_head(reader: Reader, inputs: Shape) -> Head:
    """
    :param reader: The file to read from.
    :param inputs: Shape of the last layer's output.
    :return: The head
    :raises ValueError: if it is damaged, or does not fit the layer
    """
    kind = reader.integer("B")
    require(kind < len(HEADS), "its action is of an unknown kind")
    shape = reader.shape()
    if HEADS[kind] == "argmax":
        groups = reader.unpack(f"{reader.integer('H')}H")
        require(len(groups) == prod(shape) and min(groups, default=0) > 0, "its action does not fit its groups")
        return Head("argmax", shape, groups=groups)
    require(prod(shape) == prod(inputs), f"its action of shape {shape} does not fit {prod(inputs)} outputs")
    if HEADS[kind] == "positive":
        return Head("positive", shape)
    uniform = reader.integer("B")
    require(uniform < 2, "its bounds are of an unknown kind")
    low, high = (
        np.broadcast_to(reader.array(1 if uniform else prod(shape), "f4", infinite=HEADS[kind] == "clip"), prod(shape)).copy()
        for _ in range(2)
    )
    require(bool((low <= high).all()), "its action has a lower bound above the upper one")
    return Head(HEADS[kind], shape, low, high)
