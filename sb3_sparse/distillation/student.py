"""A smaller agent of the teacher's algorithm: it begins with the teacher's weights, and is a plain SB3 model in the end."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_sparse.distillation.checks import read_widths
from sb3_sparse.distillation.learning.network import ActionNetwork, read_network
from sb3_sparse.export.passes import to_minifloats
from sb3_sparse.nn import MaskedLayer, find_networks, hold_masks, mask_layers, original, prunable_layers
from sb3_sparse.state import SavedGrid, SparsityState, round_inputs, save_grid

#: States that the standard deviation of a Gaussian is fitted on, and what keeps its weights small.
_FITTED, _RIDGE = 20_000, 1e-3


def make_student(teacher: BaseAlgorithm, net_arch: Sequence[int] | None = None, seed: int = 0) -> BaseAlgorithm:
    """
    :param teacher: A trained model.
    :param net_arch: Widths of the hidden layers of the network that acts; None for the teacher's. Critics and value networks
        keep theirs.
    :param seed: Seed of the weights that the teacher does not have.
    :return: A model of the same class with the teacher's hyperparameters, and its weights wherever the shapes are equal; it
        has no environment, and its optimizers have not taken a step
    :raises ValueError: if the widths are no positive integers, or the policy does not take them
    """
    policy = original(teacher.policy)
    # As `load` does it, without a file.
    names, tensors = teacher._get_torch_save_params()
    left_out = {name.split(".")[0] for name in (*names, *tensors)} | set(teacher._excluded_save_params())
    left_out |= {"sparsity_state", "_last_obs", "_last_episode_starts", "_last_original_obs", "ep_info_buffer"}
    kind: Any = type(teacher)
    student: BaseAlgorithm = kind(policy=teacher.policy_class, env=None, device=teacher.device, _init_setup_model=False)
    student.__dict__.update({name: copy.deepcopy(value) for name, value in vars(teacher).items() if name not in left_out})
    if net_arch is not None:
        student.policy_kwargs = {**student.policy_kwargs, "net_arch": _arch(teacher, net_arch)}
    with th.random.fork_rng(range(th.cuda.device_count())):
        state = np.random.get_state()
        th.manual_seed(seed)
        # The replay buffer of HER asks the environment for its rewards.
        student.seed, student.env = None, teacher.env
        student._setup_model()
        student.seed, student.env = teacher.seed, None
        np.random.set_state(state)
    own = original(student.policy).state_dict()
    for name, tensor in policy.state_dict().items():
        if name in own and own[name].shape == tensor.shape:
            own[name].copy_(tensor)
    original(student.policy).load_state_dict(own)
    for name in tensors:
        value = getattr(teacher, name, None)
        if isinstance(value, th.Tensor):
            getattr(student, name).data.copy_(value.data)
    return student


def _arch(teacher: BaseAlgorithm, net_arch: Sequence[int]) -> Any:
    """``policy_kwargs["net_arch"]`` for a student: other networks than the one that acts keep their widths."""
    widths = read_widths(net_arch)
    policy: Any = original(teacher.policy)
    if isinstance(teacher, OnPolicyAlgorithm):
        arch = policy.net_arch
        return {"pi": widths, "vf": list(arch.get("vf", ()) if isinstance(arch, dict) else arch)}
    if hasattr(policy, "critic_kwargs"):
        return {"pi": widths, "qf": list(policy.critic_kwargs["net_arch"])}
    return widths


@th.no_grad()
def finish(
    teacher: BaseAlgorithm,
    student: BaseAlgorithm,
    trained: ActionNetwork,
    inputs: NDArray[np.generic],
    std: NDArray[np.float64] | None = None,
) -> None:
    """
    Make a student whole, so that it goes on training: masks and bits as a callback would have left them, the grids of its
    weights and inputs, target networks that equal theirs, and the spread of its exploration.

    :param teacher: The teacher.
    :param student: The student, which has its weights.
    :param trained: The network that has been trained, with masks and grids.
    :param inputs: Inputs of both networks, ``[n, ...]``.
    :param std: Standard deviations that the inputs of the trained network were divided by; None for ones.
    """
    network = read_network(student)
    _put_masks(student, network, trained, std)
    policy: Any = original(student.policy)
    if isinstance(policy, (DQNPolicy, QRDQNPolicy)):
        _fit_level(teacher, network, inputs[-_FITTED:])
    for name, child in policy.named_children():
        if not name.endswith("_target") and hasattr(policy, f"{name}_target"):
            getattr(policy, f"{name}_target").load_state_dict(child.state_dict())
    if hasattr(getattr(policy, "actor", None), "log_std") and isinstance(policy.actor.log_std, nn.Linear):
        _fit_log_std(teacher, student, inputs[-_FITTED:])


def _fit_level(teacher: BaseAlgorithm, network: ActionNetwork, inputs: NDArray[np.generic]) -> None:
    """What is learnt of values is their differences: give the last bias the teacher's level."""
    last = network.layers[-1]
    if isinstance(last, nn.Linear) and last.bias is not None:
        last.bias.add_(float((read_network(teacher).outputs(inputs) - network.outputs(inputs)).mean()))


