"""``trace``: a trained model as a short graph, from an observation to the action that ``predict`` gives."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.export.trace.chain import chain
from sb3_sparse.export.trace.graph import Affine, Graph, unit_layer
from sb3_sparse.export.trace.modules import refuse
from sb3_sparse.export.trace.observation import normalize_array, normalize_parts, read_part, read_statistics
from sb3_sparse.export.trace.paths import find_parts, find_path, flatten
from sb3_sparse.export.trace.record import Bits
from sb3_sparse.nn import ActionPath, InputGrid, input_grids, original, quantized_bits
from sb3_sparse.runtime.network.capabilities import record_fields
from sb3_sparse.runtime.network.records import IDENTITY, Activation, Grid, Head, Layer, Part, Shape
from sb3_sparse.state import saved_bits, saved_grids, saved_inputs

#: The fields of a layer that only multiplies and adds.
_LINEAR = {"weight", "bias", "scale", "gain", "grid"}
#: What SB3 does with the pixels of an image.
_PIXELS = Affine(np.full(1, 1 / 255, np.float32), np.zeros(1, np.float32))


def trace(
    model: BaseAlgorithm,
    normalization: VecNormalize | None = None,
    bits: Bits | None = None,
    grids: Mapping[str, InputGrid] | None = None,
) -> Graph:
    """
    :param model: A model whose policy is in :data:`~sb3_sparse.export.trace.PATHS` or has an
        ``action_path()``.
    :param normalization: The statistics that its observations were normalized with, if they were.
    :param bits: Bits of the layers with quantized weights, or the grids that their weights are on, by full name; by default of
        those that had them when the model was saved, as well as of those that have them at present.
    :param grids: Grids of the layers with rounded inputs, by full name; by default likewise.
    :return: The graph of its deterministic policy
    :raises ValueError: if something in it cannot be exported; the sentence names it
    """
    policy, space = original(model.policy), model.observation_space
    bits = {**saved_grids(model), **saved_bits(model), **quantized_bits(policy)} if bits is None else bits
    grids = {**saved_inputs(model), **input_grids(policy)} if grids is None else grids
    path = find_path(policy)
    policy.set_training_mode(False)
    statistics = read_statistics(normalization, space)
    parts, encoders = _trace_parts(policy, path, statistics, normalization, bits, grids)
    shape: Shape = (sum(part.width for part in parts),)
    if alone := len(parts) == 1 and not parts[0].key and not parts[0].sizes:
        # An array of numbers keeps its shape.
        shape = parts[0].shape
    features, rest = flatten(policy, path)
    operations, names, carriers, view = chain((*features, *rest), bits, shape)
    operations = _round_inputs(operations, names, grids)
    notes = []
    if path.zero_inputs:
        first = next(name for name, _ in rest if name in names)
        _cut_inputs(operations, names.index(first), path.zero_inputs)
        notes.append(f"{path.zero_reason}, so {path.zero_inputs} columns of '{first}' are left out.")
    image = is_image_space(space)
    if image and policy.normalize_images:
        operations.insert(0, _PIXELS)
    if path.estimates > 1:
        operations[-1:] = _mean(operations[-1], path.estimates)
    if path.tanh:
        operations = _squash(operations)
    if alone:
        normalize = normalize_array(statistics[""], normalization) if "" in statistics else None
    else:
        normalize = normalize_parts(parts, statistics, normalization, encoders)
    return Graph(
        shape=shape,
        image=image,
        normalize=normalize,
        operations=tuple(operations),
        names=tuple(names),
        head=_head(policy),
        carriers=tuple(carriers),
        view=view,
        notes=tuple(notes),
        parts=() if alone else parts,
        encoders=encoders,
    )


def _trace_parts(
    policy: BasePolicy,
    path: ActionPath,
    statistics: Mapping[str, RunningMeanStd],
    normalization: VecNormalize | None,
    bits: Bits,
    grids: Mapping[str, InputGrid],
) -> tuple[tuple[Part, ...], dict[str, Graph]]:
    """
    The arrays of an observation in the order in which they become one vector, and the modules that one of them passes before.
    Such a part has the shape of its features.
    """
    space = policy.observation_space
    parts, encoders = [], {}
    for key, modules in find_parts(policy, path).items():
        each = space.spaces[key] if isinstance(space, spaces.Dict) else space
        part, image = read_part(key, each), is_image_space(each)
        operations, names, carriers, view = chain(modules, bits, (part.width,) if part.sizes else part.shape)
        operations = _round_inputs(operations, names, grids)
        if operations:
            last = operations[-1]
            if part.sizes or not isinstance(last, Layer) or last.convolution:
                refuse(f"the features extractor of the observation '{key}' ({each}), which does not end in a linear layer,")
            normalize = None if key not in statistics else normalize_array(statistics[key], normalization)
            if image and policy.normalize_images:
                operations.insert(0, _PIXELS)
            free = np.full(last.outputs, np.inf, np.float32)
            encoders[key] = Graph(
                shape=part.shape,
                image=image,
                normalize=normalize,
                operations=tuple(operations),
                names=tuple(names),
                head=Head("clip", free.shape, -free, free),
                carriers=tuple(carriers),
                view=view,
            )
            part = Part(key, free.shape)
        elif key and image and policy.normalize_images:
            what = f"the features extractor of the observation '{key}', which flattens an image,"
            refuse(what, "convolutions in front of the Flatten")
        parts.append(part)
    return tuple(parts), encoders


def _round_inputs(operations: list[Layer | Affine], names: list[str], grids: Mapping[str, InputGrid]) -> list[Layer | Affine]:
    """The same with the grids of the layers' inputs; a grid without a range has not seen any input yet, and rounds none."""
    rounded, left = [], iter(names)
    for operation in operations:
        grid = grids.get(next(left)) if isinstance(operation, Layer) else None
        if isinstance(operation, Layer) and grid is not None and grid.known:
            if not bool(grid.unit.isfinite()):
                raise ValueError("the range of a layer's rounded inputs is not finite: training has diverged")
            operation = replace(operation, grid=Grid(float(grid.unit), grid.low, grid.top))
        rounded.append(operation)
    return rounded


