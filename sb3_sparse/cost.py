"""What a policy costs: connections, neurons and bytes, per layer and per network."""

import io
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch as th

from sb3_sparse.nn import find_networks

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


@dataclass(frozen=True)
class Counts:
    """
    What is counted of a layer, of a network and of a whole policy.

    :param nonzero: Number of weights that are not zero; biases are not counted.
    :param total: Number of weights, zeros included.
    :param active_neurons: Number of outputs of layers (units or channels) with at least one nonzero weight.
    :param neurons: Number of outputs of layers.
    """

    nonzero: int
    total: int
    active_neurons: int
    neurons: int

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return 1.0 - self.nonzero / self.total

    @property
    def value_bytes(self) -> int:
        """The papers' count: four bytes per nonzero weight, as if indices and biases cost nothing."""
        return 4 * self.nonzero


@dataclass(frozen=True)
class LayerSummary(Counts):
    """
    One linear or convolutional layer.

    :param shape: Shape of the weight, ``(out, in)`` or ``(out, in / groups, height, width)``.
    """

    shape: tuple[int, ...]


@dataclass(frozen=True)
class NetworkSummary(Counts):
    """
    One network: the sums over its layers.

    :param layers: Its layers by name.
    :param nbytes: Bytes of all its parameters, biases included, in the archive that ``numpy.savez_compressed`` writes: a
        real file, in which zeros compress well.
    """

    layers: dict[str, LayerSummary]
    nbytes: int


@dataclass(frozen=True)
class Summary(Counts):
    """
    What :func:`summarize` has counted; printing it shows a table.

    :param networks: The networks by name, without target networks.
    :param nbytes: Bytes of all parameters and statistics of the policy but those of target networks, in one archive.
    """

    networks: dict[str, NetworkSummary]
    nbytes: int

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("layer", "shape", "nonzero", "total", "sparsity", "active neurons", "value bytes", "npz bytes")
        ]
        for name, network in self.networks.items():
            for path, layer in network.layers.items():
                rows.append((path, "x".join(map(str, layer.shape)), *_cells(layer), ""))
            if list(network.layers) != [name]:
                rows.append((name, "", *_cells(network), f"{network.nbytes:,}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        return "\n".join(line.rstrip() for line in lines)


def _cells(counts: Counts) -> tuple[str, ...]:
    neurons = f"{counts.active_neurons:,}/{counts.neurons:,}"
    return f"{counts.nonzero:,}", f"{counts.total:,}", f"{counts.sparsity:.4f}", neurons, f"{counts.value_bytes:,}"


def _sum(parts: Iterable[Counts]) -> dict[str, int]:
    """The fields of :class:`Counts`, added up."""
    parts = list(parts)
    return {field.name: sum(getattr(part, field.name) for part in parts) for field in fields(Counts)}


def summarize(model: "BaseAlgorithm") -> Summary:
    """
    Count the connections, neurons and bytes of a model, dense or sparse, whatever made it sparse.

        summary = summarize(model)
        print(summary)
        summary.networks["actor"].sparsity

    :param model: Any SB3 model.
    :return: Counts per layer and network; target networks are left out, a layer that networks share counts for the first
    :raises ValueError: if the policy has no linear or convolutional layer
    """
    layers = {name for network in find_networks(model.policy).values() for name in network}
    return summarize_parameters(model.policy.state_dict(), layers)


def summarize_parameters(state_dict: Mapping[str, th.Tensor], names: Container[str] | None = None) -> Summary:
    """
    Like :func:`summarize`, for the state dict of a policy: the file ``policy.pth`` in an SB3 zip.

    :param state_dict: Tensors by name.
    :param names: Names of the layers; by default all that have a "weight" with two or four dimensions.
    :return: Counts per layer and network
    :raises ValueError: if there is no such layer
    """
    layers: dict[str, dict[str, LayerSummary]] = {}
    parameters: dict[str, dict[str, np.ndarray]] = {}
    seen: set[int] = set()
    for name, tensor in state_dict.items():
        network, _, path = name.partition(".")
        if network.endswith("_target") or tensor.data_ptr() in seen or path.endswith(("mask", "bits")):
            continue
        seen.add(tensor.data_ptr())
        parameters.setdefault(network, {})[path] = tensor.detach().cpu().numpy()
        layer_name = name.removesuffix(".weight")
        known = tensor.dim() in (2, 4) if names is None else layer_name in names
        if name.endswith(".weight") and known:
            exists = tensor != 0
            active = int(exists.flatten(1).any(dim=1).sum())
            layer = LayerSummary(int(exists.sum()), exists.numel(), active, len(exists), shape=tuple(tensor.shape))
            layers.setdefault(network, {})[layer_name] = layer
    if not layers:
        raise ValueError("this policy has no linear or convolutional layer")
    networks = {
        name: NetworkSummary(**_sum(part.values()), layers=part, nbytes=_npz_bytes(parameters[name]))
        for name, part in layers.items()
    }
    everything = {f"{name}.{path}": array for name, part in parameters.items() for path, array in part.items()}
    return Summary(**_sum(networks.values()), networks=networks, nbytes=_npz_bytes(everything))


def _npz_bytes(arrays: dict[str, np.ndarray]) -> int:
    """Size of the archive that ``numpy.savez_compressed`` writes."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getbuffer().nbytes
