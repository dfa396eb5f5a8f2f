"""The benchmark of whole collections: one row for every agent, whatever becomes of it."""

import json
import shutil
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium.envs.registration import EnvSpec
from sb3_contrib import ARS
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from tests.algorithms import CASES
from tests.old_zips import save_old, save_old_statistics

CPU = {"device": "cpu", "seed": 0}
SETTINGS = {"episodes": 2, "calibration_steps": 60, "latency": False}
needs_tools = pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="there is no C compiler")


@pytest.fixture(scope="module")
def collection(benchmark_of):
    return benchmark_of("deployment.collection")


@pytest.fixture(scope="module")
def row_of(benchmark_of):
    """What becomes of one agent."""
    return benchmark_of("deployment.row")


def place(folder, algorithm, env):
    """Where rl-zoo3 keeps an agent."""
    agent = folder / algorithm / f"{env}_1" / f"{env}.zip"
    (agent.parent / env).mkdir(parents=True)
    return agent


@needs_tools
@pytest.mark.quick("dqn-old", "ppo-today", "ars-old", "maskable_ppo-today")
@pytest.mark.parametrize("old", [False, True], ids=["today", "old"])
@pytest.mark.parametrize("name", [*CASES, "ars"])
def test_every_algorithm(name, old, row_of, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    model = ARS("LinearPolicy", "Pendulum-v1", **CPU) if name == "ars" else CASES[name].make()
    env = CASES[name].env if name in CASES else "Pendulum-v1"
    if not isinstance(env, str):
        monkeypatch.setitem(gym.registry, "Own-v0", EnvSpec("Own-v0", entry_point=env, disable_env_checker=True))
        env = "Own-v0"
    agent = place(tmp_path, name, env)
    if old:
        save_old(model, agent)
    else:
        model.save(agent)
    row = row_of.export(agent, tmp_path / "out", **SETTINGS)
    assert (row["answer"], row["env"], row["env_used"], row["stopped"]) == ("accepted", env, env, [])
    assert row["header"].startswith("passed (float") and row["onnx"] == "equal"
    assert row["bytes"]["SB3 zip"] == agent.stat().st_size and row["bytes"]["compact file"] == size(tmp_path / "out")
    found, report = row["returns"], json.loads((tmp_path / "out" / "report.json").read_text())["returns"]
    assert found["episodes"] == 2 and found["SB3 model"]["mean"] == pytest.approx(np.mean(report["SB3 model"]))
    differences = np.subtract(report["exported file"], report["SB3 model"])
    # With two values Student's t has one degree of freedom.
    half = 12.706 * differences.std(ddof=1) / np.sqrt(2)
    assert found["difference"]["interval"] == pytest.approx([differences.mean() - half, differences.mean() + half], abs=0.006)


def size(out: Path) -> int:
    return next(out.glob("*.sb3s")).stat().st_size


@needs_tools
def test_statistics_and_settings(collection, row_of, tmp_path):
    """An agent of 1.x as it lies in the public collection, and one whose environment is nowhere."""
    pytest.importorskip("onnxruntime")
    agent = place(tmp_path, "ppo", "Pendulum-v0")
    venv = VecNormalize(make_vec_env("Pendulum-v1"))
    model = PPO("MlpPolicy", venv, n_steps=64, batch_size=32, n_epochs=1, **CPU).learn(64)
    save_old(model, agent)
    save_old_statistics(venv, agent.parent / agent.stem / "vecnormalize.pkl")
    (agent.parent / agent.stem / "config.yml").write_text(yaml.dump({"n_timesteps": 64, "normalize": True}))
    other = place(tmp_path, "ppo", "Nowhere-v0")
    PPO("MlpPolicy", "Pendulum-v1", **CPU).save(other)
    PPO("MlpPolicy", "Pendulum-v1", **CPU).save(other.parent / "best_model.zip")
    assert collection.find_agents(tmp_path) == [other, agent]
    played, not_played = (row_of.export(zip, tmp_path / "out", **SETTINGS) for zip in (agent, other))
    assert (played["env"], played["env_used"], played["onnx"]) == ("Pendulum-v0", "Pendulum-v1", "equal")
    assert not_played["answer"] == "accepted" and "'Nowhere-v0' cannot be made" in not_played["reason"]
    assert not_played["returns"] is None and not_played["header"] == "passed (float)"
    rows = {"a": played, "b": not_played, "c": {"answer": "refused", "reason": "because | of\nthis"}}
    lines = collection.to_markdown(rows).splitlines()
    assert len(lines) == 5 and "played in Pendulum-v1" in lines[2] and "accepted, not played: the environment" in lines[3]
    assert "refused: because \\| of this" in lines[4] and len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert collection.count(rows.values()) == "2 accepted, 1 refused, 0 failed"
    stored = collection.summarize(rows)
    assert stored["intervals"] == {"a/difference": played["returns"]["difference"]["interval"]}


def test_names_with_a_slash(row_of, tmp_path):
    agent = place(tmp_path, "ppo", "ALE-Pong-v5")
    args = agent.parent / agent.stem / "args.yml"
    assert row_of.environment_of(agent) == "ALE-Pong-v5"
    for text, expected in (
        ("env: ALE/Pong-v5", "ALE/Pong-v5"),
        ("env: os:ALE/Pong-v5", None),
        ("env: Other-v0", None),
        ("[", None),
    ):
        args.write_text(text)
        assert row_of.environment_of(agent) == (expected or agent.stem)


def test_a_process_for_each_agent(collection, tmp_path, monkeypatch):
    """A damaged zip, one that crashes and one that hangs cost their own rows, and no row names a folder of this machine."""
    agent = place(tmp_path, "ppo", "Pendulum-v1")
    agent.write_text("not a zip")
    row = collection.run(agent, {"episodes": 2}, 300)
    assert row["answer"] == "refused" and row["reason"].startswith("Pendulum-v1.zip is damaged, or not a zip")
    assert str(tmp_path) not in json.dumps(row) and row["seconds"] > 0
    script = tmp_path / "script.py"
    monkeypatch.setattr(collection, "ROW", (sys.executable, str(script)))
    script.write_text("import os, sys\nprint('last words', file=sys.stderr, flush=True)\nos.abort()\n")
    assert collection.run(agent, {}, 300)["reason"] == "its process ended with -6: last words"
    script.write_text("import time\ntime.sleep(60)\n")
    assert collection.run(agent, {}, 0.3)["reason"] == "its process was ended after 0 s"


def test_differences_are_found(row_of, tmp_path):
    """A header or a graph of another policy does not pass."""
    pytest.importorskip("onnxruntime")
    for name, seed in (("a", 1), ("b", 2)):
        agent = place(tmp_path, name, "Pendulum-v1")
        PPO("MlpPolicy", "Pendulum-v1", device="cpu", seed=seed).save(agent)
        row_of.export(agent, tmp_path / f"out_{name}", **SETTINGS | {"episodes": 1})
    graph = tmp_path / "out_a" / "Pendulum-v1.onnx"
    assert row_of.check_onnx(agent, tmp_path / "out_b") == "equal"
    shutil.copy(graph, tmp_path / "out_b")
    assert row_of.check_onnx(agent, tmp_path / "out_b").startswith("actions differ by")
    graph.unlink()
    assert row_of.check_onnx(agent, tmp_path / "out_a") == "not written"
    header = tmp_path / "out_b" / "Pendulum-v1.h"
    header.write_text(header.read_text().replace("float error =", "float error = 1.0f +"))
    assert "float: 8 of 8 test vectors fail" in row_of.check_header(agent, tmp_path / "out_b")
    header.write_text("int main(void) { return nothing; }")
    assert row_of.check_header(agent, tmp_path / "out_b") == "float: does not compile"


def test_accepted_rows_are_kept(benchmark_of, collection, tmp_path, monkeypatch, capsys):
    """A second call tries again what was not accepted, and stores all."""
    agents = [place(tmp_path, name, "Pendulum-v1") for name in ("a", "b", "c")]
    row = {
        "answer": "accepted",
        "env": "X",
        "env_used": "X",
        "returns": None,
        "speedup": 2.0,
        "header": "passed",
        "onnx": "equal",
    }
    row["bytes"] = {"SB3 zip": 30, "dense float32": 20, "compact file": 10}
    answers = dict(zip(agents, [row, {"answer": "refused", "reason": "why"}, row], strict=True))
    calls, asked = [], benchmark_of("shared.question")
    for agent in agents:
        agent.touch()
    monkeypatch.setattr(collection, "run", lambda agent, *_: calls.append(agent) or answers[agent])
    monkeypatch.setattr("sys.argv", ["collection.py", str(tmp_path), "--keep", "--json", str(tmp_path / "result.json")])
    for expected in (agents, agents[1:2]):
        calls.clear()
        asked.ask(collection.measure, *collection.OPTIONS, show=collection.show)
        assert calls == expected
        stored = json.loads((tmp_path / "result.json").read_text())
        assert list(stored["agents"]) == ["a/Pendulum-v1_1", "b/Pendulum-v1_1", "c/Pendulum-v1_1"]
        assert stored["ratios"]["c/Pendulum-v1_1/bytes"] == 3.0 and stored["ratios"]["a/Pendulum-v1_1/speed"] == 2.0
    assert "2 accepted, 1 refused, 0 failed" in capsys.readouterr().out
