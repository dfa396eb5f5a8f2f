"""
What one decision costs: the time from an observation to an action, of SB3's ``predict``, of dense libraries and of ours.

    python benchmarks/inference.py --json benchmarks/results/inference.json --png benchmarks/results/inference.png

Two networks: the papers' SAC actor (17-256-256-6) and the Nature CNN of DQN (4x84x84 to 6 actions, convolutions 32-64-64 and
512 units). Rows are called "<sparsity in %>/<who>", with "cnn/" in front for the CNN:

- ``sb3``: ``model.predict(observation, deterministic=True)`` of the stock, dense model. A ratio is the time of this row over
  that of another one in the same run: how many times faster the other one is.
- ``torch``: the same layers as one ``nn.Sequential`` in inference mode, from and to numpy.
- ``onnx_float32``, ``onnx_int8``: ``to_onnx`` with form "float" and "qdq" in ONNX Runtime: at 0 the dense network, else what
  is left of the sparse one. ONNX Runtime multiplies zeros as any other number, and in floats.
- ``onnx_static`` (CNN): the float graph after ONNX Runtime's own static quantization (``ort_static.py``): 8-bit activations,
  calibrated on the frames that are measured, and frames as they are, for the form "qdq" keeps activations in floats.
- ``litert_float32``, ``litert_int8``: the same layers in LiteRT (TensorFlow Lite) with XNNPACK, written by ``litert.py``; the
  actor only.
- ``numpy``, ``ctypes``, ``portable``, ``vbmi``: ``load(path, backend)`` of the compact file; "portable" is backend "compiled".

All rows but the first two come from ``compress`` with 8 bits, and so have lost their dead neurons. The largest weights of each
layer stay, as many as ERK gives it, or, in the CNN's rows "<sparsity>-uniform/<who>", the same share of every layer; of these
only our rows are there, for dense libraries do not care. The networks are freshly initialised with a fixed seed (for a
trained actor see ``--agent``), which leaves more neurons alive than training does; what stays is scaled up by what the norm of
its layer has lost, and the CNN's Q values are centered, for else every observation would have one and the same action. The
actor's observations are standard normal, in float64 as MuJoCo's; frames are random blocks, channels first, which SB3 need not
move.

All rows of a network live in one process on one CPU and in one thread, and take turns in blocks, in an order that is drawn
anew in every round, each block after a few calls that are not timed; observations cycle. The clock is read directly before
and after one call, and its own time counts. A ratio is the median over the rounds of SB3's median over the row's; medians and
p99 in the table are over all calls. The error says whether a row computes what it should: how far its actions are from SB3's
with the same sparse weights, as a share of the spread of these actions, or the share of different actions of the CNN.

In a full run the actor at 95 % also acts in a busy loop of 10 kHz: an action is late when it is not there before the next
tick, and so are the ticks that begin and end meanwhile. ``nothing`` is the loop without a policy: what the machine itself
misses.

What cannot be had on a machine is listed as skipped, with the reason. torch.jit.freeze is no row: torch.jit.trace, which it
needs, is deprecated and warns.
"""

import argparse
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter_ns
from typing import Any

if __name__ == "__main__":
    # Before numpy is there, whose matrix products take as many threads as these say.
    os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")})

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from contestants import BASE, TIERS, Predict, Rows, add_uniform, center, make_rows
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray
from overhead import HalfCheetahSpaces, interval
from report import describe_machine, describe_versions
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_sparse.agents import load_agent

SPARSITIES = (0.0, 0.8, 0.9, 0.95, 0.98, 0.99)
#: Calls at the beginning of a turn that do not count.
WARM = 20
#: Nanoseconds between two ticks of the busy loop, and how many there are.
PERIOD, TICKS = 100_000, 20_000
#: Color and line of each row in the figure.
STYLES = {
    "onnx_float32": ("tab:gray", "-"),
    "onnx_int8": ("tab:gray", "--"),
    "onnx_static": ("tab:gray", ":"),
    "litert_float32": ("tab:brown", "-"),
    "litert_int8": ("tab:brown", "--"),
    "numpy": ("tab:orange", "-"),
    "ctypes": ("tab:green", "-"),
    "portable": ("tab:blue", "-"),
    "vbmi": ("tab:red", "-"),
}


class AtariSpaces(HalfCheetahSpaces):
    """The spaces of an Atari game with four stacked frames, channels first, which SB3 takes as they are."""

    observation_space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = gym.spaces.Discrete(6)

    def _observe(self):
        return self.np_random.integers(0, 256, (4, 84, 84), dtype=np.uint8)


