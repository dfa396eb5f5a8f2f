"""The environment is made as rl-zoo3's files say it was in training, and the files are read as data."""

import json

import gymnasium as gym
import numpy as np
import pytest
import yaml
from sb3_contrib.common.wrappers import TimeFeatureWrapper
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_sparse.agents import make_environment, model_act, play_returns
from sb3_sparse.agents.compression.files import as_json
from sb3_sparse.cli import main
from sb3_sparse.runtime import load
from sb3_sparse.zoo.notation import read_arguments, read_literal
from sb3_sparse.zoo.settings import Settings, find_settings, settle
from sb3_sparse.zoo.wrappers import read_wrappers
from tests.canary import SONGS

CPU = {"device": "cpu", "seed": 0}
SMALL = {**CPU, "policy_kwargs": {"net_arch": [16, 16]}}
TIME = "sb3_contrib.common.wrappers.TimeFeatureWrapper"
OUT = []


class Sings(gym.Wrapper):
    """A wrapper of a user's own, which notes that it was used."""

    def __init__(self, env):
        super().__init__(env)
        OUT.append("sang")


class Stops(gym.Wrapper):
    """Ends an episode after three steps, which a Monitor inside of it does not see."""

    def step(self, action):
        observation, reward, terminated, _, info = self.env.step(action)
        self.steps = getattr(self, "steps", 0) + 1
        return observation, reward, terminated, self.steps % 3 == 0, info


@pytest.fixture(autouse=True)
def _silent():
    OUT.clear()
    SONGS.clear()
    yield


def write(folder, config, args=None):
    """The files of a run, as rl-zoo3 writes them."""
    from collections import OrderedDict

    folder.mkdir(exist_ok=True)
    (folder / "config.yml").write_text(yaml.dump(OrderedDict(sorted(config.items()))))
    if args is not None:
        (folder / "args.yml").write_text(yaml.dump(OrderedDict(sorted(args.items()))))
    return folder / "config.yml"


def read(tmp_path, text):
    file = tmp_path / "config.yml"
    file.write_text(text)
    return find_settings(tmp_path / "agent.zip")


def test_what_rl_zoo3_writes(tmp_path):
    config = {"n_timesteps": 1e6, "normalize": True, "env_wrapper": [{TIME: {"max_steps": 7}}], "env_kwargs": {"g": 5.0}}
    file = write(tmp_path / "Pendulum-v1", {**config, "frame_stack": 2}, {"env": "Pendulum-v1", "env_kwargs": None})
    assert "!!python/object/apply:collections.OrderedDict" in file.read_text()
    expected = Settings(file, True, [{TIME: {"max_steps": 7}}], {"g": 5.0}, 2)
    for agent, env in (("Pendulum-v1.zip", None), ("best_model.zip", "Pendulum-v1"), ("best_model.zip", None)):
        assert find_settings(tmp_path / agent, env) == expected
    assert find_settings(tmp_path / "a.zip", None, file) == expected
    assert find_settings(tmp_path / "a.zip", None, tmp_path.relative_to(tmp_path) / "none") is None
    # Those of the command line of the training count.
    write(tmp_path / "Pendulum-v1", config, {"env_kwargs": {"g": 3.0, "render_mode": "human"}})
    assert find_settings(tmp_path / "a.zip").env_kwargs == {"g": 3.0}
    # Another agent next to it.
    other = write(tmp_path / "CartPole-v1", config)
    with pytest.raises(ValueError, match=r"which settings are those of .*CartPole-v1.*Pendulum-v1.*--config none"):
        find_settings(tmp_path / "best_model.zip")
    assert find_settings(tmp_path / "best_model.zip", "CartPole-v1").file == other


