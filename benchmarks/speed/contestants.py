"""
Who is measured by ``inference.py``: SB3, dense libraries and our backends, all with the same sparse weights.

Every contestant is called as SB3's model is, ``predict(observation, deterministic=True)``, and returns ``(action, None)``.
Each must act as SB3 does with the same weights; what cannot be had on a machine is left out, with the reason.
"""

import copy
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray
from rich.progress import track
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm

from benchmarks.speed.libraries.litert import make_litert
from benchmarks.speed.libraries.ort_static import make_onnx, quantize_onnx
from sb3_sparse import CompressedPolicy, compress
from sb3_sparse.runtime import load
from sb3_sparse.sparsity import DISTRIBUTIONS, prune

#: ``predict`` of SB3, or what is called like it.
Predict = Callable[..., tuple[NDArray[Any], Any]]

#: The contestant that all others are compared with.
BASE = "sb3"
#: Our rows, which are backends.
TIERS = ("numpy", "ctypes", "portable", "compiled", "avx2", "vbmi")
#: A contestant with a larger error than this computes something else: others would have one of nearly 1.
TOLERANCE = 0.25


@dataclass
class Rows:
    """
    The contestants of one network.

    :param observations: What all are given, one after the other.
    :param predicts: The contestants by name.
    :param errors: How far the actions of each are from SB3's with the same weights.
    :param skipped: Why others cannot be had.
    :param networks: What the weights of each sparsity are.
    """

    observations: NDArray[Any]
    predicts: dict[str, Predict] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[], Predict], expected: NDArray[Any]) -> None:
        """
        :param name: Name of a contestant.
        :param make: What makes it.
        :param expected: The actions of the first observations.
        :raises RuntimeError: if its actions are others
        """
        try:
            predict = make()
        except (ImportError, RuntimeError, ValueError) as error:
            self.skipped[name] = str(error).splitlines()[0]
            return
        actions = _act(predict, self.observations[: len(expected)])
        error = distance(actions, expected)
        if not error <= TOLERANCE:
            raise RuntimeError(f"{name} acts differently: its error is {error:.3f}, and more than {TOLERANCE} is no rounding")
        self.predicts[name], self.errors[name] = predict, error


def _act(predict: Predict, observations: NDArray[Any]) -> NDArray[Any]:
    return np.array([predict(observation, deterministic=True)[0] for observation in observations])


def distance(actions: NDArray[Any], expected: NDArray[Any]) -> float:
    """
    :param actions: Actions, one per observation.
    :param expected: What they ought to be.
    :return: Share of the discrete ones that differ; of continuous ones the mean absolute difference, as a share of how far
        those expected are from their mean
    """
    if expected.dtype.kind == "i":
        return float(np.mean(actions != expected))
    return float(np.abs(actions - expected).mean() / np.abs(expected - expected.mean(axis=0)).mean())


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


def make_torch(model: BaseAlgorithm) -> Predict:
    """
    :param model: A model.
    :return: Its network in torch without SB3 around it
    """
    network = network_of(model)
    if isinstance(model, DQN):
        cnn = network.features_extractor
        layers = th.nn.Sequential(*cnn.cnn, *cnn.linear, *network.q_net)

        def choose(observation: NDArray[Any], deterministic: bool = True) -> tuple[NDArray[Any], None]:
            with th.inference_mode():
                return layers(th.from_numpy(observation)[None] / 255).argmax(dim=1)[0].numpy(), None

        return choose
    layers = th.nn.Sequential(*network.latent_pi, network.mu, th.nn.Tanh()) if hasattr(network, "latent_pi") else network.mu

    def predict(observation: NDArray[Any], deterministic: bool = True) -> tuple[NDArray[Any], None]:
        with th.inference_mode():
            return layers(th.from_numpy(observation)[None].float())[0].numpy(), None

    return predict


