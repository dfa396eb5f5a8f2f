"""
What our zips name, under the rule of Stable-Baselines3's pull request 2264 (open when this was written): a pickle may name
what stands in a list, and classes that a user adds to it; tensors are read with ``weights_only``.
"""

import base64
import io
import json
import pickle
import zipfile
from collections.abc import Iterable
from typing import Any

import pytest
import torch as th

from sb3_sparse import GradualPruningCallback, QATCallback, RewiringCallback
from tests.algorithms import CASES
from tests.offline import CASES as OFFLINE

_NUMPY_RANDOM = "numpy.random"
#: Those of the list that zips of SB3's algorithms need. Without sb3-contrib's classes, which the list does not have.
LISTED = {
    "collections.deque",
    "gymnasium.spaces.box.Box",
    "gymnasium.spaces.discrete.Discrete",
    "numpy.dtype",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    f"{_NUMPY_RANDOM}._pcg64.PCG64",
    f"{_NUMPY_RANDOM}._pickle.__bit_generator_ctor",
    f"{_NUMPY_RANDOM}._pickle.__generator_ctor",
    f"{_NUMPY_RANDOM}.bit_generator.SeedSequence",
    f"{_NUMPY_RANDOM}.bit_generator.__pyx_unpickle_SeedSequence",
    "stable_baselines3.common.buffers.ReplayBuffer",
    "stable_baselines3.common.buffers.RolloutBuffer",
    "stable_baselines3.common.policies.ActorCriticPolicy",
    "stable_baselines3.common.type_aliases.TrainFreq",
    "stable_baselines3.common.type_aliases.TrainFrequencyUnit",
    "stable_baselines3.common.utils.ConstantSchedule",
    "stable_baselines3.common.utils.FloatSchedule",
    "stable_baselines3.common.utils.LinearSchedule",
    "stable_baselines3.dqn.policies.DQNPolicy",
    "stable_baselines3.sac.policies.SACPolicy",
    "stable_baselines3.td3.policies.TD3Policy",
    "torch.optim.adam.Adam",
    "torch.optim.rmsprop.RMSprop",
}


class _Restricted(pickle.Unpickler):
    """Reads what names nothing else, and remembers what it names."""

    def __init__(self, data: bytes, allowed: Iterable[str]) -> None:
        super().__init__(io.BytesIO(data))
        self.allowed, self.named = set(allowed), set[str]()

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        self.named.add(full)
        if full not in self.allowed:
            raise pickle.UnpicklingError(full)
        return super().find_class(module, name)


def read(model, folder, *allowed):
    """
    Save a model, and read the zip under the rule.

    :return: What its pickles name, and the attributes that they hold
    """
    model.save(folder / "agent.zip")
    named, attributes = set(), {}
    with zipfile.ZipFile(folder / "agent.zip") as archive:
        for name in archive.namelist():
            if name.endswith(".pth"):
                th.load(io.BytesIO(archive.read(name)), weights_only=True)
        for name, value in json.loads(archive.read("data")).items():
            if isinstance(value, dict) and ":serialized:" in value:
                unpickler = _Restricted(base64.b64decode(value[":serialized:"]), {*LISTED, *allowed})
                attributes[name] = unpickler.load()
                named |= unpickler.named
    return named, attributes


def full_name(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


def classes(model):
    """The classes that a model names; SB3's list does not have those of sb3-contrib."""
    return {full_name(kind) for kind in (model.policy_class, getattr(model, "rollout_buffer_class", None)) if kind is not None}


@pytest.mark.quick("sac", "dqn", "ppo")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_zips_of_callbacks_name_what_sb3s_zips_name(case, tmp_path):
    """Pruned, rewired and quantized: the same names as in a zip of the algorithm alone, so a rule for SB3's zips fits them."""
    model = case.make()
    model.learn(40)
    allowed = classes(model)
    alone, _ = read(model, tmp_path, *allowed)
    assert alone - LISTED <= {name for name in allowed if name.startswith("sb3_contrib.")}
    pruned = case.make()
    pruned.learn(
        40,
        callback=[
            GradualPruningCallback("all", 0.5, start=0.1, end=0.5, update_freq=5),
            RewiringCallback("all", update_freq=10),
            QATCallback("all", 0.8),
        ],
    )
    named, attributes = read(pruned, tmp_path, *allowed)
    assert named <= alone and attributes["policy_class"] is type(model.policy)
    assert attributes["observation_space"] == model.observation_space


@pytest.mark.quick("sac", "dqn", "ppo")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_zips_of_sparse_policies_name_their_class_as_well(case, tmp_path):
    """It is the one class that their user has to add to the list."""
    model = case.make(sparse=True, policy_kwargs={"sparsity": 0.5})
    model.learn(40, callback=RewiringCallback("all", update_freq=10))
    own = full_name(type(model.policy))
    assert own.startswith("sb3_sparse.policies.")
    named, attributes = read(model, tmp_path, own, *classes(model))
    assert named - LISTED - {own} <= {name for name in classes(model) if name.startswith("sb3_contrib.")}
    assert attributes["policy_class"] is type(model.policy)
    with pytest.raises(pickle.UnpicklingError, match=own):
        read(model, tmp_path)


@pytest.mark.parametrize("case", OFFLINE.values(), ids=OFFLINE)
def test_zips_of_offline_algorithms_name_their_policy_as_well(case, tmp_path):
    model = case.make().learn(3)
    own = full_name(type(model.policy))
    assert own.startswith("sb3_sparse.offline.")
    named, attributes = read(model, tmp_path, own)
    assert named - LISTED == {own} and attributes["policy_class"] is type(model.policy)
    with pytest.raises(pickle.UnpicklingError, match=own):
        read(model, tmp_path)