def test_settings_of_another_environment(tmp_path):
    """With an environment, only a folder of the same one in another version is its own."""
    file = write(tmp_path / "CartPole-v0", {"n_timesteps": 1, "frame_stack": 2})
    for env, expected in (("Pendulum-v1", None), ("CartPole", file), ("CartPole-v1", file), (None, file)):
        found = find_settings(tmp_path / "best_model.zip", env)
        assert (found and found.file) == expected
    other = write(tmp_path / "runs", {"n_timesteps": 1})
    assert find_settings(tmp_path / "best_model.zip", "Pendulum-v1") is None
    with pytest.raises(ValueError, match=f"which settings are those of .*{file}, {other} with --config"):
        find_settings(tmp_path / "best_model.zip")


@pytest.mark.parametrize(
    ("config", "normalizes"),
    [
        ({"n_timesteps": 1}, False),
        ({"n_timesteps": 1, "normalize": True}, True),
        ({"normalize": "dict(norm_obs=True, norm_reward=False)"}, True),
        ({"normalize": "{'norm_obs': False}"}, False),
        ({"normalize": {"norm_reward": False}}, True),
        ({"gamma": 1}, None),
    ],
)
def test_normalization(config, normalizes, tmp_path):
    write(tmp_path, config)
    assert find_settings(tmp_path / "agent.zip").normalizes is normalizes


CANARY = "!!python/object/apply:tests.canary.sing []"
#: Ten of the line before in every line: ten million values, or pairs.
LINES = list(zip("abcdefg", "bcdefgh", strict=True))
BOMB = "a: &a [1]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in LINES)
MERGES = "a: &a {x: 1}\n" + "".join(f"{b}: &{b}\n  <<: [{','.join([f'*{a}'] * 10)}]\n" for a, b in LINES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"env_wrapper: {CANARY}", "env_wrapper in .* holds an object of Python, which is not read"),
        (f"env_kwargs: {{g: {CANARY}}}", "env_kwargs in .* holds an object of Python"),
        (CANARY, "does not hold settings of rl-zoo3, but a Unread"),
        ("!!python/object/apply:collections.OrderedDict {a: 1}", "an ordered dict without a list of pairs"),
        ("!!python/object/apply:collections.OrderedDict [1, 2, 3]", "cannot be read as settings"),
        ("!!python/object/apply:collections.OrderedDict []", None),
        ("a: [", "cannot be read as settings of rl-zoo3 .*while parsing.*--config none"),
        ("- 1", "does not hold settings of rl-zoo3, but a list"),
        ("[" * 500, "cannot be read as settings of rl-zoo3"),
        ("a: " + "9" * 5000, "cannot be read as settings of rl-zoo3"),
        ("#" * (1 << 16) + "\na: 1", "it has more than 65536 bytes"),
        (BOMB + "env_kwargs: {g: *h}", "env_kwargs in .* has more than 1000 values"),
        (BOMB + "frame_stack: *h", "frame_stack is .*--config none"),
        (MERGES, "cannot be read as settings of rl-zoo3"),
        ("frame_stack: -1", "frame_stack is -1"),
        ("normalize: dict(norm_obs=print(1))", "normalize is 'dict"),
        ("env_kwargs: 3", "env_kwargs is 3"),
        ("vec_env_wrapper: a.B", "has a vec_env_wrapper, 'a.B', and wrappers of VecEnv are not known here"),
        (f"callback: {CANARY}\npolicy_kwargs: !!python/name:os.system ''\nn_timesteps: 1", None),
        ("", None),
    ],
)  # fmt: skip
def test_files_are_data(text, message, tmp_path):
    """No canary sings."""
    if message is None:
        assert read(tmp_path, text).env_wrapper is None
    else:
        with pytest.raises(ValueError, match=f"(?s){message}") as caught:
            read(tmp_path, text)
        assert len(str(caught.value)) < 700
    assert not SONGS


def test_the_canary_sings():
    yaml.load(CANARY, yaml.UnsafeLoader)
    assert SONGS == ["sang"]


def test_literals():
    for text in ("1", "1e-3", "'a:b'", "[1, (2, 3)]", "None", "dict(a=1, b=dict(c=[2]))", "{'a': dict(b=1)}", "-2"):
        assert read_literal(text) == eval(text)
    for text in ("print(1)", "dict(**{})", "dict([(1, 2)])", "word", "__import__('os')", "(" * 500):
        assert read_literal(text) == text
    assert read_arguments(["a:1:2", "b:x:y", "c:'1:2'"]) == {"a": "1:2", "b": "x:y", "c": "1:2"}


