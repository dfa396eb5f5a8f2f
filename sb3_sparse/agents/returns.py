"""Episodes of an agent: its observations, and its returns next to those of its exported policy."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import unwrap_wrapper
from stable_baselines3.common.vec_env import VecEnv

from sb3_sparse.agents.environment import playing
from sb3_sparse.agents.observations import Observation, is_finite, stack, take
from sb3_sparse.agents.player import Act
from sb3_sparse.agents.progress import Progress
from sb3_sparse.table import format_table

#: Observations, and which of them begin an episode.
Episodes = tuple[Observation, NDArray[np.bool_]]
#: An agent plays as in its training if it loses no more than this share of the return, or plays better than this share of
#: the episodes.
_LOST, _WORST = 0.5, 0.1


def play(venv: VecEnv, act: Act, seed: int) -> Iterator[tuple[Observation, float | None]]:
    """
    Play one episode.

    :param venv: One environment with a ``Monitor``.
    :param act: The policy.
    :param seed: Seed of the episode.
    :return: The observations that the policy acts on; the last one with the return of the episode, the others with None
    :raises ValueError: if the environment raises an error, or its observations are not finite
    """
    with playing(venv):
        end_game(venv)
        venv.seed(seed)
        observations = venv.reset()
    total: float | None = None
    start = True
    while total is None:
        assert isinstance(observations, np.ndarray | dict)
        if not is_finite(observations):
            raise ValueError("the environment gives observations that are not finite: look for NaN and infinity in it")
        # A copy, for the environment may write the next one into the same memory.
        observation = take(observations, 0)
        # A life of an Atari game is an episode for the policy.
        action = np.asarray(act(observation, start))[None]
        with playing(venv):
            observations, _, (start,), infos = venv.step(action)
        # Not "done": an Atari game goes on after a life is lost. Monitor sums the rewards of the game before they are clipped.
        total = float(infos[0]["episode"]["r"]) if "episode" in infos[0] else None
        yield observation, total


def play_returns(venv: VecEnv, act: Act, seeds: Sequence[int]) -> list[float]:
    """
    :param venv: One environment.
    :param act: The policy.
    :param seeds: One seed per episode.
    :return: The return of each episode
    """
    return [total for seed in seeds for _, total in play(venv, act, seed) if total is not None]


def play_observations(venv: VecEnv, act: Act, count: int, seed: int, progress: Progress | None = None) -> Observation:
    """
    :param venv: One environment.
    :param act: The policy.
    :param count: How many observations to collect.
    :param seed: Seed of the first episode; the next episodes have the next seeds.
    :param progress: Counts the observations; when its time is up, those that there are have to do.
    :return: The observations, ``[count, ...]`` or fewer, or a dict of them
    """
    return play_starts(venv, act, count, seed, progress)[0]


def play_starts(venv: VecEnv, act: Act, count: int, seed: int, progress: Progress | None = None) -> Episodes:
    """
    :param venv: One environment.
    :param act: The policy.
    :param count: How many observations to collect.
    :param seed: Seed of the first episode; the next episodes have the next seeds.
    :param progress: Counts the observations; when its time is up, those that there are have to do.
    :return: The observations, ``[count, ...]`` or fewer, or a dict of them; and which of them begin an episode, ``[count]``
    """
    observations: list[Observation] = []
    starts: list[bool] = []

    def record(observation: Observation, start: bool) -> NDArray[Any]:
        starts.append(bool(start))
        return act(observation, start)

    while len(observations) < count:
        for observation, _ in play(venv, record, seed):
            observations.append(observation)
            in_time = progress is None or progress.advance(len(observations))
            if len(observations) == count or not in_time:
                return stack(observations), np.array(starts)
        seed += 1
    return stack(observations), np.array(starts)


def end_game(venv: VecEnv) -> None:
    """
    Let the next reset begin a game: an Atari game that was left in the middle would go on with the next life.

    :param venv: Environments.
    """
    for env in getattr(venv.unwrapped, "envs", ()):
        lives = unwrap_wrapper(env, EpisodicLifeEnv)
        if isinstance(lives, EpisodicLifeEnv):
            lives.was_real_done = True


def compare_with_training(model: BaseAlgorithm, returns: Sequence[float]) -> str | None:
    """
    Whether an agent plays as it did in its training, of which a zip of SB3 keeps the returns of the last episodes. A model
    whose ``VecNormalize`` is missing, or whose environment has other wrappers, takes any observation without an error.

    :param model: The agent.
    :param returns: Returns of its episodes here.
    :return: A sentence if they are so much lower that something must be wrong, otherwise None
    """
    trained = [float(episode["r"]) for episode in getattr(model, "ep_info_buffer", None) or ()]
    if not trained or not returns:
        return None
    mean, before = statistics.fmean(returns), statistics.fmean(trained)
    if mean >= before - _LOST * abs(before) or mean >= np.quantile(trained, _WORST):
        return None
    return (
        f"the model returns {mean:,.1f} here, and {before:,.1f} in the last {len(trained)} episodes of its training: are its"
        " observations normalized or wrapped as they were there?"
    )


@dataclass(frozen=True)
class Returns:
    """
    Returns of the model and of the exported policy over the same episodes.

    :param seeds: Seed of each episode.
    :param model: Return of the model in each.
    :param exported: Return of the exported policy in each.
    :param names: What the two are called.
    """

    seeds: tuple[int, ...]
    model: tuple[float, ...]
    exported: tuple[float, ...]
    names: tuple[str, str] = ("SB3 model", "exported file")

    @property
    def ratio(self) -> float | None:
        """Mean return of the exported policy over the mean return of the model; None unless the latter is positive."""
        mean = statistics.fmean(self.model)
        return statistics.fmean(self.exported) / mean if mean > 0 else None

    @property
    def difference(self) -> tuple[float, float]:
        """Mean of the differences, exported - model, and its standard error (0 for a single episode)."""
        differences = np.subtract(self.exported, self.model)
        error = differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else 0.0
        return float(differences.mean()), float(error)

    def to_dict(self) -> dict[str, Any]:
        """
        :return: The same as plain JSON
        """
        return {
            "seeds": list(self.seeds),
            self.names[0]: list(self.model),
            self.names[1]: list(self.exported),
            "ratio": self.ratio,
            "difference": self.difference[0],
            "standard error of the difference": self.difference[1],
        }

    def __str__(self) -> str:
        last = "{1} / {0}".format(*(name.split()[0] for name in self.names))
        rows: list[tuple[str, ...]] = [("return", "mean", "std", "min", last)]
        for name, values, ratio in zip(self.names, (self.model, self.exported), (None, self.ratio), strict=True):
            cells = (f"{number:,.2f}" for number in (statistics.fmean(values), statistics.pstdev(values), min(values)))
            rows.append((name, *cells, "" if ratio is None else f"{ratio:.4f}"))
        mean, error = (f"{number:,.2f}" for number in self.difference)
        return f"{format_table(rows)}\ndifference {mean}, standard error {error}, {len(self.seeds)} episodes, same seeds"


def compare_returns(
    venv: VecEnv, model: Act, exported: Act, seeds: Sequence[int], progress: Progress | None = None
) -> Returns | None:
    """
    :param venv: One environment.
    :param model: The model.
    :param exported: Its exported policy.
    :param seeds: One seed per episode, which both play one after the other.
    :param progress: Counts the episodes of both; when its time is up, an episode that only one has played does not count.
    :return: The returns; None if there was not the time for one episode of each
    """
    totals: list[float] = []
    for seed in seeds:
        for act in (model, exported):
            for _, total in play(venv, act, seed):
                if total is not None:
                    totals.append(total)
                if progress is not None and not progress.advance(len(totals)):
                    return _paired(seeds, totals)
    return _paired(seeds, totals)


def _paired(seeds: Sequence[int], totals: Sequence[float]) -> Returns | None:
    count = len(totals) // 2
    return Returns(tuple(seeds[:count]), tuple(totals[: 2 * count : 2]), tuple(totals[1 : 2 * count : 2])) if count else None
