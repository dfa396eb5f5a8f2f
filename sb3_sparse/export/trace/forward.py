"""
A module of the user's own as modules that follow each other, where its ``forward`` is a chain: torch.fx records the calls, and
each of them takes the last result alone. A call of a function counts as the module that computes the same.
"""

import copy
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import torch as th
from torch import fx, nn
from torch.nn import functional as F

from sb3_sparse.nn import original


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


def _clamp(min: float | None = None, max: float | None = None) -> nn.Module:
    return nn.Hardtanh(-float("inf") if min is None else min, float("inf") if max is None else max)


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:
    if training:
        raise ValueError("it drops numbers in predict() as well")
    return nn.Identity()


def _max_pool(kind: type[nn.MaxPool1d | nn.MaxPool2d]) -> Callable[..., nn.Module]:
    """The function has its arguments in another order."""

    def pool(
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        dilation: int = 1,
        ceil_mode: bool = False,
        **other: bool,
    ) -> nn.Module:
        return kind(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode, **other)

    return pool


def _unsqueeze(dim: int) -> nn.Module:
    if dim != 1:
        raise ValueError("it makes another dimension than that of the channels")
    return nn.Unflatten(1, (1, -1))


def _mean(dim: int | tuple[int, ...], keepdim: bool = False) -> nn.Module:
    pools = {
        (-1,): nn.AdaptiveAvgPool1d,
        (2,): nn.AdaptiveAvgPool1d,
        (-2, -1): nn.AdaptiveAvgPool2d,
        (2, 3): nn.AdaptiveAvgPool2d,
    }
    pool = pools.get((dim,) if isinstance(dim, int) else tuple(sorted(dim)))
    if pool is None:
        raise ValueError("it is not the mean over all dimensions behind the channels")
    return pool(1) if keepdim else nn.Sequential(pool(1), nn.Flatten())


#: Name of a function of ``torch`` or ``torch.nn.functional``, or of a method of a tensor -> the module that computes the same,
#: made of its arguments without the first.
FUNCTIONS: Mapping[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "hardtanh": nn.Hardtanh,
    "clamp": _clamp,
    "clip": _clamp,
    "max_pool1d": _max_pool(nn.MaxPool1d),
    "max_pool2d": _max_pool(nn.MaxPool2d),
    "avg_pool1d": nn.AvgPool1d,
    "avg_pool2d": nn.AvgPool2d,
    "adaptive_avg_pool1d": nn.AdaptiveAvgPool1d,
    "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d,
    "mean": _mean,
    "flatten": _flatten,
    "unsqueeze": _unsqueeze,
    "dropout": _dropout,
    "float": nn.Identity,
    "contiguous": nn.Identity,
}
_TARGETS = {
    getattr(space, name): name
    for space in (th, F)
    for stem in FUNCTIONS
    for name in (stem, f"{stem}_")
    if callable(getattr(space, name, None)) and not isinstance(getattr(space, name), th.dtype)
}
_TORCH = Path(th.__file__).parent


def links(module: nn.Module, name: str, method: str = "forward") -> list[tuple[str, nn.Module]]:
    """
    The calls are recorded from a copy in evaluation mode, so the module itself does not run.

    :param module: A module of the user's own.
    :param name: Its name in errors.
    :param method: The method to follow: "forward", or "forward_actor" of an ``mlp_extractor``.
    :return: The modules that it passes its input through, in order, each with a name inside it: children of the module, and
        new modules for functions
    :raises ValueError: if its ``forward`` is not a chain; the sentence names the first call that is not a link
    """
    what = f"the {method}() of '{name}' ({type(module).__name__})"
    chained: list[tuple[str, nn.Module]] = []
    current: fx.Node | None = None
    batch: set[fx.Node] = set()
    for node in _record(module, method, what).nodes:
        if node.op == "placeholder":
            current = node
        elif node.op == "output":
            if node.args[0] is not current:
                _refuse(what, "returns something other than its last result")
        elif _is_batch(node, batch):
            batch.add(node)
        elif [each for each in node.all_input_nodes if each not in batch] != [current] or node.args[:1] != (current,):
            _refuse(what, f"has {_describe(node)} which does not take the last result alone")
        else:
            chained.append((str(node.target) if node.op == "call_module" else node.name, _link(module, node, batch, what)))
            current = node
    return chained


def _record(module: nn.Module, method: str, what: str) -> fx.Graph:
    """The calls of a method, each with the results that it takes."""
    kind = type(module)
    tracer = _Tracer()
    tracer.traced_func_name = "_of_one_argument"
    try:
        with th.random.fork_rng(devices=[]):
            copied = copy.deepcopy(module).eval()
            # Arguments with a default are not given in predict() either.
            copied.__class__ = type(kind.__name__, (kind,), {"_of_one_argument": lambda own, x: getattr(kind, method)(own, x)})
            return tracer.trace(copied)
    except Exception as error:
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if not Path(frame.filename).is_relative_to(_TORCH)
        ]
        line = next((frame.line for frame in reversed(frames) if frame.filename != __file__), "")
        where = f" at `{line}`" if line else ""
        reason = str(error.args[0]).splitlines()[0] if error.args and error.args[0] else repr(error)
        _refuse(what, f"cannot be followed by torch.fx{where}: {reason}")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _is_batch(node: fx.Node, batch: set[fx.Node]) -> bool:
    """Whether it is a shape, or the number of observations in a batch: ``x.view(x.size(0), -1)`` and the like need them."""
    if node.op == "call_method" and node.target == "size":
        return not node.kwargs and node.args[1:] in ((), (0,))
    if node.target is getattr:
        return node.args[1:] == ("shape",)
    return node.op == "call_function" and node.args[1:] == (0,) and node.args[0] in batch


def _link(module: nn.Module, node: fx.Node, batch: set[fx.Node], what: str) -> nn.Module:
    if node.op == "call_module" and len(node.args) == 1 and not node.kwargs:
        return original(module).get_submodule(str(node.target))
    name = str(node.target) if node.op == "call_method" else _TARGETS.get(node.target) if callable(node.target) else None
    if node.op == "call_method" and name in ("view", "reshape"):
        first, *sizes = node.args[1:] or (None,)
        if first in batch and sizes == [-1]:
            return nn.Flatten()
        known = tuple(size for size in sizes if isinstance(size, int))
        if (first in batch or first == -1) and len(known) == len(sizes) > 1:
            return nn.Unflatten(1, known)
        _refuse(
            what,
            f"has {_describe(node)} which is neither {name}(len, -1) nor {name}(len, channels, ...) with the number of "
            "observations as len",
        )
    if len(node.all_input_nodes) > 1:
        _refuse(what, f"has {_describe(node)} whose arguments depend on the number of observations")
    make = FUNCTIONS.get((name or "").removesuffix("_"))
    if make is None:
        _refuse(what, f"has {_describe(node)} which is none of the known functions ({', '.join(FUNCTIONS)})")
    try:
        return make(*node.args[1:], **node.kwargs)
    except (TypeError, ValueError) as error:
        _refuse(what, f"has {_describe(node)} whose arguments are not those of the known one: {error}")


def _describe(node: fx.Node) -> str:
    if node.op == "get_attr":
        return f"the tensor '{node.target}',"
    if node.op == "call_module":
        return f"the call of '{node.target}',"
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)
    return f"the call {name}(),"


def _refuse(what: str, why: str) -> NoReturn:
    raise ValueError(
        f"{what} {why}, so it is not a chain of known modules and cannot be exported: write it as one nn.Sequential, or let "
        "the policy list its modules in a method action_path()"
    )
