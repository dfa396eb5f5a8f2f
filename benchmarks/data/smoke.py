"""
What the grids need at size smoke: an agent that was trained for seconds, and a few episodes of random actions.

    python -m benchmarks.data.smoke

The agent is written to ``logs/smoke``, where the grids look for it, and the dataset to Minari's folder, which is
``~/.minari/datasets`` or what ``MINARI_DATASETS_PATH`` says.
"""

import os
import warnings
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from stable_baselines3 import PPO

AGENT, DATASET = Path("logs/smoke/ppo-CartPole-v1.zip"), "smoke/pendulum-v0"


def make_agent(path: Path) -> None:
    """
    :param path: Where to save a PPO agent on CartPole, unless there is one.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Others may look for it meanwhile: it is there whole or not at all.
    partial = path.with_name(f"{os.getpid()}-{path.name}")
    PPO("MlpPolicy", "CartPole-v1", n_steps=256, seed=0, device="cpu").learn(8_000).save(partial)
    partial.replace(path)


def play_randomly(env: gym.Env, seed: int) -> EpisodeBuffer:
    """
    :param env: An environment.
    :param seed: Seed of the episode.
    :return: One episode
    """
    env.action_space.seed(seed)
    observations, steps, over = [env.reset(seed=seed)[0]], [], False
    while not over:
        action = env.action_space.sample()
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        steps.append((action, float(reward), terminated, truncated))
        over = terminated or truncated
    names = ("actions", "rewards", "terminations", "truncations")
    columns = {name: np.array(column) for name, column in zip(names, zip(*steps, strict=True), strict=True)}
    return EpisodeBuffer(id=seed, seed=seed, observations=np.array(observations), **columns)


def make_dataset(name: str, episodes: int = 5) -> None:
    """
    :param name: Id of the dataset, which is made unless there is one.
    :param episodes: Number of episodes.
    """
    if name in minari.list_local_datasets():
        return
    env = gym.make("Pendulum-v1")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is set to None", UserWarning)
        minari.create_dataset_from_buffers(name, [play_randomly(env, seed) for seed in range(episodes)], env=env)
    env.close()


if __name__ == "__main__":
    make_agent(AGENT)
    make_dataset(DATASET)