OLD_NAMES = ["utils.wrappers.TimeFeatureWrapper", "sb3_contrib.common.wrappers.time_feature.TimeFeatureWrapper", TIME]


@pytest.mark.parametrize("name", [*OLD_NAMES, "rl_zoo3.wrappers.TimeFeatureWrapper"])
def test_old_names_of_wrappers(name):
    assert read_wrappers(name).classes == ((TimeFeatureWrapper, {}),)


def test_wrappers_are_those_of_rl_zoo3():
    get_wrapper_class = pytest.importorskip("rl_zoo3.utils").get_wrapper_class
    skip, history = "rl_zoo3.wrappers.FrameSkip", "rl_zoo3.wrappers.HistoryWrapper"
    for notation in (None, TIME, {TIME: {"max_steps": 9}}, [{skip: {"skip": 2}}, {history: {"horizon": 3}}, TIME]):
        ours, theirs = read_wrappers(notation), get_wrapper_class({"env_wrapper": notation}) or (lambda env: env)
        envs = [wrap(gym.make("Pendulum-v1")) for wrap in (ours, theirs)]
        assert str(envs[0]) == str(envs[1])
        for env in envs:
            env.reset(seed=1)
        for action in np.linspace(-2, 2, 5, dtype=np.float32)[:, None]:
            np.testing.assert_array_equal(*(env.step(action)[0] for env in envs))


@pytest.mark.parametrize(
    ("notation", "message"),
    [
        ("tests.test_settings.Sings", "is not imported, as it is not in sb3_contrib.common.wrappers, .*: --trust imports it"),
        ("os.system", "is not imported"),
        ("Sings", "is not imported"),
        (".Sings", "is not imported"),
        ("gymnasium.wrappers.os", "there is no environment wrapper 'gymnasium.wrappers.os' in the gymnasium.wrappers of"),
        ("gym.wrappers.FrameStack", "there is no environment wrapper 'gym.wrappers.FrameStack' in the gymnasium.wrappers of"),
        ("utils.wrappers.PlotActionWrapper", "there is no environment wrapper .*: give the right wrappers with --env-wrapper"),
        ("gymnasium.wrappers.NormalizeObservation", "normalizes by statistics that no file of the agent holds"),
        ({"gymnasium.wrappers.RecordVideo": {"video_folder": "."}}, "RecordVideo writes files"),
        ("gym_minigrid.wrappers.FlatObsWrapper", "cannot be imported .*install it"),
        ({TIME: 3}, "an environment wrapper is a name, or one name with its arguments, not"),
        ({TIME: {}, "a": {}}, "an environment wrapper is a name"),
        (3, "an environment wrapper is a name, or one name with its arguments, not 3"),
        ([[TIME]], "an environment wrapper is a name"),
    ],
)  # fmt: skip
def test_wrappers_that_are_refused(notation, message):
    if "minigrid" in str(notation):
        try:
            import minigrid  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("minigrid is installed")
    with pytest.raises(ValueError, match=message):
        read_wrappers(notation)
    assert not OUT


STACK = "gymnasium.wrappers.FrameStackObservation"


@pytest.mark.parametrize(
    "value",
    [100_000_000, -10_001, [3, 1 << 40], "../model.xml", "C:\\model.xml", "a" * 101, {"a": 1}, [[1]], b"1", float],
    ids=repr,
)
def test_arguments_that_a_file_may_not_give(value, tmp_path):
    """Before anything is built: the stack of a hundred million frames took 5.6 GB."""
    file = tmp_path / "config.yml"
    with pytest.raises(ValueError, match=r"the argument 'stack_size' of the environment wrapper FrameStack.*--trust"):
        read_wrappers({STACK: {"stack_size": value}})
    assert read_wrappers({STACK: {"stack_size": value}}, trust=True).classes[0][1] == {"stack_size": value}
    found = Settings(file, env_kwargs={"g": 5.0, "xml_file": value})
    with pytest.raises(ValueError, match=f"the argument 'xml_file' of the environment in {file}, .*--trust takes it, or"):
        settle(found, None, None, None)
    assert settle(found, None, None, None, trust=True).env_kwargs == found.env_kwargs
    # What the user says is not somebody's.
    assert settle(found, {"xml_file": value}, None, None).env_kwargs == found.env_kwargs


