"""
The comparison of a traced policy with its model.

Whatever changes an observation or an action between the environment and the network is modelled, or refused by name. What
nobody thought of is found here: both act on a few observations, the model behind its own ``VecNormalize``. A path that forgets
a tanh, for example, still has layers that fit each other.
"""

from textwrap import shorten
from typing import Any, NoReturn

import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.export.trace import has_own_path
from sb3_sparse.nn import original
from sb3_sparse.runtime.network.assemble import assemble
from sb3_sparse.runtime.network.records import Floats, Head, Network
from sb3_sparse.runtime.network.reference import layer_inputs

#: Observations of one array.
Array = NDArray[np.generic]
#: How many steps of a recurrent policy are compared.
_STEPS = 4
#: How many observations both act on.
_OBSERVATIONS = 16
#: Observations from near the center to far outside, so that a squashing function shows, and not all actions are saturated.
_SCALES = np.geomspace(0.01, 10, _OBSERVATIONS)
#: Largest difference as a share of the largest output: a GPU's convolutions round their inputs to three digits.
_TOLERANCE = 5e-3
#: Bounds of observations that are further apart do not say how large these are; bounds from the second on are as good as
#: infinite.
_WIDE, _FAR = 1e4, 1e6


def check_agreement(model: BaseAlgorithm, network: Network, normalization: VecNormalize | None) -> None:
    """
    Compare the actions of a network with those of the model that it was traced from. Random states stay as they are.

    :param model: The model.
    :param network: Its network.
    :param normalization: The statistics that its observations were normalized with, if they were.
    :raises ValueError: if the actions differ by more than rounding; the sentence gives the largest difference
    """
    drawn = _observe(model.observation_space, normalization)
    state = None
    # What a recurrent policy remembers shows in the next steps: each environment sees several of the observations.
    rows = np.zeros((_OBSERVATIONS, *network.state_shape), np.float32)
    for step in range(_STEPS if network.lstms else 1):
        arrays = {key: np.roll(array, step, axis=0) for key, array in drawn.items()}
        observations = arrays if isinstance(model.observation_space, spaces.Dict) else arrays[""]
        normalized = observations if normalization is None else normalization.normalize_obs(observations)
        try:
            with th.random.fork_rng([model.device] if model.device.type == "cuda" else []):
                actions, state = model.predict(normalized, state, deterministic=True)
        except Exception as error:  # Weights that are not finite, for example.
            reason = shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
            raise ValueError(
                f"model.predict() itself fails on random observations, so there is nothing to export ({reason}): train or "
                "save the model again"
            ) from error
        inputs = assemble(network, arrays) if network.parts else arrays[""].astype(np.float32)
        outputs = layer_inputs(network, inputs, rows)[-1]
        found = _compare(network.head, outputs, np.asarray(actions).reshape(_OBSERVATIONS, -1))
        if found:
            _complain(model, found, _OBSERVATIONS)


def _compare(head: Head, outputs: Floats, theirs: NDArray[np.generic]) -> str:
    """How the model's actions differ from those of the outputs by more than rounding, or nothing."""
    ours = head(outputs).reshape(len(outputs), -1)
    if theirs.shape != ours.shape:
        return f"{theirs.shape[1]} numbers per action instead of {ours.shape[1]}"
    if head.kind in ("unscale", "clip"):
        return _compare_numbers(head, ours.astype(np.float32), theirs.astype(np.float32))
    return _compare_choices(head, outputs, ours, theirs)


def _complain(model: BaseAlgorithm, found: str, count: int) -> NoReturn:
    policy = original(model.policy)
    name = type(policy).__name__
    if has_own_path(policy):
        raise ValueError(
            f"the path that action_path() of {name} states does not give the actions of model.predict(..., "
            f"deterministic=True): {found}, on {count} random observations. Check that `modules` lists every module that "
            "_predict() calls, in order, that `tanh` is True if a tanh follows them, and that _predict() changes nothing else"
        )
    raise ValueError(
        f"the layers of {name} do not give the actions of model.predict(..., deterministic=True): {found}, on {count} random "
        f"observations. {type(model).__name__} or its policy changes observations or actions in a way that is not exported"
    )


