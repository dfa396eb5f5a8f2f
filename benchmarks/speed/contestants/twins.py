"""Models whose weights are the largest ones of another model."""

import copy
from typing import Any

import torch as th
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_sparse.sparsity import DISTRIBUTIONS, prune


def network_of(model: BaseAlgorithm) -> th.nn.Module:
    """
    :param model: A model with an actor or a Q network.
    :return: The module that acts
    :raises ValueError: if it has neither
    """
    for name in ("actor", "q_net"):
        if isinstance(network := getattr(model.policy, name, None), th.nn.Module):
            return network
    raise ValueError(f"{type(model).__name__} has neither an actor nor a Q network: measure SAC, TD3, DDPG, TQC or DQN")


def acting_weights(model: BaseAlgorithm) -> dict[str, th.Tensor]:
    """
    :param model: A model.
    :return: The weights that a deterministic action depends on, by layer
    """
    return {
        name: module.weight
        for name, module in network_of(model).named_modules()
        if isinstance(module, (th.nn.Linear, th.nn.Conv2d)) and not name.startswith("log_std")
    }


def sparse_twin(model: BaseAlgorithm, sparsity: float, distribution: str = "erk") -> BaseAlgorithm:
    """
    :param model: A model.
    :param sparsity: Share of zeros over all acting layers together.
    :param distribution: How many weights each layer keeps.
    :return: A copy of it with the largest weights of each layer, as many as that gives it, times what the norm of the layer
        has lost: without, hardly anything of an observation would reach the last layer
    """
    twin = copy.deepcopy(model)
    weights = {name: weight.detach() for name, weight in acting_weights(twin).items()}
    exists = {name: weight != 0 for name, weight in weights.items()}
    scores = {name: weight.abs().masked_fill(~exists[name], -th.inf) for name, weight in weights.items()}
    for name, mask in prune(exists, scores, DISTRIBUTIONS[distribution](scores, sparsity)).items():
        weights[name].mul_(mask * (weights[name].norm() / weights[name][mask].norm()))
    return twin


def center(model: BaseAlgorithm, observations: NDArray[Any]) -> BaseAlgorithm:
    """
    Give all actions the same value on average: a fresh network prefers one whatever it sees, and nobody could tell whether
    those who act alike see alike.

    :param model: A model with a Q network, changed in place.
    :param observations: Its observations.
    :return: The model
    """
    network = network_of(model)
    with th.no_grad():
        network.q_net[-1].bias -= network(th.from_numpy(observations)).mean(dim=0)
    return model


def sparsity_of(model: BaseAlgorithm) -> float:
    """
    :param model: A model.
    :return: Share of zeros in its acting weights
    """
    weights = acting_weights(model).values()
    return 1 - sum(int(th.count_nonzero(weight)) for weight in weights) / sum(weight.numel() for weight in weights)