def test_arguments_that_a_file_may_give():
    kwargs = {"a": None, "b": True, "c": 10_000, "d": 1e300, "e": "a" * 100, "f": [-3, "x", 0.5], "g": ()}
    assert read_wrappers({STACK: kwargs}).classes[0][1] == kwargs
    assert settle(Settings(env_kwargs=kwargs), None, None, None).env_kwargs == kwargs


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"map_name": "zzz"}, "'FrozenLake-v1' cannot be made with {'map_name': 'zzz'}: KeyError('zzz'); give its arguments"),
        ({"map_name": "../zzz"}, "the argument 'map_name' of the environment in "),
    ],
)
def test_environments_that_fail(kwargs, message, tmp_path, capsys):
    agent = tmp_path / "FrozenLake-v1.zip"
    DQN("MlpPolicy", "FrozenLake-v1", buffer_size=1, **SMALL).save(agent)
    file = write(tmp_path / "FrozenLake-v1", {"n_timesteps": 1, "env_kwargs": kwargs})
    arguments = ["compress", str(agent), "-o", str(tmp_path / "out"), "--no-latency", "--episodes", "1"]
    with pytest.raises(SystemExit):
        main([*arguments, "--env", "FrozenLake-v1"])
    error = capsys.readouterr().err
    assert message in error and str(file) in error and "--config none" in error and "Traceback" not in error
    # Without an environment they are not needed.
    main(arguments)
    assert (tmp_path / "out" / "FrozenLake-v1.sb3s").is_file()


def test_wrappers_of_the_users_own():
    wrappers = read_wrappers("tests.test_settings.Sings", trust=True)
    assert isinstance(wrappers(gym.make("Pendulum-v1")), Sings) and OUT == ["sang"]
    assert read_wrappers([{Sings: {}}]) == wrappers == read_wrappers(Sings)
    with pytest.raises(ValueError, match=r"Sings cannot wrap this environment \(TypeError: .*unexpected.*\): give the right"):
        read_wrappers({Sings: {"pitch": 440}})(gym.make("Pendulum-v1"))


def by_hand(wrap, policy, seed, frames=1):
    """The return of an episode, by gymnasium alone."""
    env = wrap(gym.make("Pendulum-v1"))
    observation, _ = env.reset(seed=seed)
    seen, total, done = [np.zeros_like(observation)] * frames, 0.0, False
    while not done:
        seen = [*seen[1:], observation]
        observation, reward, terminated, truncated, _ = env.step(policy.predict(np.concatenate(seen), deterministic=True)[0])
        total, done = total + float(reward), terminated or truncated
    return total


