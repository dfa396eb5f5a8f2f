"""
What one decision costs: the time from an observation to an action, of SB3's ``predict``, of dense libraries and of ours.

    python -m benchmarks.speed.inference --json benchmarks/results/inference.json --png benchmarks/results/inference.png

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
- ``numpy``, ``ctypes``, ``portable``, ``compiled``, ``avx2``, ``vbmi``: ``load(path, backend)`` of the compact file. "avx2" is
  compiled for AVX2 and FMA alone, whatever the processor has.

All rows but the first two come from ``compress`` with 8 bits, and so have lost their dead neurons. The largest weights of
each layer stay, as many as ERK gives it, or, in the CNN's rows "<sparsity>-uniform/<who>", the same share of every layer; of
these only our rows are there, for dense libraries do not care. The networks are freshly initialised with a fixed seed (for a
trained actor see ``--agent``), which leaves more neurons alive than training does; the rows "<agent>/<who>" are of the
trained sparse agents whose files are in ``docs/results/agents``, and "<agent>/sb3" of a dense 256-256 with the same
observations and actions. What stays of fresh weights is scaled up by what the norm of its layer has lost, and the CNN's Q
values are centered, for else every observation would have one and the same action. The actor's observations are standard
normal, in float64 as MuJoCo's; frames are random blocks, channels first, which SB3 need not move.

All rows of a network live in one process on one CPU and in one thread, and take turns in blocks, in an order that is drawn
anew in every round, each block after a few calls that are not timed; observations cycle. The clock is read directly before
and after one call, and its own time counts. A ratio is the median over the rounds of SB3's median over the row's; medians and
p99 in the table are over all calls. The error says whether a row computes what it should: how far its actions are from SB3's
with the same sparse weights, as a share of the spread of these actions, or the share of different actions of the CNN.

In a full run the actor at 95 % also acts in a busy loop of 10 kHz: an action is late when it is not there before the next
tick, and so are the ticks that begin and end meanwhile. ``nothing`` is the loop without a policy: what the machine itself
misses.

What cannot be had is listed as skipped, with the reason. torch.jit.freeze is no row: torch.jit.trace is deprecated.
"""

import os
from argparse import Namespace
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from time import perf_counter_ns
from typing import Any

if __name__ == "__main__":
    # Before numpy is there, whose matrix products take as many threads as these say.
    os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")})

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray
from rich.progress import track
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from benchmarks.shared.question import ask, option, table
from benchmarks.shared.spaces import AtariSpaces, HalfCheetahSpaces
from benchmarks.shared.store import Result, describe_machine, describe_versions
from benchmarks.shared.turns import pin, summarize
from benchmarks.speed.busy_loop import PERIOD, TICKS, busy_loop
from benchmarks.speed.contestants.making import AGENTS, add_uniform, make_rows, make_trained
from benchmarks.speed.contestants.rows import BASE, Predict, Rows
from benchmarks.speed.contestants.twins import center
from sb3_sparse.agents import load_agent

SPARSITIES = (0.0, 0.8, 0.9, 0.95, 0.98, 0.99)
#: Calls at the beginning of a turn that do not count.
WARM = 20
#: What the rows of each network begin with, and its name.
PANELS = {"": "SAC actor 17-256-256-6", "cnn/": "Nature CNN, 6 actions"}
#: Color and line of each row in the figure.
STYLES = {
    "onnx_float32": ("tab:gray", "-"),
    "onnx_int8": ("tab:gray", "--"),
    "onnx_static": ("tab:gray", ":"),
    "litert_float32": ("tab:brown", "-"),
    "litert_int8": ("tab:brown", "--"),
    "numpy": ("tab:orange", "-"),
    "ctypes": ("tab:green", "-"),
    "portable": ("tab:blue", "--"),
    "compiled": ("tab:blue", "-"),
    "avx2": ("tab:red", "--"),
    "vbmi": ("tab:red", "-"),
}


