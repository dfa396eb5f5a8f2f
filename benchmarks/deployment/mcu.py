"""
A policy on a microcontroller: flash, memory and instructions per action, beside dense C code of the same actor.

    python -m benchmarks.deployment.mcu --json benchmarks/results/mcu.json
    python -m benchmarks.deployment.mcu --net-arch 64 64 --json benchmarks/results/mcu_small.json
    pip install --no-deps --target rltools rltools==2.2.1       for --rltools rltools

The actor of SAC at the papers' size (17-256-256-6) with ERK shares of its largest weights, exported for the boards of
:mod:`sb3_sparse.export.boards` in both arithmetics, W8A16 and W8A32. By default it is freshly initialised: such weights are as
good as drawn, so its masks are random ones and the sizes depend on the sparsity alone; ``--agent`` takes a trained one. On a
Cortex-M4F and a Cortex-M3 there are dense contestants, plain C loops (``mcu/dense_*.h``); and on all Cortex processors the
inference of RLtools, if it is installed (``rltools_cpp.py``).

An emulator runs the test vectors that every header has, and counts: QEMU instructions, exactly, but no cycles; simavr the
cycles of an AVR. Flash and memory are those of the policy's own object; what it calls in the compiler's libraries (floating
point where the processor has none) is the column "library", and what its own functions put on the stack is "stack".
"""

import copy
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from rich.progress import track
from stable_baselines3 import SAC

from benchmarks.deployment.dense_c import C, actor_layers, write_float32, write_int8
from benchmarks.deployment.rltools_cpp import measure_others
from benchmarks.shared.question import ask, option, table
from benchmarks.shared.spaces import HalfCheetahSpaces
from benchmarks.shared.store import Result, describe_versions
from sb3_sparse import CompressedPolicy, compress
from sb3_sparse.export.boards import BOARDS, DoesNotFit, check_tools, describe_tools, measure_policy
from sb3_sparse.export.boards.measuring import FLAGS
from sb3_sparse.sparsity import erk, magnitude, prune

TARGETS = tuple(BOARDS)
#: Those with dense contestants.
COMPARED = ("m4f", "m3")
ARITHMETICS = {"w8a16": ("-DPOLICY_INTEGER",), "w8a32": ()}
SPARSITIES = (0.0, 0.9, 0.95, 0.98, 0.99)
#: What is counted.
KEYS = ("flash", "ram", "stack", "library", "instructions", "self_test")
VECTORS = 8

#: Writes what a contestant needs into a folder: policy.h, and what it includes.
Write = Callable[[Path], object]


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


def count(write: Write, target: str, defines: Iterable[str] = ()) -> dict[str, int]:
    """
    :param write: Writes policy.h.
    :param target: Name of a board.
    :param defines: Flags that choose the arithmetic.
    :return: Bytes of flash, ram, stack and library, instructions per action, and test vectors that fail
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        return asdict(measure_policy(folder, BOARDS[target], defines, [C]))


def select(calibration: np.ndarray) -> np.ndarray:
    """
    :param calibration: Observations.
    :return: Those of the test vectors
    """
    return calibration[np.linspace(0, len(calibration) - 1, VECTORS).astype(int)]


def contestants(model: SAC, calibration: np.ndarray, sparsities: Iterable[float]) -> tuple[dict[str, tuple], dict[str, str]]:
    """
    :param model: The dense model.
    :param calibration: Observations.
    :param sparsities: Those of our rows.
    :return: By name, what writes it and the flags that it needs; and what is left of the networks
    """
    exported = {f"{round(100 * sparsity)}": export(model, sparsity, calibration) for sparsity in {0.0, *sparsities}}
    found = {
        "dense/float32": (partial(write_float32, model=model, observations=select(calibration)), ()),
        "dense/int8": (partial(write_int8, network=exported["0"].network, observations=select(calibration)), ()),
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


def measure(args: Namespace) -> Result:
    """
    :param args: Whether to be quick; a trained agent, and its environment.
    :return: What each contestant takes on each processor
    :raises ValueError: if a tool is missing
    :raises RuntimeError: if test vectors fail
    """
    check_tools()
    model = SAC.load(args.agent, device="cpu") if args.agent else fresh(args.net_arch)
    calibration, source = observe(model, args.env)
    found, sizes = contestants(model, calibration, (0.0, 0.99) if args.quick else SPARSITIES)
    rows, too_large = {}, []
    for name, (write, defines) in track(found.items(), description="mcu"):
        first, last = name.split("/")
        for target in COMPARED if first == "dense" else TARGETS:
            try:
                rows[f"{first}/{target}/{last}"] = count(write, target, defines)
            except DoesNotFit:
                too_large.append(f"{first}/{target}/{last}")
    others = measure_others(args.rltools, model, select(calibration))
    rows |= others.rows
    if failures := sum(row["self_test"] for row in rows.values()):
        raise RuntimeError(f"{failures} test vectors fail")
    dense = {target: rows[f"dense/{target}/float32"]["instructions"] for target in COMPARED}
    ratios = {
        name: round(dense[name.split("/")[1]] / row["instructions"], 2)
        for name, row in rows.items()
        if name.split("/")[1] in dense
    }
    return {
        "ratios": ratios,
        # Emulated instructions are the same in every run.
        "intervals": {name: [ratio, ratio] for name, ratio in ratios.items()},
        **{key: {name: row[key] for name, row in rows.items()} for key in KEYS},
        "too_large": too_large,
        "left_out": others.left_out,
        "actor": args.agent.name if args.agent else "SAC, freshly initialised, seed 0",
        "calibration": source,
        "sizes": sizes,
        "flags": " ".join(FLAGS),
        "versions": describe_versions() | describe_tools() | others.versions,
    }


def fresh(net_arch: Iterable[int] = (256, 256)) -> SAC:
    """
    :param net_arch: Widths of the hidden layers.
    :return: An agent that has not been trained
    """
    return SAC("MlpPolicy", HalfCheetahSpaces(), seed=0, device="cpu", policy_kwargs={"net_arch": [*net_arch]})


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table
    """
    rows = [
        (name, *(f"{result[key][name]:,}" for key in KEYS), f"{result['ratios'].get(name, float('nan')):.1f}")
        for name in result["flash"]
    ]
    yield table("bytes, and instructions of an action", ("", *KEYS, "float32 / this"), rows)


if __name__ == "__main__":
    ask(
        measure,
        option("--agent", None, "a trained SAC agent with two hidden layers and 17 inputs instead", type=Path),
        option("--net-arch", [256, 256], "widths of its hidden layers, without --agent", type=int, nargs=2),
        option(
            "--rltools",
            None,
            "where pip has installed RLtools (by default in this environment, and left out otherwise)",
            type=Path,
        ),
        option("--env", None, "its environment, for the calibration"),
        show=show,
        quick="0 and 99 % alone",
    )
