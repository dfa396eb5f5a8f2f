"""
The last measurements of every cell: the returns of its agent and of what is exported of it, and its weights. A change here
that makes other results raises ``SHARED`` in ``cell.py``.
"""

from collections.abc import Sequence
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_sparse.agents import Act, Player, play, play_starts
from sb3_sparse.agents.player import find_masks
from sb3_sparse.cost import summarize
from sb3_sparse.export import compress

#: The seed of the first episode; the next ones have the next seeds, for all cells.
FIRST_EPISODE = 1_000_000
#: Observations to calibrate with, and the first seed of their episodes.
CALIBRATED, FIRST_CALIBRATED = 4096, 2_000_000


def evaluate(
    model: BaseAlgorithm, venv: VecEnv, normalization: VecNormalize | None, act: Act, episodes: int, bits: Sequence[int]
) -> dict[str, Any]:
    """
    :param model: An agent.
    :param venv: One environment, whose observations are not normalized.
    :param normalization: The statistics of its observations, if they are normalized.
    :param act: The agent's ``predict``.
    :param episodes: Number of episodes of each form.
    :param bits: Bits that it is exported in as well.
    :return: ``evaluations`` and ``networks`` of a result
    :raises ValueError: if a weight of the agent is not finite
    """
    _check_weights(model)
    # Policies that draw their actions draw the same ones whatever came before.
    set_random_seed(FIRST_EPISODE)
    evaluations = {"agent": play_episodes(venv, act, episodes)}
    if bits:
        observations, starts = play_starts(venv, act, CALIBRATED, FIRST_CALIBRATED)
    for each in bits:
        policy = compress(model, each, observations, episode_starts=starts, normalization=normalization)
        player = Player(policy, masks=find_masks(model, venv))
        evaluations[f"{each} bits"] = {**play_episodes(venv, player, episodes), "nbytes": policy.nbytes}
    names = ("nonzero", "total", "active_neurons", "neurons")
    networks = summarize(model).networks.items()
    return {
        "evaluations": evaluations,
        "networks": {name: {key: getattr(network, key) for key in names} for name, network in networks},
    }


def _check_weights(model: BaseAlgorithm) -> None:
    """Actions are clipped: an agent that has diverged may have returns that look like those of another one."""
    for name, weights in model.policy.named_parameters():
        if not bool(weights.isfinite().all()):
            raise ValueError(f"the weights {name} of the agent are not finite: the training has diverged")


def play_episodes(venv: VecEnv, act: Act, episodes: int) -> dict[str, Any]:
    """
    :param venv: One environment.
    :param act: Who plays.
    :param episodes: Number of episodes, with the same seeds for all agents.
    :return: ``returns`` and ``lengths`` of them; shorter episodes may be falls
    """
    returns, lengths = [], []
    for seed in range(FIRST_EPISODE, FIRST_EPISODE + episodes):
        totals = [total for _, total in play(venv, act, seed)]
        returns.append(totals[-1])
        lengths.append(len(totals))
    return {"returns": returns, "lengths": lengths}
