"""OfflineDataset from replay buffers: what it holds is what the environments have seen, in their own units."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, SAC, HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer, RolloutBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_sparse.offline.data.dataset import OfflineDataset
from tests.recordings import ACTIONS, check, stack

#: Steps in each environment.
STEPS = 60


class Wander(gym.Env):
    """Episodes of all lengths: one in eight steps is the last one. A time limit of 5 steps truncates others."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float(self.np_random.normal()), bool(self.np_random.random() < 0.12), False, {}


class Recorder(gym.Wrapper):
    """Keeps every transition."""

    def __init__(self, env):
        super().__init__(env)
        self.transitions = []

    def reset(self, **arguments):
        self.last, info = super().reset(**arguments)
        return self.last, info

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        self.transitions.append((self.last, np.array(action), reward, observation, terminated, truncated and not terminated))
        self.last = observation
        return observation, reward, terminated, truncated, info


def recorder(number, observation_space, action_space):
    env = Wander(observation_space, action_space)
    observation_space.seed(number)
    return Recorder(gym.wrappers.TimeLimit(env, 5))


def collected(algorithm, observation_space, action_space, *, n_envs=2, normalize=False, **arguments):
    """A model that has collected transitions at random, and the recorders of its environments."""
    if observation_space is None:
        recorders = [Recorder(gym.wrappers.TimeLimit(BitFlippingEnv(4, continuous=True, discrete_obs_space=True), 7))]
    else:
        recorders = [recorder(number, observation_space, action_space) for number in range(n_envs)]
    env = DummyVecEnv([lambda env=env: env for env in recorders])
    env = VecNormalize(env) if normalize else env
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    model = algorithm(policy, env, learning_starts=10**6, seed=0, device="cpu", **{"buffer_size": 10**4, **arguments})
    model.learn(STEPS * len(recorders))
    return model, recorders


def expected(recorders, last=STEPS):
    """The last transitions of each environment, and the number of their episodes."""
    lists = [env.transitions[-last:] for env in recorders]
    names = "observations", "actions", "rewards", "next_observations", "terminations", "truncations"
    columns = zip(*(transition for transitions in lists for transition in transitions), strict=True)
    episodes = sum(sum(terminated or cut for *_, terminated, cut in part[:-1]) + 1 for part in lists)
    return {name: stack(column) for name, column in zip(names, columns, strict=True)}, episodes


BOX = spaces.Box(-5, 5, (3,))
MANY = spaces.Dict({"state": BOX, "touch": spaces.Box(0, 255, (7,), np.uint8), "where": spaces.Discrete(5)})
CASES = {
    "sac": (SAC, BOX, ACTIONS, {}),
    "sac_full": (SAC, BOX, ACTIONS, {"buffer_size": 50}),
    "sac_just_full": (SAC, BOX, ACTIONS, {"buffer_size": 2 * STEPS}),
    "sac_dict": (SAC, MANY, ACTIONS, {"buffer_size": 51}),
    "sac_matrix": (SAC, BOX, spaces.Box(-2, 1, (2, 2)), {"n_envs": 1}),
    "sac_n_step": (SAC, BOX, ACTIONS, {"replay_buffer_class": NStepReplayBuffer}),
    "dqn": (DQN, BOX, spaces.Discrete(3), {"buffer_size": 50}),
    "dqn_discrete": (DQN, spaces.Discrete(6), spaces.Discrete(3), {}),
    "her": (SAC, None, None, {"replay_buffer_class": HerReplayBuffer, "buffer_size": 40}),
}


@pytest.mark.parametrize("name", CASES)
def test_transitions(name):
    algorithm, observation_space, action_space, arguments = CASES[name]
    model, recorders = collected(algorithm, observation_space, action_space, **arguments)
    data = OfflineDataset.from_replay_buffer(model.replay_buffer)
    kept = min(STEPS, arguments.get("buffer_size", STEPS * 9) // len(recorders))
    arrays, episodes = expected(recorders, kept)
    assert len(data) == kept * len(recorders) and data.n_episodes == episodes
    assert {True, False} == set(arrays["terminations"]) or name == "her"
    assert arrays["truncations"].any()
    check(data, arrays)
    assert data.action_space == model.action_space and data.name is None


@pytest.mark.parametrize("buffer_size", [10**4, 2 * STEPS, 50])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_optimized_memory(buffer_size, n_envs):
    """Every done is terminal there, and what follows is the first observation of the next episode: as SB3 samples it."""
    model, recorders = collected(
        SAC,
        BOX,
        ACTIONS,
        n_envs=n_envs,
        buffer_size=buffer_size,
        optimize_memory_usage=True,
        replay_buffer_kwargs={"handle_timeout_termination": False},
    )
    data = OfflineDataset.from_replay_buffer(model.replay_buffer)
    full = buffer_size // n_envs <= STEPS
    kept = min(STEPS, buffer_size // n_envs) - full
    arrays, episodes = expected(recorders, kept)
    arrays["terminations"] = arrays["terminations"] | arrays["truncations"]
    following = np.concatenate([arrays["observations"][1:], arrays["next_observations"][-1:]])
    ends = np.flatnonzero(arrays["terminations"] & ((np.arange(kept * n_envs) + 1) % kept != 0))
    arrays["next_observations"][ends] = following[ends]
    # What comes after the last transition of an environment, done or not, stands in the buffer alone.
    last = [model.replay_buffer.observations[model.replay_buffer.pos, env] for env in range(n_envs)]
    arrays["next_observations"][kept - 1 :: kept] = last
    assert len(data) == kept * n_envs and data.n_episodes == episodes
    check(data, arrays)


def test_normalized_environment():
    """The originals are kept. SB3 has normalized the last observation of an episode and brought it back: that rounds."""
    model, recorders = collected(SAC, BOX, ACTIONS, normalize=True, n_envs=3)
    data = OfflineDataset.from_replay_buffer(model.replay_buffer)
    arrays, _ = expected(recorders)
    given = data.batch(np.arange(len(data))).next_observations.numpy()
    np.testing.assert_allclose(given, arrays["next_observations"], atol=1e-4)
    check(data, {**arrays, "next_observations": given})


def test_all_dones_without_timeouts():
    model, recorders = collected(SAC, BOX, ACTIONS, replay_buffer_kwargs={"handle_timeout_termination": False})
    data = OfflineDataset.from_replay_buffer(model.replay_buffer)
    arrays, _ = expected(recorders)
    check(data, {**arrays, "terminations": arrays["terminations"] | arrays["truncations"]})


def test_saved_buffer(tmp_path):
    model, recorders = collected(SAC, BOX, ACTIONS)
    model.save_replay_buffer(tmp_path / "buffer")
    model.load_replay_buffer(tmp_path / "buffer")
    data = OfflineDataset.from_replay_buffer(model.replay_buffer, memmap=tmp_path / "arrays")
    arrays, _ = expected(recorders)
    check(data, arrays)
    assert (tmp_path / "arrays" / "observations.npy").exists()


def test_bad_buffers():
    with pytest.raises(ValueError, match=r"empty: fill it with learn\(\)"):
        OfflineDataset.from_replay_buffer(ReplayBuffer(10, BOX, ACTIONS, device="cpu"))
    with pytest.raises(TypeError, match="got RolloutBuffer"):
        OfflineDataset.from_replay_buffer(RolloutBuffer(10, BOX, ACTIONS, device="cpu"))
    with pytest.raises(ValueError, match=r"MultiBinary\(3\) are not supported"):
        OfflineDataset.from_replay_buffer(ReplayBuffer(10, spaces.MultiBinary(3), ACTIONS, device="cpu"))
