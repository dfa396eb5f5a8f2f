"""
BCQ's networks as ``offline_memory.py`` measures them: of HalfCheetah's sizes, pruned before their first update, in files of
several forms.
"""

import io
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_sparse import OneShotPruningCallback, compress
from sb3_sparse.export.passes import order, round_biases, shrink, to_minifloats
from sb3_sparse.export.trace import At, records
from sb3_sparse.nn import prunable_layers
from sb3_sparse.offline import BC, BCQ, OfflineDataset
from sb3_sparse.runtime.format.artifact import encode
from sb3_sparse.runtime.network.records import Activation, Head, Layer, Network

SPARSITY = 0.95


def random_data(count: int = 2000) -> OfflineDataset:
    """
    :param count: Number of transitions.
    :return: Random transitions of HalfCheetah's shapes
    """
    rng = np.random.default_rng(0)
    return OfflineDataset.from_arrays(
        observations=rng.normal(size=(count, 17)).astype(np.float32),
        actions=rng.uniform(-1, 1, (count, 6)).astype(np.float32),
        rewards=rng.normal(size=count),
        next_observations=rng.normal(size=(count, 17)).astype(np.float32),
        terminations=np.zeros(count, bool),
        observation_space=spaces.Box(-np.inf, np.inf, (17,)),
        action_space=spaces.Box(-1, 1, (6,)),
    )


def action_inputs(model: BCQ) -> list[int]:
    """
    :param model: A model that was pruned.
    :return: How many connections the action components have in each Q-network
    """
    critic = model.policy.critic
    return [int(net[0].mask[:, critic.features_dim :].sum()) for net in (critic.qf0, critic.qf1)]


def pruned(
    data: OfflineDataset, seed: int, method: str, sparsity: float = SPARSITY, *, zero_biases: bool = False, updates: int = 0
) -> BCQ:
    """
    :param data: The dataset.
    :param seed: Seed of the weights, batches and noise.
    :param method: "snip" or "grasp".
    :param sparsity: Share of zeros in each network.
    :param zero_biases: Whether all biases begin at zero.
    :param updates: Number of updates after pruning.
    :return: The model
    """
    model = BCQ("MlpPolicy", data, seed=seed, device="cpu")
    if zero_biases:
        for name, parameter in model.policy.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
    return model.learn(updates, callback=OneShotPruningCallback("all", sparsity, saliency=method), log_interval=None)


def file_size(tensors: object) -> int:
    """
    :param tensors: Whatever ``torch.save`` takes.
    :return: Bytes of the file that it writes
    """
    file = io.BytesIO()
    th.save(tensors, file)
    return file.getbuffer().nbytes


def coo_size(network: nn.Module) -> int:
    """
    :param network: A network.
    :return: Bytes of its file with all parameters as sparse tensors: 20 per weight, 12 per bias, and torch's frame
    """
    return file_size(OrderedDict((name, value.detach().to_sparse()) for name, value in network.named_parameters()))


def csr16_size(network: nn.Module) -> int:
    """
    :param network: A network.
    :return: Bytes of its file with compressed rows
    """
    tensors = {}
    for name, layer in prunable_layers(network).items():
        weight = layer.weight.detach()
        rows, columns = weight.nonzero(as_tuple=True)
        starts = th.cat([th.zeros(1, dtype=th.int64), rows.bincount(minlength=len(weight)).cumsum(0)])
        tensors[name] = [starts.to(th.int32), columns.to(th.int16), weight[rows, columns], layer.bias.detach()]
    return file_size(tensors)


def int8_size(network: nn.Module) -> int:
    """
    :param network: The actor, the critic or the VAE.
    :return: Bytes of its compact files
    """
    if hasattr(network, "encoder"):
        chains = [chain(network.encoder.trunk, network.encoder.mean, network.encoder.log_std), chain(network.decoder)]
    else:
        chains = [chain(part) for part in network.children() if isinstance(part, nn.Sequential)]
    return sum(len(encode(round_biases(order(shrink(rounded(shrink(part))))))) for part in chains)


def chain(trunk: nn.Sequential, *heads: nn.Linear) -> Network:
    """
    :param trunk: Layers one after the other.
    :param heads: Layers that all follow them; they stand side by side in the last record.
    :return: The same as records
    """
    layers: list[Layer] = []
    for module in trunk:
        ((_, record),) = records(module, At(type(module).__name__, {}, ()))
        if isinstance(record, Activation):
            layers[-1] = replace(layers[-1], activation=record)
        else:
            layers.append(record)
    if heads:
        parts = [record for head in heads for _, record in records(head, At("head", {}, ()))]
        weight = np.concatenate([part.weight for part in parts])
        layers.append(Layer(weight, np.concatenate([part.biases for part in parts])))
    limit = np.full(layers[-1].outputs, np.inf, np.float32)
    return Network((layers[0].weight.shape[1],), False, None, tuple(layers), Head("clip", limit.shape, -limit, limit))


def rounded(network: Network) -> Network:
    """
    :param network: A network of linear layers.
    :return: The same with weights of 8 bits, each rounded for itself: ``compress`` rounds better, to as many bytes
    """
    layers = []
    for layer in network.layers:
        scale = to_minifloats(np.abs(layer.weight).max(axis=1) / 127, up=True)
        integers = np.rint(layer.weight / scale.values[:, None]).astype(np.int8)
        layers.append(replace(layer, weight=integers, scale=scale))
    return replace(network, layers=tuple(layers))


#: Of pruned networks.
FORMS = {"coo": coo_size, "csr16": csr16_size, "int8": int8_size}


def acting(data: OfflineDataset, updates: int) -> dict[str, dict[str, int]]:
    """
    :param data: The dataset.
    :param updates: Updates after pruning.
    :return: Of policies that act by one network, pruned to 95 % by SNIP: bytes of the compact file and of dense float32
    """
    observations = data.sample(2000, th.Generator().manual_seed(0)).observations.numpy()
    found = {}
    for mode in ("vae", "mlp"):
        model = BC("MlpPolicy", data, mode=mode, seed=0, device="cpu")
        model.learn(updates, callback=OneShotPruningCallback("all", SPARSITY, saliency="snip"), log_interval=None)
        nbytes = compress(model, calibration=observations, backend="numpy").report().nbytes
        found[f"bc_{mode}"] = {"dense float32": nbytes["dense float32"], "compact file": nbytes["compact file"]}
    return found
