"""MinAtar's games as images: what the wrapper shows is what the package plays, and recipes find it."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from sb3_sparse.pixels.atari import is_atari
from sb3_sparse.pixels.minatar import GAMES, MAX_EPISODE_STEPS, MinAtarEnv
from sb3_sparse.zoo import RECIPES, check_environment, find_recipe, read_recipe, with_sparsity

minatar = pytest.importorskip("minatar")
IDS = {game: f"MinAtar{game.title().replace('_', '')}-v1" for game in GAMES}


@pytest.mark.filterwarnings("ignore:The minimal resolution for an image:UserWarning")
@pytest.mark.parametrize("game", GAMES)
def test_sb3_takes_it_for_an_environment_of_images(game):
    env = gym.make(IDS[game], render_mode="rgb_array")
    assert env.spec.max_episode_steps == MAX_EPISODE_STEPS
    check_env(env.unwrapped)
    # Scaled by 255 and not transposed.
    assert is_image_space(env.observation_space)
    assert is_image_space_channels_first(env.observation_space)


@pytest.mark.parametrize("game", GAMES)
def test_it_shows_what_the_package_plays(game):
    """The same states, rewards and ends as the package's own game, from the same seed of the game."""
    env = MinAtarEnv(game)
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=3)
    theirs = minatar.Environment(game)
    theirs.seed(int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(3))).integers(1 << 31)))
    theirs.reset()
    ends = 0
    for _ in range(1000):
        np.testing.assert_array_equal(observation, 255 * theirs.state().astype(np.uint8).transpose(2, 0, 1))
        action = rng.integers(env.action_space.n)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert (reward, terminated, truncated) == (*theirs.act(theirs.minimal_action_set()[action]), False)
        if terminated:
            ends += 1
            observation, _ = env.reset()
            theirs.reset()
            theirs.last_action = 0
    assert ends > 0 or game == "freeway"


def play(env, actions):
    """Observations and rewards of some actions, from episode to episode."""
    seen = []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append((observation.tobytes(), reward, terminated))
        if terminated or truncated:
            env.reset()
    return seen


def test_a_seed_repeats_a_run_and_another_does_not():
    runs = []
    actions = np.random.default_rng(0).integers(3, size=300)
    for seed in (1, 1, 2):
        env = gym.make(IDS["breakout"])
        env.reset(seed=seed)
        runs.append(play(env, actions))
    assert runs[0] == runs[1] != runs[2]


def test_no_action_sticks_from_one_episode_to_the_next():
    env = MinAtarEnv("breakout", sticky_action_prob=1.0)
    for _ in range(2):
        env.reset(seed=0)
        before = env.reset()[0][0].argmax()
        # Every action is the last one, which at the start of an episode is none.
        assert env.step(2)[0][0].argmax() == before
        env._game.last_action = 3


def test_it_is_drawn_in_gray():
    env = MinAtarEnv("breakout", render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    screen = env.render()
    assert screen.shape == (10, 10, 3) and screen.dtype == np.uint8
    np.testing.assert_array_equal(screen.any(axis=2), observation.any(axis=0))
    assert MinAtarEnv("breakout").render() is None


def test_what_is_missing_is_said(monkeypatch):
    with pytest.raises(ValueError, match="unknown game 'pong': use one of asterix"):
        MinAtarEnv("pong")
    monkeypatch.setitem(sys.modules, "minatar", None)
    with pytest.raises(ImportError, match="pip install minatar"):
        MinAtarEnv("breakout")


@pytest.mark.parametrize("name", ["dense", "gmp", "gmp_qat"])
def test_recipes_know_every_game(name):
    recipe = read_recipe(find_recipe("dqn", name))
    assert set(IDS.values()) <= set(recipe)
    # 120 % of the steps with quantization, which begins when the others end.
    steps = {"dense": 500_000, "gmp": 500_000, "gmp_qat": 600_000}[name]
    for game in IDS.values():
        assert float(recipe[game]["n_timesteps"]) == steps
        assert recipe[game]["exploration_fraction"] * steps == pytest.approx(50_000)


@pytest.mark.slow
def test_compress_finds_the_games():
    """In a process that has not registered them."""
    code = (
        "from stable_baselines3 import DQN\nfrom stable_baselines3.common.envs import FakeImageEnv\n"
        "from sb3_sparse.agents import make_environment\nfrom sb3_sparse.policies import MinAtarExtractor\n"
        "env = FakeImageEnv(screen_height=10, screen_width=10, n_channels=4, discrete=True, channel_first=True)\n"
        "env.action_space.n = 3\n"
        "kwargs = dict(features_extractor_class=MinAtarExtractor, net_arch=[])\n"
        "model = DQN('CnnPolicy', env, buffer_size=1, policy_kwargs=kwargs)\n"
        "print(make_environment('MinAtarBreakout-v1', model).reset().shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n")[-2:] == ["(1, 4, 10, 10)", ""], done.stderr


def test_which_environments_are_atari(tmp_path):
    """A file in rl-zoo3's own form has one entry for all games; only games find it."""
    conf = tmp_path / "own.yml"
    conf.write_text("atari:\n  callback:\n    - sb3_sparse.GradualPruningCallback:\n        final_sparsity: 0.5\n")
    assert not is_atari("CartPole-v1")
    assert not is_atari("NoSuchGame-v1")
    with pytest.raises(ValueError, match="no hyperparameters for 'CartPole-v1'"):
        check_environment(conf, "CartPole-v1")
    pytest.importorskip("ale_py")
    assert is_atari("PongNoFrameskip-v4")
    assert is_atari("ALE/Pong-v5")
    check_environment(conf, "PongNoFrameskip-v4")
    assert "'final_sparsity': 0.9" in with_sparsity(conf, "PongNoFrameskip-v4", 0.9)


def test_a_recipe_of_the_games_names_what_exists():
    """Every entry of a game of MinAtar is one that is registered."""
    for path in RECIPES.glob("*.yml"):
        for env in read_recipe(path):
            assert not env.startswith("MinAtar") or env in IDS.values(), f"{path.name}: {env}"
