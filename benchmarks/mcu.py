"""
A policy on a microcontroller: flash, memory and instructions per action, beside dense C code of the same actor.

    python benchmarks/mcu.py --json benchmarks/results/mcu.json

The actor of SAC at the papers' size (17-256-256-6) with ERK shares of its largest weights, exported for a Cortex-M4F and a
Cortex-M3 (which has no floating-point unit) in both arithmetics, W8A16 and W8A32. By default it is freshly initialised: such
weights are as good as drawn, so its masks are random ones and the sizes depend on the sparsity alone; ``--agent`` takes a
trained one. The dense contestants are plain C loops (``mcu/dense_*.h``).

QEMU runs the test vectors that every header has, and counts: the instructions are exact, but they are no cycles. Flash and
memory are those of the policy's own object; what it calls in libgcc (floating point on the M3) is the column "library", and
what its own functions put on the stack is "stack".
"""

import argparse
import copy
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from overhead import HalfCheetahSpaces
from report import describe_machine, describe_versions
from rich.progress import track
from stable_baselines3 import SAC

import sb3_sparse
from sb3_sparse import CompressedPolicy, compress
from sb3_sparse.export.c.integer.constants import integer_layers
from sb3_sparse.export.c.integer.simulation import simulate_integers
from sb3_sparse.runtime.network.records import Network
from sb3_sparse.sparsity import erk, magnitude, prune

C = Path(__file__).parent / "mcu"
KERNELS = Path(sb3_sparse.__file__).parent / "runtime" / "backends" / "c"
GCC, SIZE, QEMU = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
FLAGS = ("-std=c99", "-O2", "-mthumb", "-ffunction-sections", "-fdata-sections")
#: By name: the processor's flags and QEMU's board.
TARGETS = {
    "m4f": (("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"), "mps2-an386"),
    "m3": (("-mcpu=cortex-m3",), "mps2-an385"),
}
ARITHMETICS = {"w8a16": ("-DPOLICY_INTEGER",), "w8a32": ()}
SPARSITIES = (0.0, 0.95, 0.98, 0.99)
#: What ``bench.c`` counts over.
CALLS = 40
VECTORS = 8

#: Writes what a contestant needs into a folder: policy.h, and what it includes.
Write = Callable[[Path], object]


def actor_layers(model: SAC) -> dict[str, th.nn.Linear]:
    """
    :param model: A model with two hidden layers.
    :return: The layers from observation to action
    """
    hidden = [layer for layer in model.actor.latent_pi if isinstance(layer, th.nn.Linear)]
    return {f"layer{index}": layer for index, layer in enumerate([*hidden, model.actor.mu])}


def observe(model: SAC, env_id: str | None, count: int = 2048) -> tuple[np.ndarray, str]:
    """
    :param model: The model that acts.
    :param env_id: Its environment, if known.
    :param count: Number of observations.
    :return: Observations for the calibration, and where they are from
    """
    if env_id is not None:
        try:
            env = gym.make(env_id)
        except gym.error.Error as error:
            print(f"{env_id} cannot be made ({error}): observations are drawn")
        else:
            return rollout(model, env, count), f"{count} steps of {env_id}"
    return np.random.default_rng(0).standard_normal((count, 17)).astype(np.float32), "drawn, standard normal"


def rollout(model: SAC, env: gym.Env, count: int) -> np.ndarray:
    """
    :param model: The model that acts.
    :param env: Its environment.
    :param count: Number of steps.
    :return: What it has seen
    """
    seen, (observation, _) = [], env.reset(seed=0)
    while len(seen) < count:
        seen.append(observation)
        observation, _, terminated, truncated, _ = env.step(model.predict(observation, deterministic=True)[0])
        if terminated or truncated:
            observation, _ = env.reset()
    return np.array(seen, np.float32)


