"""Datasets that are rolled out: the episodes that were played, whatever the number of processes or interruptions."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

minari = pytest.importorskip("minari")


@pytest.fixture
def script(benchmark_of, monkeypatch, tmp_path):
    """The script, with a Minari folder of its own."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return benchmark_of("data.make_dataset")


@pytest.fixture
def rollout(script, tmp_path):
    """Half of the actions are drawn, by an agent with discrete ones that falls soon."""
    model = DQN("MlpPolicy", gym.make("CartPole-v1"), seed=0, device="cpu")
    model.exploration_rate = 0.5
    model.save(tmp_path / "dqn.zip")
    return script.Rollout(tmp_path / "dqn.zip", "CartPole-v1", transitions=100, seed=3, stochastic=True)


def play_in_process(script, rollout, folder, numbers):
    """Episodes that are there already are not played again, and no process is started for them."""
    from benchmarks.data.rollouts import keep

    script.prepare(rollout, folder)
    player = script.Player(rollout)
    for number in numbers:
        keep(player.play(number), number, folder)
    player.env.close()


def make(script, rollout, tmp_path, episodes, dataset_id="test/set-v0"):
    play_in_process(script, rollout, tmp_path / "work", range(episodes))
    return script.make_dataset(rollout, dataset_id, 1, tmp_path / "work", force=False)


@pytest.mark.slow
def test_processes_and_interruptions_change_nothing(script, rollout, tmp_path):
    """One is interrupted with an episode missing between two others, and goes on with one process; the other has two."""
    play_in_process(script, rollout, tmp_path / "work", (2, 0))
    script.make_dataset(rollout, "test/resumed-v0", 1, tmp_path / "work", force=False)
    script.make_dataset(rollout, "test/parallel-v0", 2, tmp_path / "work", force=False)
    resumed, parallel = (minari.load_dataset(f"test/{name}-v0") for name in ("resumed", "parallel"))
    assert resumed.total_steps == parallel.total_steps == 100 and resumed.total_episodes == parallel.total_episodes > 3
    for one, other in zip(resumed, parallel, strict=True):
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert not (tmp_path / "work").exists()


def test_every_transition_is_what_the_environment_did(script, rollout, tmp_path):
    """Played again, action by action; only the last episode is cut, and says so."""
    dataset, returns = make(script, rollout, tmp_path, episodes=20)
    env = gym.make("CartPole-v1")
    for number, episode in enumerate(minari.load_dataset("test/set-v0")):
        observation, _ = env.reset(seed=3 + number)
        np.testing.assert_array_equal(episode.observations[0], observation)
        for step, action in enumerate(episode.actions):
            observation, reward, terminated, _, _ = env.step(action)
            np.testing.assert_array_equal(episode.observations[step + 1], observation)
            assert (episode.rewards[step], episode.terminations[step]) == (reward, terminated)
        last = number == dataset.total_episodes - 1
        assert len(episode.observations) == len(episode.actions) + 1
        assert episode.truncations.tolist() == [False] * (len(episode.actions) - 1) + [last]
        assert episode.terminations[-1] == (not last)
        assert last or returns[number] == len(episode.actions)
    assert dataset.total_steps == 100 and len(returns) == dataset.total_episodes - 1
    metadata = dataset.storage.metadata
    assert metadata["algorithm_name"] == "DQN" and metadata["rollout"]["seed"] == 3
    assert metadata["mean_return"] == pytest.approx(np.mean(returns)) and dataset.env_spec.id == "CartPole-v1"


def test_the_agent_sees_normalized_observations_that_are_not_stored(script, tmp_path):
    normalization = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    normalization.obs_rms.mean, normalization.obs_rms.var = np.array([0.1, 0.2, 0.3]), np.array([4.0, 5.0, 6.0])
    normalization.save(tmp_path / "vecnormalize.pkl")
    model = SAC("MlpPolicy", gym.make("Pendulum-v1"), seed=0, device="cpu")
    model.save(tmp_path / "sac.zip")
    dataset, _ = make(script, script.Rollout(tmp_path / "sac.zip", "Pendulum-v1", 200), tmp_path, episodes=1)
    episode = dataset[0]
    np.testing.assert_allclose(np.linalg.norm(episode.observations[:, :2], axis=1), 1.0, rtol=1e-5)
    expected, _ = model.predict(normalization.normalize_obs(episode.observations[:-1]), deterministic=True)
    np.testing.assert_allclose(episode.actions, expected, atol=1e-5)
    assert episode.truncations[-1] and not episode.terminations.any() and not episode.truncations[:-1].any()


def test_images_are_stored_without_loss(script, tmp_path):
    gym.register(
        "FakeImage-v0",
        "stable_baselines3.common.envs:FakeImageEnv",
        max_episode_steps=5,
        kwargs={"discrete": False, "screen_height": 40, "screen_width": 40},
    )
    try:
        PPO("CnnPolicy", gym.make("FakeImage-v0"), n_steps=8, batch_size=8, device="cpu").save(tmp_path / "ppo.zip")
        rollout = script.Rollout(tmp_path / "ppo.zip", "FakeImage-v0", 8)
        play_in_process(script, rollout, tmp_path / "work", range(2))
        played = script.read_episodes(rollout, tmp_path / "work")
        script.make_dataset(rollout, "test/images-v0", 1, tmp_path / "work", force=False)
        for stored, expected in zip(minari.load_dataset("test/images-v0"), played, strict=True):
            assert stored.observations.dtype == np.uint8 and stored.observations.shape[1:] == (40, 40, 1)
            np.testing.assert_array_equal(stored.observations, expected.observations)
    finally:
        gym.registry.pop("FakeImage-v0")


def test_what_cannot_be_made_says_why(script, rollout, tmp_path):
    make(script, rollout, tmp_path, episodes=20)
    with pytest.raises(ValueError, match="--force"):
        make(script, rollout, tmp_path, episodes=0)
    with pytest.raises(ValueError, match="another seed: delete it"):
        script.make_dataset(replace(rollout, seed=4), "test/set-v1", 1, tmp_path / "work", force=False)
    for dataset_id in ("no-version", "x/set-v0"):
        with pytest.raises(ValueError, match="no name of a dataset"):
            script.make_dataset(rollout, dataset_id, 1, tmp_path / "work", force=False)
    with pytest.raises(ValueError, match="Pendulum-v1 has observations"):
        script.make_dataset(replace(rollout, env="Pendulum-v1"), "test/set-v1", 1, tmp_path / "other", force=False)
    assert list(minari.list_local_datasets()) == ["test/set-v0"]
