"""The command ``sb3-sparse distill``: any agent's zip to its student's, which is an agent with the same settings."""

import re
from contextlib import suppress

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_sparse import compress
from sb3_sparse.agents import load_agent
from sb3_sparse.agents.load import restore_training
from sb3_sparse.cli import main
from sb3_sparse.distillation.learning.network import read_network
from tests import recordings
from tests.old_zips import save_old

SHORT = ["--steps", "400", "--updates", "5000", "--episodes", "2"]


def make(algorithm, env, **kwargs):
    return algorithm("MlpPolicy", env, policy_kwargs={"net_arch": [16, 16]}, device="cpu", seed=0, **kwargs)


def run(capsys, *arguments):
    main(list(map(str, arguments)))
    return capsys.readouterr().out


def fail(capsys, *arguments):
    with pytest.raises(SystemExit):
        run(capsys, *arguments)
    return capsys.readouterr().err


def sparsity(model):
    weights = [parameter for parameter in read_network(model).parameters() if parameter.dim() > 1]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def test_a_student_has_the_settings_of_its_agent(tmp_path, capsys):
    """Those as well that loading an agent to act leaves out; and it goes on training."""
    agent, student = tmp_path / "agent.zip", tmp_path / "new" / "student.zip"
    rate = LinearSchedule(1e-3, 1e-4, 0.5)
    make(SAC, "Pendulum-v1", buffer_size=1234, learning_rate=rate, learning_starts=10).save(agent)
    out = run(capsys, "distill", agent, "--env", "Pendulum-v1", "--sparsity", 0.8, "-o", tmp_path / "new" / "student", *SHORT)
    assert f"written: {student}" in out and "student / agent" in out and "2 episodes, same seeds" in out
    loaded = SAC.load(student, env=gym.make("Pendulum-v1"), device="cpu")
    assert (loaded.buffer_size, loaded.replay_buffer.buffer_size, loaded.learning_starts) == (1234, 1234, 10)
    assert [loaded.lr_schedule(left) for left in (1, 0.5)] == pytest.approx([1e-3, 1e-4])
    assert sparsity(loaded) == pytest.approx(0.8, abs=0.005)
    loaded.learn(20)
    assert "masks" in loaded.sparsity_state
    settings = ["--updates", 5000, "--bits", 8, "--episodes", 2, "--minutes", 0.02, "--jobs", 1, "--flash", "1M"]
    with suppress(SystemExit):
        run(capsys, "fit", agent, "--env", "Pendulum-v1", "-o", tmp_path / "small", *settings)
    small = SAC.load(tmp_path / "small" / "agent.zip", env=gym.make("Pendulum-v1"), device="cpu")
    assert (small.buffer_size, small.replay_buffer.buffer_size) == (1234, 1234)
    assert [small.lr_schedule(left) for left in (1, 0.5)] == pytest.approx([1e-3, 1e-4])


def test_compress_finds_what_belongs_to_a_student(tmp_path, capsys):
    """The statistics of its observations, and how its environment was made."""
    folder = tmp_path / "Pendulum-v1"
    folder.mkdir()
    venv = VecNormalize(DummyVecEnv([lambda: gym.wrappers.TimeLimit(gym.make("Pendulum-v1"), 50)]))
    model = make(PPO, venv, n_steps=32, batch_size=32, clip_range=0.07).learn(64)
    model.save(tmp_path / "agent.zip")
    venv.save(folder / "vecnormalize.pkl")
    wrappers = [{"gymnasium.wrappers.TimeLimit": {"max_episode_steps": 50}}]
    (folder / "config.yml").write_text(yaml.dump({"n_timesteps": 64, "normalize": True, "env_wrapper": wrappers}))
    out = run(capsys, "distill", tmp_path / "agent.zip", "--env", "Pendulum-v1", "-o", tmp_path / "out/student.zip", *SHORT)
    assert (tmp_path / "out/student_vecnormalize.pkl").read_bytes() == (folder / "vecnormalize.pkl").read_bytes()
    student = PPO.load(tmp_path / "out/student.zip", device="cpu")
    assert student.clip_range(1) == 0.07 and student.learning_rate == model.learning_rate
    args = ["--episodes", 2, "--calibration-steps", 50, "--no-latency", "-o", tmp_path / "files"]
    again = run(capsys, "compress", tmp_path / "out/student.zip", "--env", "Pendulum-v1", *args)
    assert "student_vecnormalize.pkl says" in again and str(tmp_path / "out/student/config.yml") in again
    # The same agent plays the same episodes.
    means = [re.search(rf"^{name} +(\S+)", text, re.MULTILINE)[1] for name, text in (("student", out), ("SB3 model", again))]
    assert means[0] == means[1]


