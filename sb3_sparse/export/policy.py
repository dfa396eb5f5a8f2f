"""``compress``: any trained model, dense or sparse, as a small and fast policy."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
    unwrap_vec_normalize,
)

from sb3_sparse.export.c.header import to_c
from sb3_sparse.export.onnx import to_onnx
from sb3_sparse.export.pipeline import Compressed, Observations, check_bits, compress_network, read_model
from sb3_sparse.export.report import Report
from sb3_sparse.export.targets import write_target
from sb3_sparse.export.web import Entry, make_page
from sb3_sparse.runtime.policy import Policy

#: Wrappers of environments that leave observations as they are, or are looked at elsewhere.
_HARMLESS = (VecMonitor, VecCheckNan, VecVideoRecorder, VecTransposeImage, VecFrameStack)


def compress(
    model: BaseAlgorithm,
    bits: int = 8,
    calibration: Observations | None = None,
    *,
    episode_starts: NDArray[Any] | None = None,
    normalization: VecNormalize | None = None,
    frame_stack: int | None = None,
    backend: str = "auto",
) -> "CompressedPolicy":
    """
    Export the deterministic policy of a trained model: fold what can be folded, round the weights to integers without losing
    return, and remove every weight that is zero and every neuron that is dead.

        policy = compress(model, calibration=observations)
        policy.predict(observation)
        policy.save("cheetah.sb3s")

    Layers that were trained with :class:`~sb3_sparse.callbacks.QATCallback` keep the grid that they were trained on.
    Activations that were rounded in training are rounded to the same numbers by every backend.

    :param model: A model of SAC, TD3, DDPG, TQC, CrossQ, DQN, QRDQN, PPO, A2C, TRPO, RecurrentPPO, MaskablePPO or BC, or of
        another algorithm whose policy has an ``action_path()``: see :class:`~sb3_sparse.nn.ActionPath`. Its observations are
        of ``Box``, ``Discrete``, ``MultiDiscrete`` or ``MultiBinary``, or of a ``Dict`` of them.
    :param bits: Bits per weight: 2 to 8, or 32 for float weights, which lose nothing.
    :param calibration: Observations as the environment gives them, before ``VecNormalize``, ``[n, ...]``, or a dict of such
        arrays; a thousand are plenty. Those of a recurrent policy are in the order of time, and so are frames. Without them,
        inputs are guessed from the first layer, and there is no integer-only C code, because the range of the activations is
        unknown, unless they were rounded in training.
    :param episode_starts: Which of the calibration observations begin an episode, ``[n]`` of bool: there a policy remembers
        nothing. By default only the first does. Only recurrent policies and those with a ``frame_stack`` need it.
    :param normalization: The ``VecNormalize`` that the model was trained in; by default that of the model's environment, if it
        has one. Its statistics become part of the policy. It may be inside of ``VecFrameStack`` if ``frame_stack`` is given.
    :param frame_stack: How many frames ``VecFrameStack`` put together in training, to make the stack a part of the policy: it
        takes one frame at a time then, and ``predict`` takes and returns the others as its state. By default it takes stacked
        observations.
    :param backend: See :class:`~sb3_sparse.runtime.Policy`.
    :return: The policy
    :raises ValueError: if an argument is wrong, or the model has a layer that cannot be exported; the sentence names it
    """
    if not isinstance(model, BaseAlgorithm):
        raise ValueError(f"compress takes a model, such as SAC.load(...), and was given a {type(model).__name__}")
    if normalization is not None and not isinstance(normalization, VecNormalize):
        raise ValueError(f"normalization must be a VecNormalize, not a {type(normalization).__name__}")
    check_bits(bits)
    normalization = find_normalization(model) if normalization is None else normalization
    original = read_model(model, normalization, frame_stack)
    return CompressedPolicy(compress_network(original, bits, calibration, episode_starts), backend)


def find_normalization(model: BaseAlgorithm) -> VecNormalize | None:
    """
    :param model: A model.
    :return: The ``VecNormalize`` of its environment
    :raises ValueError: if something outside of it may change observations, which nobody here would know
    """
    env: Any = model.get_env()
    found = model.get_vec_normalize_env()
    while env is not None and env is not found and found is not None:
        if type(env) not in _HARMLESS:
            raise ValueError(
                f"the model's environment has {type(env).__name__} around its VecNormalize, which may change observations"
                " once more: put it inside of the VecNormalize, or give normalization="
            )
        env = env.venv
    if found is not None and unwrap_vec_normalize(found.venv) is not None:
        raise ValueError("the model's environment has a VecNormalize inside of another one: train with one of them")
    return found


class CompressedPolicy(Policy):
    """
    The policy that :func:`compress` returns: a :class:`~sb3_sparse.runtime.Policy` that can be written in three forms.

    :param compressed: The exported policy.
    :param backend: See :class:`~sb3_sparse.runtime.Policy`.
    """

    def __init__(self, compressed: Compressed, backend: str = "auto") -> None:
        super().__init__(compressed.network, backend)
        self._compressed = compressed

    @property
    def nbytes(self) -> int:
        """Bytes of the compact file."""
        return len(self._compressed.data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Write the compact file, for :func:`sb3_sparse.runtime.load`.

        :param path: Where to write; "cheetah.sb3s", for example.
        """
        Path(path).write_bytes(self._compressed.data)

    def to_c(
        self,
        path: str | os.PathLike[str],
        *,
        name: str = "policy",
        masks: bool = False,
        pack: bool = True,
        simd: bool = True,
    ) -> None:
        """
        Write one C99 header with the policy, test vectors and a self test; see :func:`sb3_sparse.export.c.header.to_c`.

        :param path: Where to write; "cheetah.h", for example.
        :param name: Prefix of its functions and tables.
        :param masks: Whether it takes masks of the discrete actions.
        :param pack: Whether weights of 2, 3, 4 or 6 bits share bytes where that takes less flash; a byte for each weight is
            read in fewer instructions.
        :param simd: Whether it has code for SIMD registers as well, which is most of its text.
        """
        Path(path).write_text(to_c(self.network, name=name, masks=masks, pack=pack, simd=simd))

    def to_target(
        self, folder: str | os.PathLike[str], target: str, *, name: str = "policy", masks: bool = False, pack: bool = True
    ) -> list[Path]:
        """
        Write a project for a build system around the C header; see :func:`sb3_sparse.export.targets.write_target`.

        :param folder: Where the folder of the project, ``<name>_policy``, goes.
        :param target: "arduino", "cmake", "esp-idf", "ros2" or "zephyr".
        :param name: Prefix of its functions.
        :param masks: Whether it takes masks of the discrete actions.
        :param pack: Whether weights of few bits share bytes, as in :meth:`to_c`.
        :return: Paths of the files
        """
        return write_target(self.network, target, Path(folder), name=name, masks=masks, pack=pack)

    def to_onnx(self, path: str | os.PathLike[str], *, form: str = "float", masks: bool = False) -> None:
        """
        Write an ONNX graph from observations to actions; see :func:`sb3_sparse.export.onnx.to_onnx`.

        :param path: Where to write; "cheetah.onnx", for example.
        :param form: "float", "qdq" for int8 weights per row, or "sparse" for sparse initializers.
        :param masks: Whether it takes masks of the discrete actions.
        """
        Path(path).write_bytes(to_onnx(self.network, form=form, masks=masks))

    def to_html(
        self, path: str | os.PathLike[str], *, env: str | None = None, dense: "CompressedPolicy | None" = None
    ) -> None:
        """
        Write one HTML page with the policy as WebAssembly, a JavaScript ``predict(observation)``, its masks and sizes; see
        :func:`sb3_sparse.export.web.make_page`.

        :param path: Where to write; "cartpole.html", for example.
        :param env: One of Gymnasium's classic control environments, in which the policy plays on the page.
        :param dense: A policy that plays beside it, such as ``compress(model, bits=32)`` of the dense agent.
        """
        policies = {"dense": dense, Path(path).stem: self}
        entries = [Entry(name, policy._compressed) for name, policy in policies.items() if policy is not None]
        Path(path).write_text(make_page(Path(path).stem, entries, env))

    def report(self) -> Report:
        """
        :return: Layers, bytes by format and notes; printing it shows tables, ``.to_dict()`` is JSON
        """
        return self._compressed.report

    def __reduce__(self) -> tuple[Callable[..., Policy], tuple[Any, ...]]:
        return CompressedPolicy, (self._compressed, self._wanted)
