"""
Episodes of an agent, in processes of their own, and kept until there are enough: an interrupted call goes on where it stopped.
"""

import hashlib
import json
import multiprocessing
import signal
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from minari.data_collector import EpisodeBuffer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from stable_baselines3.common.preprocessing import is_image_space

from benchmarks.shared.store import describe_versions
from sb3_sparse.agents import load_agent, load_normalization, make_environment

Episode = dict[str, np.ndarray]
#: What is asked for, beside the episodes, in the folder of an unfinished dataset.
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Rollout:
    """
    All that the episodes depend on.

    :param agent: Zip of an agent.
    :param env: Its environment.
    :param transitions: Exact number of transitions.
    :param seed: Seed of the first episode; those that follow have the next ones.
    :param stochastic: Whether actions are drawn, instead of the likeliest ones.
    :param algo: The agent's algorithm; by default found by the class of its policy.
    :param vecnormalize: Its file of ``VecNormalize``, or "none"; by default the one beside it.
    """

    agent: Path
    env: str
    transitions: int
    seed: int = 0
    stochastic: bool = False
    algo: str | None = None
    vecnormalize: Path | None = None

    def settings(self) -> dict[str, object]:
        """The same as JSON, with the contents of files instead of their names, and versions."""
        normalization = load_normalization(self.agent, self.env, self.vecnormalize)
        return {
            "agent_sha256": _sha256(self.agent),
            "vecnormalize_sha256": _sha256(normalization[0]) if normalization else None,
            "env": self.env,
            "transitions": self.transitions,
            "seed": self.seed,
            "stochastic": self.stochastic,
            "algorithm": type(load_agent(self.agent, self.algo)).__name__,
            "versions": describe_versions(),
        }


class Player:
    """
    An agent in its environment.

    :param rollout: Which ones.
    :raises ValueError: if they do not fit, or the environment shows the agent something else than it stores
    """

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.model = load_agent(rollout.agent, rollout.algo)
        normalization = load_normalization(rollout.agent, rollout.env, rollout.vecnormalize)
        self.normalize = normalization[1].normalize_obs if normalization else lambda observation: observation
        make_environment(rollout.env, self.model).close()
        self.env = gym.make(rollout.env)
        space = self.env.observation_space
        if space.shape is None:
            raise ValueError(f"observations of {rollout.env} are no arrays, but {space}")
        if is_image_space(space) and sorted(space.shape) != sorted(self.model.observation_space.shape or ()):
            raise ValueError(f"the agent sees {rollout.env} through wrappers (Atari): such datasets are not made here")

    def play(self, number: int) -> Episode:
        """
        :param number: Number of the episode.
        :return: Its arrays, with one observation more than there are actions
        """
        seed = self.rollout.seed + number
        self.model.set_random_seed(seed)
        if self.model.use_sde:
            self.model.policy.reset_noise()
        observation, _ = self.env.reset(seed=seed)
        observations, steps = [np.array(observation)], []
        for left in reversed(range(self.rollout.transitions)):
            action, _ = self.model.predict(self.normalize(observations[-1]), deterministic=not self.rollout.stochastic)
            observation, reward, terminated, truncated, _ = self.env.step(action)
            # A copy: the environment may write the next one into the same memory.
            observations.append(np.array(observation))
            steps.append((action, float(reward), bool(terminated), bool(truncated or (left == 0 and not terminated))))
            if terminated or truncated:
                break
        columns = zip(("actions", "rewards", "terminations", "truncations"), zip(*steps, strict=True), strict=True)
        return {"observations": np.stack(observations)} | {name: np.array(values) for name, values in columns}


_player: Player | None = None


def _start(rollout: Rollout) -> None:
    """A new process: it leaves Ctrl-C to its parent, and finishes its episode."""
    global _player
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    th.set_num_threads(1)
    _player = Player(rollout)


def _make(number: int, folder: Path) -> int:
    assert _player is not None
    return keep(_player.play(number), number, folder)


def keep(episode: Episode, number: int, folder: Path) -> int:
    """
    Keep an episode: its file is there completely, or not at all.

    :param episode: Its arrays.
    :param number: Its number.
    :param folder: Where to.
    :return: Its number of transitions
    """
    part = folder / f"{number}.part"
    with part.open("wb") as file:
        np.savez(file, **episode)
    part.replace(folder / f"{number}.npz")
    return len(episode["rewards"])


def prepare(rollout: Rollout, folder: Path) -> None:
    """
    Make the folder of the episodes, or make sure that those in it are of the same rollout.

    :param rollout: What is asked for.
    :param folder: The folder.
    :raises ValueError: if it has episodes that were made otherwise
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings, path = rollout.settings(), folder / SETTINGS
    if not path.exists():
        path.write_text(json.dumps(settings, indent=2) + "\n")
    kept = json.loads(path.read_text())
    different = [name for name, value in settings.items() if kept.get(name) != value]
    if different:
        raise ValueError(f"{folder} has episodes with another {', '.join(different)}: delete it, or give another --work")


def make_episodes(rollout: Rollout, folder: Path, jobs: int) -> None:
    """
    Play the episodes that are missing.

    :param rollout: What is asked for.
    :param folder: Where episodes are kept.
    :param jobs: Number of processes.
    """
    lengths = {int(path.stem): _length(path) for path in folder.glob("*.npz")}
    fresh = max(lengths, default=-1) + 1
    # Those that were being played when an earlier call stopped, and then as many as it takes.
    missing = [number for number in range(fresh) if number not in lengths]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    context = multiprocessing.get_context("spawn")
    running: dict[Future[int], int] = {}
    with (
        Progress(*columns) as progress,
        ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(rollout,)) as pool,
    ):
        bar = progress.add_task(rollout.env, total=rollout.transitions)
        while missing or running or sum(lengths.values()) < rollout.transitions:
            progress.update(bar, completed=min(rollout.transitions, sum(lengths.values())))
            while len(running) < jobs and (missing or sum(lengths.values()) < rollout.transitions):
                number, fresh = (missing.pop(0), fresh) if missing else (fresh, fresh + 1)
                running[pool.submit(_make, number, folder)] = number
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                lengths[running.pop(future)] = future.result()
        progress.update(bar, completed=rollout.transitions)


def read_episodes(rollout: Rollout, folder: Path) -> list[EpisodeBuffer]:
    """
    :param rollout: What was asked for.
    :param folder: Where its episodes are kept.
    :return: Exactly as many transitions as asked for, in the order of the episodes' numbers; the last one may be cut
    """
    buffers: list[EpisodeBuffer] = []
    left = rollout.transitions
    while left > 0:
        number = len(buffers)
        with np.load(folder / f"{number}.npz") as file:
            episode = dict(file)
        steps = min(left, len(episode["rewards"]))
        cut = {name: values[: steps + (name == "observations")] for name, values in episode.items()}
        cut["truncations"][-1] |= not cut["terminations"][-1]
        buffers.append(EpisodeBuffer(id=number, seed=rollout.seed + number, **cut))
        left -= steps
    return buffers


def returns_of(episodes: list[EpisodeBuffer], folder: Path) -> list[float]:
    """
    :param episodes: The episodes of a dataset.
    :param folder: Where they come from.
    :return: The return of each, except of a last one that was cut
    """
    whole = len(episodes) - (_length(folder / f"{len(episodes) - 1}.npz") > len(episodes[-1]))
    return [float(np.sum(episode.rewards)) for episode in episodes[:whole]]


def _length(path: Path) -> int:
    with np.load(path) as file:
        return len(file["rewards"])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