def time_calls(rows: Rows, rounds: int, calls: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
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


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table of each network, the busy loop, and what was skipped
    """
    for title, names in groupby(result["latency"], key=_panel):
        rows = []
        for name in names:
            latency, (low, high) = result["latency"][name], result["intervals"].get(name, (1, 1))
            times = (f"{latency[key]:.2f}" for key in ("median", "p99"))
            ratio = result["ratios"].get(name, 1)
            rows.append((name, *times, f"{ratio:.1f}", f"{low:.1f} - {high:.1f}", f"{result['errors'][name]:.4f}"))
        yield table(title, ("row", "median us", "p99 us", "SB3 / this", "95 % interval", "error"), rows)
    for name, late in result.get("busy_loop", {}).get("late", {}).items():
        yield f"10 kHz, {name:18} {late:6,} of {TICKS:,} actions too late"
    for reason in dict.fromkeys(result["skipped"].values()):
        names = [name for name, why in result["skipped"].items() if why == reason]
        yield f"skipped: {', '.join(names)}: {reason}"


def _panel(name: str) -> str:
    first = name.partition("/")[0]
    return PANELS["cnn/"] if first == "cnn" else first if (AGENTS / f"{first}.sb3s").is_file() else PANELS[""]


def draw(result: Result) -> Figure:
    """
    :param result: What was measured.
    :return: The time of one action over the sparsity, of both networks
    """
    labels = [f"{100 * sparsity:.3g}" for sparsity in SPARSITIES]
    figure = Figure(figsize=(12, 5))
    axes = figure.subplots(1, 2)
    for axis, (prefix, title) in zip(axes, PANELS.items(), strict=True):
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
    lines = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(lines.values()), list(lines), loc="lower center", ncol=5, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    return figure


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


def add_network(result: Result, prefix: str, rows: Rows, rounds: int, calls: int, rng: np.random.Generator) -> None:
    """
    Measure one network.

    :param result: Where to add what was found.
    :param prefix: What its rows begin with.
    :param rows: Its contestants.
    :param rounds: Number of rounds.
    :param calls: Calls per turn.
    :param rng: Source of the order of turns, and of the bootstrap.
    """
    times = time_calls(rows, rounds, calls, rng)
    for name, values in times.items():
        median, p99 = np.median(values), np.percentile(values, 99)
        result["latency"][prefix + name] = {"median": round(float(median), 3), "p99": round(float(p99), 3)}
        result["errors"][prefix + name] = round(rows.errors[name], 4)
    for key, found in summarize({prefix + name: values for name, values in speedups(times).items()}, rng).items():
        result[key] |= found
    result["skipped"] |= {prefix + name: reason for name, reason in rows.skipped.items()}
    result["networks"] |= {prefix + name: network for name, network in rows.networks.items()}
    result["rounds"][prefix + BASE] = [rounds, calls]


def measure(args: Namespace) -> Result:
    """
    :param args: Whether to be quick, and a trained agent.
    :return: Times of both networks
    """
    cpus, rng = pin(), np.random.default_rng(0)
    result: Result = {key: {} for key in ("ratios", "intervals", "latency", "errors", "skipped", "networks", "rounds")}
    result["weights"] = f"of the agent {args.agent.name}" if args.agent else "fresh, seed 0"
    actor = make_rows(*load_actor(args.agent, rng), SPARSITIES)
    add_network(result, "", actor, *((20, 100) if args.quick else (100, 500)), rng)
    if not args.quick:
        result["busy_loop"] = {"ticks": TICKS, "period_us": PERIOD / 1e3, "late": busy_loop(actor)}
    frames = rng.integers(0, 256, (64, 4, 7, 7), dtype=np.uint8).repeat(12, axis=2).repeat(12, axis=3)
    dqn = center(DQN("CnnPolicy", AtariSpaces(), buffer_size=1, seed=0), frames)
    cnn = make_rows(dqn, frames, (0.0, 0.95) if args.quick else SPARSITIES)
    add_uniform(cnn, dqn, (0.95,) if args.quick else SPARSITIES[1:])
    add_network(result, "cnn/", cnn, *((6, 20) if args.quick else (40, 50)), rng)
    for name, agent in make_trained(rng):
        add_network(result, f"{name}/", agent, *((6, 20) if args.quick else (40, 200)), rng)
    result["versions"] = describe_versions() | describe_libraries()
    result["machine"] = describe_machine() | {"cpus_used": cpus}
    return result


if __name__ == "__main__":
    agent = option("--agent", None, "zip of a trained SAC, TD3, DDPG or TQC agent in place of the fresh actor", type=Path)
    ask(measure, agent, show=show, draw=draw, quick="few rounds, less of the CNN, no busy loop")
