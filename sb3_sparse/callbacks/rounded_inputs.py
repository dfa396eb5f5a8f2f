"""
Where an exported policy rounds activations: at the inputs of every layer between an observation and the deterministic action.

The policy acts once on a random observation, and the graph of that computation says what reaches each layer: the observation,
which is rounded to 16 bits (pixels are whole numbers and stay as they are), or the outputs of another layer.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from torch import Tensor, nn

from sb3_sparse.nn import InputGrid, Layer, find_networks, hidden_grid, named_modules, observation_grid, original

#: Operations that change no value, or take the largest of several or their mean.
_PASSING = ("View", "Reshape", "UnsafeView", "Flatten", "Unsqueeze", "Squeeze", "Permute", "Transpose", "T", "Clone", "Alias",
            "ToCopy", "MaxPool2DWithIndices", "AvgPool2D")  # fmt: skip
#: Operations of normalizations. An exported policy has them in the layer behind them, in front of its rounding.
_AFFINE = ("Add", "Sub", "Mul", "Div", "Addcmul", "NativeBatchNorm", "CudnnBatchNorm", "NativeLayerNorm", "NativeGroupNorm")
#: Activations without negative outputs.
_POSITIVE = ("Relu", "Sigmoid", "Softplus")


def make_grids(policy: nn.Module, layers: Mapping[str, Layer], bits: int, activation_bits: int) -> dict[str, InputGrid]:
    """
    :param policy: The policy of a model. Its ``_predict`` acts on a batch of observations.
    :param layers: The layers that may round their inputs, by full name.
    :param bits: Bits of their weights.
    :param activation_bits: Bits of the outputs of other layers.
    :return: By full name: the grids of those that an observation passes on its way to the deterministic action, without ranges
    :raises ValueError: if there are none, or if something reaches one of them that exported policies do not round
    """
    policy = original(policy)
    if any(isinstance(module, nn.LSTM) for module in policy.modules()):
        raise ValueError("activation_bits does not support LSTM layers: leave it out, and only weights are quantized")
    found = {layer: name for each in find_networks(policy).values() for name, layer in each.items()}
    inputs, outputs, observations, action = _observe(policy, found)
    traced = {name: _trace(tensor) for name, tensor in inputs.items()}
    used = _backwards(action, traced, outputs)
    grids = {}
    for name in [name for name in inputs if name in layers and name in used]:
        device, sources, last = layers[name].weight.device, *traced[name]
        hidden = [source for source in sources if source in outputs]
        if hidden and len(sources) > 1:
            _refuse(name, "the outputs of several layers, or the observation as well as outputs of a layer")
        if hidden and last & set(_AFFINE):
            _refuse(name, "the outputs of a normalization, such as a batch norm behind an activation")
        if not any(is_image_space(observations[source]) for source in sources if source in observations):
            grid = observation_grid(layers[name].weight[0].numel(), bits)
            if hidden:
                grid = hidden_grid(activation_bits, signed=not last <= set(_POSITIVE))
            grids[name] = grid.to(device)
    if not grids:
        raise ValueError(
            f"activation_bits={activation_bits}: {type(policy).__name__} computes its actions without {', '.join(layers)}, so "
            "no exported policy rounds their inputs: name the networks of the deterministic action, or leave it out"
        )
    return grids


def _refuse(name: str, what: str) -> NoReturn:
    raise ValueError(f"activation_bits does not support the layer '{name}', which reads {what}: leave it out")


def _backwards(action: Tensor, traced: Mapping[str, tuple[set[Tensor], set[str]]], outputs: Mapping[Tensor, str]) -> set[str]:
    """The layers that an action depends on; all of them if it is discrete, for a choice has no graph."""
    if action.grad_fn is None:
        return set(traced)
    used, sources = set(), [*_trace(action)[0]]
    while sources:
        name = outputs.get(sources.pop())
        if name is not None and name not in used:
            used.add(name)
            sources += traced[name][0]
    return used


def _observe(
    policy: Any, layers: Mapping[Layer, str]
) -> tuple[dict[str, Tensor], dict[Tensor, str], dict[Tensor, Any], Tensor]:
    """
    :param policy: A policy.
    :param layers: Its layers with their names.
    :return: The input of each layer that has been called, the outputs with the layers' names, the observations with their
        spaces, and the action; the graphs of inputs and action end at outputs and observations
    """
    inputs: dict[str, Tensor] = {}
    outputs: dict[Tensor, str] = {}

    def cut(layer: nn.Module, arguments: tuple[Tensor], output: Tensor) -> Tensor:
        name = layers[layer]  # type: ignore[index]
        inputs[name] = arguments[0]
        outputs[leaf := output.detach().requires_grad_()] = name
        # A ReLU that works in place refuses leaves.
        return leaf.clone()

    space = copy.deepcopy(policy.observation_space)
    space.seed(0)
    drawn, known = space.sample(), space.spaces if isinstance(space, spaces.Dict) else {"": space}
    device = next(policy.parameters()).device
    tensors = {
        key: th.as_tensor(drawn[key] if isinstance(space, spaces.Dict) else drawn, device=device)[None] for key in known
    }
    for key, each in known.items():
        if isinstance(each, spaces.Box):
            tensors[key] = tensors[key].float().requires_grad_()
    handles = [layer.register_forward_hook(cut) for layer in layers]
    try:
        with _in_evaluation(policy), th.enable_grad(), th.compiler.set_stance("force_eager"):
            action = policy._predict(tensors if isinstance(space, spaces.Dict) else tensors[""], deterministic=True)
    finally:
        for handle in handles:
            handle.remove()
    return inputs, outputs, {tensors[key]: each for key, each in known.items()}, action


@contextmanager
def _in_evaluation(policy: nn.Module) -> Iterator[None]:
    modes = {module: module.training for _, module in named_modules(policy)}
    devices = [parameter.device for parameter in policy.parameters() if parameter.is_cuda][:1]
    policy.eval()
    try:
        with th.random.fork_rng(devices):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _trace(tensor: Tensor) -> tuple[set[Tensor], set[str]]:
    """
    :param tensor: A result.
    :return: The leaves of its graph that are not parameters, and the last operations that change values
    """
    sources, last = set(), set()
    if tensor.grad_fn is None:
        return {tensor} if tensor.requires_grad else set(), set()
    nodes: list[tuple[Any, bool]] = [(tensor.grad_fn, True)]
    seen = set()
    while nodes:
        node, passing = nodes.pop()
        if node is None or (node, passing) in seen:
            continue
        seen.add((node, passing))
        name = type(node).__name__.rstrip("0123456789").removesuffix("Backward")
        if name == "AccumulateGrad":
            sources |= set() if isinstance(node.variable, nn.Parameter) else {node.variable}
        elif passing and name not in _PASSING:
            last.add(name)
        nodes += [(each, passing and name in _PASSING) for each, _ in node.next_functions]
    return sources, last
