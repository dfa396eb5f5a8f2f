"""A training that dies anywhere and goes on from its last checkpoint ends, bit for bit, as one that did not."""

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse import EngineCallback, GradualPruningCallback, OneShotPruningCallback, QATCallback, RewiringCallback
from sb3_sparse.sweeps.kinds.resumption import ResumableCallback, find_checkpoint
from tests import offline
from tests.algorithms import CASES

STEPS, FREQ = 160, 45


class Death(BaseCallback):
    """Ends a run in the middle of a rollout."""

    #: It asks for nothing.
    holds_layers = False

    def __init__(self, step):
        super().__init__()
        self.step = step

    def _on_step(self):
        if self.num_timesteps >= self.step:
            raise InterruptedError
        return True


def train(make, callbacks, folder, death=np.inf, offline=False, collected=0):
    """As the process of a cell does it, which rl-zoo3 hands an agent's zip and its replay buffer."""
    model = make()
    checkpoint = find_checkpoint(folder)
    if checkpoint is not None:
        data = {"dataset": model.dataset} if offline else {}
        model = type(model).load(checkpoint / "agent.zip", env=model.env, device="cpu", seed=model.seed, **data)
        if (checkpoint / "replay_buffer.pkl").exists():
            model.load_replay_buffer(checkpoint / "replay_buffer.pkl")
    resumable = ResumableCallback(str(folder), FREQ, offline, None if checkpoint is None else str(checkpoint), collected)
    evaluation = None if model.env is None or offline else EvalCallback(make().env, n_eval_episodes=1, eval_freq=75, verbose=0)
    if evaluation is not None:
        evaluation.log_path = str(folder / "evaluations")
    model.learn(STEPS, callback=[resumable, *callbacks(), Death(death), *([evaluation] if evaluation else [])])
    return model, evaluation


def check(make, callbacks, folder, **settings):
    (folder / "whole").mkdir()
    (folder / "broken").mkdir()
    model, evaluation = train(make, callbacks, folder / "whole", **settings)
    for death in (70, 150):
        with pytest.raises(InterruptedError):
            train(make, callbacks, folder / "broken", death, **settings)
    resumed, other = train(make, callbacks, folder / "broken", **settings)
    assert resumed.num_timesteps == model.num_timesteps
    for name, value in model.policy.state_dict().items():
        assert th.equal(resumed.policy.state_dict()[name], value), name
    assert resumed.sparsity_state == model.sparsity_state
    if evaluation is not None:
        assert other.evaluations_timesteps == evaluation.evaluations_timesteps
        assert np.array_equal(other.evaluations_results, evaluation.evaluations_results)
    return model


def pruning(network):
    return lambda: [GradualPruningCallback(network, 0.8, 0.1, 0.9, 20), QATCallback(network, 0.5)]


@pytest.mark.quick("sac", "ppo", "dqn")
@pytest.mark.parametrize("name", CASES)
def test_every_algorithm(name, tmp_path):
    case = CASES[name]
    check(case.make, pruning(case.networks[0]), tmp_path)


@pytest.mark.parametrize("name", ["td3", "dqn"])
def test_rewiring_in_the_engine(name, tmp_path):
    case = CASES[name]

    def callbacks():
        pruning = OneShotPruningCallback("all", 0.8, saliency="random", seed=4)
        return [pruning, RewiringCallback("all", update_freq=15, seed=5), EngineCallback()]

    check(case.make, callbacks, tmp_path)


@pytest.mark.quick("bcq")
@pytest.mark.parametrize("name", offline.CASES)
def test_recorded_data(name, tmp_path):
    case = offline.CASES[name]
    check(case.make, pruning("all"), tmp_path, offline=True)


@pytest.mark.quick("normalize", "n_envs")
@pytest.mark.filterwarnings("ignore:`n_steps=3` is ignored because a custom")
@pytest.mark.parametrize(
    "settings",
    [{"n_envs": 2}, {"use_sde": True}, {"noise": True}, {"normalize": True}, {"n_steps": 3}],
    ids=lambda settings: next(iter(settings)),
)
def test_what_sac_can_have(settings, tmp_path):
    """Several environments, noise with a memory, statistics of observations, returns of several steps."""
    settings = dict(settings)
    envs, normalize, noise = settings.pop("n_envs", 1), settings.pop("normalize", False), settings.pop("noise", False)

    def make():
        venv = make_vec_env("Pendulum-v1", envs, seed=3)
        if noise:
            settings["action_noise"] = OrnsteinUhlenbeckActionNoise(np.zeros(1), np.full(1, 0.5))
        return SAC(
            "MlpPolicy",
            VecNormalize(venv) if normalize else venv,
            policy_kwargs={"net_arch": [16, 16]},
            seed=3,
            device="cpu",
            learning_starts=20,
            batch_size=16,
            buffer_size=1000,
            **settings,
        )

    check(make, pruning("actor"), tmp_path)


@pytest.mark.parametrize("engine", [False, True])
def test_an_agent_that_is_trained_further(engine, tmp_path):
    """It plays first, by itself; then it goes on as any other, and learns from what it played."""
    seen = []

    class Watching(BaseCallback):
        holds_layers = False

        def _on_training_start(self):
            seen.append((self.model.replay_buffer.size(), self.model.num_timesteps))

        def _on_step(self):
            return True

    agent = tmp_path / "agent.zip"
    SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [16, 16]}, seed=7, device="cpu", buffer_size=1).save(agent)

    def make():
        venv = make_vec_env("Pendulum-v1", 1, seed=3)
        model = SAC.load(agent, env=venv, device="cpu", seed=3, learning_starts=0, buffer_size=999, batch_size=16)
        # No action is random.
        model.action_space.sample = None
        return model

    def callbacks():
        return [*pruning("actor")(), Watching(), *([EngineCallback()] if engine else [])]

    model = check(make, callbacks, tmp_path, collected=60)
    # The run as a whole, and that which dies; both go on later, with what they had.
    assert seen[:2] == [(60, 0), (60, 0)] and all(size > 60 for size, _ in seen[2:])
    assert (model.num_timesteps, model.replay_buffer.size()) == (STEPS, STEPS + 60)
