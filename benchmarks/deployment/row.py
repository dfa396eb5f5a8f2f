"""
What becomes of one agent of a collection: a process of ``collection.py``, which may crash or hang without harm to others.

    python -m benchmarks.deployment.row AGENT.zip ROW.json SETTINGS

SETTINGS are arguments of ``compress_agent`` as JSON.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from gymnasium import spaces

from sb3_sparse.sweeps.report.statistics import estimate_mean

#: Largest difference between actions of the file and of ONNX that is rounding, as a share of the largest action.
TOLERANCE = 1e-4
#: Number of observations that both act on, and numpy's names of the types that ONNX takes.
COUNT = 256
KINDS = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}


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
    means = {name: {"mean": float(values.mean()), "interval": interval_of(values)} for name, values in series.items()}
    return {"episodes": len(found["seeds"]), **means}


def interval_of(values: np.ndarray) -> list[float] | None:
    """
    :param values: One value per episode.
    :return: Student's 95 % t interval of their mean; None for a single one
    """
    bounds = estimate_mean(values).interval
    return None if bounds is None else [round(bound, 2) for bound in bounds]


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


if __name__ == "__main__":
    agent, row, settings = sys.argv[1:]
    with tempfile.TemporaryDirectory() as out:
        Path(row).write_text(json.dumps(export(Path(agent), Path(out), **json.loads(settings))))
