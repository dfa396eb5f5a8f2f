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

from sb3_sparse.runtime.backends.build import BuildError, build
from sb3_sparse.runtime.backends.plan import Plan
from sb3_sparse.runtime.network.records import Network

Rows = Callable[[NDArray[Any]], NDArray[Any]]


@functools.cache
def _module() -> ModuleType:
    path = build("module.c")
    loader = importlib.machinery.ExtensionFileLoader("sb3_sparse_kernel", str(path))
    spec = importlib.util.spec_from_loader("sb3_sparse_kernel", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@functools.cache
def _library() -> ctypes.PyDLL:
    # PyDLL keeps the interpreter's lock: a call is shorter than giving it back.
    library = ctypes.PyDLL(str(build("library.c")))
    library.sb3s_predict.argtypes = [ctypes.c_void_p] * 4
    library.sb3s_predict.restype = None
    return library


def kernel(network: Network, fallback: Callable[..., Any], *, vector: bool) -> Any:
    """
    :param network: A network.
    :param fallback: ``predict`` for what the kernel does not answer.
    :param vector: Whether to use AVX-512 VBMI.
    :return: An object with the methods ``predict`` and ``run``
    :raises BuildError: if it cannot be compiled, or the processor has no AVX-512 VBMI
    """
    module = _module()
    if vector and not module.has_vbmi:
        raise BuildError("this processor or compiler has no AVX-512 VBMI and VNNI")
    plan = Plan(network, vector=vector)
    return module.Kernel(plan.data, plan.scratch, network.shape, network.head.shape, network.head.kind == "argmax", fallback)


def rows(network: Network, compiled: Any) -> Rows:
    """
    :param network: The network of the kernel.
    :param compiled: A kernel.
    :return: A function from observations ``[n, *shape]``, float32 or uint8 and contiguous, to actions ``[n, *action_shape]``
    """

    def run(x: NDArray[Any]) -> NDArray[Any]:
        actions = _empty_actions(network, len(x))
        compiled.run(x, actions)
        return actions

    return run


def library(network: Network) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """
    :param network: A network.
    :return: A function from one observation, an array of the network's shape, to one action, through ctypes
    :raises BuildError: if it cannot be compiled
    """
    predict = _library().sb3s_predict
    plan = Plan(network)
    memory = _aligned(len(plan.data))
    memory[:] = np.frombuffer(plan.data, np.uint8)
    address = memory.ctypes.data
    local = _Buffers(network, plan.scratch)

    def act(x: NDArray[Any], memory: NDArray[np.uint8] = memory) -> NDArray[Any]:
        # The default argument keeps the plan alive.
        if x.dtype == np.uint8:
            local.pixels[...] = x
            predict(address, local.pixels_address, local.x_address, local.action_address)
        else:
            local.x[...] = x
            predict(address, None, local.x_address, local.action_address)
        return local.action.copy()

    return act


class _Buffers(threading.local):
    """What a call works in, one for each thread."""

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