@pytest.mark.parametrize("own", [False, True], ids=["settings", "arguments"])
def test_a_wrapped_environment(own, tmp_path, capsys):
    """A policy with the time as a fourth observation is calibrated and compared behind the wrapper."""
    model, agent = SAC("MlpPolicy", TimeFeatureWrapper(gym.make("Pendulum-v1")), **SMALL), tmp_path / "agent.zip"
    model.save(agent)
    arguments = ["compress", str(agent), "--env", "Pendulum-v1", "-o", str(tmp_path / "out"), "--no-latency"]
    arguments += ["--episodes", "1", "--calibration-steps", "20", "--seed", "5"]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "make the environment as it was in training with --env-kwargs, --env-wrapper" in capsys.readouterr().err
    if own:
        main([*arguments, "--env-wrapper", f"{{{TIME}: {{max_steps: 9}}}}", "--env-kwargs", "g:5"])
    else:
        write(tmp_path / "Pendulum-v1", {"n_timesteps": 1, "env_wrapper": {TIME: {"max_steps": 9}}, "env_kwargs": {"g": 5}})
        main(arguments)
        assert "the environment is made as" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["env_kwargs"], report["env_wrapper"]) == ({"g": 5}, "TimeFeatureWrapper(max_steps=9)")
    assert any("the policy sees its environment behind wrappers" in note for note in report["notes"])

    def wrap(env):
        env.unwrapped.g = 5.0
        return TimeFeatureWrapper(env, max_steps=9)

    assert by_hand(wrap, model, 5) == pytest.approx(report["returns"]["SB3 model"][0], rel=1e-5)
    assert by_hand(wrap, load(tmp_path / "out" / "agent.sb3s"), 5) == pytest.approx(report["returns"]["exported file"][0])
    if not own:
        with pytest.raises(SystemExit):
            main([*arguments, "--env-wrapper", "none"])
        assert "Pendulum-v1 has observations Box([-1. -1. -8.]" in capsys.readouterr().err


def test_arguments_that_json_cannot_hold():
    """The report has their text, after minutes of work."""
    assert [as_json(value) for value in (1e999, {(1, 2): 3}, {"a": [1]})] == ["inf", "{(1, 2): 3}", {"a": [1]}]


def test_stacked_observations(tmp_path, capsys):
    model, agent = SAC("MlpPolicy", VecFrameStack(make_vec_env("Pendulum-v1"), 3), **SMALL), tmp_path / "agent.zip"
    model.save(agent)
    arguments = ["compress", str(agent), "--env", "Pendulum-v1", "-o", str(tmp_path), "--no-latency"]
    arguments += ["--episodes", "1", "--calibration-steps", "20", "--seed", "5", "--bits", "32"]
    main([*arguments, "--frame-stack", "3"])
    first = json.loads((tmp_path / "report.json").read_text())
    write(tmp_path, {"n_timesteps": 1, "frame_stack": 3})
    main(arguments)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["returns"] == first["returns"] and report["frame_stack"] == 3
    assert by_hand(lambda env: env, load(tmp_path / "agent.sb3s"), 5, 3) == pytest.approx(
        report["returns"]["SB3 model"][0], rel=1e-4
    )
    with pytest.raises(SystemExit):
        main([*arguments, "--frame-stack", "1000000000000"])
    assert "1000000000000 stacked observations of Pendulum-v1" in capsys.readouterr().err


def test_episodes_that_a_wrapper_ends():
    """A Monitor inside of a wrapper does not see them, and the return is that of the environment all the same."""
    model = PPO("MlpPolicy", "Pendulum-v1", **CPU)
    venv = make_environment("Pendulum-v1", model, wrapper=Stops)
    same = make_environment("Pendulum-v1", model, {"max_episode_steps": 3})
    expected = play_returns(same, model_act(model, None), [1, 2])
    assert play_returns(venv, model_act(model, None), [1, 2]) == pytest.approx(expected) and expected[0] != expected[1]


def test_environments_that_rl_zoo3_registers():
    pytest.importorskip("rl_zoo3")
    model = PPO("MlpPolicy", "CartPole-v1", **CPU)
    venv = make_environment("CartPoleNoVel-v1", model)
    venv.seed(0)
    observation = venv.reset()[0]
    assert observation[1] == observation[3] == 0 != observation[0]


class GivesNaN(gym.ObservationWrapper):
    def observation(self, observation):
        return observation * np.float32(np.nan)


def test_observations_that_are_not_finite(tmp_path, capsys):
    agent = tmp_path / "Pendulum-v1.zip"
    PPO("MlpPolicy", "Pendulum-v1", n_steps=32, batch_size=32, device="cpu").save(agent)
    with pytest.raises(SystemExit):
        main(["compress", str(agent), "-o", str(tmp_path / "out"), "--env", "Pendulum-v1", "--no-latency", "--trust",
              "--env-wrapper", "tests.test_settings.GivesNaN"])  # fmt: skip
    assert "gives observations that are not finite" in capsys.readouterr().err
