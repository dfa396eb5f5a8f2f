"""
What becomes of a whole collection of agents: which are exported and which refused, and is what is exported right?

    python -m benchmarks.deployment.collection FOLDER --json benchmarks/results/collection.json --markdown collection.md

FOLDER is in rl-zoo3's layout, ``<algo>/<env>_<n>/<env>.zip`` with settings and statistics in ``<env>/``, as the public
collection ``rl-trained-agents`` is. ``sb3-sparse compress`` does the work, with what it finds next to each zip. Then the
header is compiled and its self test run, in both arithmetics, and the ONNX graph acts on the same observations as the file.

Each agent has a process of its own, so one that crashes or hangs costs its row and no more. An agent whose environment cannot
be made is exported without one, and without calibration.
"""

import json
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.shared.question import ask, option
from benchmarks.shared.store import Result

#: Seconds that a quick check may take before it begins no other agent.
QUICK = 60
#: Where the process of an agent runs.
ROOT = Path(__file__).parents[2]
ROW = (sys.executable, "-m", "benchmarks.deployment.row")
HEAD = (
    "agent", "answer", "SB3 zip", "float32", "file", "SB3", "exported", "difference", "faster", "C header", "ONNX",
)  # fmt: skip


def find_agents(folder: Path) -> list[Path]:
    """
    :param folder: A collection in rl-zoo3's layout.
    :return: The zip of each agent, not those of its checkpoints
    """
    return sorted(zip for zip in folder.glob("*/*/*.zip") if zip.parent.name.rpartition("_")[0] == zip.stem)


def run(agent: Path, settings: dict[str, Any], timeout: float) -> dict[str, Any]:
    """
    :param agent: A zip.
    :param settings: How it is exported, and how long it plays.
    :param timeout: Seconds after which it is ended.
    :return: Its row, whatever happens to its process
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "row.json"
        command = [*ROW, str(agent), str(result), json.dumps(settings)]
        start = perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT)
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


def measure(args: Namespace) -> Iterator[Result]:
    """
    :param args: The collection, how long each of its agents plays, and what to keep of an earlier result.
    :return: The rows, after every agent
    :raises ValueError: if there are no agents
    """
    agents = find_agents(args.folder)
    if not agents:
        raise ValueError(f"{args.folder} holds no <algo>/<env>_<n>/<env>.zip")
    settings = {"episodes": args.episodes, "time_limit": args.time_limit}
    settings |= {"calibration_steps": 256, "latency": False} if args.quick else {}
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
        rows[name] = run(agent.resolve(), settings, args.timeout)
        print(" | ".join(cells(name, rows[name])), flush=True)
        yield summarize(rows)
    yield summarize(rows)
    if args.markdown:
        args.markdown.write_text(f"{to_markdown(rows)}\n")


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: How many agents have which answer
    """
    yield count(result["agents"].values())


OPTIONS = (
    option("folder", None, "a collection in rl-zoo3's layout", type=Path),
    option("--episodes", 20, "episodes to compare the returns over", quick=2),
    option("--time-limit", 120.0, "seconds of play for each agent", quick=4.0),
    option("--timeout", 900.0, "seconds after which an agent's process is ended"),
    option("--keep", False, "keep the rows of agents that --json has accepted before"),
    option("--markdown", None, "where to write the table", type=Path),
)

if __name__ == "__main__":
    ask(measure, *OPTIONS, show=show, quick="two episodes and no times, for a minute")