def _put_masks(
    student: BaseAlgorithm, network: ActionNetwork, trained: ActionNetwork, std: NDArray[np.float64] | None
) -> None:
    policy = original(student.policy)
    names = {layer: name for layers in find_networks(policy).values() for name, layer in layers.items()}
    pairs = list(zip(prunable_layers(network).values(), prunable_layers(trained).values(), strict=True))
    pruned = any(isinstance(other, MaskedLayer) and other.pruned for _, other in pairs)
    for own, other in pairs:
        if not isinstance(other, MaskedLayer) or own not in names:
            continue
        state, name = SparsityState(student), names[own]
        quantized = other.bits is not None and other.weight_grid is None
        if pruned or quantized or other.input_grid is not None:
            mask_layers(own, persistent=False)
        if pruned:
            own.set_mask(other.mask)  # type: ignore[operator]
            state.save_mask(name, other.mask)
        if quantized:
            own.set_bits(other.bits)  # type: ignore[operator]
            state.save_bits(name, other.bits)  # type: ignore[arg-type]
        if other.weight_grid is not None:
            gain = [] if std is None or own is not network.first else _as_saved(1 / std)
            save_grid(state, name, SavedGrid(other.weight_grid.bits, _as_saved(other.weight_grid.scale.cpu().numpy()), gain))
        if other.input_grid is not None:
            round_inputs(state, name, own, other.input_grid)  # type: ignore[arg-type]
    hold_masks(policy)


def _as_saved(values: NDArray[np.floating[Any]]) -> list[float]:
    numbers = to_minifloats(values.astype(np.float32), up=False)
    return [numbers.unit, *numbers.codes.tolist()]


def _fit_log_std(teacher: BaseAlgorithm, student: BaseAlgorithm, inputs: NDArray[np.generic]) -> None:
    """Ridge regression of the logarithm of the teacher's standard deviation on the student's latent features."""
    actors: list[Any] = [original(model.policy).actor for model in (student, teacher)]
    own, theirs = actors
    mine, network = read_network(student), read_network(teacher)
    features = mine.in_chunks(lambda chunk: own.latent_pi(mine.features(chunk)), inputs).double()
    target = network.in_chunks(lambda chunk: theirs.log_std(theirs.latent_pi(network.features(chunk))), inputs)
    target = target.clamp(-20, 2).double()
    center, middle = features.mean(dim=0), target.mean(dim=0)
    x, y = features - center, target - middle
    gram = x.T @ x / len(x) + _RIDGE * th.eye(x.shape[1], dtype=x.dtype)
    weight = th.linalg.solve(gram, x.T @ y / len(x)).T
    own.log_std.weight.copy_(weight)
    own.log_std.bias.copy_(middle - weight @ center)
