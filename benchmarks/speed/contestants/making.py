"""Makes the contestants: dense ones, exported ones, and trained agents."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray
from rich.progress import track
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from benchmarks.shared.spaces import VectorSpaces
from benchmarks.speed.contestants.rows import BASE, Predict, Rows, act
from benchmarks.speed.contestants.twins import acting_weights, center, network_of, sparse_twin, sparsity_of
from benchmarks.speed.libraries.litert import make_litert
from benchmarks.speed.libraries.ort_static import make_onnx, quantize_onnx
from sb3_sparse import CompressedPolicy, compress
from sb3_sparse.runtime import load

#: Our rows, which are backends.
TIERS = ("numpy", "ctypes", "portable", "compiled", "avx2", "vbmi")
#: Trained sparse agents.
AGENTS = Path(__file__).parents[3] / "docs" / "results" / "agents"


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
    expected = act(model.predict, observations[:64])
    rows.add(BASE, lambda: model.predict, expected)
    rows.add("0/torch", lambda: make_torch(model), expected)
    for sparsity in track(sparsities, description="export"):
        label = f"{100 * sparsity:.3g}"
        if sparsity < own - 1e-3:
            rows.skipped[label] = f"the agent is {own:.1%} sparse already"
            continue
        twin = sparse_twin(model, max(sparsity, own))
        twin = center(twin, observations) if isinstance(twin, DQN) else twin
        _add_exported(rows, label, twin, act(twin.predict, observations[:64]))
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
        _add_exported(rows, f"{100 * sparsity:.3g}-uniform", twin, act(twin.predict, rows.observations[:64]), dense=False)


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


def make_trained(rng: np.random.Generator) -> Iterator[tuple[str, Rows]]:
    """
    :param rng: Source of the observations.
    :return: Of each agent of :data:`AGENTS`, whose masks are no random ones, its name and our rows, beside a dense SAC with
        the same spaces. What an agent ought to do is what numpy says
    """
    for file in sorted(AGENTS.glob("*.sb3s")):
        policy = load(file, "numpy")
        layers = policy.network.layers
        spaces = VectorSpaces(layers[0].inputs, layers[-1].outputs)
        dense = SAC("MlpPolicy", spaces, buffer_size=1, seed=0, device="cpu")
        rows = Rows(rng.normal(size=(1024, layers[0].inputs)))
        rows.add(BASE, lambda dense=dense: dense.predict, act(dense.predict, rows.observations[:64]))
        expected = act(policy.predict, rows.observations[:64])
        for name in TIERS:
            rows.add(name, lambda file=file, name=name: load(file, name).predict, expected)
        nonzero = [int(np.count_nonzero(layer.weight)) for layer in layers]
        rows.networks["agent"] = {"nonzero_after_export": nonzero, "bytes": policy.nbytes}
        yield file.stem, rows


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
