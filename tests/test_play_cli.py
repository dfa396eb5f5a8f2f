"""``sb3-sparse play``: the returns of a compact file, in sentences where it does not fit."""

import os
import sys
from argparse import Namespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeAwareObservation
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_sparse import compress
from sb3_sparse.cli import main
from sb3_sparse.cli.play import _check_pictures
from sb3_sparse.runtime import load
from tests.test_masked_actions import Restricted


@pytest.fixture(scope="module")
def pole(tmp_path_factory):
    """A policy that balances for a while, and is not trained."""
    file = tmp_path_factory.mktemp("play") / "pole.sb3s"
    compress(PPO("MlpPolicy", "CartPole-v1", seed=1, device="cpu")).save(file)
    return file


def test_returns(pole, capsys):
    """Those of SB3's evaluation, for each seed."""
    main(["play", str(pole), "--env", "CartPole-v1", "--episodes", "3", "--seed", "5"])
    lines = capsys.readouterr().out.splitlines()
    expected = []
    for seed in (5, 6, 7):
        venv = make_vec_env("CartPole-v1", seed=seed)
        expected += evaluate_policy(load(pole), venv, n_eval_episodes=1, return_episode_rewards=True)[0]
    assert len(set(expected)) > 1
    assert lines[:3] == [f"seed {seed}: return {r:,.2f} in {r:.0f} steps" for seed, r in zip((5, 6, 7), expected, strict=True)]
    assert lines[3] == f"mean {np.mean(expected):,.2f}, standard deviation {np.std(expected):,.2f}"


def test_wrappers_and_stacks(tmp_path, capsys):
    """The environment is made as the command says, for a policy that sees two observations of five numbers."""
    venv = make_vec_env("CartPole-v1", wrapper_class=TimeAwareObservation)
    compress(PPO("MlpPolicy", VecFrameStack(venv, 2), seed=0, device="cpu")).save(tmp_path / "two.sb3s")
    wrapper = "--env-wrapper gymnasium.wrappers.TimeAwareObservation --frame-stack 2"
    main(f"play {tmp_path / 'two.sb3s'} --env CartPole-v1 --episodes 1 {wrapper}".split())
    assert "seed 0: return" in capsys.readouterr().out


def test_masks(tmp_path, capsys):
    """The policy takes no action that the environment excludes, which would cost 100 and end the episode."""
    compress(MaskablePPO("MlpPolicy", Restricted(), seed=0, device="cpu")).save(tmp_path / "masked.sb3s")
    gym.register("Restricted-v0", Restricted)
    try:
        main(["play", str(tmp_path / "masked.sb3s"), "--env", "Restricted-v0", "--episodes", "3"])
    finally:
        del gym.registry["Restricted-v0"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Restricted-v0 has action_masks(), and the policy chooses among the actions that it allows"
    assert lines[1:4] == [f"seed {seed}: return 20.00 in 20 steps" for seed in range(3)]


def test_an_atari_game(tmp_path, capsys):
    """It is wrapped and stacked as for SB3, and its return is that of the whole game."""
    pytest.importorskip("ale_py", reason="the game is one of Atari's")
    game, kwargs = "BreakoutNoFrameskip-v4", {"features_extractor_kwargs": {"features_dim": 8}}
    venv = VecFrameStack(make_atari_env(game, seed=0), 4)
    compress(PPO("CnnPolicy", venv, n_steps=64, seed=0, device="cpu", policy_kwargs=kwargs)).save(tmp_path / "game.sb3s")
    main(["play", str(tmp_path / "game.sb3s"), "--env", game, "--episodes", "1"])
    policy = load(tmp_path / "game.sb3s")
    expected, steps = evaluate_policy(policy, venv, n_eval_episodes=1, return_episode_rewards=True)
    assert f"seed 0: return {expected[0]:,.2f} in " in capsys.readouterr().out and steps[0] > 100


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--env", "Pendulum-v1"], "an observation of shape (3,) does not fit this policy: it needs (4,)"),
        (["--env", "Nothing-v0"], "the environment 'Nothing-v0' cannot be made"),
        (["--env", "CartPole-v1", "--episodes", "0"], "--episodes must be at least 1, got 0"),
        (["--env", "CartPole-v1", "--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--env", "CartPole-v1", "--frame-stack", "0"], "0 observations of CartPole-v1"),
        (["--env", "Taxi-v3", "--frame-stack", "2"], "Discrete(500), cannot be stacked"),
        (["--env", "CartPole-v1", "--env-wrapper", "no.such.Wrapper"], "no.such"),
    ],
)
def test_bad_input(arguments, sentence, pole, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["play", str(pole), *arguments])
    assert raised.value.code == 2 and sentence in capsys.readouterr().err


def test_other_files(tmp_path, capsys):
    """A zip, something else, and nothing."""
    PPO("MlpPolicy", "CartPole-v1", device="cpu").save(tmp_path / "agent.zip")
    (tmp_path / "other.sb3s").write_bytes(b"something else")
    for name, sentence in (
        ("agent.zip", "make one with sb3-sparse compress"),
        ("other.sb3s", "not a compressed policy"),
        ("none.sb3s", "none.sb3s"),
    ):
        with pytest.raises(SystemExit) as raised:
            main(["play", str(tmp_path / name), "--env", "CartPole-v1"])
        assert raised.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize(("given", "expected"), [({}, "egl"), ({"MUJOCO_GL": "osmesa"}, "osmesa")])
def test_mujoco_draws_without_a_screen(tmp_path, monkeypatch, given, expected):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("sb3_sparse.cli.play.find_spec", lambda name: name)
    monkeypatch.setattr(os, "environ", dict(given))
    _check_pictures(Namespace(render=False, video=tmp_path))
    assert os.environ == {"MUJOCO_GL": expected}


def test_pictures_without_a_screen_or_moviepy(pole, tmp_path, monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("sb3_sparse.cli.play.find_spec", lambda name: None)
    for options, sentence in (
        (["--render"], "--render needs a screen, and there is none (DISPLAY): record it with --video FOLDER"),
        (["--video", str(tmp_path)], "--video needs the package moviepy: pip install moviepy"),
    ):
        with pytest.raises(SystemExit):
            main(["play", str(pole), "--env", "CartPole-v1", *options])
        assert sentence in capsys.readouterr().err


def test_video(pole, tmp_path, monkeypatch, capsys):
    """One for each episode."""
    pytest.importorskip("moviepy", reason="gymnasium records by moviepy")
    pytest.importorskip("pygame", reason="gymnasium draws CartPole by pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    main(["play", str(pole), "--env", "CartPole-v1", "--episodes", "2", "--video", str(tmp_path / "videos")])
    assert sorted(file.name for file in (tmp_path / "videos").iterdir()) == ["pole-seed-0.mp4", "pole-seed-1.mp4"]
    assert f"videos: {tmp_path / 'videos'}" in capsys.readouterr().out
    assert gym.make("CartPole-v1").render_mode is None
