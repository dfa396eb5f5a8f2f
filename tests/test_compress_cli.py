"""``sb3-sparse compress`` from end to end, on agents small enough for a test."""

import json
import subprocess
import sys
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse import OneShotPruningCallback, QATCallback
from sb3_sparse.agents import (
    Latency,
    Returns,
    load_agent,
    load_normalization,
    make_environment,
    model_act,
    play_observations,
    play_returns,
    play_starts,
)
from sb3_sparse.agents.compression import compare
from sb3_sparse.agents.compression.files import c_name
from sb3_sparse.cli import main
from sb3_sparse.export import pipeline
from sb3_sparse.runtime import BACKENDS, load
from sb3_sparse.runtime.format.artifact import MAGIC
from tests.algorithms import CASES

CPU = {"device": "cpu", "seed": 0}
FAST = ["--episodes", "2", "--calibration-steps", "250", "--seed", "3"]
#: Recurrent policies have tests of their own.
EXPORTED = {name: case for name, case in CASES.items() if name not in ("maskable_ppo", "recurrent_ppo")}


def run(capsys, *arguments):
    main(["compress", *map(str, arguments)])
    return capsys.readouterr().out


def fail(capsys, *arguments):
    with pytest.raises(SystemExit):
        run(capsys, *arguments)
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def sac(tmp_path_factory):
    """A SAC agent that has trained on Pendulum for 100 steps, with 80 % of its actor pruned."""
    model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=50, batch_size=16, policy_kwargs={"net_arch": [16, 16]}, **CPU)
    model.learn(100, callback=OneShotPruningCallback("actor", 0.8, at=60))
    path = tmp_path_factory.mktemp("sac") / "agent.zip"
    model.save(path)
    return path


