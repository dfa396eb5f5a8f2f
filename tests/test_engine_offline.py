"""The engine on offline algorithms: it computes what they compute without it, and everybody who looks at the model sees it."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_sparse import EngineCallback, GradualPruningCallback, OneShotPruningCallback, QATCallback, RewiringCallback
from sb3_sparse.engine.learner import engage, release
from sb3_sparse.engine.session import Session
from sb3_sparse.engine.support import find_update
from sb3_sparse.engine.updates import UPDATES
from sb3_sparse.nn import WeightGrid, mask_layers, prunable_layers
from sb3_sparse.offline import ALGORITHMS, OfflineDataset
from sb3_sparse.offline.spaces_env import make_spaces_env
from tests.invariants import check, check_targets, masked
from tests.offline import CASES, make_data, transitions
from tests.test_engine import expect_equal, state
from tests.test_offline import expect_same

SPARSITIES = [0.0, 0.8]


def build(name, *, sparsity=0.0, updates=30, policy_kwargs=None, **kwargs):
    """A model that has been trained without the engine for a while."""
    model = CASES[name].make(policy_kwargs={"net_arch": [40, 27], **(policy_kwargs or {})}, **kwargs)
    model.set_logger(configure(None, []))
    callback = [OneShotPruningCallback("all", sparsity, saliency="random", targets="mask")] if sparsity else []
    return model.learn(updates, callback=callback, log_interval=None)


def losses(model):
    """The mean losses since the last entry of the log."""
    means = {name: float(total) / count for name, (total, count) in model._means._losses.items()}
    model._means._losses.clear()
    return means


def train(model, count, *, engine):
    """Updates, and their mean losses."""
    losses(model)
    if engine:
        engage(model, Session(model, find_update(model)))
    try:
        model.train(count, model.batch_size)
    finally:
        release(model)
    return losses(model)


def test_every_algorithm_is_there():
    assert set(ALGORITHMS.values()) <= UPDATES.keys()


@pytest.mark.quick("*-0.8-100")
@pytest.mark.parametrize("batch_size", [64, 100])
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("name", CASES)
def test_one_update_equals_torch(name, sparsity, batch_size):
    models = [build(name, sparsity=sparsity, batch_size=batch_size) for _ in range(2)]
    plain, engine = (train(model, 1, engine=engine) for model, engine in zip(models, (False, True), strict=True))
    assert engine.keys() == plain.keys() == set(CASES[name].networks)
    assert engine == pytest.approx(plain, rel=1e-5)
    expect_equal(*map(state, models))


@pytest.mark.quick("*-0.0")
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("name", CASES)
def test_a_run_equals_torch(name, sparsity):
    plain, engine = (build(name, sparsity=sparsity) for _ in range(2))
    plain.learn(30, reset_num_timesteps=False, log_interval=None)
    engine.learn(30, callback=EngineCallback(strict=True), reset_num_timesteps=False, log_interval=None)
    assert type(engine) is type(plain) and engine._n_updates == plain._n_updates == 60
    assert losses(engine) == pytest.approx(losses(plain), rel=1e-3)
    check(engine)
    check_targets(engine)
    expect_equal(*map(state, (plain, engine)), 1e-3)


#: Arguments of the policy.
SETTINGS = {
    "one layer": {"net_arch": [16]},
    "no hidden layer": {"net_arch": []},
    "tanh": {"activation_fn": nn.Tanh},
    "weight decay": {"optimizer_kwargs": {"weight_decay": 1e-2}},
    "adamw": {"optimizer_class": th.optim.AdamW},
}


@pytest.mark.quick("*-no hidden layer", "bcq-adamw")
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ["bc_vae", "bcq", "discrete_bcq"])
def test_policies(name, setting):
    models = [build(name, policy_kwargs=SETTINGS[setting]) for _ in range(2)]
    for model, engine in zip(models, (False, True), strict=True):
        train(model, 1, engine=engine)
    expect_equal(*map(state, models))


@pytest.mark.parametrize("name", ["bc_mlp", "bcq", "discrete_bc"])
def test_delayed_actor(name):
    """Of three updates one trains the actor; the log has the mean of those that did."""
    models = [build(name) for _ in range(2)]
    means = []
    for model, engine in zip(models, (False, True), strict=True):
        model.policy_delay = 3
        means.append(train(model, 3, engine=engine))
    assert means[0] == pytest.approx(means[1], rel=1e-4)
    expect_equal(*map(state, models), 1e-4)


@pytest.mark.parametrize("space", [spaces.Box(0, 255, (5,), np.uint8), spaces.Box(-1.0, 1.0, (2, 3), np.float32)], ids=str)
def test_observations(space):
    models = [build("bcq", dataset=make_data(space)) for _ in range(2)]
    for model, engine in zip(models, (False, True), strict=True):
        train(model, 1, engine=engine)
    expect_equal(*map(state, models))


@pytest.mark.parametrize("name", CASES)
def test_normalized_observations(name):
    """Where a wrapper changes observations, the minibatch is sampled and not read in place."""
    models = []
    for engine in (False, True):
        data = make_data(action_space=CASES[name].action_space)
        env = VecNormalize(make_spaces_env(data.observation_space, data.action_space), norm_reward=False)
        models.append(build(name, dataset=data, env=env))
        train(models[-1], 1, engine=engine)
    expect_equal(*map(state, models))


def test_a_dataset_in_files(tmp_path):
    models = [build("bcq", dataset=OfflineDataset.from_arrays(**transitions(), memmap=folder)) for folder in (None, tmp_path)]
    for model in models:
        train(model, 3, engine=True)
    expect_same(*models)


def test_another_dataset():
    """The engine trains on the dataset that the model has now, and goes by the numbers that it has now."""
    models = [build("bcq") for _ in range(2)]
    for model, callback in zip(models, ([], [EngineCallback(strict=True)]), strict=True):
        model.learn(3, callback=callback, reset_num_timesteps=False)
        model.dataset = make_data(count=90, seed=1)
        model.gamma, model.n_target_actions, model.policy_delay = 0.9, 3, 2
        model.learn(3, callback=callback, reset_num_timesteps=False)
    expect_equal(*map(state, models), 1e-4)


class Look(BaseCallback):
    """Holds layers of the model, and looks at them after every update."""

    def _on_training_start(self):
        self.layers = dict(masked(self.model))
        self.sums = set()

    def _on_step(self):
        self.sums.add(sum(float(layer.weight.detach().double().sum()) for layer in self.layers.values()))
        assert not any(layer.weight.detach().masked_fill(layer.mask, 0.0).any() for layer in self.layers.values())
        return True

    def _on_training_end(self):
        # Nobody has shown it the same weights twice.
        assert len(self.sums) == self.n_calls or not self.layers


class Halve(BaseCallback):
    """Changes a weight in the middle of a run."""

    def _on_training_start(self):
        self.weight = next(self.model.policy.parameters())

    def _on_step(self):
        if self.n_calls == 5:
            with th.no_grad():
                self.weight.mul_(0.5)
        return True


@pytest.mark.parametrize("name", CASES)
def test_a_callback_may_change_weights(name):
    models = [build(name) for _ in range(2)]
    for model, callbacks in zip(models, ([], [EngineCallback(strict=True)]), strict=True):
        model.learn(8, callback=[Halve(), *callbacks], reset_num_timesteps=False)
    expect_equal(*map(state, models), 1e-4)


class Steps(BaseCallback):
    """Puts the weights on grids of their own, whose steps change."""

    def _on_step(self):
        layers = prunable_layers(self.model.policy).values()
        for layer in layers if self.n_calls >= 5 else ():
            mask_layers(layer, persistent=False)
            if self.n_calls == 5:
                layer.set_grid(WeightGrid(3, layer.weight.detach().abs().amax(1) / 4))
            layer.weight_grid.scale.mul_(0.98)
        return True


def test_weights_on_a_grid_of_their_own():
    """The engine computes with them as torch does, which makes a difference."""
    models = [build("bc_mlp") for _ in range(3)]
    for model, callbacks in zip(models, ([Steps()], [Steps(), EngineCallback(strict=True)], []), strict=True):
        model.learn(20, callback=callbacks, reset_num_timesteps=False)
    expect_equal(*map(state, models[:2]), 1e-4)
    with pytest.raises(AssertionError):
        expect_equal(state(models[0]), state(models[2]), 1e-4)


CALLBACKS = {
    "none": list,
    "snip": lambda: [OneShotPruningCallback("all", 0.7, saliency="snip")],
    "grasp": lambda: [OneShotPruningCallback("all", 0.7, saliency="grasp")],
    "magnitude": lambda: [OneShotPruningCallback("all", 0.7, at=12)],
    "gradual": lambda: [GradualPruningCallback("all", 0.8, start=6, end=24, update_freq=6)],
    "rigl": lambda: [
        OneShotPruningCallback("all", 0.6, saliency="random", targets="mask"),
        RewiringCallback("all", 0.3, update_freq=8, grow="gradient", targets="mask"),
    ],
    "set": lambda: [
        OneShotPruningCallback("all", 0.6, saliency="random", targets="topk"),
        RewiringCallback("all", 0.3, update_freq=8),
    ],
    "polyak": lambda: [OneShotPruningCallback("all", 0.7, at=12, targets="polyak")],
    "qat": lambda: [OneShotPruningCallback("all", 0.6), QATCallback("all", start=14)],
}


@pytest.mark.quick(
    "bcq-none", "bcq-snip", "bc_vae-gradual", "bc_mlp-qat", "discrete_bcq-set", "discrete_bc-rigl", "bcq-polyak"
)
@pytest.mark.parametrize("callbacks", CALLBACKS)
@pytest.mark.parametrize("name", CASES)
def test_pruned_and_resumed(name, callbacks, tmp_path):
    """Masks are those of a run without the engine, and hold after every update; a run that is cut equals one that is not."""
    case, make = CASES[name], CALLBACKS[callbacks]
    plain = case.make().learn(30, callback=make())
    through = case.make().learn(30, callback=[*make(), EngineCallback(strict=True), Look()])
    expect_equal(*map(state, (plain, through)), 1e-3)
    for cut in (12, 17):
        first = case.make().learn(cut, callback=[*make(), EngineCallback(strict=True)])
        first.save(tmp_path / "agent.zip")
        loaded = case.algorithm.load(tmp_path / "agent.zip", dataset=first.dataset, device="cpu")
        loaded.learn(30 - cut, callback=[*make(), EngineCallback(strict=True)], reset_num_timesteps=False)
        expect_same(through, loaded)
