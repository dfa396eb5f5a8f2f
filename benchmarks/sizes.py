"""
How much return is there in how many bytes: a large network pruned, a smaller one pruned, or a small dense one?

    python benchmarks/sizes.py tqc-Hopper-v4.zip tqc-HalfCheetah-v4.zip sac-Hopper-v4.zip sac-HalfCheetah-v4.zip \\
        --json benchmarks/results/sizes.json --png benchmarks/results/sizes.png

Each agent is distilled into students of several widths and sparsities, in the environment that its file is named after. All
have the same number of gradient updates and environment steps. Every student is exported with float weights and in 8, 4, 3 and
2 bits, rounded after the training and calibrated on its own episodes. Teacher and students then play the same fresh episodes,
which nothing was chosen on. Bytes are those of the compact file.

Every student is made by a process of its own with one thread. Its result is kept in ``--folder``, and a second call makes only
what is missing; with ``--stored`` it makes nothing, and says what is missing. Without agents, PPO is trained on CartPole-v1
first.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from report import store
from rich.console import Console
from rich.table import Table
from students import FIRST_EPISODE, keep, make_teacher, name_of, open_teacher, play_episodes, play_teacher, ratio, run_cells

from sb3_sparse import compress, distill
from sb3_sparse.agents import Player, model_act, play_observations
from sb3_sparse.distillation.search.costs import flash_bytes

BITS = (8, 4, 3, 2)
#: How students are exported that were trained with float weights, which say what rounding costs; and those that were trained
#: with the bits that they are exported with.
ROUNDED = {"float": 32} | {f"{bits} bits": bits for bits in BITS}
TRAINED = {f"{bits} bits, trained": bits for bits in BITS[1:]}
#: Hidden layers and sparsities by family, the first ones first: a result that is not complete has these.
FAMILIES: dict[str, list[str]] = {
    "256x256, pruned": ["256x256-95", "256x256-98", "256x256-99", "256x256-90"],
    "smaller, pruned": ["64x64-80", "128x128-90", "128x128-95", "64x64-90"],
    "small, dense": ["16x16-0", "32x32-0", "64x64-0", "8x8-0"],
}
COLORS = dict(zip(FAMILIES, ("tab:blue", "tab:green", "tab:orange"), strict=True))
MARKERS = dict(zip(BITS, "os^v", strict=True))
#: The smallest actors of SAC that keep 0.95 or 1.00 of a float 256x256 one, trained from scratch with quantized weights and
#: activations (Kresse and Lampert 2025, arXiv 2511.07046; from the raw results of arXiv 2512.01467, best of about 50 cells).
PUBLISHED = [
    {"task": "Hopper", "layers": [11, 8, 8, 3], "bits": 8, "keeps": 1.0},
    {"task": "HalfCheetah", "layers": [17, 128, 128, 6], "bits": 8, "keeps": 0.95},
    {"task": "HalfCheetah", "layers": [17, 256, 256, 6], "bits": 7, "keeps": 1.0},
]


def published(name: str) -> list[dict[str, Any]]:
    """
    :param name: Name of an agent.
    :return: What is published for its task, with the bytes of the packed weights alone
    """
    found = [point for point in PUBLISHED if point["task"] in name]
    pairs = [zip(point["layers"][:-1], point["layers"][1:], strict=True) for point in found]
    return [
        {**point, "nbytes": sum(inputs * outputs for inputs, outputs in each) * point["bits"] // 8}
        for point, each in zip(found, pairs, strict=True)
    ]


def split(shape: str) -> tuple[list[int], float]:
    """
    :param shape: Such as "64x64-80".
    :return: Widths of the hidden layers, and the sparsity
    """
    widths, _, sparsity = shape.partition("-")
    return [int(width) for width in widths.split("x")], float(sparsity) / 100


def make_cell(agent: Path, cell: dict[str, Any], out: Path) -> None:
    """
    Make one student, play it in all bits, and write the result.

    :param agent: Zip of the teacher.
    :param cell: Shape, seed, settings and number of episodes; a shape of None is the teacher itself.
    :param out: Where to write.
    """
    th.set_num_threads(1)
    teacher = open_teacher(agent)
    if cell["shape"] is None:
        keep({"model": play_teacher(teacher, cell["episodes"])}, out)
        return
    venv, normalization = teacher.venv, teacher.normalization
    assert venv is not None
    net_arch, sparsity = split(cell["shape"])
    kwargs = {"seed": cell["seed"], "normalization": normalization, **cell["settings"]}
    student = distill(teacher.model, venv, sparsity, net_arch, **kwargs)
    result: dict[str, Any] = {"cpu_minutes": time.process_time() / 60}
    observations = play_observations(venv, model_act(student, normalization), 4096, FIRST_EPISODE - 100)
    own = kwargs.get("bits")
    for form, bits in (ROUNDED if own is None else {f"{own} bits, trained": own}).items():
        policy = compress(student, bits, observations, normalization=normalization)
        _, tables = flash_bytes(policy.network)
        episodes = play_episodes(venv, Player(policy), cell["episodes"])
        result[form] = {**episodes, "nbytes": policy.nbytes, "tables": tables}
    keep(result, out)


def name_cell(cell: dict[str, Any]) -> str:
    """
    :param cell: A cell.
    :return: Name of its file
    """
    if cell["shape"] is None:
        return f"teacher_{cell['episodes']}"
    settings = "".join(f"_{key}{value}" for key, value in cell["settings"].items())
    return f"{cell['shape']}_{cell['seed']}{settings}_{cell['episodes']}"


def evaluate(name: str, cells: list[tuple[dict, dict]], rng: np.random.Generator, result: dict[str, Any]) -> None:
    """
    :param name: Name of an agent.
    :param cells: Its cells and their results, as far as they are there.
    :param rng: Source of the bootstrap.
    :param result: Where ratios, intervals and the rest go.
    """
    teachers = [found["model"] for cell, found in cells if cell["shape"] is None]
    if not teachers:
        return
    (teacher,) = teachers
    result["teachers"][name] = float(np.mean(teacher["returns"]))
    for shape in dict.fromkeys(cell["shape"] for cell, _ in cells if cell["shape"] is not None):
        for form in ROUNDED | TRAINED:
            own = [found for cell, found in cells if cell["shape"] == shape and form in found]
            if not own:
                continue
            key, students = f"{name}/{shape}/{form}", [found[form] for found in own]
            share, interval = ratio(teacher["returns"], [student["returns"] for student in students], rng)
            result["ratios"][key], result["intervals"][key] = share, interval
            result["students"][key] = {
                "returns": [round(float(np.mean(student["returns"])), 1) for student in students],
                "nbytes": [student["nbytes"] for student in students],
                "tables": [student["tables"] for student in students],
                "cpu_minutes": [round(found["cpu_minutes"], 2) for found in own],
            }


def draw(path: Path, result: dict[str, Any]) -> None:
    """Return over the teacher's by bytes, one panel per agent."""
    names = list(result["teachers"])
    rows, columns = -(-len(names) // 2), 2
    figure, axes = plt.subplots(rows, columns, figsize=(10, 3.6 * rows + 0.8), squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names, strict=False):
        for family, color in COLORS.items():
            points = find_points(result, name, FAMILIES[family])
            for size, share, form in points:
                fill = color if form in TRAINED else "none"
                axis.plot(size, share, MARKERS[int(form[0])], color=color, markerfacecolor=fill, markersize=5, linestyle="")
            # What the family keeps in so many bytes.
            shares = np.maximum.accumulate([share for _, share, _ in points] or [0.0])[: len(points)]
            axis.step([size for size, _, _ in points], shares, where="post", color=color, linewidth=1)
        for point in published(name):
            axis.plot(point["nbytes"], point["keeps"], "*", color="tab:red", markersize=11, markerfacecolor="none")
        axis.axhline(1.0, color="tab:gray", linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.set_ylim(0.0, max(1.1, axis.get_ylim()[1]))
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("bytes")
        axis.set_ylabel("return / teacher's")
    handles = [plt.Line2D([], [], color=color, label=family) for family, color in COLORS.items()]
    empty = {"color": "black", "linestyle": "", "markerfacecolor": "none"}
    handles += [plt.Line2D([], [], **empty, marker=m, label=f"{bits} bits") for bits, m in MARKERS.items()]
    if any("trained" in key for key in result["students"]):
        handles += [plt.Line2D([], [], color="black", marker="s", linestyle="", label="filled: trained with these bits")]
    label = "published, another measure: packed weights alone, agents trained from scratch"
    handles += [plt.Line2D([], [], color="tab:red", marker="*", markerfacecolor="none", linestyle="", label=label)]
    figure.legend(handles=handles, loc="lower center", ncols=4, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.75 / (3.6 * rows + 0.8), 1, 1))
    figure.savefig(path, dpi=150)


def find_points(result: dict[str, Any], name: str, shapes: list[str]) -> list[tuple[float, float, str]]:
    """
    :param result: The result.
    :param name: Name of an agent.
    :param shapes: Shapes of one family.
    :return: Bytes, share of the return and form of its students in few bits, the smallest first; a negative share is 0
    """
    parts = [(key.split("/"), key) for key in result["students"]]
    return sorted(
        (float(np.mean(result["students"][key]["nbytes"])), max(0.0, result["ratios"][key]), form)
        for (agent, shape, form), key in parts
        if agent == name and shape in shapes and form != "float"
    )


def main() -> None:
    """Make what is missing, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agents", type=Path, nargs="*")
    # The first shapes of every family, then the second ones, and so on.
    shapes = [shape for row in zip(*FAMILIES.values(), strict=True) for shape in row]
    parser.add_argument("--shapes", nargs="+", default=shapes, help="hidden layers and sparsities in percent (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--updates", type=int, default=300_000, help="gradient updates of every student (%(default)s)")
    parser.add_argument("--steps", type=int, default=150_000, help="environment steps, likewise (%(default)s)")
    parser.add_argument("--trained", type=int, nargs="*", default=[], help="bits that students are trained for as well")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("logs/sizes"), help="where students' results are kept")
    parser.add_argument("--stored", action="store_true", help="make nothing: what is missing is named")
    parser.add_argument("--quick", action="store_true", help="a short check, not a result")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        make_cell(args.agents[0], json.loads(args.cell[0]), Path(args.cell[1]))
        return
    th.set_num_threads(1)
    if args.quick:
        args.shapes, args.episodes, args.updates, args.steps = ["64x64-90", "8x8-0"], 5, 5_000, 3_000
        args.folder = Path("logs/sizes_quick")
    agents = args.agents or [make_teacher(args.folder)]
    settings = {"updates": args.updates, "steps": args.steps}
    work = []
    for seed in range(args.seeds):
        for agent in agents:
            teacher: list[dict[str, Any]] = [{"shape": None, "episodes": args.episodes}] * (seed == 0)
            students = [
                {"shape": shape, "seed": seed, "settings": settings | own, "episodes": args.episodes}
                for own in ({}, *({"bits": bits} for bits in args.trained))
                for shape in args.shapes
            ]
            work += [(agent, cell) for cell in teacher + students]
    found = run_cells(__file__, work, name_cell, args.folder, args.jobs, missing=not args.stored)
    result: dict[str, Any] = {"ratios": {}, "intervals": {}, "students": {}, "teachers": {}}
    result |= {"families": FAMILIES, "episodes": args.episodes, "seeds": args.seeds, **settings}
    rng = np.random.default_rng(0)
    for name, cells in found.items():
        evaluate(name, cells, rng, result)
    done = {name: [cell for cell, _ in cells] for name, cells in found.items()}
    missing = [(name_of(agent), cell) for agent, cell in work if cell not in done[name_of(agent)]]
    result["missing"] = [f"{name}/{name_cell(cell)}" for name, cell in missing]
    result["published"] = {name: published(name) for name in result["teachers"]}
    table = Table("student", "return / teacher's", "95 % interval", "bytes", "bytes of tables in C", "CPU minutes")
    for key, share in result["ratios"].items():
        low, high = result["intervals"][key]
        own = result["students"][key]
        columns = (", ".join(map(str, own[column])) for column in ("nbytes", "tables", "cpu_minutes"))
        table.add_row(key, f"{share:.3f}", f"{low:.3f} - {high:.3f}", *columns)
    console = Console(width=150)
    console.print(table)
    if result["missing"]:
        console.print(f"missing: {', '.join(result['missing'])}")
    if args.json:
        store(args.json, result)
    if args.png:
        draw(args.png, result)


if __name__ == "__main__":
    main()