def make_rows(model: BaseAlgorithm, observations: NDArray[Any], sparsities: tuple[float, ...]) -> Rows:
    """
    :param model: The model.
    :param observations: Observations as the environment gives them.
    :param sparsities: At which sparsities.
    :return: All contestants
    """
    rows = Rows(observations)
    own = sparsity_of(model)
    expected = _act(model.predict, observations[:64])
    rows.add(BASE, lambda: model.predict, expected)
    rows.add("0/torch", lambda: make_torch(model), expected)
    for sparsity in track(sparsities, description="export"):
        label = f"{100 * sparsity:.3g}"
        if sparsity < own - 1e-3:
            rows.skipped[label] = f"the agent is {own:.1%} sparse already"
            continue
        twin = sparse_twin(model, max(sparsity, own))
        twin = center(twin, observations) if isinstance(twin, DQN) else twin
        _add_exported(rows, label, twin, _act(twin.predict, observations[:64]))
    return rows


def add_uniform(rows: Rows, model: BaseAlgorithm, sparsities: tuple[float, ...]) -> None:
    """
    Add our rows for the same share of zeros in every layer. What dense libraries take does not depend on it.

    :param rows: Contestants of the model.
    :param model: The model, with a Q network.
    :param sparsities: At which sparsities.
    """
    for sparsity in track(sparsities, description="export, uniform"):
        twin = center(sparse_twin(model, sparsity, "uniform"), rows.observations)
        _add_exported(rows, f"{100 * sparsity:.3g}-uniform", twin, _act(twin.predict, rows.observations[:64]), dense=False)


def _add_exported(rows: Rows, label: str, model: BaseAlgorithm, expected: NDArray[Any], *, dense: bool = True) -> None:
    """All that ``compress`` makes of one model, with dense libraries or without."""
    # The error feedback of 3,136 inputs takes minutes, and changes no time.
    images = rows.observations.ndim > 2
    policy = compress(model, calibration=None if images else rows.observations, backend="numpy")
    layers = policy.network.layers
    rows.networks[label] = {
        "sparsity": round(sparsity_of(model), 5),
        "kept": {name: int(th.count_nonzero(weight)) for name, weight in acting_weights(model).items()},
        "units_alive": [layer.outputs for layer in layers],
        "nonzero_after_export": [int(np.count_nonzero(layer.weight)) for layer in layers],
        "bytes": policy.nbytes,
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy"
        if dense:
            _add_dense(rows, label, policy, file, expected)
        policy.save(file)
        for name in TIERS:
            rows.add(f"{label}/{name}", lambda name=name: load(file, name).predict, expected)


def add_trained(rows: Rows, files: Iterable[Path]) -> None:
    """
    Add our rows for agents that were trained sparse, whose masks are no random ones.

    :param rows: Contestants of a network with the same observations.
    :param files: Exported agents; what they ought to do is what numpy says.
    """
    for file in files:
        policy = load(file, "numpy")
        nonzero = [int(np.count_nonzero(layer.weight)) for layer in policy.network.layers]
        rows.networks[file.stem] = {"nonzero_after_export": nonzero, "bytes": policy.nbytes}
        expected = _act(policy.predict, rows.observations[:64])
        for name in TIERS:
            rows.add(f"{file.stem}/{name}", lambda file=file, name=name: load(file, name).predict, expected)


def _add_dense(rows: Rows, label: str, policy: CompressedPolicy, file: Path, expected: NDArray[Any]) -> None:
    """An exported policy in libraries that multiply by zeros."""
    for form, name in (("float", "onnx_float32"), ("qdq", "onnx_int8")):

        def run_onnx(form: str = form) -> Predict:
            policy.to_onnx(file, form=form)
            return make_onnx(file)

        rows.add(f"{label}/{name}", run_onnx, expected)
    if rows.observations.ndim > 2:

        def run_static() -> Predict:
            policy.to_onnx(file, form="float")
            quantize_onnx(file, file.with_suffix(".onnx"), rows.observations)
            rows.networks[label]["onnx_static_bytes"] = file.with_suffix(".onnx").stat().st_size
            return make_onnx(file.with_suffix(".onnx"))

        rows.add(f"{label}/onnx_static", run_static, expected)
    for name in ("litert_float32", "litert_int8"):
        rows.add(f"{label}/{name}", lambda name=name: make_litert(policy.network, int8="int8" in name), expected)
