"""What a callback does to layers that it has in hand, and to the class of a model, while it trains in the engine."""

import copy
import pickle

import pytest
import torch as th
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse import EngineCallback, OneShotPruningCallback, RewiringCallback
from tests.test_engine import build, expect_equal, state


class Fills(BaseCallback):
    """Sets a bias, which it holds since the start, at one call of a step."""

    def __init__(self, at, find):
        super().__init__()
        self.at, self.find = at, find

    def _on_training_start(self):
        self.bias = self.find(self.model)

    def _on_step(self):
        if self.n_calls == self.at:
            with th.no_grad():
                self.bias.fill_(0.7)
        return True


def expect_same(make, steps, at, find, *, before=lambda: []):
    """The change counts, and training goes on from it, as on SB3."""
    models = []
    for last in ([], [EngineCallback(strict=True)]):
        th.manual_seed(4)
        models.append(make())
        models[-1].learn(steps, callback=[*before(), Fills(at, find), *last], reset_num_timesteps=False, log_interval=1000)
    expect_equal(*map(state, models), 1e-3)


def first_layer(model):
    return model.policy.mlp_extractor.policy_net[0].bias


@pytest.mark.parametrize("at", [20, 21, 22, 30])
def test_a_change_around_the_first_update(at):
    def make():
        return SAC("MlpPolicy", "Pendulum-v1", learning_starts=20, policy_kwargs={"net_arch": [24, 24]}, seed=0, device="cpu")

    expect_same(make, 31, at, lambda model: model.actor.mu.bias)


def test_a_change_in_the_first_step_of_another_run():
    expect_same(lambda: build("sac", steps=80), 12, 1, lambda model: model.critic.qf0[0].bias)


@pytest.mark.parametrize("algorithm", [PPO, A2C])
@pytest.mark.parametrize("at", [3, 16, 17])
def test_a_change_in_a_rollout(algorithm, at):
    def make():
        kwargs = {"batch_size": 16, "n_epochs": 2} if algorithm is PPO else {}
        return algorithm("MlpPolicy", "Pendulum-v1", n_steps=16, seed=0, device="cpu", **kwargs)

    expect_same(make, 40, at, first_layer)


@pytest.mark.parametrize("at", [10, 11, 12])
def test_a_change_around_a_rewiring(at):
    def before():
        static = OneShotPruningCallback("all", 0.5, saliency="random", targets="mask", seed=0)
        return [static, RewiringCallback("all", update_freq=10, grow="random", seed=0)]

    expect_same(lambda: build("sac", steps=80), 25, at, lambda model: model.actor.mu.bias, before=before)


class Copies(BaseCallback):
    """Copies the model in several ways in the middle of training."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def _on_step(self):
        if self.n_calls == 5:
            self.model.save(self.folder / "model")
            self.loaded = type(self.model).load(self.folder / "model", device="cpu")
            self.saved = state(self.model)
            self.copied = copy.deepcopy(self.model.policy)
            model = copy.copy(self.model)
            for name in ("env", "replay_buffer", "_logger"):
                model.__dict__.pop(name, None)
            self.pickled = pickle.loads(pickle.dumps(model))
        return True


@pytest.mark.parametrize("name, algorithm", [("sac", SAC), ("dqn", DQN)])
def test_copies_are_models_of_sb3(name, algorithm, tmp_path):
    """They have its class, and whoever makes them is not told that the engine has stopped."""
    model = build(name)
    copies = Copies(tmp_path)
    model.learn(10, callback=[copies, EngineCallback(strict=True)], reset_num_timesteps=False)
    for each in (copies.loaded, copies.pickled):
        assert type(each) is algorithm
        expect_equal(copies.saved, state(each), 1e-7)
