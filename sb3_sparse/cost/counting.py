"""Counts of a model, and of the state dict of a policy."""

import io
import re
from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch as th

from sb3_sparse.cost.algorithms import Training, read_training
from sb3_sparse.cost.counts import LayerSummary, NetworkSummary, sum_counts
from sb3_sparse.cost.geometry import count_positions
from sb3_sparse.cost.summary import Summary
from sb3_sparse.nn import MaskedLayer, find_networks, layer_name, plain_name

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


def summarize(model: "BaseAlgorithm") -> Summary:
    """
    Count the connections, neurons, FLOPs and bytes of a model, dense or sparse, whatever made it sparse.

        summary = summarize(model)
        print(summary)
        summary.networks["actor"].sparsity
        summary.training_flops(1_000_000)

    The features extractors run once on an observation of zeros, for the output size of their convolutions; the model and
    torch's random state stay as they are.

    The connections of a masked layer are those of its mask. A stock policy loads from its zip with plain layers: their
    connections are their nonzero weights until :func:`~sb3_sparse.restore` has put back the masks.

    :param model: Any SB3 model.
    :return: Counts per layer and network; target networks and attention are left out; a layer that several networks share
        counts for the first one. Each matrix of an LSTM counts as a layer of four outputs for each unit, its gates
    :raises ValueError: if the policy has no linear or convolutional layer, or the argument is not a model
    """
    if not hasattr(model, "policy"):
        raise ValueError(f"summarize takes a model, such as SAC.load(...), and was given a {type(model).__name__}")
    layers = {path: layer for network in find_networks(model.policy).values() for path, layer in network.items()}
    masks = {path: layer.mask for path, layer in layers.items() if isinstance(layer, MaskedLayer)}
    positions = count_positions(model.policy, layers)
    state_dict = {plain_name(name): tensor for name, tensor in model.policy.state_dict().items()}
    return _count(state_dict, layers, masks, positions.get, read_training(vars(model), type(model)))


def summarize_parameters(state_dict: Mapping[str, th.Tensor], names: Container[str] | None = None) -> Summary:
    """
    Like :func:`summarize`, for the state dict of a policy: the file ``policy.pth`` in an SB3 zip.

    A state dict holds the masks of a sparse policy, but not those of callbacks on a stock policy, whose connections are then
    its nonzero weights. It holds neither the size of images nor how the model trains: the FLOPs of networks with convolutions
    are None, and so is ``training``.

    :param state_dict: Tensors by name.
    :param names: Names of the layers; by default all that have a "weight" with two to four dimensions, and the matrices of
        LSTMs.
    :return: Counts per layer and network
    :raises ValueError: if there is no such layer, or a mask does not fit its layer
    """
    if names is None:
        weights = {name: layer_name(name) for name, tensor in state_dict.items() if tensor.dim() in (2, 3, 4)}
        known = (name for name in weights if name.endswith(".weight") or _is_lstm(state_dict, name))
        names = {layer for name in known if (layer := weights[name]) is not None}
    flat = {layer for name in state_dict if (layer := layer_name(name)) and state_dict[name].dim() == 2}
    masks = {name.removesuffix(".mask"): tensor for name, tensor in state_dict.items() if name.endswith(".mask")}
    return _count(state_dict, names, masks, lambda layer: 1 if layer in flat else None, None)


def _is_lstm(state_dict: Mapping[str, th.Tensor], name: str) -> bool:
    """Whether a matrix is of an LSTM, which has four gates: those of other recurrent networks have the same names."""
    own = state_dict.get(re.sub(r"weight_(ih|hr)_", "weight_hh_", name))
    if own is None or own.dim() != 2:
        return False
    units = state_dict.get(re.sub(r"weight_(ih|hh)_", "weight_hr_", name))
    return len(own) == 4 * (own.shape[1] if units is None else units.shape[1])


def _count(
    state_dict: Mapping[str, th.Tensor],
    names: Container[str],
    masks: Mapping[str, th.Tensor],
    positions: Callable[[str], int | None],
    training: Training | None,
) -> Summary:
    layers: dict[str, dict[str, LayerSummary]] = {}
    parameters: dict[str, dict[str, np.ndarray]] = {}
    seen: set[int] = set()
    for name, tensor in state_dict.items():
        network, _, path = name.partition(".")
        if network.endswith("_target") or tensor.data_ptr() in seen or path.endswith(("mask", "bits")):
            continue
        seen.add(tensor.data_ptr())
        parameters.setdefault(network, {})[path] = tensor.detach().cpu().numpy()
        layer = layer_name(name)
        if layer is not None and layer in names:
            layers.setdefault(network, {})[layer] = _count_layer(layer, tensor, masks.get(layer), positions(layer))
    if not layers:
        raise ValueError("this policy has no linear or convolutional layer, so there is nothing to count")
    networks = {
        name: NetworkSummary(**vars(sum_counts(part.values())), layers=part, nbytes=_npz_bytes(parameters[name]))
        for name, part in layers.items()
    }
    everything = {f"{name}.{path}": array for name, part in parameters.items() for path, array in part.items()}
    counts = sum_counts(networks.values())
    return Summary(**vars(counts), networks=networks, nbytes=_npz_bytes(everything), training=training)


def _count_layer(name: str, weight: th.Tensor, mask: th.Tensor | None, positions: int | None) -> LayerSummary:
    if mask is not None and mask.shape != weight.shape:
        raise ValueError(f"the mask of '{name}' has shape {tuple(mask.shape)}, its weight {tuple(weight.shape)}")
    present = weight != 0
    nonzero = int(present.sum())
    connections = nonzero if mask is None else int(mask.count_nonzero())
    return LayerSummary(
        nonzero=nonzero,
        connections=connections,
        total=weight.numel(),
        active_neurons=int(present.flatten(1).any(dim=1).sum()),
        neurons=len(weight),
        flops=None if positions is None else 2 * connections * positions,
        dense_flops=None if positions is None else 2 * weight.numel() * positions,
        shape=tuple(weight.shape),
    )


def _npz_bytes(arrays: dict[str, np.ndarray]) -> int:
    """Size of the archive that ``numpy.savez_compressed`` writes."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getbuffer().nbytes