def export(model: SAC, sparsity: float, calibration: np.ndarray, bits: int = 8) -> CompressedPolicy:
    """
    :param model: The dense model; it stays as it is.
    :param sparsity: Share of the actor's weights that go.
    :param calibration: Observations.
    :param bits: Bits per weight.
    :return: The policy of the largest weights, each layer with its ERK share
    """
    model = copy.deepcopy(model)
    layers = actor_layers(model)
    weights = {name: layer.weight.detach() for name, layer in layers.items()}
    masks = {name: th.ones_like(weight, dtype=th.bool) for name, weight in weights.items()}
    masks = prune(masks, magnitude(weights), erk(magnitude(weights), sparsity)) if sparsity else masks
    for name, layer in layers.items():
        layer.weight.data *= masks[name]
    return compress(model, bits=bits, calibration=calibration)


def table(kind: str, name: str, values: np.ndarray) -> str:
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
    lines += [table(kind, name, values) for kind, name, values in tables if kind != "define" and not name.startswith("policy")]
    lines += ["#ifdef POLICY_SELF_TEST"]
    lines += [table(kind, name, values) for kind, name, values in tables if name.startswith("policy")]
    (folder / "tables.h").write_text("\n".join([*lines, "#endif\n"]))
    (folder / "policy.h").write_text((C / f"dense_{kernel}.h").read_text())


def write_float32(folder: Path, model: SAC, observations: np.ndarray) -> None:
    """
    :param folder: Where policy.h goes.
    :param model: The dense model.
    :param observations: The test vectors.
    """
    layers = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in actor_layers(model).values()]
    x = observations
    for weight, bias in layers:
        x = x @ weight.T + bias
        x = np.maximum(x, 0) if weight is not layers[-1][0] else np.tanh(x)
    tables = [("float", f"weight{i}", weight) for i, (weight, _) in enumerate(layers)]
    tables += [("float", f"bias{i}", bias) for i, (_, bias) in enumerate(layers)]
    tables += [("float", "policy_observations", observations), ("float", "policy_expected", x)]
    write_dense(folder, "float32", [observations.shape[1], *(len(bias) for _, bias in layers)], tables)


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


def run(*command: str | Path) -> str:
    """
    :param command: What to run; it must succeed.
    :return: All that it printed
    """
    result = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    if result.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{result.stdout[:2000]}")
    return result.stdout


def section_bytes(path: Path, *prefixes: str) -> int:
    """
    :param path: An object or a program.
    :param prefixes: What the names of sections begin with.
    :return: Their sizes in bytes, together
    """
    rows = (line.split() for line in run(SIZE, "-A", path).splitlines())
    return sum(int(row[1]) for row in rows if len(row) == 3 and row[0].startswith(prefixes))


def measure(write: Write, target: str, defines: Iterable[str] = ()) -> dict[str, int]:
    """
    :param write: Writes policy.h.
    :param target: A name in ``TARGETS``.
    :param defines: Flags that choose the arithmetic.
    :return: Bytes of flash, ram, stack and library, instructions per action, and test vectors that fail
    """
    processor, board = TARGETS[target]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        compiler = (GCC, *processor, *FLAGS, *defines, "-I", folder, "-I", C)
        act, bench, alone, program = (folder / file for file in ("act.o", "bench.o", "act.elf", "bench.elf"))
        run(*compiler, "-fstack-usage", "-c", C / "act.c", "-o", act)
        run(*compiler, "-c", C / "bench.c", "-o", bench)
        linker = (*compiler, "-nostdlib", "-Wl,--gc-sections", act)
        run(*linker, "-Wl,-e,act,--unresolved-symbols=ignore-all", "-o", alone)
        library = -section_bytes(alone, ".text", ".rodata")
        run(*linker, "-Wl,-e,act", "-lc", "-lgcc", "-o", alone)
        library += section_bytes(alone, ".text", ".rodata")
        run(*linker, "-T", C / "link.ld", bench, "-lc", "-lgcc", "-o", program)
        emulator = f"{QEMU} -M {board} -nographic -monitor none -serial none -semihosting -icount shift=0 -kernel"
        output = run(*emulator.split(), program)
        failures, instructions, check = map(int, output.split())
        if abs(check - 10_000) > 40:
            raise RuntimeError(f"this QEMU counts {check} instructions of a function of 10,000: its counts are worth nothing")
        return {
            "flash": section_bytes(act, ".text", ".rodata"),
            "ram": section_bytes(act, ".bss", ".data"),
            "stack": sum(int(line.split("\t")[1]) for line in act.with_suffix(".su").read_text().splitlines()),
            "library": library,
            "instructions": round(instructions / CALLS),
            "self_test": failures,
        }


