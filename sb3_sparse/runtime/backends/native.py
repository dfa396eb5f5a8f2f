"""The compiled kernels as Python calls: an extension module, and the same through ctypes."""

import ctypes
import functools
import importlib.machinery
import importlib.util
import threading
from collections.abc import Callable
from math import prod
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.backends.build import NATIVE, BuildError, build, macros
from sb3_sparse.runtime.backends.families import FAMILIES, Family
from sb3_sparse.runtime.backends.plan import Plan
from sb3_sparse.runtime.network.records import Network

Function = Callable[[NDArray[Any]], NDArray[Any]]
#: See :data:`~sb3_sparse.runtime.backends.numpy_backend.Step`.
Step = Callable[[NDArray[Any], NDArray[np.float32]], NDArray[Any]]


@functools.cache
def _module(options: tuple[str, ...]) -> ModuleType:
    path = build("module.c", options=options)
    loader = importlib.machinery.ExtensionFileLoader("sb3_sparse_kernel", str(path))
    spec = importlib.util.spec_from_loader("sb3_sparse_kernel", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def family_module(family: Family) -> ModuleType:
    """
    :param family: The kernels for 8-bit activations.
    :return: The extension module that has them
    :raises BuildError: if it cannot be compiled, or the processor or the compiler lacks what the family needs
    """
    # What the processor lacks must not even be loaded. A compiler that does not know an option compiles something else.
    if macros(".c").issuperset(family.macros):
        module = _module(family.options)
        if module.family == family.name:
            return module
    raise BuildError(f"this processor or compiler has no {family.needs}")


@functools.cache
def _library() -> ctypes.PyDLL:
    # PyDLL keeps the interpreter's lock: a call is shorter than releasing it.
    library = ctypes.PyDLL(str(build("library.c")))
    library.sb3s_predict.argtypes = [ctypes.c_void_p] * 5
    library.sb3s_predict.restype = None
    return library


def kernel(network: Network, backend: str, fallback: Callable[..., Any]) -> Any:
    """
    :param network: A network.
    :param backend: The name of a family for 8-bit activations, "compiled" for float ones, or "portable" for the latter without
        the kernels of a family.
    :param fallback: ``predict`` for everything that is not one observation of contiguous arrays of usual types.
    :return: An object with the methods ``predict``, for a network without encoders, and ``run``, and with ``panels``, which is
        not 0 if ``run`` computes several observations of floats together
    :raises BuildError: if it cannot be compiled, or the processor or the compiler lacks what the family needs
    :raises ValueError: if the kernels do not compute the network
    """
    if backend in FAMILIES:
        plan = Plan(network, FAMILIES[backend])
        module = family_module(FAMILIES[backend])
    else:
        module = _module(NATIVE)
        plan = Plan(network, floats=FAMILIES.get(module.family) if backend == "compiled" else None, panels=True)
    parts = tuple((part.key or None, part.shape, part.sizes) for part in network.parts)
    if network.encoders or not parts:
        parts = ((None, network.shape, ()),)
    return module.Kernel(plan.data, plan.scratch, parts, network.head.shape, network.head.kind == "argmax", fallback)


def functions(network: Network, compiled: Any) -> tuple[Function, Function]:
    """
    :param network: The network of the kernel.
    :param compiled: A kernel.
    :return: A function from one observation, an array of the network's shape, to one action, and a function from observations
        ``[n, *shape]``, float32 or uint8 and contiguous, to actions ``[n, *action_shape]``
    """

    def batch(x: NDArray[Any]) -> NDArray[Any]:
        actions = _empty_actions(network, len(x))
        compiled.run(x.astype(np.float32) if compiled.panels and x.dtype == np.uint8 else x, actions)
        return actions

    return lambda x: batch(np.ascontiguousarray(x[None], np.float32)).reshape(network.head.shape), batch


def kernel_step(network: Network, compiled: Any) -> Step:
    """
    :param network: The recurrent network of the kernel.
    :param compiled: A kernel.
    :return: The function of one step
    """

    def step(x: NDArray[Any], state: NDArray[np.float32]) -> NDArray[Any]:
        actions = _empty_actions(network, len(x))
        compiled.run(x, actions, state)
        return actions

    return step


def library(network: Network) -> tuple[Function, Function]:
    """
    :param network: A network.
    :return: The same two functions, through ctypes
    :raises BuildError: if it cannot be compiled
    :raises ValueError: if the kernels do not compute the network
    """
    act = _act(network)
    return act, lambda x: np.stack([act(row) for row in x])


def library_step(network: Network) -> Step:
    """
    :param network: A recurrent network.
    :return: The function of one step, through ctypes
    :raises BuildError: if it cannot be compiled
    :raises ValueError: if the kernels do not compute the network
    """
    act = _act(network)
    return lambda x, state: np.stack([act(row, memory.ctypes.data) for row, memory in zip(x, state, strict=True)])


def _act(network: Network) -> Callable[..., NDArray[Any]]:
    """From one observation, and the address of the state that goes with it if there is one, to one action."""
    plan = Plan(network)
    predict = _library().sb3s_predict
    memory = _aligned(len(plan.data))
    memory[:] = np.frombuffer(plan.data, np.uint8)
    address = memory.ctypes.data
    local = _Buffers(network, plan.scratch)

    def act(x: NDArray[Any], state: int | None = None, memory: NDArray[np.uint8] = memory) -> NDArray[Any]:
        # The last argument keeps the plan alive.
        if x.dtype == np.uint8:
            local.pixels[...] = x
            predict(address, local.pixels_address, local.x_address, local.action_address, state)
        else:
            local.x[...] = x
            predict(address, None, local.x_address, local.action_address, state)
        return local.action.copy()

    return act


class _Buffers(threading.local):
    """The memory that a call works in, one for each thread."""

    def __init__(self, network: Network, scratch: int) -> None:
        memory = _aligned(scratch)
        self.x = memory[: 4 * prod(network.shape)].view(np.float32).reshape(network.shape)
        self.x_address = memory.ctypes.data
        self.pixels = np.zeros(network.shape, np.uint8)
        self.pixels_address = self.pixels.ctypes.data
        self.action = _empty_actions(network, 1).reshape(network.head.shape)
        self.action_address = self.action.ctypes.data


def _empty_actions(network: Network, count: int) -> NDArray[Any]:
    return np.empty((count, *network.head.shape), np.int64 if network.head.kind == "argmax" else np.float32)


def _aligned(size: int) -> NDArray[np.uint8]:
    """Zeros that begin at a multiple of 64 bytes."""
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]