def measure(rows: Rows, rounds: int, calls: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """
    :param rows: The contestants.
    :param rounds: Number of rounds in which each has its turn.
    :param calls: Timed calls per turn.
    :param rng: Source of the order of turns.
    :return: Microseconds of every call, ``[rounds, calls]``, by name
    """
    times: dict[str, list[list[int]]] = {name: [] for name in rows.predicts}
    observations = list(rows.observations)
    for _ in track(range(rounds), description=f"{len(times)} rows, {rounds} rounds"):
        for name in rng.permutation(list(times)):
            times[name].append(_time(rows.predicts[name], observations, calls))
    return {name: np.array(values) / 1e3 for name, values in times.items()}


def _time(predict: Predict, observations: list[NDArray[Any]], calls: int) -> list[int]:
    times = []
    for call in range(WARM + calls):
        observation = observations[call % len(observations)]
        start = perf_counter_ns()
        predict(observation, deterministic=True)
        times.append(perf_counter_ns() - start)
    return times[WARM:]


def speedups(times: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """
    :param times: Microseconds by name, ``[rounds, calls]``.
    :return: By name, how many times faster than SB3 in each round
    """
    medians = {name: np.median(values, axis=1) for name, values in times.items()}
    return {name: medians[BASE] / values for name, values in medians.items() if name != BASE}


def count_late(predict: Predict, observations: NDArray[Any], ticks: int = TICKS, period: int = PERIOD) -> int:
    """
    :param predict: A policy.
    :param observations: What it is given.
    :param ticks: Number of ticks.
    :param period: Nanoseconds between two of them.
    :return: Number of ticks that had no action before the next one
    """
    inputs = list(observations)
    late = tick = 0
    begin = perf_counter_ns()
    while tick < ticks:
        start = begin + tick * period
        while perf_counter_ns() < start:
            pass
        predict(inputs[tick % len(inputs)], deterministic=True)
        periods = (perf_counter_ns() - start) // period
        late += min(periods, ticks - tick)
        tick += max(periods, 1)
    return late


def busy_loop(rows: Rows) -> dict[str, int]:
    """
    :param rows: Contestants of the actor.
    :return: Ticks without an action in time, by name
    """
    names = [BASE, "95/onnx_float32", "95/litert_float32", *(f"95/{tier}" for tier in TIERS)]
    contestants: dict[str, Predict] = {"nothing": lambda observation, deterministic: (observation, None)}
    contestants |= {name: rows.predicts[name] for name in names if name in rows.predicts}
    late = {}
    for name, predict in track(contestants.items(), description="busy loop"):
        late[name] = count_late(predict, rows.observations)
    return late


def print_table(title: str, rows: Rows, result: dict[str, Any], prefix: str) -> None:
    """
    :param title: What is above.
    :param rows: The contestants.
    :param result: What will be stored.
    :param prefix: What their names begin with in the result.
    """
    table = Table(title=title)
    for column in ("row", "median us", "p99 us", "SB3 / this", "95 % interval", "error"):
        table.add_column(column, justify="left" if column == "row" else "right")
    for name in rows.predicts:
        latency, ratio = result["latency"][prefix + name], result["ratios"].get(prefix + name, 1)
        low, high = result["intervals"].get(prefix + name, (1, 1))
        table.add_row(
            prefix + name,
            f"{latency['median']:.2f}",
            f"{latency['p99']:.2f}",
            f"{ratio:.1f}",
            f"{low:.1f} - {high:.1f}",
            f"{rows.errors[name]:.4f}",
        )
    Console(width=110).print(table)


def draw(result: dict[str, Any], png: Path) -> None:
    """
    :param result: What is stored.
    :param png: Where to write the figure.
    """
    panels = {"": "SAC actor 17-256-256-6", "cnn/": "Nature CNN, 6 actions"}
    labels = [f"{100 * sparsity:.3g}" for sparsity in SPARSITIES]
    figure, axes = plt.subplots(1, 2, figsize=(12, 5))
    for axis, (prefix, title) in zip(axes, panels.items(), strict=True):
        for who, (color, style) in STYLES.items():
            medians = {label: result["latency"].get(f"{prefix}{label}/{who}") for label in labels}
            points = {label: latency["median"] for label, latency in medians.items() if latency}
            if points:
                axis.plot(list(points), list(points.values()), style, color=color, marker="o", markersize=4, label=who)
        for name, style in ((BASE, "-"), ("0/torch", "--")):
            median = result["latency"][prefix + name]["median"]
            axis.axhline(median, color="black", linestyle=style, label=f"{name.split('/')[-1]}, dense")
        axis.set(title=title, xlabel="sparsity in %", ylabel="one action, median µs", yscale="log")
        axis.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter=NullFormatter())
        axis.grid(axis="y", which="both", alpha=0.2)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncol=5, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=120)


