"""Calibration and evaluation say how far they are, and stop in time with what they have."""

import io
import json
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_sparse.agents import make_environment, model_act, play_observations, play_returns
from sb3_sparse.agents.progress import Progress
from sb3_sparse.agents.returns import compare_returns
from sb3_sparse.cli import main

CPU = {"device": "cpu", "seed": 0}


def clock(step=1.0):
    """A second for every look at it."""
    now = [-step]

    def look():
        now[0] += step
        return now[0]

    return look


class Terminal(io.StringIO):
    """Where a line may be written anew."""

    def isatty(self):
        return True


def test_lines():
    out = io.StringIO()
    progress = Progress("episodes", 40, out=out, clock=clock())
    assert [progress.advance(done // 6) for done in range(1, 25)] == [True] * 24
    assert (
        out.getvalue()
        == "1 of 40 episodes in 10 s, about 390 s left\n3 of 40 episodes in 20 s, about 247 s left\n".replace(
            "390 s", "6 min"
        ).replace("247 s", "4 min")
    )
    assert not progress.advance(40) and not progress.stopped


def test_one_line_of_a_terminal():
    out = Terminal()
    progress = Progress("observations", 1000, out=out, clock=clock())
    assert progress.advance(0) and progress.advance(100) and not progress.advance(1000)
    assert (
        out.getvalue()
        == "\r0 of 1,000 observations in 1 s\r100 of 1,000 observations in 2 s, about 18 s left\r" + " " * 49 + "\r"
    )


def test_the_limit():
    out = io.StringIO()
    progress = Progress("episodes", 9, 3, out=out, clock=clock())
    assert [progress.advance(done) for done in (0, 1, 2)] == [True, True, False]
    sentence = "the time limit stopped this: 2 of 9 episodes in 3 s; --time-limit SECONDS gives it more"
    assert progress.stopped == sentence and out.getvalue() == f"{sentence}\n"


@pytest.fixture(scope="module")
def pendulum():
    model = PPO("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, **CPU)
    return model, make_environment("Pendulum-v1", model, {"max_episode_steps": 5})


def test_what_there_is_is_used(pendulum):
    """Pairs of whole episodes, the same as without a limit, and observations up to the last one."""
    model, venv = pendulum
    act, still = model_act(model, None), lambda observation, start: np.zeros(1, np.float32)
    whole = compare_returns(venv, act, still, [7, 8, 9])
    assert list(whole.model) == play_returns(venv, act, [7, 8, 9]) and list(whole.exported) == play_returns(
        venv, still, [7, 8, 9]
    )
    for seconds, count in ((4, 0), (11, 1), (19, 1), (20, 2), (30, 3), (99, 3)):
        progress = Progress("episodes", 6, seconds, out=io.StringIO(), clock=clock())
        found = compare_returns(venv, act, still, [7, 8, 9], progress)
        assert bool(progress.stopped) == (count < 3)
        if count == 0:
            assert found is None
        else:
            assert (found.seeds, found.model, found.exported) == (
                (7, 8, 9)[:count],
                whole.model[:count],
                whole.exported[:count],
            )
    observations = play_observations(venv, act, 12, 3)
    progress = Progress("observations", 12, 7, out=io.StringIO(), clock=clock())
    np.testing.assert_array_equal(play_observations(venv, act, 12, 3, progress), observations[:7])
    assert "7 of 12 observations" in progress.stopped


def test_compress_says_what_it_used(pendulum, tmp_path, capsys):
    pendulum[0].save(tmp_path / "agent.zip")
    main(
        [
            "compress",
            str(tmp_path / "agent.zip"),
            "--env",
            "Pendulum-v1",
            "-o",
            str(tmp_path),
            "--time-limit",
            "1e-9",
            "--no-latency",
        ]
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["calibration_steps"] == 1 and report["returns"] is None
    output = capsys.readouterr().out
    for count, sentence in zip(
        ("1 of 4,096 observations for calibration", "0 of 40 episodes"), report["stopped"], strict=True
    ):
        assert count in sentence and sentence in output
    assert "not one episode of each has ended, so there is no comparison of returns" in output


class Lives(gym.Env):
    """A game of two lives, each of three steps; the observation counts the steps of the game."""

    observation_space = gym.spaces.Box(0, 9, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    @property
    def ale(self):
        """What SB3 asks for the lives."""
        return SimpleNamespace(lives=lambda: 2 - self.steps // 3)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(1, self.steps, np.float32), 1.0, self.steps == 6, False, {}


def test_a_game_begins_anew():
    """Not with the next life of one that was left."""
    venv = DummyVecEnv([lambda: EpisodicLifeEnv(Monitor(Lives()))])

    def act(observation, start):
        return np.zeros((), int)

    for count in (2, 4, 6):
        assert play_observations(venv, act, count, 0).ravel().tolist() == [0, 1, 2, 4, 5][:count] + [0] * (count == 6)
        assert play_returns(venv, act, [0]) == [6.0]