def _observe(space: spaces.Space[Any], normalization: VecNormalize | None) -> dict[str, Array]:
    """Random observations as the environment gives them, ``[n, *shape]``, by key; "" where they are not a dict."""
    generator = np.random.default_rng(0)
    statistics = normalization.obs_rms if normalization is not None and normalization.norm_obs else None
    if not isinstance(space, spaces.Dict):
        assert not isinstance(statistics, dict)
        return {"": _draw(space, statistics, generator)}
    assert statistics is None or isinstance(statistics, dict)
    known = statistics or {}
    return {key: _draw(each, known.get(key), generator) for key, each in space.spaces.items()}


def _draw(space: spaces.Space[Any], statistics: RunningMeanStd | None, generator: np.random.Generator) -> Array:
    """Random observations, ``[n, *shape]``, within the bounds of the space."""
    if isinstance(space, spaces.Discrete):
        return generator.integers(0, space.n, _OBSERVATIONS)
    if isinstance(space, spaces.MultiDiscrete):
        return generator.integers(0, space.nvec, (_OBSERVATIONS, *space.shape))
    if isinstance(space, spaces.MultiBinary):
        return generator.integers(0, 2, (_OBSERVATIONS, *space.shape)).astype(space.dtype)
    assert isinstance(space, spaces.Box)
    low, high = (np.clip(bound.astype(np.float64), -_FAR, _FAR) for bound in (space.low, space.high))
    wide = high - low > _WIDE
    center, spread = np.where(wide, np.clip(0, low, high), (low + high) / 2), np.where(wide, 1, (high - low) / 2)
    if statistics is not None:
        center, spread = statistics.mean, np.sqrt(statistics.var)
    scales = _SCALES.reshape(-1, *[1] * len(space.shape))
    noise = generator.normal(size=(_OBSERVATIONS, *space.shape))
    observations: Array = np.clip(center + spread * noise * scales, low, high).astype(space.dtype)
    return observations


def _compare_numbers(head: Head, ours: Floats, theirs: Floats) -> str:
    """The largest difference between continuous actions if it is more than rounding, else nothing."""
    assert head.low is not None and head.high is not None
    bounded = np.maximum(np.abs(head.low), np.abs(head.high)) < _FAR
    low, high = np.where(bounded, head.low, -1), np.where(bounded, head.high, 1)
    # In units of half the distance between the bounds, from their middle: [100, 101] counts as [-1, 1].
    middle, half = low / 2 + high / 2, np.maximum(high / 2 - low / 2, 1e-6)
    largest = float(np.abs((theirs - middle) / half).max())
    difference = np.abs(ours - theirs)
    # Written so that NaN is a difference.
    agrees = (difference / half <= _TOLERANCE * largest + 1e-5).all()
    return "" if agrees else f"actions differ by up to {difference.max():.3g}"


def _compare_choices(head: Head, outputs: Floats, ours: NDArray[np.generic], theirs: NDArray[np.generic]) -> str:
    """How many discrete actions differ, unless their outputs nearly tie; nothing if all agree."""
    groups = np.split(outputs, np.cumsum(head.groups)[:-1], axis=1) if head.kind == "argmax" else []
    leads = np.stack([_lead(group) for group in groups], axis=1) if groups else np.abs(outputs)
    differ = (ours != theirs) & ~(leads <= _TOLERANCE * np.abs(outputs).max() + 1e-5)
    if not differ.any():
        return ""
    return f"{differ.any(axis=1).sum()} actions differ, where the largest output leads by up to {leads[differ].max():.3g}"


def _lead(values: Floats) -> Floats:
    """The largest of each row minus the next; infinite where there is one number only."""
    if values.shape[1] == 1:
        return np.full(len(values), np.inf, np.float32)
    ordered = np.sort(values, axis=1)
    lead: Floats = ordered[:, -1] - ordered[:, -2]
    return lead
