"""``trace``: a trained model as a short graph, from an observation to the action that ``predict`` gives."""

from dataclasses import replace
from types import MethodType

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.export.trace.chain import chain
from sb3_sparse.export.trace.graph import Affine, Graph
from sb3_sparse.export.trace.modules import Bits, refuse
from sb3_sparse.export.trace.paths import find_path, flatten
from sb3_sparse.nn import original, quantized_bits
from sb3_sparse.runtime.network.capabilities import record_fields
from sb3_sparse.runtime.network.records import IDENTITY, Activation, Head, Layer, Normalize, Shape
from sb3_sparse.state import saved_bits

#: The methods by which a ``VecNormalize`` normalizes an observation.
_NORMALIZING = ("normalize_obs", "_normalize_obs")
#: The fields of a layer that only multiplies and adds.
_LINEAR = {"weight", "bias", "scale", "gain"}


def trace(model: BaseAlgorithm, normalization: VecNormalize | None = None, bits: Bits | None = None) -> Graph:
    """
    :param model: A model with ``Box`` observations whose policy is in :data:`~sb3_sparse.export.trace.PATHS` or has an
        ``action_path()``.
    :param normalization: The statistics that its observations were normalized with, if they were.
    :param bits: Bits of the layers with quantized weights, by full name; by default of those that had them when the model was
        saved, as well as of those that have them at present.
    :return: The graph of its deterministic policy
    :raises ValueError: if something in it cannot be exported; the sentence names it
    """
    policy, space = original(model.policy), model.observation_space
    if not isinstance(space, spaces.Box):
        raise ValueError(f"only Box observations can be exported, and this model has {type(space).__name__} observations")
    path = find_path(policy)
    policy.set_training_mode(False)
    features, rest = flatten(policy, path)
    operations, found = chain((*features, *rest), {**saved_bits(model), **quantized_bits(policy)} if bits is None else bits)
    notes = []
    if path.zero_inputs:
        first = next(name for name, _ in rest if name in found)
        _cut_inputs(operations, found.index(first), path.zero_inputs)
        notes.append(f"{path.zero_reason}, so {path.zero_inputs} columns of '{first}' are left out.")
    image = is_image_space(space)
    if image and policy.normalize_images:
        operations.insert(0, Affine(np.full(1, 1 / 255, np.float32), np.zeros(1, np.float32)))
    if path.estimates > 1:
        operations[-1:] = _mean(operations[-1], path.estimates)
    if path.tanh:
        operations = _squash(operations)
    normalize = _normalize(normalization, space.shape)
    return Graph(tuple(space.shape), image, normalize, tuple(operations), tuple(found), _head(policy), tuple(notes))


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
        return [Layer(weight.astype(np.float32), layer.biases.reshape(estimates, -1).mean(axis=0).astype(np.float32))]
    outputs = layer.outputs // estimates
    weight = np.tile(np.eye(outputs, dtype=np.float32), (1, estimates)) / np.float32(estimates)
    return [layer, Layer(weight, np.zeros(outputs, np.float32))]


def _squash(operations: list[Layer | Affine]) -> list[Layer | Affine]:
    """The tanh after the mean of a squashed Gaussian."""
    last = operations[-1]
    assert isinstance(last, Layer)
    tanh = Activation("tanh")
    if last.activation == IDENTITY and not last.lstm:
        return [*operations[:-1], replace(last, activation=tanh)]
    # With gSDE the mean is clipped first: a unit layer carries the tanh.
    size = last.outputs
    return [*operations, Layer(np.eye(size, dtype=np.float32), np.zeros(size, np.float32), tanh)]


def _normalize(normalization: VecNormalize | None, shape: Shape) -> Normalize | None:
    if normalization is None or not normalization.norm_obs:
        return None
    own = [
        name for name in _NORMALIZING if getattr(normalization, name) != MethodType(getattr(VecNormalize, name), normalization)
    ]
    if own:
        raise ValueError(
            f"{type(normalization).__name__} normalizes observations by a {own[0]}() of its own, which cannot be exported: "
            "train with VecNormalize itself"
        )
    statistics = normalization.obs_rms
    if isinstance(statistics, dict):
        raise ValueError("the statistics of VecNormalize are of observations by name, and those of the model have none")
    if statistics.mean.shape != shape:
        frames = len(shape) == 1 and len(statistics.mean.shape) == 1 and shape[0] % statistics.mean.shape[0] == 0
        order = (
            ": VecFrameStack around VecNormalize cannot be exported, VecNormalize around VecFrameStack can" if frames else ""
        )
        raise ValueError(
            f"the statistics of VecNormalize are of observations of shape {statistics.mean.shape}, those of the model have "
            f"shape {shape}{order}"
        )
    scale = 1 / np.sqrt(statistics.var + normalization.epsilon)
    return Normalize(statistics.mean.astype(np.float32), scale.astype(np.float32), float(normalization.clip_obs))


def _head(policy: BasePolicy) -> Head:
    space = policy.action_space
    if isinstance(space, spaces.Box):
        low, high = (bound.reshape(-1).astype(np.float32) for bound in (space.low, space.high))
        return Head("unscale" if policy.squash_output else "clip", tuple(space.shape), low, high)
    if isinstance(space, spaces.Discrete):
        return Head("argmax", (), groups=(int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return Head("argmax", tuple(space.shape), groups=tuple(map(int, space.nvec)))
    if isinstance(space, spaces.MultiBinary):
        return Head("positive", tuple(space.shape))
    refuse(f"the action space {space}")
