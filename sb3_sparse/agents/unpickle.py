"""
The pickles in SB3's files, read without running their code.

A pickle may name any function. Here it gets the classes that SB3 saves in its zips and ``VecNormalize`` in its files, and no
other. Spaces of the old package ``gym``, which need not be installed, become those of gymnasium.
"""

import io
import math
import pickle
import re
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from enum import Enum
from importlib import import_module
from types import BuiltinFunctionType, FunctionType
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium.spaces import Space
from numpy.typing import NDArray
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

_SAVED = (BasePolicy, BaseFeaturesExtractor, BaseBuffer, ActionNoise, RunningMeanStd, VecNormalize, Enum, TrainFreq)
_SCHEDULES = (ConstantSchedule, FloatSchedule, LinearSchedule)
#: What classes are derived from that may be named, by the package that they are in.
_DERIVED: dict[str, tuple[type, ...]] = {
    "gymnasium.spaces": (Space,),
    "torch.optim": (th.optim.Optimizer,),
    # Other modules take memory as their arguments say.
    "torch.nn.modules.activation": (th.nn.Module,),
    **dict.fromkeys(("stable_baselines3", "sb3_contrib", "sb3_sparse"), (*_SAVED, *_SCHEDULES, th.optim.Optimizer)),
}
#: Generators of random numbers, which nothing here needs.
_GENERATORS = re.compile(r"numpy\.random(\..*)?|gymnasium\.utils\.seeding")


class _Ignored:
    """What stands in for an object that is not needed."""

    def __new__(cls, *args: object, **kwargs: object) -> "_Ignored":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def _dtype(code: str, *_: object) -> np.dtype[Any]:
    dtype = np.dtype(code)
    if dtype.kind not in "biufcSU":
        raise pickle.UnpicklingError(f"it holds numbers of type {dtype}")
    return dtype


def _empty_array(*_: object) -> NDArray[np.int8]:
    return np.empty(0, np.int8)


def _scalar(dtype: np.dtype[Any], data: bytes) -> Any:
    return np.frombuffer(data, dtype, 1)[0]


def _array(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> NDArray[Any]:
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C").copy()


def _encode(text: str, *_: object) -> bytes:
    """Bytes, as the oldest pickles hold them."""
    return text.encode("latin1")


#: Names that stand for these objects.
_NAMED: dict[tuple[str, str], Any] = {
    **{("builtins", kind.__name__): kind for kind in (set, frozenset, complex, slice, bool, int, float, str)},
    **{("collections", kind.__name__): kind for kind in (OrderedDict, defaultdict, deque)},
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): _Ignored,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _array,
    ("_codecs", "encode"): _encode,
}


#: Python's own in Python: the one in C hands a damaged state to numpy, and numpy does not survive it.
_Python: Any = pickle._Unpickler


class _Unpickler(_Python):  # type: ignore[misc]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Python.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        module = re.sub(r"^gym(?=\.|$)", "gymnasium", module)
        module = re.sub(r"^numpy\.core(?=\.|$)", "numpy._core", module)
        if _GENERATORS.fullmatch(module):
            return _Ignored
        if (module, name) in _NAMED:
            return _NAMED[module, name]
        if module == "numpy" and isinstance(kind := getattr(np, name, None), type) and issubclass(kind, np.generic):
            return kind
        if "__main__" in module.split("."):
            # To import it would run it.
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        for package, bases in _DERIVED.items():
            if f"{module}.".startswith(f"{package}."):
                found = getattr(import_module(module), name, None)
                if isinstance(found, type) and issubclass(found, bases):
                    return found
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def load_build(self) -> None:
        """Give an object its state."""
        instance, state = self.stack[-2:]
        if isinstance(instance, (type, FunctionType, BuiltinFunctionType)):
            raise pickle.UnpicklingError(f"it changes {instance.__name__}, which belongs to everybody")
        if isinstance(instance, np.dtype):
            self.stack.pop()
            if state[1] == ">":
                raise pickle.UnpicklingError("it holds numbers with their bytes in another order")
        elif isinstance(instance, np.ndarray):
            self.stack.pop()
            _, shape, dtype, is_fortran, data = state
            if math.prod(shape) * dtype.itemsize != len(data):
                raise pickle.UnpicklingError("it holds an array that is damaged")
            instance.__setstate__((1, shape, dtype, is_fortran, data))
        else:
            super().load_build()
        if isinstance(instance, Space):
            instance._np_random = None  # type: ignore[assignment]

    dispatch[pickle.BUILD[0]] = load_build


def loads(data: bytes) -> Any:
    """
    >>> import pickle
    >>> loads(pickle.dumps({"a": 1.0}))
    {'a': 1.0}

    :param data: A pickle.
    :return: What it holds
    :raises UnpicklingError: if it is damaged, or names anything else than a class that SB3 saves
    """
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # A damaged pickle may raise any of them.
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error
