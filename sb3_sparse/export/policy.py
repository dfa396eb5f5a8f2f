"""``compress``: any trained model, dense or sparse, in; a small and fast policy out."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.export.c.header import to_c
from sb3_sparse.export.onnx import to_onnx
from sb3_sparse.export.passes.capabilities import PASSES
from sb3_sparse.export.passes.fold import fold, order, shrink
from sb3_sparse.export.passes.quantize import quantize, round_biases
from sb3_sparse.export.report.report import Report, make_report
from sb3_sparse.export.trace.graph import trace
from sb3_sparse.runtime.format.artifact import encode
from sb3_sparse.runtime.network.capabilities import require_known
from sb3_sparse.runtime.network.records import Floats, Network
from sb3_sparse.runtime.policy import Policy

#: Calibration looks at this many observations at most, evenly spread; fewer of images, whose convolutions unfold.
_OBSERVATIONS, _IMAGES = 4096, 256


def compress(
    model: BaseAlgorithm,
    bits: int = 8,
    calibration: NDArray[Any] | None = None,
    *,
    normalization: VecNormalize | None = None,
    backend: str = "auto",
) -> "CompressedPolicy":
    """
    Export the deterministic policy of a trained model: fold what can be folded, round the weights to integers without losing
    return, remove every weight that is zero and every neuron that is dead.

        policy = compress(model, calibration=observations)
        policy.predict(observation)
        policy.save("cheetah.sb3s")

    Layers that were trained with :class:`~sb3_sparse.callbacks.QATCallback` keep the grid that they were trained on.

    :param model: A model of SAC, TD3, DDPG, TQC, CrossQ, DQN, QRDQN, PPO, A2C, TRPO, BC or DiscreteBC with ``Box``
        observations.
    :param bits: Bits per weight, 2 to 8, or 32 for float weights, which lose nothing at all.
    :param calibration: Observations as the environment gives them, before ``VecNormalize``, ``[n, ...]``; a thousand are
        plenty. Without, they are guessed from the first layer, and there is no integer-only C code, for the range of the
        activations is unknown.
    :param normalization: The ``VecNormalize`` that the model was trained in; by default the one of its environment, if it has
        one. Its statistics become part of the policy.
    :param backend: See :class:`~sb3_sparse.runtime.Policy`.
    :return: The policy
    :raises ValueError: if the model has a layer that cannot be exported (the sentence names it), or an argument is wrong
    """
    if not isinstance(model, BaseAlgorithm):
        raise ValueError(f"compress takes a model, such as SAC.load(...), and was given a {type(model).__name__}")
    if normalization is not None and not isinstance(normalization, VecNormalize):
        raise ValueError(f"normalization must be a VecNormalize, not a {type(normalization).__name__}")
    if not isinstance(bits, int) or isinstance(bits, bool) or bits not in (*range(2, 9), 32):
        raise ValueError(f"bits={bits!r}: give a number from 2 to 8, or 32 for float weights")
    graph = trace(model, model.get_vec_normalize_env() if normalization is None else normalization)
    original = fold(graph)
    require_known(original, PASSES)
    original.shapes  # noqa: B018 - raises where something does not fit
    observations = None if calibration is None else _observations(original, calibration)
    network = shrink(original)
    if bits != 32:
        network = shrink(quantize(network, bits, observations))
    network = round_biases(order(network))
    report = make_report(graph, original, network, calibrated=observations is not None, bits=bits)
    return CompressedPolicy(network, report, backend)


class CompressedPolicy(Policy):
    """
    What :func:`compress` returns: a :class:`~sb3_sparse.runtime.Policy` that can be written in three forms.

    :param network: The network.
    :param report: What became of the model.
    :param backend: See :class:`~sb3_sparse.runtime.Policy`.
    """

    def __init__(self, network: Network, report: Report, backend: str = "auto") -> None:
        super().__init__(network, backend)
        self._report = report

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Write the compact file, for :func:`sb3_sparse.runtime.load`.

        :param path: Where to write; "cheetah.sb3s", for example.
        """
        Path(path).write_bytes(encode(self.network))

    def to_c(self, path: str | os.PathLike[str], *, name: str = "policy") -> None:
        """
        Write one C99 header with the policy, test vectors and a self test; see :func:`sb3_sparse.export.c.header.to_c`.

        :param path: Where to write; "cheetah.h", for example.
        :param name: What its functions and tables begin with.
        """
        Path(path).write_text(to_c(self.network, name=name))

    def to_onnx(self, path: str | os.PathLike[str], *, form: str = "float") -> None:
        """
        Write an ONNX graph from observations to actions; see :func:`sb3_sparse.export.onnx.to_onnx`.

        :param path: Where to write; "cheetah.onnx", for example.
        :param form: "float", "qdq" for int8 weights per row, or "sparse" for sparse initializers.
        """
        Path(path).write_bytes(to_onnx(self.network, form=form))

    def report(self) -> Report:
        """
        :return: Layers, bytes by format and what was given up; printing it shows tables, ``.to_dict()`` is JSON
        """
        return self._report

    def __reduce__(self) -> tuple[Callable[..., Policy], tuple[Any, ...]]:
        return CompressedPolicy, (self.network, self._report, self._wanted)


def _observations(network: Network, calibration: NDArray[Any]) -> Floats:
    """Calibration observations as the network takes them, ``[n, *shape]``, finite and not too many."""
    array = np.asarray(calibration)
    if network.image and array.shape[1:] != network.shape and array.ndim == len(network.shape) + 1:
        array = np.moveaxis(array, -1, 1)
    if array.ndim == 0 or array.dtype.kind not in "fiub" or array.shape[1:] != network.shape or not len(array):
        raise ValueError(
            f"calibration must be an array of observations of shape {('n', *network.shape)}, this one is "
            f"{array.shape} of {array.dtype}"
        )
    most = _IMAGES if any(layer.convolution for layer in network.layers) else _OBSERVATIONS
    chosen = np.linspace(0, len(array) - 1, min(most, len(array))).round().astype(int)
    observations: Floats = array[chosen].astype(np.float32)
    if not np.isfinite(observations).all():
        raise ValueError("there are calibration observations that are not finite: leave them out")
    return observations