def contestants(model: SAC, calibration: np.ndarray, sparsities: Iterable[float]) -> tuple[dict[str, tuple], dict[str, str]]:
    """
    :param model: The dense model.
    :param calibration: Observations.
    :param sparsities: Those of our rows.
    :return: By name, what writes it and the flags that it needs; and what is left of the networks
    """
    exported = {f"{round(100 * sparsity)}": export(model, sparsity, calibration) for sparsity in {0.0, *sparsities}}
    vectors = calibration[np.linspace(0, len(calibration) - 1, VECTORS).astype(int)]
    found = {
        "dense/float32": (partial(write_float32, model=model, observations=vectors), ()),
        "dense/int8": (partial(write_int8, network=exported["0"].network, observations=vectors), ()),
    }
    sizes = {}
    for sparsity in sparsities:
        name = f"{round(100 * sparsity)}"
        layers = exported[name].network.layers
        units = "-".join(str(size) for size in (layers[0].weight.shape[1], *(layer.outputs for layer in layers)))
        sizes[name] = f"{sum(int(np.count_nonzero(layer.weight)) for layer in layers)} weights, {units}"
        for arithmetic, defines in ARITHMETICS.items():
            found[f"{name}/{arithmetic}"] = (lambda folder, name=name: exported[name].to_c(folder / "policy.h"), defines)
    return found, sizes


def show(rows: dict[str, dict[str, int]], ratios: dict[str, float]) -> None:
    """
    :param rows: By name, what was measured.
    :param ratios: By name, instructions of dense float32 code over ours.
    """
    keys = ("flash", "ram", "stack", "library", "instructions", "self_test")
    print(f"{'':20}" + "".join(f"{key:>14}" for key in keys) + f"{'float32 / this':>16}")
    for name, row in rows.items():
        print(f"{name:20}" + "".join(f"{row[key]:14,}" for key in keys) + f"{ratios[name]:16.1f}")


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="0 and 99 % alone, for a check")
    parser.add_argument("--agent", type=Path, help="a trained SAC agent with two hidden layers and 17 inputs instead")
    parser.add_argument("--env", help="its environment, for the calibration")
    parser.add_argument("--json", type=Path, help="where to store the result")
    args = parser.parse_args()
    missing = [tool for tool in (GCC, SIZE, QEMU) if shutil.which(tool) is None]
    if missing:
        parser.exit(2, f"{', '.join(missing)} not found: apt-get install -y --no-install-recommends {PACKAGES}\n")
    th.set_num_threads(1)
    model = SAC.load(args.agent, device="cpu") if args.agent else SAC("MlpPolicy", HalfCheetahSpaces(), seed=0, device="cpu")
    calibration, source = observe(model, args.env)
    found, sizes = contestants(model, calibration, (0.0, 0.99) if args.quick else SPARSITIES)
    rows = {}
    for name, (write, defines) in track(found.items(), description="mcu"):
        first, last = name.split("/")
        for target in TARGETS:
            rows[f"{first}/{target}/{last}"] = measure(write, target, defines)
    ratios = {
        name: round(rows[f"dense/{name.split('/')[1]}/float32"]["instructions"] / row["instructions"], 2)
        for name, row in rows.items()
    }
    show(rows, ratios)
    # Emulated instructions are the same in every run.
    result = {"ratios": ratios, "intervals": {name: [ratio, ratio] for name, ratio in ratios.items()}}
    result |= {key: {name: row[key] for name, row in rows.items()} for key in next(iter(rows.values()))}
    result |= {
        "actor": args.agent.name if args.agent else "SAC, freshly initialised, seed 0",
        "calibration": source,
        "sizes": sizes,
    }
    tools = {tool: run(tool, "--version").splitlines()[0] for tool in (GCC, QEMU)}
    result |= {"flags": " ".join(FLAGS), "versions": describe_versions() | tools, "machine": describe_machine()}
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    failures = sum(row["self_test"] for row in rows.values())
    if failures:
        parser.exit(1, f"{failures} test vectors fail\n")


if __name__ == "__main__":
    main()