def test_sac_with_everything(sac, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("onnx")
    out = tmp_path / "a" / "b"
    output = run(capsys, sac, "--env", "Pendulum-v1", "-o", out, *FAST)
    assert {file.name for file in out.iterdir()} == {"agent.sb3s", "agent.h", "agent.onnx", "report.json", "densities.png"}
    for line in ("actor.latent_pi.0", "SB3 zip", "compact file", "exported file", "SB3 predict", "numpy"):
        assert line in output

    report = json.loads((out / "report.json").read_text())
    assert (report["agent"], report["algorithm"], report["env"], report["bits"]) == ("agent.zip", "SAC", "Pendulum-v1", 8)
    assert report["calibration_steps"] == 250 and report["notes"] == []
    assert report["bytes"]["SB3 zip"] == sac.stat().st_size
    assert report["bytes"]["compact file"] == (out / "agent.sb3s").stat().st_size
    assert [layer["name"] for layer in report["layers"]] == ["actor.latent_pi.0", "actor.latent_pi.2", "actor.mu"]
    assert report["latency_us"]["SB3 predict"]["speedup"] == 1.0
    assert report["latency_us"]["numpy"]["median"] < report["latency_us"]["SB3 predict"]["median"]

    returns = report["returns"]
    assert returns["seeds"] == [3, 4] and len(returns["exported file"]) == 2
    assert returns["ratio"] is None, "the returns of Pendulum are negative"
    env = gym.make("Pendulum-v1")
    for who, policy in (("SB3 model", SAC.load(sac, device="cpu")), ("exported file", load(out / "agent.sb3s"))):
        for seed, expected in zip((3, 4), returns[who], strict=True):
            assert play_by_hand(env, policy, seed) == pytest.approx(expected, rel=1e-4)


def play_by_hand(env, policy, seed):
    observation, _ = env.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        observation, reward, terminated, truncated, _ = env.step(policy.predict(observation, deterministic=True)[0])
        total += float(reward)
        done = terminated or truncated
    return total


def test_sparse_dqn_without_rounding(tmp_path, capsys):
    model = CASES["dqn"].make(sparse=True, policy_kwargs={"sparsity": 0.6})
    model.learn(60)
    model.save(tmp_path / "dqn.zip")
    out = tmp_path / "out"
    output = run(capsys, tmp_path / "dqn.zip", "--env", "CartPole-v1", "-o", out, "--bits", "32", "--no-latency", *FAST)
    report = json.loads((out / "report.json").read_text())
    assert report["algorithm"] == "DQN" and report["sparsity"] == pytest.approx(0.6, abs=0.01)
    assert report["returns"]["SB3 model"] == report["returns"]["exported file"] and report["returns"]["ratio"] == 1.0
    assert report["returns"]["difference"] == 0.0
    assert report["latency_us"] is None and "latency" not in output
    assert "stay float32" in report["notes"][0] and report["notes"][0] in output


def test_without_environment(sac, tmp_path, capsys):
    output = run(capsys, sac, "-o", tmp_path, "--bits", "4")
    assert "without --env: no calibration and no comparison of returns" in output and "guessed" in output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["returns"] is None and report["calibration_steps"] == 0 and report["bits"] == 4
    assert "SB3 predict" in report["latency_us"]


def test_every_step_is_done_once(sac, tmp_path, capsys, monkeypatch):
    """The model is traced once, the file encoded once, and every backend built once."""
    calls = []

    def count(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: calls.append((name, *args[1:])) or function(*args))

    for module, name in ((pipeline, "trace"), (pipeline, "encode"), (compare, "load")):
        count(module, name)
    run(capsys, sac, "-o", tmp_path)
    steps = [name for name, *_ in calls]
    assert steps[:3] == ["trace", "encode", "load"] and set(steps[3:]) == {"load"}
    # The first one is loaded as "auto", which is one of the others.
    assert len(steps[2:]) == len(set(BACKENDS) - {"auto"})


def test_normalized_observations_in_the_folder_of_rl_zoo3(tmp_path, capsys):
    venv = VecNormalize(make_vec_env("Pendulum-v1"), clip_obs=0.5)
    model = PPO("MlpPolicy", venv, n_steps=64, batch_size=32, n_epochs=1, **CPU)
    model.learn(128)
    agent = tmp_path / "best_model.zip"
    model.save(agent)
    assert load_normalization(agent, "Pendulum-v1") is None
    (tmp_path / "Pendulum-v1").mkdir()
    statistics = tmp_path / "Pendulum-v1" / "vecnormalize.pkl"
    venv.save(str(statistics))
    output = run(capsys, agent, "--env", "Pendulum-v1", "-o", tmp_path / "out", "--bits", "32", "--no-latency", *FAST)
    assert str(statistics) in output and "VecNormalize is part of the policy" in output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["vecnormalize"] and report["algorithm"] == "PPO"
    assert report["returns"]["exported file"] == pytest.approx(report["returns"]["SB3 model"], rel=1e-4)
    # The other places; a file that is named comes first.
    checkpoint = tmp_path / "rl_model_500_steps.zip"
    venv.save(str(tmp_path / "rl_model_vecnormalize_500_steps.pkl"))
    assert load_normalization(checkpoint)[0].name == "rl_model_vecnormalize_500_steps.pkl"
    assert load_normalization(checkpoint, "Pendulum-v1", statistics)[0] == statistics
    assert load_normalization(tmp_path / "Pendulum-v1.zip")[0] == statistics
    assert load_normalization(tmp_path / "Pendulum-v1" / "other.zip")[0] == statistics


@pytest.mark.parametrize(
    "place",
    ["HalfCheetah-v3/vecnormalize.pkl", "vec_normalize.pkl", "HalfCheetah-v3_vecnormalize.pkl", "best/my_vecnormalize_a.pkl"],
)
def test_places_of_statistics(place, tmp_path):
    """Folders have the names of old environments, and files other names."""
    venv = VecNormalize(make_vec_env("Pendulum-v1"))
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    venv.save(str(file))
    assert load_normalization(tmp_path / "HalfCheetah-v3.zip", "HalfCheetah-v4")[0] == file
    (tmp_path / "other").mkdir()
    venv.save(str(tmp_path / "other" / "vec_normalize.pkl"))
    if "my" in place:
        with pytest.raises(
            ValueError, match=r"which statistics are those of .*my_vecnormalize_a.*vec_normalize.*--vecnormalize"
        ):
            load_normalization(tmp_path / "HalfCheetah-v3.zip", "HalfCheetah-v4")
    else:
        assert load_normalization(tmp_path / "HalfCheetah-v3.zip", "HalfCheetah-v4")[0] == file


def test_missing_statistics_are_noticed(tmp_path, capsys):
    """A policy without its statistics plays badly, in SB3 and exported, and the two agree."""
    venv = VecNormalize(make_vec_env("Pendulum-v1"))
    agent, settings = tmp_path / "agent.zip", {"n_steps": 32, "batch_size": 32, **CPU}
    PPO("MlpPolicy", venv, **settings).learn(64).save(agent)
    arguments = (agent, "-o", tmp_path / "out", "--no-latency")
    assert "the observations in the zip say" in fail(capsys, *arguments)
    assert "no statistics" in run(capsys, *arguments, "--vecnormalize", "none")
    statistics = tmp_path / "vecnormalize.pkl"
    venv.save(str(statistics))
    assert f"as {statistics} says" in run(capsys, *arguments)
    # And the reverse.
    PPO("MlpPolicy", "Pendulum-v1", **settings).learn(64).save(agent)
    assert "that were not normalized, as the observations in the zip say, and there is" in fail(capsys, *arguments)
    assert f"as {statistics} says" in run(capsys, *arguments, "--vecnormalize", statistics)


def test_statistics_of_rewards_alone(tmp_path, capsys):
    """They are no statistics of observations, and a training that normalized rewards alone does not need any."""
    agent, settings = tmp_path / "agent.zip", {"n_steps": 32, "batch_size": 32, **CPU}
    arguments = (agent, "-o", tmp_path / "out", "--no-latency")
    rewards = VecNormalize(make_vec_env("Pendulum-v1"), norm_obs=False)
    PPO("MlpPolicy", rewards, **settings).learn(64).save(agent)
    assert "was trained behind VecNormalize, and no statistics of it are next to the zip: give" in fail(capsys, *arguments)
    assert "was trained behind" not in run(capsys, *arguments, "--vecnormalize", "none")
    rewards.save(str(tmp_path / "vecnormalize.pkl"))
    assert "was trained behind" not in run(capsys, *arguments)
    PPO("MlpPolicy", VecNormalize(make_vec_env("Pendulum-v1")), **settings).learn(64).save(agent)
    assert f"{tmp_path / 'vecnormalize.pkl'} does not normalize them: give" in fail(capsys, *arguments)
    # Also when the file is named.
    assert "does not normalize them: give" in fail(capsys, *arguments, "--vecnormalize", tmp_path / "vecnormalize.pkl")


def test_statistics_of_another_environment(tmp_path):
    venv = VecNormalize(make_vec_env("Pendulum-v1"))
    (tmp_path / "Reacher-v4").mkdir()
    venv.save(str(tmp_path / "Reacher-v4" / "vecnormalize.pkl"))
    assert load_normalization(tmp_path / "best_model.zip", "Pendulum-v1") is None
    for env in ("Reacher-v5", None):
        assert load_normalization(tmp_path / "best_model.zip", env)[0].parent.name == "Reacher-v4"


@pytest.mark.parametrize("says", ["- - - normalize\n    - true\n", "normalize: dict(norm_obs=True, norm_reward=False)\n"])
def test_the_settings_of_rl_zoo3_say_that_statistics_are_missing(says, tmp_path, capsys):
    agent = tmp_path / "agent.zip"
    SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, device="cpu").save(agent)
    settings = tmp_path / "Pendulum-v1" / "config.yml"
    settings.parent.mkdir()
    tag = "!!python/object/apply:collections.OrderedDict\n" if says.startswith("-") else ""
    settings.write_text(tag + says)
    arguments = (agent, "-o", tmp_path / "out", "--no-latency")
    assert f"{settings} says" in fail(capsys, *arguments)
    run(capsys, *arguments, "--config", "none")
    for harmless in ("normalize: false\n", "normalize: dict(norm_obs=False, norm_reward=True)\n", "gamma: 1\n"):
        settings.write_text(harmless)
        run(capsys, *arguments)
    # And the reverse.
    VecNormalize(make_vec_env("Pendulum-v1")).save(str(settings.with_name("vecnormalize.pkl")))
    run(capsys, *arguments)
    settings.write_text("n_timesteps: 100.0\n")
    assert "that were not normalized" in fail(capsys, *arguments)