def test_few_bits(tmp_path, capsys):
    """The student's zip says which grid it is on, and `compress` goes by it."""
    agent, student = tmp_path / "agent.zip", tmp_path / "student.zip"
    make(SAC, "Pendulum-v1", buffer_size=10).save(agent)
    options = ["--bits", 2, "--activation-bits", 4, "--sparsity", 0.5, "--net-arch", 8, 6]
    run(capsys, "distill", agent, "--env", "Pendulum-v1", *options, "-o", student, *SHORT)
    layers = compress(load_agent(student)).network.layers
    assert all(np.abs(layer.weight).max() == 1 for layer in layers)
    assert [layer.grid and layer.grid.top for layer in layers] == [None, 15, 15]
    assert "bits=1" in fail(capsys, "distill", agent, "--env", "Pendulum-v1", "--bits", 1, "-o", student)


def test_an_old_agent(tmp_path, capsys):
    """Of SB3 1.x, in an environment that is gone: the student is one of today."""
    model = make(PPO, "Pendulum-v1", n_steps=32, batch_size=32, clip_range=0.07)
    save_old(model, tmp_path / "agent.zip")
    out = run(capsys, "distill", tmp_path / "agent", "--env", "Pendulum-v0", "-o", tmp_path / "student.zip", *SHORT)
    assert "Pendulum-v1 is used instead" in out and "the clip_range in agent.zip is code that cannot be read here" in out
    student = PPO.load(tmp_path / "student.zip", env=gym.make("Pendulum-v1"), device="cpu")
    assert student.clip_range(1) == 0.2 and sparsity(student) > 0.94
    student.learn(32)


def test_a_dataset(tmp_path, capsys, monkeypatch):
    """Of observations, in place of an environment; a run that is over is not repeated."""
    pytest.importorskip("h5py")
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    spaces = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Box(-2, 2, (1,), np.float32)
    recordings.make("test/box-v0", recordings.record(*spaces, (200, 300)), *spaces)
    make(SAC, "Pendulum-v1").save(tmp_path / "agent.zip")
    arguments = ["distill", tmp_path / "agent.zip", "--minari", "test/box-v0", "-o", tmp_path / "student.zip", "--net-arch", 8]
    out = run(capsys, *arguments, *SHORT)
    assert "episodes" not in out
    weights = read_network(load_agent(tmp_path / "student.zip")).layers
    assert weights[0].weight.shape == (8, 3)


def test_errors(tmp_path, capsys):
    make(DQN, "CartPole-v1", buffer_size=10).save(tmp_path / "agent.zip")
    command = ["distill", tmp_path / "agent.zip", "-o"]
    assert "give --env or --minari" in fail(capsys, *command, tmp_path / "student.zip")
    assert "is the agent itself" in fail(capsys, *command, tmp_path / "agent.zip", "--env", "CartPole-v1")
    assert "sparsity" in fail(capsys, *command, tmp_path / "student.zip", "--env", "CartPole-v1", "--sparsity", "1")
    assert "has observations" in fail(capsys, *command, tmp_path / "student.zip", "--env", "Pendulum-v1")
    assert "episodes must" in fail(capsys, *command, tmp_path / "student.zip", "--env", "CartPole-v1", "--episodes", "-1")
    assert not (tmp_path / "student.zip").exists()


def test_agents_that_need_nothing_but_what_sb3_has(tmp_path, capsys):
    """A buffer that leaves the next observations out, as SB3 wants it; an optimizer of SB3's own; no value network."""
    kwargs = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}, "buffer_size": 50}
    make(DQN, "CartPole-v1", **kwargs).save(tmp_path / "dqn.zip")
    model = load_agent(tmp_path / "dqn.zip")
    assert restore_training(model, tmp_path / "dqn.zip") == []
    assert model.optimize_memory_usage and model.replay_buffer_kwargs == kwargs["replay_buffer_kwargs"]
    policy_kwargs = {"net_arch": {"pi": [16]}, "optimizer_class": RMSpropTFLike}
    A2C("MlpPolicy", "CartPole-v1", policy_kwargs=policy_kwargs, device="cpu").save(tmp_path / "a2c.zip")
    run(
        capsys,
        "distill",
        tmp_path / "a2c.zip",
        "--env",
        "CartPole-v1",
        "--net-arch",
        8,
        "--sparsity",
        0.5,
        "-o",
        tmp_path / "student.zip",
        *SHORT,
    )
    student = A2C.load(tmp_path / "student.zip", device="cpu")
    assert student.policy.net_arch == {"pi": [8], "vf": []} and student.policy.optimizer_class is RMSpropTFLike
