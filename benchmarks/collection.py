"""
What becomes of a whole collection of agents: which are exported and which refused, and is what is exported right?

    python benchmarks/collection.py FOLDER --json benchmarks/results/collection.json --markdown collection.md

FOLDER is in rl-zoo3's layout, ``<algo>/<env>_<n>/<env>.zip`` with settings and statistics in ``<env>/``, as the public
collection ``rl-trained-agents`` is. ``sb3-sparse compress`` does the work, with what it finds next to each zip. Then the
header is compiled and its self test run, in both arithmetics, and the ONNX graph acts on the same observations as the file.

Each agent has a process of its own, so one that crashes or hangs costs its row and no more. An agent whose environment cannot
be made is exported without one, and without calibration.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import yaml
from gymnasium import spaces
from intervals import mean_interval
from report import store

#: Largest difference between actions of the file and of ONNX that is rounding, as a share of the largest action.
TOLERANCE = 1e-4
#: Number of observations that both act on, and numpy's names of the types that ONNX takes.
COUNT = 256
KINDS = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}
#: Seconds that a quick check may take before it begins no other agent.
QUICK = 60
HEAD = (
    "agent", "answer", "SB3 zip", "float32", "file", "SB3", "exported", "difference", "faster", "C header", "ONNX",
)  # fmt: skip


def find_agents(folder: Path) -> list[Path]:
    """
    :param folder: A collection in rl-zoo3's layout.
    :return: The zip of each agent, not those of its checkpoints
    """
    return sorted(zip for zip in folder.glob("*/*/*.zip") if zip.parent.name.rpartition("_")[0] == zip.stem)


def environment_of(agent: Path) -> str:
    """
    :param agent: A zip in rl-zoo3's layout.
    :return: Its environment: that of ``args.yml``, where a name may hold a slash, or that of the folder
    """
    from sb3_sparse.zoo.beside import folder_of
    from sb3_sparse.zoo.notation import Loader

    args = agent.parent / agent.stem / "args.yml"
    try:
        name = yaml.load(args.read_text(), Loader)["env"]
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError):
        return agent.stem
    # A colon would import a module.
    return name if isinstance(name, str) and ":" not in name and folder_of(name) == agent.stem else agent.stem


def export(agent: Path, out: Path, **settings: Any) -> dict[str, Any]:
    """
    :param agent: A zip.
    :param out: Where to write.
    :param settings: Arguments of ``compress_agent``.
    :return: The row of this agent: "accepted" or "refused", why, and figures
    """
    from sb3_sparse.agents import compress_agent

    row: dict[str, Any] = {}
    env = environment_of(agent)
    for tried in (env, None):
        try:
            compress_agent(agent, out, env=tried, **settings)
            break
        except (ValueError, OSError) as error:
            row.setdefault("reason", str(error))
    else:
        return {"answer": "refused", **row}
    report = json.loads((out / "report.json").read_text())
    row |= {
        "answer": "accepted",
        "algorithm": report["algorithm"],
        "env": env,
        "env_used": report["env_used"],
        "env_wrapper": report["env_wrapper"],
        "bytes": {name: report["bytes"][name] for name in ("SB3 zip", "dense float32", "compact file")},
        "returns": returns(report["returns"]),
        "stopped": report["stopped"],
        "speedup": speedup(report["latency_us"]),
    }
    for name, check in (("header", check_header), ("onnx", check_onnx)):
        try:
            row[name] = check(agent, out)
        except Exception as error:  # One check that fails costs its cell.
            row[name] = f"{type(error).__name__}: {error}"
    return row


def returns(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """
    :param found: The returns in a report.
    :return: Their means and the mean of the differences over pairs of episodes, each with its 95 % interval; None if none
    """
    if found is None:
        return None
    series = {name: np.array(found[name]) for name in ("SB3 model", "exported file")}
    series["difference"] = series["exported file"] - series["SB3 model"]
    means = {name: {"mean": float(values.mean()), "interval": mean_interval(values)} for name, values in series.items()}
    return {"episodes": len(found["seeds"]), **means}


def speedup(latency: dict[str, dict[str, float]] | None) -> float | None:
    """
    :param latency: The times in a report.
    :return: How many times faster the file is than SB3, in the backend that it would choose itself; None if not measured
    """
    found = [name for name in ("compiled", "ctypes", "numpy") if name in (latency or {})]
    return latency[found[0]]["speedup"] if latency and found else None


def check_header(agent: Path, out: Path) -> str:
    """
    :param agent: A zip.
    :param out: Where its header is.
    :return: "passed" if it compiles and passes its self test, in the arithmetics that it has; otherwise what happened
    """
    from sb3_sparse.agents.compression.files import c_name

    header, name, compiler = out / f"{agent.stem}.h", c_name(agent.stem).upper(), shutil.which("cc") or shutil.which("gcc")
    if not header.is_file():
        return "not written"
    if compiler is None:
        return "no compiler"
    answers = []
    for arithmetic, macros in (("float", []), ("integers", [f"-D{name}_INTEGER"])):
        command = [
            compiler,
            "-std=c99",
            "-O2",
            "-x",
            "c",
            f"-D{name}_MAIN",
            *macros,
            str(header),
            "-o",
            str(out / "self_test"),
        ]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode and "#error" in built.stderr and macros:
            # The header says itself that it has no integers.
            continue
        if built.returncode:
            return f"{arithmetic}: does not compile"
        tested = subprocess.run([str(out / "self_test")], capture_output=True, text=True)
        if tested.returncode:
            return f"{arithmetic}: {tested.stdout.strip() or 'crashes'}"
        answers.append(arithmetic)
    return f"passed ({', '.join(answers)})"


def check_onnx(agent: Path, out: Path) -> str:
    """
    :param agent: A zip.
    :param out: Where its ONNX graph and its compact file are.
    :return: "equal" if both act the same on random observations; otherwise what happened
    """
    import onnxruntime

    from sb3_sparse.agents import load_agent, load_normalization
    from sb3_sparse.runtime import load

    if not (out / f"{agent.stem}.onnx").is_file():
        return "not written"
    space = load_agent(agent).observation_space
    found = load_normalization(agent, environment_of(agent))
    observations = observe(space, found[1].obs_rms if found and found[1].norm_obs else None)
    session = onnxruntime.InferenceSession(str(out / f"{agent.stem}.onnx"), providers=["CPUExecutionProvider"])
    inputs = dict(observations) if isinstance(observations, dict) else {"observation": observations}
    for node in session.get_inputs():
        # A recurrent policy has seen nothing at first, and every action is allowed.
        shape = [size if isinstance(size, int) else COUNT for size in node.shape]
        given = inputs.setdefault(node.name, np.full(shape, node.name == "action_masks"))
        inputs[node.name] = given.astype(KINDS[node.type])
    theirs = session.run(["action"], inputs)[0]
    ours = load(out / f"{agent.stem}.sb3s", "numpy").predict(observations)[0]
    if not np.isfinite(theirs).all():
        return "actions are not finite"
    difference = np.abs(ours.astype(np.float64) - theirs.reshape(ours.shape))
    if np.issubdtype(ours.dtype, np.integer):
        return "equal" if not difference.any() else f"{(difference > 0).sum()} of {len(ours)} choices differ"
    largest = difference.max() / max(np.abs(ours).max(), 1e-6)
    return "equal" if largest <= TOLERANCE else f"actions differ by {largest:.2g}"


def observe(space: spaces.Space, rms: Any) -> Any:
    """
    :param space: A space of observations.
    :param rms: Their statistics, if they are normalized.
    :return: Random ones, about as large as those that the statistics have seen
    """
    if isinstance(space, spaces.Dict):
        return {name: observe(part, (rms or {}).get(name)) for name, part in space.spaces.items()}
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        space.seed(0)
        return np.stack([space.sample() for _ in range(COUNT)])
    # Bounds that are as good as infinite do not say how large observations are.
    low, high = (np.clip(bound.astype(np.float64), -1e6, 1e6) for bound in (space.low, space.high))
    wide = high - low > 1e4
    center, spread = np.where(wide, 0, (low + high) / 2), np.where(wide, 1, (high - low) / 2)
    if rms is not None:
        center, spread = rms.mean, np.sqrt(rms.var)
    noise = np.random.default_rng(0).normal(size=(COUNT, *space.shape))
    return np.clip(center + spread * noise, low, high).astype(space.dtype)


def run(agent: Path, arguments: list[str], timeout: float) -> dict[str, Any]:
    """
    :param agent: A zip.
    :param arguments: Those of this script that are about one agent.
    :param timeout: Seconds after which it is ended.
    :return: Its row, whatever happens to its process
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "row.json"
        command = [sys.executable, __file__, str(agent), "--row", str(result), *arguments]
        start = perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
            reason = f"its process ended with {done.returncode}: {(done.stderr.strip().splitlines() or ['nothing said'])[-1]}"
        except subprocess.TimeoutExpired:
            reason = f"its process was ended after {timeout:.0f} s"
        row = json.loads(result.read_text()) if result.is_file() else {"answer": "failed", "reason": reason}
        row["seconds"] = round(perf_counter() - start, 1)
        # Where it was is nobody's business.
        places = {f"{agent.parent}/": "", str(agent.parent): "its folder", f"{folder}/": ""}
        return _everywhere(row, lambda text: _replace(text, places))


