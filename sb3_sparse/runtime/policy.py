"""An exported policy that answers like an SB3 model."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.backends import native, numpy_backend
from sb3_sparse.runtime.backends.build import BuildError
from sb3_sparse.runtime.format.artifact import decode, encode
from sb3_sparse.runtime.network.records import Network

#: Ways to compute an action. All give the same to float rounding but "vbmi", whose hidden activations have 8 bits.
BACKENDS = ("auto", "numpy", "ctypes", "compiled", "vbmi")
#: From this many observations on, one matrix product serves a float backend better than one after the other.
_BATCH = 16
#: Kinds of arrays that can be observations: floats, integers with and without sign, booleans.
_NUMBERS = "fiub"


class Policy:
    """
    A policy from a compact file, with the ``predict`` of an SB3 model.

    :param network: What the file holds.
    :param backend: "numpy" needs nothing; "ctypes" and "compiled" compile a C kernel once per machine and call it through
        ctypes or as a Python extension; "vbmi" is the latter with AVX-512 VBMI and hidden activations rounded to 8
        bits; "auto" takes "compiled", else "ctypes", else "numpy".
    :raises ValueError: if there is no such backend
    :raises RuntimeError: if the backend that was asked for cannot be had on this machine
    """

    #: The network.
    network: Network
    #: The backend in use.
    backend: str

    def __init__(self, network: Network, backend: str = "auto") -> None:
        if backend not in BACKENDS:
            raise ValueError(f"unknown backend '{backend}': use one of {', '.join(BACKENDS)}")
        self.network = network
        self._wanted = backend
        unpacked = numpy_backend.unpack(network)
        self._single = numpy_backend.single(unpacked)
        self._batch = numpy_backend.batch(unpacked)
        self._rows: native.Rows | None = None
        self.backend = "numpy"
        for name in ("compiled", "ctypes", "numpy") if backend == "auto" else (backend,):
            try:
                self._attach(name)
                break
            except (BuildError, ImportError, OSError, ValueError) as error:
                if backend != "auto":
                    raise RuntimeError(f"backend '{backend}' is not to be had: {error}") from error

    def _attach(self, name: str) -> None:
        if name == "ctypes":
            self._single = single = native.library(self.network)
            self._rows = lambda x: np.stack([single(row) for row in x])
        elif name != "numpy":
            kernel = native.kernel(self.network, self._predict, vector=name == "vbmi")
            self._rows = rows = native.rows(self.network, kernel)
            self._single = lambda x: rows(np.ascontiguousarray(x[None], np.float32)).reshape(self.network.head.shape)
            # The kernel answers what it can and calls self._predict for the rest.
            self.predict = kernel.predict  # type: ignore[method-assign]
        self.backend = name

    def predict(
        self,
        observation: NDArray[Any],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[Any], None]:
        """
        Same as ``model.predict(observation, deterministic=True)`` of the model that was exported.

        :param observation: One observation as the environment gives it, or a batch of them, ``[n, ...]``.
        :param state: Not used; it is there because SB3's models have it.
        :param episode_start: Not used either.
        :param deterministic: Must be true: an exported policy knows no other action.
        :return: The action, or the batch of actions, and None
        :raises ValueError: if the observation has the wrong shape, or another than the deterministic action is asked for
        """
        return self._predict(observation, state, episode_start, deterministic)

    def _predict(
        self, observation: NDArray[Any], state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[NDArray[Any], None]:
        if not deterministic:
            raise ValueError("an exported policy has only its deterministic action: call predict(..., deterministic=True)")
        shape = self.network.shape
        if type(observation) is not np.ndarray or observation.shape != shape or observation.dtype.kind not in _NUMBERS:
            return self._predict_any(observation)
        return self._single(observation), None

    def _predict_any(self, observation: Any) -> tuple[NDArray[Any], None]:
        """Lists, batches, images with channels last; errors for the rest."""
        if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
            raise ValueError("predict() was given a tuple: `obs, info = env.reset()` returns two things, pass the first alone")
        try:
            array = np.asarray(observation)
            if array.dtype.kind not in _NUMBERS:
                raise ValueError(f"an array of {array.dtype}")
        except ValueError as error:
            raise ValueError(f"an observation must be an array of numbers of shape {self.network.shape}: {error}") from error
        for candidate in (array, _channels_first(array) if self.network.image else array):
            if candidate.shape == self.network.shape:
                return self._predict(np.ascontiguousarray(candidate))
            if candidate.shape[1:] == self.network.shape:
                # Images stay bytes: the kernels take them as they are.
                kind = np.uint8 if candidate.dtype == np.uint8 else np.float32
                return self._predict_batch(np.ascontiguousarray(candidate, kind)), None
        raise ValueError(
            f"an observation of shape {array.shape} does not fit this policy: it wants {self.network.shape}, or "
            f"{('n', *self.network.shape)} for a batch"
        )

    def _predict_batch(self, x: NDArray[Any]) -> NDArray[Any]:
        if self._rows is not None and (self.backend == "vbmi" or 0 < len(x) < _BATCH):
            return self._rows(x)
        return self._batch(x)

    @property
    def nbytes(self) -> int:
        """Bytes of the compact file."""
        return len(encode(self.network))

    def __reduce__(self) -> tuple[Callable[..., "Policy"], tuple[Any, ...]]:
        # The backend that was asked for: another machine may have to take another one.
        return _restore, (encode(self.network), self._wanted)


def load(path: str | os.PathLike[str], backend: str = "auto") -> Policy:
    """
    Load a compact file.

        policy = load("cheetah.sb3s")
        action, _ = policy.predict(observation)

    :param path: The file that ``compress(model).save(path)`` has written.
    :param backend: See :class:`Policy`.
    :return: The policy
    :raises ValueError: if the file is damaged or no such file, or the backend is unknown
    :raises OSError: if it cannot be read
    :raises RuntimeError: if the backend cannot be had on this machine
    """
    return Policy(decode(Path(path).read_bytes()), backend)


def _restore(data: bytes, backend: str) -> Policy:
    return Policy(decode(data), backend)


def _channels_first(array: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(array, -1, -3) if array.ndim >= 3 else array
