"""The dense contestants of ``mcu.py``: plain C loops (``mcu/dense_*.h``) and the tables that they need."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3 import SAC

import sb3_sparse
from sb3_sparse.export.c.integer.constants import integer_layers
from sb3_sparse.export.c.integer.simulation import simulate_integers
from sb3_sparse.runtime.network.records import Network

C = Path(__file__).parent / "mcu"
KERNELS = Path(sb3_sparse.__file__).parent / "runtime" / "backends" / "c"


def actor_layers(model: SAC) -> dict[str, th.nn.Linear]:
    """
    :param model: A model with two hidden layers.
    :return: The layers from observation to action
    """
    hidden = [layer for layer in model.actor.latent_pi if isinstance(layer, th.nn.Linear)]
    return {f"layer{index}": layer for index, layer in enumerate([*hidden, model.actor.mu])}


def define(kind: str, name: str, values: np.ndarray) -> str:
    """
    :param kind: Type of an element.
    :param name: Name of the table.
    :param values: What is in it.
    :return: Its C definition
    """
    if values.ndim == 2 and name.startswith("policy"):
        cells, shape = [f"{{{_cells(kind, row)}}}" for row in values], f"[{len(values)}][{values.shape[1]}]"
        return f"static const {kind} {name}{shape} = {{{', '.join(cells)}}};"
    return f"static const {kind} {name}[] = {{{_cells(kind, values)}}};"


def _cells(kind: str, values: np.ndarray) -> str:
    return ", ".join(f"{value:.9e}f" if kind == "float" else str(int(value)) for value in np.ravel(values))


def write_dense(folder: Path, kernel: str, sizes: Iterable[int], tables: list[tuple[str, str, np.ndarray]]) -> None:
    """
    :param folder: Where policy.h and tables.h go.
    :param kernel: A header in ``mcu/``.
    :param sizes: Inputs, units of both layers, actions.
    :param tables: Types, names and contents.
    """
    names = ("INPUTS", "UNITS0", "UNITS1", "ACTIONS")
    lines = ["#include <stdint.h>", (KERNELS / "activations.h").read_text()]
    lines += [f"#define {name} {size}" for name, size in zip(names, sizes, strict=True)]
    lines += [f"#define {name} {int(values)}" for kind, name, values in tables if kind == "define"]
    lines += [
        define(kind, name, values) for kind, name, values in tables if kind != "define" and not name.startswith("policy")
    ]
    lines += ["#ifdef POLICY_SELF_TEST"]
    lines += [define(kind, name, values) for kind, name, values in tables if name.startswith("policy")]
    (folder / "tables.h").write_text("\n".join([*lines, "#endif\n"]))
    (folder / "policy.h").write_text((C / f"dense_{kernel}.h").read_text())


def write_float32(folder: Path, model: SAC, observations: np.ndarray, kernel: str = "float32") -> None:
    """
    :param folder: Where policy.h goes.
    :param model: The dense model.
    :param observations: The test vectors.
    :param kernel: A header in ``mcu/`` that computes in float32.
    """
    layers = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in actor_layers(model).values()]
    x = observations
    for weight, bias in layers:
        x = x @ weight.T + bias
        x = np.maximum(x, 0) if weight is not layers[-1][0] else np.tanh(x)
    tables = [("float", f"weight{i}", weight) for i, (weight, _) in enumerate(layers)]
    tables += [("float", f"bias{i}", bias) for i, (_, bias) in enumerate(layers)]
    tables += [("float", "policy_observations", observations), ("float", "policy_expected", x)]
    write_dense(folder, kernel, [observations.shape[1], *(len(bias) for _, bias in layers)], tables)


def write_int8(folder: Path, network: Network, observations: np.ndarray) -> None:
    """
    :param folder: Where policy.h goes.
    :param network: The dense network, quantized.
    :param observations: The test vectors.
    """
    constants = integer_layers(network)
    first, last = network.layers[0], network.layers[-1]
    gain = (1 if first.gain is None else first.gain.values) / constants[0].unit * np.ones(first.weight.shape[1])
    tables = [("define", "TOP", np.array(constants[0].top)), ("float", "gain", gain)]
    for index, (layer, constant) in enumerate(zip(network.layers, constants, strict=True)):
        tables.append(("int8_t", f"weight{index}", layer.weight))
        if constant.factor:
            tables += [("int32_t", f"multiplier{index}", constant.multipliers), ("int16_t", f"bias{index}", constant.bias)]
            tables.append(("define", f"SHIFT{index}", np.array(constant.shift)))
    tables += [("float", "scale2", last.scales * constants[-1].unit), ("float", "bias2", last.biases)]
    expected = network.head(simulate_integers(network, observations))
    tables += [("float", "policy_observations", observations), ("float", "policy_expected", expected)]
    write_dense(folder, "int8", [first.weight.shape[1], *(layer.outputs for layer in network.layers)], tables)