def test_quantizers_are_put_back(tmp_path, capsys):
    model = CASES["td3"].make()
    model.learn(40, callback=QATCallback("actor", start=30, bits=4))
    model.save(tmp_path / "qat.zip")
    run(capsys, tmp_path / "qat.zip", "--env", "Pendulum-v1", "-o", tmp_path / "out", "--no-latency", *FAST)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [layer["bits"] for layer in report["layers"]] == [4, 4, 4]
    assert report["returns"]["exported file"] == pytest.approx(report["returns"]["SB3 model"], rel=0.02)


@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
@pytest.mark.parametrize("name", EXPORTED)
def test_the_zip_says_what_algorithm_it_is_of(name, sparse, tmp_path):
    model = EXPORTED[name].make(sparse=sparse)
    model.save(tmp_path / "agent.zip")
    loaded = load_agent(tmp_path / "agent.zip")
    # DDPG is TD3 with other settings.
    assert type(loaded) is (TD3 if name == "ddpg" else type(model))
    assert type(load_agent(tmp_path / "agent.zip", name)) is type(model)
    for observation in (model.observation_space.sample() for _ in range(4)):
        assert np.array_equal(*(policy.predict(observation, deterministic=True)[0] for policy in (model, loaded)))


def test_missing_packages_and_stale_files(sac, tmp_path, capsys, monkeypatch):
    for module in ("matplotlib", "matplotlib.figure", "onnx"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("densities.png", "agent.onnx"):
        (tmp_path / name).write_text("of an earlier run")
    output = run(capsys, sac, "-o", tmp_path, "--no-latency")
    assert {file.name for file in tmp_path.iterdir()} == {"agent.sb3s", "agent.h", "report.json"}
    assert "\nno densities.png: " in output and "\nno agent.onnx: " in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "Pendulum-v99"], "the environment 'Pendulum-v99' cannot be made"),
        (["--env", "NoSuchEnv-v0"], "the environment 'NoSuchEnv-v0' cannot be made"),
        (["--env", "CartPole-v1"], "CartPole-v1 has observations Box"),
        (["--env", "MountainCarContinuous-v0"], "the model was trained on Box"),
        (["--env", "Pendulum-v1", "--env-kwargs", "gravity:9.81"], "the environment 'Pendulum-v1' cannot be made"),
        (["--env", "Pendulum-v1", "--env-kwargs", "g=9.81"], "--env-kwargs takes name:value, got 'g=9.81'"),
        (["--env", "Pendulum-v1", "--episodes", "0"], "episodes must be at least 1, got 0"),
        (["--time-limit", "0"], "the time limit must be more than 0 seconds, got 0.0"),
        (["--time-limit", "nan"], "the time limit must be more than 0 seconds, got nan"),
        (["--calibration-steps", "-1"], "calibration steps must be at least 0, got -1"),
        (["--algo", "alphazero"], "unknown algorithm 'alphazero': use one of sac, td3"),
        (["--algo", "ppo"], "holds a policy of sac, not of ppo"),
        (["--bits", "1"], "invalid choice: 1"),
        (["--vecnormalize", "none.pkl"], "there is no file none.pkl: give that of VecNormalize.save(), or"),
        (["--vecnormalize", __file__], "was not saved by VecNormalize.save()"),
        (["--fast"], "unknown arguments: --fast"),
    ],
)  # fmt: skip
def test_errors_come_before_the_first_file(sac, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["compress", str(sac), "-o", "out", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class Broken(gym.Wrapper):
    """Raises an error in one of its methods, after some steps."""

    def __init__(self, env, method, after):
        super().__init__(env)
        self.method, self.after, self.steps = method, after, 0

    def fail(self, method):
        self.steps += method == "step"
        if method == self.method and self.steps > self.after:
            raise RuntimeError("the simulator\nis unstable")

    def reset(self, **kwargs):
        self.fail("reset")
        return self.env.reset(**kwargs)

    def step(self, action):
        self.fail("step")
        return self.env.step(action)

    def close(self):
        self.fail("close")


@pytest.mark.parametrize(
    ("method", "after", "files"),
    [("step", 5, False), ("reset", -1, False), ("step", 150, True), ("reset", 100, True), ("reset", 250, True)],
)
def test_an_environment_that_fails_ends_in_a_sentence(sac, tmp_path, capsys, method, after, files):
    """In calibration, and in the episodes behind it, when the files are written; its error is the cause."""
    wrapper = f"{{{__name__}.Broken: {{method: {method}, after: {after}}}}}"
    options = ["--env", "Pendulum-v1", "--env-wrapper", wrapper, "--trust", "--calibration-steps", "120", "--no-latency"]
    with pytest.raises(SystemExit) as stop:
        main(["compress", str(sac), "-o", str(tmp_path / "out"), *options])
    assert stop.value.code == 2
    error = capsys.readouterr().err.split("error: ")[1]
    assert error.count("\n") == 1 and "'Pendulum-v1' failed while an episode was played" in error
    assert "(RuntimeError: the simulator is unstable): make it as it was in training with --env-kwargs" in error
    assert (tmp_path / "out" / "agent.sb3s").exists() == files


def test_the_error_of_an_environment_is_the_cause(sac):
    model = load_agent(sac)
    venv = make_environment("Pendulum-v1", model, wrapper=lambda env: Broken(env, "step", 3))
    with pytest.raises(ValueError, match="'Pendulum-v1' failed while an episode was played") as error:
        play_returns(venv, model_act(model, None), [0])
    assert isinstance(error.value.__cause__, RuntimeError)
    with pytest.raises(ZeroDivisionError):
        play_returns(make_environment("Pendulum-v1", model), lambda observation, start: 1 / 0, [0])


def test_the_end_of_an_environment_does_not_count(sac, tmp_path, capsys):
    wrapper = f"{{{__name__}.Broken: {{method: close, after: -1}}}}"
    options = ["--env", "Pendulum-v1", "--env-wrapper", wrapper, "--trust", "--calibration-steps", "9", "--episodes", "1"]
    run(capsys, sac, "-o", tmp_path, "--no-latency", *options)
    assert (tmp_path / "report.json").exists()


def test_wrong_bits_come_before_the_zip_is_read(tmp_path):
    with pytest.raises(ValueError, match="bits=1: give a number from 2 to 8, or 32"):
        compare.compress_agent(tmp_path / "none.zip", tmp_path / "out", bits=1)


def test_errors_of_files(sac, tmp_path, capsys):
    def error(*arguments):
        with pytest.raises(SystemExit):
            main(["compress", *map(str, arguments)])
        return capsys.readouterr().err

    assert f"there is no agent at {tmp_path / 'none.zip'}: give the zip" in error(
        tmp_path / "none.zip", "-o", tmp_path / "out"
    )
    (tmp_path / "text.zip").write_text("no zip")
    assert "is damaged, or not a zip" in error(tmp_path / "text.zip", "-o", tmp_path / "out")
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'} is a file" in error(sac, "-o", tmp_path / "file" / "out")
    (tmp_path / "agent.sb3s").write_bytes(MAGIC + bytes(50))
    assert "agent.sb3s is an exported policy, not an SB3 zip" in error(tmp_path / "agent.sb3s", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_ending_of_a_zip_may_be_missing(sac, tmp_path, capsys):
    run(capsys, sac.with_suffix(""), "-o", tmp_path, "--no-latency")
    assert (tmp_path / "agent.sb3s").is_file()


def test_environment_arguments_and_spaces(sac):
    model = load_agent(sac)
    state = np.random.get_state()[1].copy()
    venv = make_environment("Pendulum-v1", model, {"g": 5.0})
    assert venv.get_attr("g") == [5.0] and (np.random.get_state()[1] == state).all()
    venv.close()
    heavy = PPO("MlpPolicy", "MountainCarContinuous-v0", **CPU)
    with pytest.raises(ValueError, match="MountainCar-v0 has actions Discrete"):
        make_environment("MountainCar-v0", heavy)


def test_images_with_channels_last():
    size = {"n_channels": 1, "screen_height": 36, "screen_width": 40}
    gym.register("FakeImages-v0", FakeImageEnv, kwargs=size)
    try:
        model = DQN("CnnPolicy", FakeImageEnv(**size), buffer_size=1, **CPU)
        venv = make_environment("FakeImages-v0", model)
        observations = play_observations(venv, model_act(model, None), 15, seed=0)
        assert observations.shape == (15, 36, 40, 1) and observations.dtype == np.uint8
        assert len(play_returns(venv, model_act(model, None), [0, 1, 2])) == 3
    finally:
        del gym.registry["FakeImages-v0"]


def test_episodes_follow_from_their_seeds(sac):
    model = load_agent(sac)
    venv = make_environment("Pendulum-v1", model)
    act = model_act(model, None)
    first, second = play_returns(venv, act, [7, 8])
    assert first != second
    # The returns do not depend on earlier episodes.
    play_observations(venv, act, 30, seed=1)
    assert play_returns(venv, act, [8, 7]) == [second, first]
    observations = play_observations(venv, act, 300, seed=7)
    assert observations.shape == (300, 3) and np.array_equal(observations[200:], play_observations(venv, act, 100, seed=8))
    again, starts = play_starts(venv, act, 300, seed=7)
    assert np.array_equal(again, observations) and starts.dtype == bool and np.flatnonzero(starts).tolist() == [0, 200]


def test_figures_by_hand():
    returns = Returns((0, 1, 2), (1.0, 2.0, 3.0), (1.0, 3.0, 5.0))
    assert returns.ratio == 1.5
    assert returns.difference == (1.0, pytest.approx(1 / np.sqrt(3)))
    assert "1.5000" in str(returns) and json.loads(json.dumps(returns.to_dict())) == returns.to_dict()
    assert Returns((0,), (-1.0,), (-2.0,)).ratio is None and Returns((0,), (-1.0,), (-2.0,)).difference == (-1.0, 0.0)
    latency = Latency({"a": np.array([10.0, 10.0, 40.0]), "b": np.array([4.0, 5.0, 6.0])})
    assert latency.to_dict()["b"] == {"median": 5.0, "p99": pytest.approx(5.98), "speedup": 2.0}
    assert str(latency).splitlines()[2].split() == ["b", "5.00", "5.98", "2.0"]


def test_help_is_fast():
    code = "import sys, sb3_sparse.cli; assert 'torch' not in sys.modules and 'stable_baselines3' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


NAMES = {"agent": "agent", "My agent-v1 (best)": "my_agent_v1_best", "007": "policy_007", "é": "policy", "sb3s": "policy_sb3s"}


@pytest.mark.parametrize("stem", NAMES)
def test_headers_are_named_after_their_agent(stem):
    assert c_name(stem) == NAMES[stem]


def test_an_agent_of_her(tmp_path, capsys):
    """Its replay buffer cannot be made without an environment, and nobody needs it here."""
    env = BitFlippingEnv(4, continuous=True, max_steps=5)
    settings = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"n_sampled_goal": 2}, "learning_starts": 20}
    SAC("MultiInputPolicy", env, **settings, **CPU).learn(30).save(tmp_path / "agent.zip")
    main(["summary", str(tmp_path / "agent.zip"), "--load"])
    assert "connections" in capsys.readouterr().out


class Reach(gym.Env):
    """A point moves to its goal, in ten steps."""

    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"], "render_fps": 1}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        space = spaces.Box(-5, 5, (2,), np.float32)
        self.observation_space = spaces.Dict(observation=space, achieved_goal=space, desired_goal=space)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def observe(self):
        return {"observation": self.step_size * self.at, "achieved_goal": self.at.copy(), "desired_goal": self.goal.copy()}

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.goal = self.np_random.normal(size=(2, 2)).astype(np.float32)
        self.step_size, self.steps = np.float32(0.5), 0
        return self.observe(), {}

    def step(self, action):
        self.at, self.steps = self.at + self.step_size * action, self.steps + 1
        return self.observe(), float(self.compute_reward(self.at, self.goal, {})), False, self.steps == 10, {}

    def compute_reward(self, achieved, desired, info):
        return -np.linalg.norm(achieved - desired, axis=-1)


def test_dict_observations(tmp_path, capsys):
    """An agent of HER with its statistics: calibrated, compared and written in every form."""
    gym.register("Reach-v0", Reach)
    try:
        settings = {
            "replay_buffer_class": HerReplayBuffer,
            "replay_buffer_kwargs": {"n_sampled_goal": 2},
            "learning_starts": 20,
        }
        env = VecNormalize(make_vec_env("Reach-v0"), norm_reward=False)
        model = SAC("MultiInputPolicy", env, **settings, **CPU).learn(60)
        model.save(tmp_path / "agent.zip")
        env.save(str(tmp_path / "vecnormalize.pkl"))
        options = ["--env", "Reach-v0", "--episodes", 3, "--calibration-steps", 60]
        output = run(capsys, tmp_path / "agent.zip", "-o", tmp_path / "out", *options)
        assert "observations are normalized as" in output and "SB3 predict" in output
        report = json.loads((tmp_path / "out/report.json").read_text())
        assert report["calibration_steps"] == 60 and report["returns"]["seeds"] == [0, 1, 2]
        assert {file.name for file in (tmp_path / "out").iterdir()} >= {"agent.sb3s", "agent.h", "agent.onnx"}
        assert report["returns"]["ratio"] is None and abs(np.mean(report["returns"]["exported file"])) > 1
        np.testing.assert_allclose(report["returns"]["exported file"], report["returns"]["SB3 model"], rtol=0.02)
        policy, x = load(tmp_path / "out/agent.sb3s"), env.get_original_obs()
        assert set(x) == {"observation", "achieved_goal", "desired_goal"}
        expected = model.predict(env.normalize_obs(x), deterministic=True)[0]
        np.testing.assert_allclose(policy.predict(x)[0], expected, atol=0.02)
    finally:
        gym.registry.pop("Reach-v0")


@pytest.mark.parametrize("gone, instead", [("Pendulum-v0", "Pendulum-v1"), ("HalfCheetah-v3", "HalfCheetah-v4")])
def test_environments_that_are_gone(gone, instead, capsys):
    make_environment(gone, SAC("MlpPolicy", instead, device="cpu")).close()
    assert f"{gone} is gone, so {instead} is used instead" in capsys.readouterr().out