def _replace(text: str, places: dict[str, str]) -> str:
    for place, instead in places.items():
        text = text.replace(place, instead)
    return text


def _everywhere(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {name: _everywhere(part, change) for name, part in value.items()}
    if isinstance(value, list):
        return [_everywhere(part, change) for part in value]
    return change(value) if isinstance(value, str) else value


def summarize(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """
    :param rows: The rows by agent.
    :return: What is stored
    """
    accepted = {name: row for name, row in rows.items() if row["answer"] == "accepted"}
    sizes = {f"{name}/bytes": row["bytes"]["SB3 zip"] / row["bytes"]["compact file"] for name, row in accepted.items()}
    speeds = {f"{name}/speed": row["speedup"] for name, row in accepted.items() if row["speedup"]}
    played = {name: row["returns"] for name, row in accepted.items() if row["returns"]}
    return {
        "ratios": {name: round(value, 3) for name, value in (sizes | speeds).items()},
        "intervals": {f"{name}/difference": found["difference"]["interval"] for name, found in played.items()},
        "agents": rows,
    }


def cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    """
    :param name: Name of an agent.
    :param row: Its row.
    :return: The cells of the table, as in ``HEAD``
    """
    accepted = row["answer"] == "accepted"
    answer = row["answer"]
    if "reason" in row:
        answer += f"{', not played' if accepted else ''}: {row['reason']}"
    if not accepted:
        return (name, answer, *[""] * (len(HEAD) - 2))
    if row["env_used"] not in (None, row["env"]):
        answer += f", played in {row['env_used']}"
    found, speed = row["returns"], row["speedup"]
    played = [_estimate(found[who]) for who in ("SB3 model", "exported file", "difference")] if found else [""] * 3
    return (
        name, answer, *(f"{value:,}" for value in row["bytes"].values()), *played, f"{speed:.0f}" if speed else "",
        row["header"], row["onnx"],
    )  # fmt: skip


def _estimate(found: dict[str, Any]) -> str:
    bounds = found["interval"]
    return f"{found['mean']:,.2f}" + (f" [{bounds[0]:,.2f}, {bounds[1]:,.2f}]" if bounds else "")


def to_markdown(rows: dict[str, dict[str, Any]]) -> str:
    """
    :param rows: The rows by agent.
    :return: The table
    """
    table = [HEAD, ["---", "---", *["--:"] * 7, "---", "---"], *(cells(*item) for item in rows.items())]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in table)


def count(rows: Iterable[dict[str, Any]]) -> str:
    """
    :param rows: Rows.
    :return: How many there are of each answer
    """
    answers = [row["answer"] for row in rows]
    return ", ".join(f"{answers.count(answer)} {answer}" for answer in ("accepted", "refused", "failed"))


def main() -> None:
    """Run every agent, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a collection in rl-zoo3's layout")
    parser.add_argument("--episodes", type=int, default=20, help="episodes to compare the returns over (%(default)s)")
    parser.add_argument("--time-limit", type=float, default=120, help="seconds of play for each agent (%(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=900, help="seconds after which an agent's process is ended (%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="two episodes and no times, for a minute: a check, not a result")
    parser.add_argument("--keep", action="store_true", help="keep the rows of agents that --json has accepted before")
    parser.add_argument("--json", type=Path, help="where to store the result")
    parser.add_argument("--markdown", type=Path, help="where to write the table")
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row is not None:
        quick = {"episodes": 2, "calibration_steps": 256, "time_limit": 4.0, "latency": False}
        settings = quick if args.quick else {"episodes": args.episodes, "time_limit": args.time_limit}
        with tempfile.TemporaryDirectory() as out:
            args.row.write_text(json.dumps(export(args.folder, Path(out), **settings)))
        return
    agents = find_agents(args.folder)
    if not agents:
        parser.error(f"{args.folder} holds no <algo>/<env>_<n>/<env>.zip")
    passed_on = ["--episodes", str(args.episodes), "--time-limit", str(args.time_limit), *["--quick"] * args.quick]
    start, rows = perf_counter(), {}
    stored = json.loads(args.json.read_text())["agents"] if args.keep and args.json and args.json.is_file() else {}
    for agent in agents:
        name = str(agent.parent.relative_to(args.folder))
        if stored.get(name, {}).get("answer") == "accepted":
            rows[name] = stored[name]
            continue
        if args.quick and perf_counter() - start > QUICK:
            print(f"quick: {len(agents) - len(rows)} agents are left out")
            break
        rows[name] = run(agent, passed_on, args.timeout)
        print(" | ".join(cells(name, rows[name])), flush=True)
        if args.json:
            store(args.json, summarize(rows))
    if args.json:
        store(args.json, summarize(rows))
    table = to_markdown(rows)
    print(f"\n{table}\n\n{count(rows.values())}")
    if args.markdown:
        args.markdown.write_text(f"{table}\n")


if __name__ == "__main__":
    main()
