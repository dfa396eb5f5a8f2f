"""An exported policy that answers like an SB3 model."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.backends import native, numpy_backend
from sb3_sparse.runtime.backends.build import BuildError
from sb3_sparse.runtime.backends.families import FAMILIES
from sb3_sparse.runtime.format.artifact import decode, encode
from sb3_sparse.runtime.masks import choose, with_outputs
from sb3_sparse.runtime.memory import State, read_state, write_state
from sb3_sparse.runtime.network.assemble import Encoder
from sb3_sparse.runtime.network.records import Network
from sb3_sparse.runtime.network.stacking import push
from sb3_sparse.runtime.observations import read_observation

#: Backends that stand for the first available one of others.
_FIRST_OF = {"auto": ("compiled", "ctypes", "numpy"), "int8": tuple(FAMILIES)}
#: Ways to compute an action. All agree to float rounding except "int8", whose hidden activations have 8 bits.
BACKENDS = ("auto", "numpy", "ctypes", "portable", "compiled", "int8", *FAMILIES)
#: From this many observations on, one matrix product is faster than one observation after the other.
_BATCH = 16


class Policy:
    """
    A policy from a compact file, with the ``predict`` of an SB3 model.

    :param network: The content of the file.
    :param backend: "numpy" needs no compiler; "ctypes" and "portable" compile a C kernel once per machine and call it through
        ctypes or as a Python extension; "compiled" is the latter with instructions of the processor for sparse layers; "int8"
        rounds hidden activations to 8 bits as well, in the instructions "vbmi" or, with the same actions, "avx2" or "neon";
        "auto" takes "compiled", else "ctypes", else "numpy".
    :raises ValueError: if the backend is unknown, the layers do not fit each other, or no backend computes the network
    :raises RuntimeError: if the backend that was asked for is not available on this machine, or does not compute the network
    """

    #: The network.
    network: Network
    #: The backend in use.
    backend: str

    def __init__(self, network: Network, backend: str = "auto") -> None:
        if backend not in BACKENDS:
            raise ValueError(f"unknown backend '{backend}': use one of {', '.join(BACKENDS)}")
        _ = network.shapes  # Raises an error if layers do not fit each other: no backend can help that.
        self.network = network
        #: What the backends compute: the same, of observations that are whole.
        self._whole = replace(network, stack=None)
        self._wanted = backend
        self._outputs: Policy | None = None
        names = _FIRST_OF.get(backend, (backend,))
        for name in names:
            try:
                self._attach(name)
                break
            except (BuildError, ImportError, OSError, ValueError) as error:
                if name == names[-1] and backend == "auto":
                    raise
                if name == names[-1]:
                    raise RuntimeError(f"backend '{backend}' is not available: {error}") from error

    def _attach(self, name: str) -> None:
        encoders = {key: Policy(encoder, name) for key, encoder in self._whole.encoders.items()}
        self._encoders = {key: _first(encoder) for key, encoder in encoders.items()}
        if self._whole.lstms:
            self._attach_recurrent(name)
        else:
            self._attach_plain(name)
        self.backend = name

    def _attach_recurrent(self, name: str) -> None:
        small = self._step = numpy_backend.recurrent_step(self._whole)
        if name == "ctypes":
            small = native.library_step(self._whole)
        elif name != "numpy":
            kernel = native.kernel(self._whole, name, self.predict)
            small = native.kernel_step(self._whole, kernel)
        self._small_step = small

    def _attach_plain(self, name: str) -> None:
        panels = False
        if name == "ctypes":
            self._single, self._small = native.library(self._whole)
        elif name != "numpy":
            kernel = native.kernel(self._whole, name, self.predict)
            self._single, self._small = native.functions(self._whole, kernel)
            panels = kernel.panels
            if not self._whole.encoders and self.network.stack is None:
                # The kernel answers the usual call itself, without any Python, and leaves all others to the method.
                self.predict = kernel.predict  # type: ignore[method-assign]
        if panels:
            self._large = self._small
            return
        # Large batches are fastest in numpy, whatever computes the small ones.
        single, self._large = numpy_backend.functions(self._whole)
        if name == "numpy":
            self._single, self._small = single, self._large

    def predict(
        self,
        observation: NDArray[Any] | Mapping[str, NDArray[Any]],
        state: State | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = True,
        *,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], State | None]:
        """
        Same as ``model.predict(observation, deterministic=True)`` of the model that was exported.

        :param observation: One observation as the environment gives it, or a batch of them, ``[n, ...]``; a dict of arrays for
            a ``Dict`` space, a class for ``Discrete``.
        :param state: What a policy remembers that is recurrent or stacks frames: the state that the last call returned, or
            None. Others do not use it.
        :param episode_start: For each observation of such a policy whether it begins an episode, ``[n]``.
        :param deterministic: Must be true: an exported policy has only its deterministic action.
        :param action_masks: Whether each discrete action is allowed, ``[n, actions]``, as MaskablePPO takes it; None allows
            all.
        :return: The action, or the batch of actions; and the next state, or None of a policy that does not remember. It is a
            tuple of arrays: two of ``[LSTM layers, n, units]`` for an LSTM, with fewer units than the model's where dead units
            were removed, and one of ``[n, *stacked shape]`` for frames, with the channels of images first
        :raises ValueError: if the observation or the state has the wrong shape, a key is missing or a class does not exist, or
            ``deterministic`` is false
        """
        if not deterministic:
            raise ValueError("an exported policy has only its deterministic action: call predict(..., deterministic=True)")
        if action_masks is not None:
            return self._among(observation, state, episode_start, action_masks)
        x, batch = read_observation(observation, self.network, self._encoders)
        if self.network.remembers:
            return self._remember(x if batch else x[None], state, episode_start, batch=batch)
        return (self._batch(x) if batch else self._single(x)), None

    def _among(self, observation: Any, state: State | None, start: Any, masks: Any) -> tuple[NDArray[Any], State | None]:
        """The actions among those that are allowed."""
        if self._outputs is None:
            self._outputs = Policy(with_outputs(self.network), self.backend)
        outputs, state = self._outputs.predict(observation, state, start)
        actions = choose(self.network.head, outputs.reshape(-1, outputs.shape[-1]), masks)
        return (actions if outputs.ndim > 1 else actions.reshape(self.network.head.shape)), state

    def _remember(
        self, x: NDArray[Any], state: State | None, episode_start: NDArray[Any] | None, *, batch: bool
    ) -> tuple[NDArray[Any], State]:
        rows, stacks = read_state(self.network, len(x), state, episode_start)
        x = np.ascontiguousarray(x, np.uint8 if x.dtype == np.uint8 else np.float32)
        if stacks is not None:
            x = stacks = push(self.network, stacks, x)
        if self.network.lstms:
            actions = (self._small_step if 0 < len(x) < _BATCH else self._step)(x, rows)
        else:
            actions = self._batch(x)
        return (actions if batch else actions.reshape(self.network.head.shape)), write_state(rows, stacks)

    def _batch(self, x: NDArray[Any]) -> NDArray[Any]:
        # No other backend gives the actions of those that round activations.
        row_by_row = 0 < len(x) < _BATCH or self.backend in FAMILIES
        return self._small(x) if row_by_row else self._large(x)

    @property
    def nbytes(self) -> int:
        """Bytes of the compact file."""
        return len(encode(self.network))

    def __reduce__(self) -> tuple[Callable[..., "Policy"], tuple[Any, ...]]:
        # The backend that was asked for: with "auto", another machine may need another one.
        return _restore, (encode(self.network), self._wanted)


def load(path: str | os.PathLike[str], backend: str = "auto") -> Policy:
    """
    Load a compact file.

        policy = load("cheetah.sb3s")
        action, _ = policy.predict(observation)

    :param path: The file that ``compress(model).save(path)`` has written.
    :param backend: See :class:`Policy`.
    :return: The policy
    :raises ValueError: if the file is damaged or not a compact file, or the backend is unknown
    :raises OSError: if it cannot be read
    :raises RuntimeError: if the backend that was asked for is not available on this machine, or does not compute the policy
    """
    return Policy(decode(Path(path).read_bytes()), backend)


def _restore(data: bytes, backend: str) -> Policy:
    return Policy(decode(data), backend)


def _first(encoder: Policy) -> Encoder:
    """A batch of one part through its encoder."""
    return lambda array: encoder.predict(array)[0]