def pin() -> int | None:
    """
    Stay on one CPU, the last of those that this process may use.

    :return: How many CPUs it may use now; None where the system cannot say
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return len(os.sched_getaffinity(0))


def describe_libraries() -> dict[str, str]:
    """
    :return: Versions of what is measured beside torch, as far as it is installed
    """
    versions = {}
    for package in ("onnx", "onnxruntime", "ai_edge_litert"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def load_actor(agent: Path | None, rng: np.random.Generator) -> tuple[BaseAlgorithm, NDArray[Any]]:
    """
    :param agent: The zip of a trained agent; None for a fresh SAC.
    :param rng: Source of the observations.
    :return: The model and observations for it
    :raises ValueError: if it has images, or does not act between -1 and 1
    """
    model = SAC("MlpPolicy", HalfCheetahSpaces(), buffer_size=1, seed=0, device="cpu") if agent is None else load_agent(agent)
    shape, actions = model.observation_space.shape, model.action_space
    if shape is None or len(shape) != 1:
        raise ValueError("the agent must have observations that are vectors")
    if not isinstance(actions, gym.spaces.Box) or not ((actions.low == -1) & (actions.high == 1)).all():
        raise ValueError("the agent must have actions between -1 and 1")
    return model, rng.normal(size=(1024, *shape))


def add_network(result: dict[str, Any], prefix: str, rows: Rows, rounds: int, calls: int, rng: np.random.Generator) -> None:
    """
    Measure one network, print its table and store what was found.

    :param result: What will be stored.
    :param prefix: What its rows begin with.
    :param rows: Its contestants.
    :param rounds: Number of rounds.
    :param calls: Calls per turn.
    :param rng: Source of the order of turns, and of the bootstrap.
    """
    times = measure(rows, rounds, calls, rng)
    for name, values in times.items():
        median, p99 = np.median(values), np.percentile(values, 99)
        result["latency"][prefix + name] = {"median": round(float(median), 3), "p99": round(float(p99), 3)}
        result["errors"][prefix + name] = round(rows.errors[name], 4)
    for name, values in speedups(times).items():
        result["ratios"][prefix + name] = round(float(np.median(values)), 3)
        result["intervals"][prefix + name] = interval(values, rng)
    result["skipped"] |= {prefix + name: reason for name, reason in rows.skipped.items()}
    result["networks"] |= {prefix + name: network for name, network in rows.networks.items()}
    result["rounds"][prefix + BASE] = [rounds, calls]
    print_table(f"{rounds} rounds of {calls} calls", rows, result, prefix)


def main() -> None:
    """Measure, print, draw and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, less of the CNN, no busy loop: a check")
    parser.add_argument("--json", type=Path, help="where to store the result")
    parser.add_argument("--png", type=Path, help="where to draw the figure")
    parser.add_argument("--agent", type=Path, help="zip of a trained SAC, TD3, DDPG or TQC agent in place of the fresh actor")
    args = parser.parse_args()
    cpus = pin()
    th.set_num_threads(1)
    rng = np.random.default_rng(0)
    result: dict[str, Any] = {key: {} for key in ("ratios", "intervals", "latency", "errors", "skipped", "networks", "rounds")}
    result["weights"] = f"of the agent {args.agent.name}" if args.agent else "fresh, seed 0"
    model, observations = load_actor(args.agent, rng)
    actor = make_rows(model, observations, SPARSITIES)
    add_network(result, "", actor, *((20, 100) if args.quick else (100, 500)), rng)
    if not args.quick:
        result["busy_loop"] = {"ticks": TICKS, "period_us": PERIOD / 1e3, "late": busy_loop(actor)}
        for name, late in result["busy_loop"]["late"].items():
            print(f"10 kHz, {name:18} {late:6,} of {TICKS:,} actions too late")
    frames = rng.integers(0, 256, (64, 4, 7, 7), dtype=np.uint8).repeat(12, axis=2).repeat(12, axis=3)
    dqn = center(DQN("CnnPolicy", AtariSpaces(), buffer_size=1, seed=0), frames)
    cnn = make_rows(dqn, frames, (0.0, 0.95) if args.quick else SPARSITIES)
    add_uniform(cnn, dqn, (0.95,) if args.quick else SPARSITIES[1:])
    add_network(result, "cnn/", cnn, *((6, 20) if args.quick else (40, 50)), rng)
    for reason in dict.fromkeys(result["skipped"].values()):
        names = [name for name, why in result["skipped"].items() if why == reason]
        print(f"skipped: {', '.join(names)}: {reason}")
    result["versions"] = describe_versions() | describe_libraries()
    result["machine"] = describe_machine() | {"cpus_used": cpus}
    if args.png:
        draw(result, args.png)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
