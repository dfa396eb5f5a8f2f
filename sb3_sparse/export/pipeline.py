"""
The steps of an export, in order:

    trace       the model as a graph of layers, or an error that names the module that cannot be exported
    fold        batch norm and image scaling go into the layers
    compare     the layers act as model.predict() does on normalized observations, or an error says by how much they do not
    shrink      dead neurons go
    center      values of discrete actions lose what they have in common
    round       weights become integers, and some of them zero
    shrink      the neurons that died of it go
    order       equal counts of weights stand together
    encode      the bytes of the compact file

:func:`read_model` does the first three and :func:`compress_network` the others, so that a caller learns what cannot be
exported before it spends minutes on calibration observations.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.export.agreement import check_agreement
from sb3_sparse.export.calibration import calibration_inputs, calibration_starts
from sb3_sparse.export.passes import PASSES, center, fold, order, round_biases, round_weights, shrink, shrink_features
from sb3_sparse.export.report import Report, make_report
from sb3_sparse.export.trace import Graph, read_stack, trace
from sb3_sparse.nn import quantized_bits, unrounded_inputs
from sb3_sparse.runtime.format.artifact import encode
from sb3_sparse.runtime.network.assemble import assemble
from sb3_sparse.runtime.network.capabilities import require_known
from sb3_sparse.runtime.network.records import Floats, Network
from sb3_sparse.state import saved_bits

#: Observations as an environment gives them, ``[n, ...]``, or a dict of them.
Observations = NDArray[Any] | Mapping[str, NDArray[Any]]


class Original(NamedTuple):
    """
    The policy of a model as it was trained.

    :param graph: Its layers as they were traced.
    :param network: The same, folded.
    """

    graph: Graph
    network: Network


class Compressed(NamedTuple):
    """
    An exported policy.

    :param network: The network.
    :param report: The report of the export.
    :param data: The bytes of the compact file.
    """

    network: Network
    report: Report
    data: bytes


def read_model(model: BaseAlgorithm, normalization: VecNormalize | None = None, frame_stack: int | None = None) -> Original:
    """
    :param model: See :func:`~sb3_sparse.export.compress`.
    :param normalization: The statistics that its observations were normalized with, if they were.
    :param frame_stack: See :func:`~sb3_sparse.export.compress`.
    :return: Its policy
    :raises ValueError: if it cannot be exported; the sentence names the reason
    """
    stack = None if frame_stack is None else read_stack(model, normalization, frame_stack)
    if stack is not None and stack.normalize is not None:
        # The model sees what comes out of the stack, which is normalized already.
        normalization = None
    graph = trace(model, normalization)
    network = fold(graph)
    require_known(network, PASSES)
    # A stock policy computes with float weights until `restore`, whatever it was saved with. Rounded inputs would magnify the
    # last bits of sums that lie between two integers, so they are compared as they are.
    bits, rounded = quantized_bits(model.policy), any(layer.grid is not None for layer in network.every_layer)
    as_it_is = {**saved_bits(model), **bits} == bits and not rounded
    with unrounded_inputs(model.policy):
        check_agreement(model, network if as_it_is else fold(trace(model, normalization, bits, {})), normalization)
    return Original(graph, replace(network, stack=stack))


def check_bits(bits: int) -> None:
    """
    :param bits: See :func:`~sb3_sparse.export.compress`.
    :raises ValueError: if it is not a number of bits that weights can have
    """
    if not isinstance(bits, int) or isinstance(bits, bool) or bits not in (*range(2, 9), 32):
        raise ValueError(f"bits={bits!r}: give a number from 2 to 8, or 32 for float weights")


def compress_network(
    original: Original,
    bits: int = 8,
    calibration: Observations | None = None,
    episode_starts: NDArray[Any] | None = None,
) -> Compressed:
    """
    :param original: The policy as it was trained.
    :param bits: See :func:`~sb3_sparse.export.compress`.
    :param calibration: See :func:`~sb3_sparse.export.compress`.
    :param episode_starts: See :func:`~sb3_sparse.export.compress`.
    :return: The exported policy
    :raises ValueError: if the number of bits or the calibration observations are wrong
    """
    check_bits(bits)
    starts = calibration_starts(original.network, calibration, episode_starts)
    observations = None if calibration is None else calibration_inputs(original.network, calibration, starts)
    network, inputs = shrink_features(shrink(original.network)), None
    encoders = {
        key: _compress(encoder, bits, None if observations is None else observations[key])
        for key, encoder in network.encoders.items()
    }
    network = replace(network, parts=tuple(replace(part, encoder=encoders.get(part.key)) for part in network.parts))
    if observations is not None:
        # Of the encoders as they are now.
        inputs = assemble(network, observations) if network.parts else observations[""]
    network = _compress(network, bits, inputs, starts)
    data = encode(network)
    report = make_report(*original, network, nbytes=len(data), calibrated=observations is not None, bits=bits)
    return Compressed(network, report, data)


def _compress(network: Network, bits: int, inputs: Floats | None, starts: NDArray[np.bool_] | None = None) -> Network:
    """The passes of one network, whose encoders stay as they are."""
    network = shrink(network)
    if bits != 32:
        network = shrink(round_weights(center(network), bits, inputs, starts))
    return round_biases(order(network))