def _cut_inputs(operations: list[Layer | Affine], number: int, count: int) -> None:
    """Cut the last inputs, which are 0, off the layer with this number, in place."""
    index = [index for index, operation in enumerate(operations) if isinstance(operation, Layer)][number]
    layer = operations[index]
    assert isinstance(layer, Layer)
    operations[index] = replace(layer, weight=layer.weight[:, :-count])


def _mean(layer: Layer | Affine, estimates: int) -> list[Layer]:
    """
    The mean over estimates. It is linear, so a last layer that only multiplies and adds can give it itself:
    ``[estimates * outputs, in]`` to ``[outputs, in]``. After any other layer, such as one with an activation, it is a layer.
    """
    assert isinstance(layer, Layer)
    if all(getattr(layer, name) == default for name, default in record_fields(Layer).items() if name not in _LINEAR):
        weight = layer.dense().reshape(estimates, -1, layer.weight.shape[1]).mean(axis=0)
        bias = layer.biases.reshape(estimates, -1).mean(axis=0).astype(np.float32)
        return [Layer(weight.astype(np.float32), bias, grid=layer.grid)]
    outputs = layer.outputs // estimates
    weight = np.tile(np.eye(outputs, dtype=np.float32), (1, estimates)) / np.float32(estimates)
    return [layer, Layer(weight, np.zeros(outputs, np.float32))]


def _squash(operations: list[Layer | Affine]) -> list[Layer | Affine]:
    """The tanh after the mean of a squashed Gaussian."""
    last = operations[-1]
    if not isinstance(last, Layer):
        refuse("a tanh behind a batch norm or a scaled activation (SELU, CELU, Softplus with a beta)")
    tanh = Activation("tanh")
    if last.activation == IDENTITY and not last.lstm:
        return [*operations[:-1], replace(last, activation=tanh)]
    # With gSDE the mean is clipped first: a unit layer carries the tanh.
    return [*operations, replace(unit_layer((last.outputs,)), activation=tanh)]


def _head(policy: BasePolicy) -> Head:
    space = policy.action_space
    if isinstance(space, spaces.Box):
        low, high = (bound.reshape(-1).astype(np.float32) for bound in (space.low, space.high))
        return Head("unscale" if policy.squash_output else "clip", tuple(space.shape), low, high)
    if isinstance(space, spaces.Discrete):
        return Head("argmax", (), groups=(int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return Head("argmax", tuple(space.shape), groups=tuple(map(int, space.nvec)))
    if isinstance(space, spaces.MultiBinary) and isinstance(policy, MaskableActorCriticPolicy):
        # Off and on are two actions, either of which may be forbidden.
        return Head("argmax", tuple(space.shape), groups=(2,) * int(np.prod(space.shape)))
    if isinstance(space, spaces.MultiBinary):
        return Head("positive", tuple(space.shape))
    refuse(f"the action space {space}")
