"""The search for the smallest policy that still plays: its front, its files, its seeds, its budget, and going on."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import monotonic

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.wrappers import TimeLimit
from sb3_contrib import QRDQN
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import sb3_sparse
from sb3_sparse import OneShotPruningCallback, compress, distill, fit
from sb3_sparse.agents import Player, load_normalization, make_environment, model_act, open_agent, play_returns
from sb3_sparse.cli import main
from sb3_sparse.distillation.experience.environments import NamedEnvironment, OpenEnvironment, Seeds
from sb3_sparse.distillation.search import Unmet
from sb3_sparse.distillation.search.candidates import Shape, find_shapes
from sb3_sparse.distillation.search.costs import CODE, Costs, count_instructions, flash_bytes, foresee_costs
from sb3_sparse.distillation.search.folder import _CODE
from sb3_sparse.distillation.search.front import Point
from sb3_sparse.distillation.search.results import Exported, Result
from sb3_sparse.distillation.search.search import Search
from sb3_sparse.distillation.search.target import Target, kept_return, pareto
from sb3_sparse.distillation.search.training.plan import Price, Rung, fit_into, make_rungs
from sb3_sparse.distillation.search.workers import hire
from sb3_sparse.distillation.search.workers.making import Maker
from sb3_sparse.distillation.search.workers.processes import Processes
from sb3_sparse.distillation.search.workers.trial import InTime, OutOfTime, Trial
from sb3_sparse.distillation.search.workers.workshop import Workshop
from sb3_sparse.lock import try_lock
from sb3_sparse.runtime import load
from sb3_sparse.sources import digest_sources
from tests.house import import_graph

SMALL = {
    "net_archs": [None, [4]],
    "sparsities": [0.5],
    "bits": (8, 2),
    "updates": 5000,
    "minutes": None,
    "jobs": 1,
    "episodes": 5,
}


def cartpole():
    """A linear controller in PPO's network: it balances the pole, without any training."""
    model = PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu", policy_kwargs={"net_arch": {"pi": [12, 12], "vf": [4]}})
    with th.no_grad():
        first, second = (model.policy.mlp_extractor.policy_net[index] for index in (0, 2))
        first.weight[0], first.bias[0] = th.tensor([0.1, 0.2, 1.5, 0.6]), 0
        second.weight[0], second.bias[0] = 0, 0
        second.weight[0, 0] = 2
        model.policy.action_net.weight.copy_(th.zeros(2, 12))
        model.policy.action_net.weight[:, 0] = th.tensor([-4.0, 4.0])
    return model


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A teacher, a finished search of it, its folder, and all seeds that environments got in trainings and elsewhere."""
    model, folder, seeds, seed = cartpole(), tmp_path_factory.mktemp("fit"), [], DummyVecEnv.seed

    def record(env, value=None):
        seeds.append(value)
        return seed(env, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DummyVecEnv, "seed", record)
        front = fit(model, "CartPole-v1", keep=0.9, checkpoint=folder, **SMALL)
    return model, front, folder, seeds


def test_the_front_is_a_front(searched):
    _, front, _, _ = searched
    assert len(front.evaluated) == 4 and front.points
    for point in front.evaluated:
        better = [other for other in front.evaluated if other.bytes <= point.bytes and other.kept >= point.kept]
        strictly = [other for other in better if other.bytes < point.bytes or other.kept > point.kept]
        assert (point in front.points) == (not strictly)


def test_bytes_and_returns_are_those_of_the_files(searched):
    """Whoever loads a file and plays the seeds gets the same returns, and the teacher's are those of its predict."""
    model, front, _, _ = searched
    venv = make_environment("CartPole-v1", model)
    assert front.best.teacher == tuple(play_returns(venv, model_act(model, None), front.seeds))
    for point in front.points:
        policy = load(point.file)
        assert point.bytes == point.file.stat().st_size
        assert point.costs.weights == sum(int(np.count_nonzero(layer.weight)) for layer in policy.network.layers)
        own = play_returns(venv, Player(policy), front.seeds)
        assert point.returns == tuple(own)
        assert point.kept == pytest.approx(np.mean(own) / np.mean(point.teacher))


def test_the_chosen_one_satisfies_the_target(searched):
    """It is the smallest that keeps enough, in the episodes that choose and in the fresh ones."""
    _, front, folder, _ = searched
    assert front.met and front.best.kept >= 0.9 and "keeps" in front.verdict
    smaller = [point for point in front.evaluated if point.bytes < front.best.bytes]
    for point in smaller:
        result = json.loads((point.file.parent / "result.json").read_text())
        (chosen,) = (policy["selection"] for policy in result["policies"] if policy["bits"] == point.bits)
        assert min(point.kept, np.mean(chosen) / 500) < 0.9
    assert (folder / "candidates" / "own-50-5000" / "8.sb3s").is_file()


def test_fresh_seeds_are_fresh(searched):
    """No training, calibration or choice has seen them."""
    _, front, _, seeds = searched
    first_fresh = seeds.index(front.seeds[0])
    assert len(set(front.seeds)) == 5 and not set(front.seeds) & set(seeds[:first_fresh])
    assert set(front.about["selection_seeds"]) <= set(seeds[:first_fresh])
    one, other = Seeds(0), Seeds(1)
    assert not set(one.selection(10_000)) & set(other.fresh(10_000)) | set(one.fresh(10_000)) & set(one.selection(10_000))
    assert min(one.selection(1) + one.fresh(1)) >= 2**31 and other.fresh(1)[0] < 2**32


def test_saved_files(searched, tmp_path):
    model, front, _, _ = searched
    (tmp_path / "front").mkdir()
    (tmp_path / "front" / "own-99-8bit.sb3s").write_text("of an earlier search")
    written = front.save(tmp_path, name="pole")
    assert {f"front/{file.name}" for file in (tmp_path / "front").iterdir()} < set(written)
    assert {"pole.sb3s", "pole.h", "pole.zip", "fit.json"} <= set(written)
    assert all((tmp_path / name).is_file() for name in written)
    found = json.loads((tmp_path / "fit.json").read_text())
    assert found["met"] and found["verdict"] == front.verdict and found["seeds"] == list(front.seeds)
    for point in found["points"]:
        assert point["front"] == (point["file"] is not None)
        if point["front"]:
            assert (tmp_path / point["file"]).stat().st_size == point["bytes"]
    assert sum(point["best"] for point in found["points"]) == 1
    student = PPO.load(tmp_path / "pole.zip", device="cpu")
    observations = np.random.default_rng(0).uniform(-0.2, 0.2, (50, 4)).astype(np.float32)
    actions = student.predict(observations, deterministic=True)[0]
    assert (actions == model.predict(observations, deterministic=True)[0]).mean() > 0.7
    assert "pole_act" in (tmp_path / "pole.h").read_text()
    assert "> " in str(front) and "95 % interval" in str(front)


def test_two_lengths_of_one_student(searched, tmp_path):
    """Trained for longer it is larger and better: both are on the front, each with a file of its own."""
    _, front, _, _ = searched
    costs = replace(front.best.costs, bytes=front.best.costs.bytes + 1, flash=front.best.costs.flash + 1)
    file = tmp_path / "longer.sb3s"
    file.write_bytes(front.best.file.read_bytes() + b" ")
    longer = replace(front.best, updates=15_000, costs=costs, returns=tuple(r + 1 for r in front.best.returns), file=file)
    both = replace(front, evaluated=(front.best, longer))
    both.save(tmp_path / "out")
    points = json.loads((tmp_path / "out" / "fit.json").read_text())["points"]
    assert [(tmp_path / "out" / point["file"]).stat().st_size for point in points] == [front.best.bytes, longer.bytes]
    assert front.normalization is None and not (tmp_path / "out" / "student_vecnormalize.pkl").exists()


def test_statistics_belong_to_the_student(tmp_path):
    """The zip of a student of an agent in VecNormalize plays as its compact file with the statistics that lie next to it."""
    venv = VecNormalize(make_vec_env("CartPole-v1", seed=0), norm_reward=False)
    model = PPO("MlpPolicy", venv, n_steps=128, seed=0, device="cpu").learn(512)
    front = fit(model, venv, keep=0.0001, **SMALL | {"net_archs": [None], "bits": [32], "episodes": 1})
    written = front.save(tmp_path, name="pole")
    assert "pole_vecnormalize.pkl" in written
    agent = open_agent(tmp_path / "pole.zip", env="CartPole-v1")
    returns = [play_returns(agent.venv, act, [7, 8, 9]) for act in (agent.act, Player(load(tmp_path / "pole.sb3s")))]
    assert agent.normalization is not None and returns[0] == returns[1]
    # The command has them from a file, without an environment, and saves them again.
    agent.normalization.save(str(tmp_path / "again.pkl"))
    _, again = load_normalization(tmp_path / "pole.zip", path=tmp_path / "again.pkl")
    assert np.array_equal(again.obs_rms.mean, agent.normalization.obs_rms.mean)
    assert VecNormalize.load(str(tmp_path / "again.pkl"), DummyVecEnv([lambda: gym.make("CartPole-v1")])).reset().shape == (
        1,
        4,
    )


def test_processes_end_with_the_search():
    """Those of a search that is killed do not go on alone."""
    script = """
import os, time
from sb3_sparse.distillation.search.workers.processes import Processes

class Workshop:
    def __init__(self, is_over): pass
    def close(self): pass
    def wait(self): time.sleep(60)
    def name(self): return os.getpid()

crew = Processes(2, Workshop, inherited=True)
print([result for _, result in crew.run(iter([("name", ())] * 2))], flush=True)
list(crew.run(iter([("wait", ())] * 2)))
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    children = json.loads(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.time() + 20
    while any(map(_runs, children)) and time.time() < deadline:
        time.sleep(0.1)
    assert not [child for child in children if _runs(child)]


def test_warnings_of_processes():
    """They reach who asked, each text once, in their class or in what that is derived from."""

    class OwnWarning(RuntimeWarning):
        pass

    class Doubting:
        def __init__(self, is_over):
            warnings.warn("it begins", OwnWarning, stacklevel=1)

        def close(self):
            pass

        def work(self, text):
            warnings.warn(text, UserWarning, stacklevel=1)
            warnings.warn("each time", DeprecationWarning, stacklevel=1)
            return text

    crew = Processes(2, Doubting, inherited=True)
    try:
        with pytest.warns(Warning) as caught:
            found = [result for _, result in crew.run(("work", (text,)) for text in "abab")]
    finally:
        crew.close()
    assert sorted(found) == ["a", "a", "b", "b"]
    kinds = {"a": UserWarning, "b": UserWarning, "each time": DeprecationWarning, "it begins": RuntimeWarning}
    assert len(caught) == 4 and {str(each.message): each.category for each in caught} == kinds


def _runs(process):
    try:
        os.kill(process, 0)
        return True
    except ProcessLookupError:
        return False


def test_finished_students_are_not_trained_again(searched, monkeypatch):
    """Another target of the same search finds them all; another agent does not get them."""
    model, front, folder, _ = searched
    monkeypatch.setattr(Workshop, "train", lambda *_: pytest.fail("it trains"))
    again = fit(model, "CartPole-v1", flash=2000, checkpoint=folder, **{**SMALL, "minutes": math.inf})
    assert again.about["minutes"] is None
    same = {(point.shape, point.bits): point.returns for point in front.evaluated}
    assert all(same[point.shape, point.bits] == point.returns for point in again.evaluated)
    assert again.best.flash <= 2000 and again.target.size == "flash"
    with pytest.raises(ValueError, match="another agent, environment or seed"):
        fit(model, "CartPole-v1", keep=0.9, checkpoint=folder, seed=1, **SMALL)
    # Students have the hyperparameters of their agent.
    monkeypatch.setattr(model, "gamma", 0.5)
    with pytest.raises(ValueError, match="another agent, environment or seed"):
        fit(model, "CartPole-v1", keep=0.9, checkpoint=folder, **SMALL)


def test_finished_students_count_without_time(searched, monkeypatch):
    """A budget that has room for one student chooses among all that an earlier search has trained."""
    model, front, folder, _ = searched
    monkeypatch.setattr(Workshop, "train", lambda *_: pytest.fail("it trains"))
    monkeypatch.setattr("sb3_sparse.distillation.search.training.halving.fit_into", lambda *_: [])
    again = fit(model, "CartPole-v1", keep=0.9, checkpoint=folder, **{**SMALL, "minutes": 1000})
    assert [(point.shape, point.bits) for point in again.evaluated] == [(point.shape, point.bits) for point in front.evaluated]


def test_finished_students_in_other_bits_do_not_count(searched, monkeypatch):
    """Who asks for 8 bits gets none of the policies in 2 bits that an earlier search has left."""
    model, _, folder, _ = searched
    monkeypatch.setattr(Workshop, "train", lambda *_: pytest.fail("it trains"))
    again = fit(model, "CartPole-v1", keep=0.9, checkpoint=folder, **{**SMALL, "bits": (8,)})
    assert {point.bits for point in again.evaluated} == {8}


def test_the_same_seed_in_other_processes(searched):
    """Two processes come to the same as this one did, and an environment may be given instead of its name."""
    model, front, _, _ = searched
    other = fit(model, gym.make("CartPole-v1"), keep=0.9, **{**SMALL, "jobs": 2})
    assert [(point.shape, point.bits, point.bytes, point.returns) for point in front.evaluated] == [
        (point.shape, point.bits, point.bytes, point.returns) for point in other.evaluated
    ]


def test_interrupted_and_resumed(searched, tmp_path, monkeypatch):
    """
    In a student's training with its bits: what was finished stays, also in other bits, and that training goes on from its
    checkpoint.
    """
    model, front, _, _ = searched
    step, calls, last = InTime._on_step, [], 100 + 20

    def count(callback):
        calls.append(callback.num_timesteps)
        if len(calls) == last:
            raise KeyboardInterrupt
        return step(callback)

    monkeypatch.setattr(InTime, "_on_step", count)
    with pytest.raises(KeyboardInterrupt):
        fit(model, "CartPole-v1", keep=0.9, checkpoint=tmp_path, **SMALL)
    (file,) = tmp_path.glob("candidates/*/result.json")
    assert [policy["bits"] for policy in json.loads(file.read_text())["policies"]] == [8]
    calls.clear()
    last = 0
    resumed = fit(model, "CartPole-v1", keep=0.9, checkpoint=tmp_path, **SMALL)
    # The last 20 rounds of this one, and all of the other student: once in 8 bits, and the last 35 % with 2.
    assert len(calls) == 20 + 100 + 35
    assert [(point.bytes, point.returns) for point in resumed.evaluated] == [
        (point.bytes, point.returns) for point in front.evaluated
    ]
    assert not list(tmp_path.glob("candidates/*/training"))


def test_few_bits_are_learnt(searched):
    """Policies are those of students that were distilled alone with their bits, and their zips act as they do."""
    model, front, _, _ = searched
    observations = np.random.default_rng(0).uniform(-0.2, 0.2, (50, 4)).astype(np.float32)
    for bits in (8, 2):
        (point,) = (point for point in front.evaluated if point.bits == bits and point.shape.net_arch == (4,))
        student = distill(model, "CartPole-v1", 0.5, [4], bits, steps=15_000, updates=5000)
        loaded = PPO.load(point.file.with_suffix(".zip"), device="cpu")
        for mine, theirs in zip(loaded.policy.parameters(), student.policy.parameters(), strict=True):
            assert th.equal(mine, theirs)
    # In 2 bits the weights of a row are zero, or all as large.
    layers = load(point.file).network.layers
    assert all(layer.quantized and np.abs(layer.weight).max() == 1 for layer in layers)
    assert (load(point.file).predict(observations)[0] == loaded.predict(observations, deterministic=True)[0]).all()


def test_earlier_bits_stay(searched, tmp_path):
    """A student is trained in further bits, and what it has come to in others is kept."""
    model, _, folder, _ = searched
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "candidates" / "4-50-5000" / "result.json"
    before = json.loads(file.read_text())["policies"]
    fit(model, "CartPole-v1", keep=0.1, checkpoint=tmp_path, **{**SMALL, "net_archs": [[4]], "bits": (8, 3)})
    after = json.loads(file.read_text())["policies"]
    assert [policy["bits"] for policy in after] == [8, 2, 3] and after[:2] == before
    assert {f"{bits}.{end}" for bits in (8, 3, 2) for end in ("sb3s", "zip")} < {each.name for each in file.parent.iterdir()}


def test_lessons():
    """Float weights for 8 bits and more, one training for each number of bits below, but where estimates are averaged."""
    venv = DummyVecEnv([lambda: gym.make("CartPole-v1")])
    for model, lessons in (
        (cartpole(), [(8, [32, 8]), (4, [4]), (2, [2])]),
        (QRDQN("MlpPolicy", "CartPole-v1", device="cpu", buffer_size=10), [(8, [32, 8, 4, 2])]),
    ):
        maker = Maker(model, venv, None, Seeds(0))
        assert list(maker.lessons((32, 8, 4, 2))) == lessons
        assert list(maker.lessons((8,))) == [(8, [8])]


def test_a_worker_waits_for_another_one(tmp_path):
    """Nobody writes into the folder of a student that somebody else still trains, who was taken for lost."""
    cartpole().save(tmp_path / "teacher.zip")
    place = OpenEnvironment(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    workshop = Workshop(PPO, tmp_path / "teacher.zip", place, None, tmp_path, 0, 1, lambda: False)
    trial = Trial(Shape((4,), 0.0), 5000, (8,), deadline=time.time() + 0.5)
    folder = tmp_path / "candidates" / trial.name
    with try_lock(folder / "lock"), pytest.raises(OutOfTime):
        workshop.train(trial)
    assert [file.name for file in folder.iterdir()] == ["lock"]


class Unseeded(CartPoleEnv):
    """Begins where it likes, whatever its seed."""

    def reset(self, *, seed=None, options=None):
        return super().reset(options=options)


def test_an_environment_that_does_not_follow_its_seeds(tmp_path):
    """Trainings in further bits cannot go on from where others have parted, so they begin anew."""
    model, venv = cartpole(), DummyVecEnv([lambda: Monitor(TimeLimit(Unseeded(), 100))])
    model.save(tmp_path / "teacher.zip")
    workshop = Workshop(PPO, tmp_path / "teacher.zip", OpenEnvironment(venv), None, tmp_path, 0, 1, lambda: False)
    result = workshop.train(Trial(Shape((4,), 0.0), 5000, (8, 4)))
    assert [policy.bits for policy in result.policies] == [8, 4] and np.mean(result.policies[1].selection) > 20
    with pytest.raises(ValueError, match="does not play alike with the same seed"):
        for bits in (8, 4):
            distill(model, venv, 0.0, [4], bits, steps=1000, updates=5000, checkpoint=tmp_path / "distill")


def test_an_impossible_target(searched, tmp_path, capsys):
    """The front is shown all the same, and a sentence names the nearest; the command writes it and exits with 1."""
    model, _, folder, _ = searched
    with pytest.raises(Unmet, match="nothing is within 50 bytes of flash: the nearest, ") as error:
        fit(model, "CartPole-v1", flash=50, checkpoint=folder, **SMALL)
    front = error.value.front
    # Of two students, one alone was worth a training.
    assert not front.met and len({point.shape for point in front.evaluated}) == 1 and front.best.flash > 50
    model.save(tmp_path / "pole.zip")
    arguments = ["fit", tmp_path / "pole.zip", "--env", "CartPole-v1", "--flash", "50", "--minutes", "inf", "--jobs", "1"]
    arguments += ["--bits", "8", "--updates", "5000", "--episodes", "2", "-o", tmp_path / "out"]
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 1
    assert {"pole.sb3s", "pole.h", "pole.zip", "fit.json"} <= {file.name for file in (tmp_path / "out").iterdir()}
    assert "nothing is within 50 bytes of flash" in capsys.readouterr().out
    # What met an earlier target stays.
    file = tmp_path / "out" / "fit.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "met": True}))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("pole.*")}
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 1 and "keeps the policy of an earlier search" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("pole.*")}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"keep": None}, "give flash, keep, us, or cycles and board"),
        ({"cycles": 20_000}, "cycles and board belong together"),
        ({"board": "m4f"}, "cycles and board belong together"),
        ({"cycles": 20_000, "board": "m5"}, "board='m5' must be one of m4f, m3"),
        ({"cycles": 0, "board": "m4f"}, "cycles must be a number above 0"),
        ({"keep": 0}, "keep must be a number above 0"),
        ({"keep": 98}, "keep is a share of the return, such as 0.98, got 98"),
        ({"flash": -1}, "flash must be a number above 0"),
        ({"minutes": 0}, "minutes=0 must be more than 0"),
        ({"minutes": "few"}, "minutes='few' must be more than 0"),
        ({"bits": 8}, "bits=8 must be a list"),
        ({"sparsities": 0.9}, "sparsities=0.9 must be a list"),
        ({"net_archs": [8, 8]}, "net_arch=8 must be a list of widths"),
        ({"checkpoint": __file__}, "is a file"),
        ({"normalization": 4}, "must be a VecNormalize"),
        ({"jobs": 0}, "jobs=0 must be a whole number of at least 1"),
        ({"updates": 100}, "updates=100 must be a whole number of at least 5,000"),
        ({"seed": 5000}, "from 0 to 1023"),
        ({"bits": (9,)}, "bits=9"),
        ({"sparsities": []}, "nothing to search"),
        ({"sparsities": [1.5]}, "sparsity"),
        ({"env": "Pendulum-v1"}, "Pendulum-v1 has observations"),
        ({"env": np.zeros((3, 4))}, "is not an environment"),
        ({"env": DummyVecEnv([lambda: gym.make("CartPole-v1")] * 2)}, "one environment at a time"),
        ({"env": DummyVecEnv([lambda: gym.make("Pendulum-v1")])}, "give what it was trained in"),
    ],
)
def test_bad_input(changes, sentence):
    arguments = {"env": "CartPole-v1", "keep": 0.9, **SMALL, **changes}
    with pytest.raises(ValueError, match=sentence):
        fit(cartpole(), arguments.pop("env"), **arguments)


def test_a_damaged_folder(tmp_path):
    with pytest.raises(ValueError, match="fit takes a model"):
        fit("agent.zip", "CartPole-v1", keep=0.9)
    for text in ("{", "[]", "{}"):
        (tmp_path / "search.json").write_text(text)
        with pytest.raises(ValueError, match=r"search\.json is damaged"):
            fit(cartpole(), "CartPole-v1", keep=0.9, checkpoint=tmp_path, **SMALL)


def test_a_folder_of_other_code(searched, tmp_path, monkeypatch):
    """Whether the version says so, or changed code alone, or it was not written down yet."""
    model, _, folder, _ = searched
    named = json.loads((folder / "search.json").read_text())
    assert named["code"].startswith(f"{sb3_sparse.__version__} ")
    for name, changed in (("__version__", "9.9"), ("digest_sources", lambda modules: digest_sources([*modules, __name__]))):
        with monkeypatch.context() as patch:
            patch.setattr(f"sb3_sparse.distillation.search.folder.{name}", changed)
            with pytest.raises(ValueError, match=f"other code has trained, sb3_sparse {named['code']}, .*give another folder"):
                fit(model, "CartPole-v1", keep=0.9, checkpoint=folder, **SMALL)
    (tmp_path / "search.json").write_text(json.dumps({"identity": named["identity"]}))
    with pytest.raises(ValueError, match="other code has trained, sb3_sparse of an earlier version"):
        fit(model, "CartPole-v1", keep=0.9, checkpoint=tmp_path, **SMALL)


def test_the_digest_names_all_code_that_makes_a_student():
    """What the making of students imports of its room, but for what has no part in their weights."""
    room = "sb3_sparse.distillation."
    # Refusals and progress bars; which students there are, and when they have to be done.
    others = {f"{room}{name}" for name in ("checks", "progress", "search.candidates", "search.workers.trial")}
    found, new = set(), {f"{room}search.workers.making"}
    while new:
        found |= new
        new = {name for module in new for name in import_graph()[module] if name.startswith(room)} - found
    assert found - others == set(_CODE) and others < found


def test_two_searches_in_one_folder(tmp_path):
    """The second one is refused before it writes anything; nothing has to be cleaned up after the first."""
    with try_lock(tmp_path / "lock") as lock:
        assert lock is not None
        with pytest.raises(ValueError, match="another search is at work in"):
            fit(cartpole(), "CartPole-v1", keep=0.9, checkpoint=tmp_path, **SMALL)
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    with try_lock(tmp_path / "lock") as lock:
        assert lock is not None


def test_a_search_holds_its_folder(tmp_path, monkeypatch):
    def run(search):
        with try_lock(tmp_path / "lock") as lock:
            assert lock is None
        raise ArithmeticError

    monkeypatch.setattr(Search, "run", run)
    with pytest.raises(ArithmeticError):
        fit(cartpole(), "CartPole-v1", keep=0.9, checkpoint=tmp_path, **SMALL)
    with try_lock(tmp_path / "lock") as lock:
        assert lock is not None


def test_bad_input_of_the_command(tmp_path, capsys):
    cartpole().save(tmp_path / "pole.zip")
    for arguments, sentence in (
        (["--cycles", "20k"], "cycles and board belong together"),
        (["--cycles", "20kb", "--board", "m4f"], "not a number of instructions"),
        (["--flash", "much"], "not a number of bytes"),
        ([], "give flash, keep, us, or cycles and board"),
    ):
        with pytest.raises(SystemExit):
            main(["fit", str(tmp_path / "pole.zip"), "--env", "CartPole-v1", "-o", str(tmp_path / "out"), *arguments])
        assert sentence in capsys.readouterr().err


@pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm")),
    reason="no compiler and emulator for Cortex-M",
)
def test_instructions_on_a_board(searched, tmp_path, monkeypatch):
    """Students of an earlier search are counted and not trained; the chosen one has the counts of its own header."""
    model, _, folder, _ = searched
    shutil.copytree(folder, tmp_path / "search")
    monkeypatch.setattr("sb3_sparse.distillation.search.workers.making.distill", None)
    front = fit(model, "CartPole-v1", keep=0.9, cycles=20_000, board="m4f", checkpoint=tmp_path / "search", **SMALL)
    assert len(front.evaluated) == 4
    for point in front.evaluated:
        network = load(point.file).network
        assert point.costs.board == "m4f" and point.instructions == count_instructions(network, "m4f")
        # Every weight that is left is a multiplication and an addition, or one instruction for both.
        assert point.costs.weights < point.instructions < 20_000
    assert front.best.instructions <= 20_000 and front.target.excess(front.best) == 0
    assert f"{front.best.instructions:,} instructions on an emulated m4f" in front.verdict and "instructions" in str(front)
    front.save(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert saved["target"]["cycles"] == 20_000 and "not cycles of hardware" in saved["counted"]["unit"]
    assert [point["instructions"] for point in saved["points"]] == [point.instructions for point in front.evaluated]
    # Fewer than the fewest: nothing is within, and the nearest is the one with the fewest.
    fewest = min(point.instructions for point in front.evaluated)
    with pytest.raises(Unmet, match=f"nothing takes at most {fewest - 1:,} instructions on an emulated m4f"):
        fit(model, "CartPole-v1", cycles=fewest - 1, board="m4f", checkpoint=tmp_path / "search", **SMALL)


def test_instructions_without_the_tools(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda tool: None)
    with pytest.raises(ValueError, match="apt-get install -y --no-install-recommends gcc-arm-none-eabi"):
        fit(cartpole(), "CartPole-v1", cycles=20_000, board="m4f", **SMALL)


def test_instructions_of_dict_observations():
    model = cartpole()
    model.observation_space = gym.spaces.Dict({"state": model.observation_space})
    with pytest.raises(ValueError, match="not of dict observations"):
        fit(model, "CartPole-v1", cycles=20_000, board="m4f", **SMALL)


def test_a_policy_that_does_not_fit_on_the_board():
    """It is beyond any limit of instructions, and of no interest where they are not limited."""
    costs = Costs(1, 1, 1, 1, 1.0, "m4f", None)
    assert Target(cycles=10, board="m4f").excess(costs) == math.inf and Target(flash=2).excess(costs) == 0


def test_plan():
    """Longer trainings of fewer students; less time makes them shorter first, then fewer, then drops the last."""
    rungs = make_rungs(15, 200_000)
    assert rungs == [Rung(15, 10_000), Rung(5, 50_000), Rung(2, 200_000)]
    assert make_rungs(4, 5000) == [Rung(4, 5000)]
    price = Price(per_update=1e-3, fixed=2.0)
    assert fit_into(rungs, 1e9, price, 2) == rungs
    for seconds in (300, 100, 40, 10):
        shorter = fit_into(rungs, seconds, price, 2)
        assert seconds / 2 < sum(-(-rung.count // 2) * (2 + rung.updates * 1e-3) for rung in shorter) <= seconds
        assert all(rung.updates % 5000 == 0 for rung in shorter)
    assert fit_into(rungs, 7, price, 2) == [Rung(2, 5000)] and fit_into(rungs, 6.9, price, 2) == []


def test_the_plan_grows_back():
    """What was shortened too much is trained for longer, and who was left out comes in; nobody is trained anew for little."""
    plan = make_rungs(15, 200_000)
    feared, true = Price(1e-2, 10.0), Price(1e-3, 1.0)
    first, *_ = fit_into(plan, 1000, feared, 1)
    assert first.count < 15 and first.updates == 5000
    assert fit_into(plan, 900, true, 1, trained=5000) == plan
    # The rungs behind, where the time is too short for the first one once more.
    rest = fit_into(plan, 100, true, 1, trained=5000)
    assert rest and all(rung.updates >= 7500 for rung in rest) and true.seconds(rest, 1) <= 100
    assert fit_into(plan, 900, true, 1, trained=10_000) == plan[1:]
    assert fit_into(plan, 250, true, 1, trained=50_000) == [Rung(1, 200_000)]
    assert fit_into(plan, 150, true, 1, trained=50_000) == [Rung(1, 125_000)]
    assert fit_into(plan, 70, true, 1, trained=50_000) == []
    assert fit_into(plan, 1e9, true, 1, trained=200_000) == []


class Clockwork:
    """A crew that does not work: trainings take the seconds that it says, and the wider and longer, the better they are."""

    jobs = 1

    def __init__(self, monkeypatch, slow=1.0):
        self.clock, self.trials, self.slow = 0.0, [], slow
        for module in ("search", "training.halving"):
            monkeypatch.setattr(f"sb3_sparse.distillation.search.{module}.time", lambda: self.clock)

    def run(self, works):
        for work in works:
            yield work, getattr(self, work[0])(*work[1])

    def play(self, file, seeds, deadline):
        self.clock += 0.01 * len(seeds)
        return [1.0] * len(seeds), 0.01 * len(seeds)

    def train(self, trial):
        (width,) = trial.shape.net_arch
        # The first one is the slowest, as a search begins with the largest network.
        training, exporting = (1e-3 * (self.slow if width == 15 else 1.0) * each for each in (trial.updates, 1000))
        training *= 1 + 0.35 * (len(trial.bits) - 1)
        self.clock += training + exporting * len(trial.bits)
        if self.clock > trial.deadline:
            self.clock = trial.deadline
            return None
        self.trials.append((width, trial.updates, trial.bits))
        result, folder = Result(trial.shape, trial.updates), self.folder / "candidates" / trial.name
        folder.mkdir(parents=True, exist_ok=True)
        for bits in trial.bits:
            kept = (1 - 1 / width) * (1 - 1000 / trial.updates) if bits > 2 else 0.1
            policy = Exported(bits, costs_of(width * bits), (kept,) * 20, training / len(trial.bits), exporting)
            result = result.add(policy, folder)
        return result

    def search(self, folder, seconds, updates=200_000, bits=(8, 4)):
        self.folder = folder
        shapes = [Shape((width,), 0.0) for width in range(15, 0, -1)]
        return Search(self, folder, Target(keep=0.5), shapes, bits, updates, Seeds(0), 10, seconds, False)


def costs_of(size):
    return Costs(size, size, size, 10, 1.0)


@pytest.mark.parametrize("seconds", [100, 200, 300, 500, 900, 2000])
@pytest.mark.parametrize("slow", [0.5, 1.0, 5.0])
def test_the_budget_is_used(slow, seconds, monkeypatch, tmp_path):
    """However long the first student takes, and never more; unless everything has been trained as planned."""
    crew = Clockwork(monkeypatch, slow)
    front = crew.search(tmp_path, seconds).run()
    assert crew.clock <= seconds
    plan = [[rung.count, rung.updates] for rung in make_rungs(15, 200_000)]
    whole = all(rung in front.about["rungs"] for rung in plan)
    assert front.about["cut"] == (not whole) and (whole or crew.clock > 0.9 * seconds)
    # Nobody is trained twice, or anew for little; only the first one was so before the first rung.
    trained = {}
    for width, updates, _ in crew.trials:
        trained.setdefault(width, []).append(updates)
    assert all(1.5 * one <= other for lengths in trained.values() for one, other in pairwise(lengths))
    counts = Counter(updates for count, updates in front.about["rungs"] for _ in range(count))
    extra = Counter(updates for _, updates, _ in crew.trials) - counts
    assert extra <= Counter([5000])


def test_further_time_takes_a_search_further(monkeypatch, tmp_path):
    """What was trained is there at once, and the time goes to students that were not or not for as long; until all is done."""
    first = Clockwork(monkeypatch)
    front = first.search(tmp_path, 200).run()
    second = Clockwork(monkeypatch)
    further = second.search(tmp_path, 200).run()
    assert not {trial[:2] for trial in first.trials} & {trial[:2] for trial in second.trials}
    assert 180 < second.clock <= 200 and len(further.evaluated) >= len(front.evaluated)
    assert max(updates for _, updates, _ in second.trials) > max(updates for _, updates, _ in first.trials)
    Clockwork(monkeypatch).search(tmp_path, 10_000).run()
    last = Clockwork(monkeypatch)
    assert not last.search(tmp_path, 10_000).run().about["cut"] and not last.trials


def test_enough_time_is_no_cut(monkeypatch, tmp_path):
    """Where the first students, who say how fast this goes, are part of the plan."""
    crew = Clockwork(monkeypatch)
    front = crew.search(tmp_path, 10_000, updates=80_000).run()
    assert front.about["rungs"] == [[15, 5000], [5, 20_000], [2, 80_000]] and not front.about["cut"]
    assert len(crew.trials) == 15 + 5 + 2


def test_without_a_budget(monkeypatch, tmp_path):
    """The plan, with the best of each rung in the next one, in the bits that are worth it."""
    crew = Clockwork(monkeypatch)
    front = crew.search(tmp_path, math.inf, bits=(8, 4, 2)).run()
    assert front.about["rungs"] == [[15, 10_000], [5, 50_000], [2, 200_000]] and not front.about["cut"]
    rungs = [[trial for trial in crew.trials if trial[1] == updates] for updates in (10_000, 50_000, 200_000)]
    # The smallest that keep enough, if a tenth may be missing, go on.
    assert {bits for *_, bits in rungs[0]} == {(8,)}
    assert rungs[1] == [(width, 50_000, (8, 4, 2)) for width in (2, 3, 4, 5, 6)]
    # 8 bits are no better than 4 here, and 2 bits bad: none but the smallest are beaten by nobody.
    assert rungs[2] == [(2, 200_000, (4, 2)), (3, 200_000, (4,))]


def point(size, kept, flash=None, us=1.0):
    return Point(Shape(None, 0.9), 8, 5000, Costs(size, size, flash or size, 10, us), (kept,), (1.0,), Path(str(size)))


def test_target():
    points = [point(size, kept) for size, kept in ((100, 0.5), (200, 0.97), (300, 0.99), (400, 0.98), (500, 1.1))]
    sizes = [
        [each.bytes for each in target.sort(points)] for target in (Target(keep=0.98), Target(flash=250), Target(keep=1.2))
    ]
    assert sizes[0][:3] == [300, 400, 500] and sizes[0][3] == 200
    assert sizes[1][:2] == [200, 100] and sizes[1][2] == 300
    assert sizes[2][0] == 500
    assert Target(keep=0.98).sort(points, slack=0.02)[0].bytes == 200
    assert [each.bytes for each in pareto(points, "bytes")] == [100, 200, 300, 500]
    # Of those that keep enough, the larger ones have nothing to win; one of the others is hopeless.
    points = [point(size, kept) for size, kept in ((100, 0.2), (200, 0.6), (300, 0.8), (400, 0.99), (500, 1.1))]
    for keep, slack, order in (
        (0.98, 0.0, [300, 200, 400, 500, 100]),
        (1.0, 0.1, [400, 300, 200, 500, 100]),
        (1.2, 0.0, [500, 400, 300, 200, 100]),
    ):
        assert [each.bytes for each in Target(keep=keep).rank(points, slack)] == order
    assert [each.bytes for each in Target(flash=250).rank(points, 0.0)] == [200, 100, 300, 400, 500]
    assert Target(us=0.5).shortfall(point(1, 1.0)) == 1.0 and Target(us=2).shortfall(point(1, 1.0)) == 0
    assert kept_return(-165.0, -150.0) == pytest.approx(0.9) and kept_return(90.0, 100.0) == pytest.approx(0.9)


def test_interval():
    """Paired: episodes in which both do the same leave no doubt, and the interval covers the ratio of normal returns."""
    same = Point(Shape(None, 0.9), 8, 5000, Costs(1, 1, 1, 1, 1.0), (1.0, 5.0, 9.0), (1.0, 5.0, 9.0), Path())
    assert same.interval == (1.0, 1.0)
    rng, covered = np.random.default_rng(1), 0
    for _ in range(100):
        teacher, own = rng.normal(100, 10, 50), rng.normal(90, 10, 50)
        low, high = Point(Shape(None, 0.9), 8, 5000, same.costs, tuple(own), tuple(teacher), Path()).interval
        covered += low <= 0.9 <= high
    assert covered >= 88


def test_shapes():
    assert [str(shape) for shape in find_shapes([400, 300], (130_000, 3))][3:6] == ["own-98", "own-99", "128x128-0"]
    assert len({str(Shape(None, sparsity)) for sparsity in (0.07, 0.29, 0.9999, 0.99991, 0.99999)}) == 5
    assert [str(Shape(None, sparsity)) for sparsity in (0.07, 0.29, 0.9999)] == ["own-7", "own-29", "own-99.99"]
    # A small network has few weights to lose.
    assert [str(shape) for shape in find_shapes([12, 12], (216, 3))] == ["own-80", "own-90", "8x8-0"]
    assert find_shapes([8], (100, 2), [None, [4, 4]], [0.0, 0.5, 0.5]) == [
        *(Shape(None, each) for each in (0.0, 0.5)),
        *(Shape((4, 4), each) for each in (0.0, 0.5)),
    ]


@pytest.mark.parametrize(("bits", "sparsity"), [(8, 0.0), (8, 0.8), (3, 0.0), (32, 0.5)])
def test_bytes_of_tables(bits, sparsity, tmp_path):
    """Those that a compiler lays out as constants, to alignment and the constants in the code."""
    model = SAC("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", policy_kwargs={"net_arch": [48, 40]})
    rng = np.random.default_rng(0)
    with th.no_grad():
        for parameter in model.actor.parameters():
            if parameter.dim() > 1:
                parameter.mul_(th.as_tensor(rng.random(parameter.shape) >= sparsity))
    policy = compress(model, bits, rng.standard_normal((200, 3)).astype(np.float32))
    flash, tables = flash_bytes(policy.network)
    assert tables < flash <= tables + max(CODE, flash - tables)
    if shutil.which("gcc") is None or shutil.which("size") is None:
        pytest.skip("no compiler")
    policy.to_c(tmp_path / "policy.h")
    (tmp_path / "act.c").write_text(
        '#include "policy.h"\nvoid act(const policy_observation *o, policy_action *a) { policy_act(o, a); }\n'
    )
    flags = ["-DPOLICY_INTEGER"] if bits != 32 else []
    subprocess.run(["gcc", "-Os", *flags, "-c", "act.c", "-o", "act.o"], cwd=tmp_path, check=True)
    listed = subprocess.run(["size", "-A", "act.o"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    constants = sum(int(line.split()[1]) for line in listed.splitlines() if line.startswith(".rodata"))
    assert tables <= constants <= tables + 160


def test_foreseen_bytes():
    """A student that has not been trained says how many bytes another one takes, dense or pruned at random."""
    observations = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    teacher, other = (SAC("MlpPolicy", "Pendulum-v1", seed=seed, device="cpu") for seed in (0, 1))
    for sparsity in (0.0, 0.95):
        other.learn(10, callback=OneShotPruningCallback("actor", sparsity) if sparsity else None)
        costs = foresee_costs(teacher, Shape(None, sparsity), 8, observations, None)
        # The callback also prunes the layer of the standard deviation, so the layers of the mean keep other shares.
        tolerance = 0.4 if sparsity else 0.1
        assert costs.bytes == pytest.approx(compress(other, 8, observations).nbytes, rel=tolerance)


class Closing(gym.Env):
    """Says when it is closed."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2)

    def __init__(self, file=None):
        self.file = file

    def reset(self, seed=None, options=None):
        return np.zeros(4, np.float32), {}

    def step(self, action):
        return np.zeros(4, np.float32), math.nan, True, False, {}

    def close(self):
        if self.file is not None:
            with open(self.file, "a") as file:
                file.write("closed ")


def test_rewards_that_are_not_finite():
    with pytest.raises(ValueError, match="an episode of the environment has the return nan"):
        fit(cartpole(), Closing(), keep=0.9, **SMALL)


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_was_made_is_closed(jobs, tmp_path):
    """In this process and in others; an environment of the user stays open."""
    teacher, closed = tmp_path / "teacher.zip", tmp_path / "closed"
    cartpole().save(teacher)
    gym.register("Closing-v0", Closing, kwargs={"file": str(closed)})
    try:
        venv = DummyVecEnv([lambda: gym.make("Closing-v0")])
        for place, times in ((OpenEnvironment(venv), 0), (NamedEnvironment("Closing-v0"), 2 * jobs)):
            make = partial(Workshop, PPO, teacher, place, None, tmp_path, 0, 1)
            crew = hire("loky", jobs, make)
            list(crew.run(iter([("play", (None, (), math.inf))] * 4)))
            crew.close()
            # The first one that is made by a name says whether it exists.
            assert (closed.read_text().count("closed") if times else closed.exists()) == times
    finally:
        del gym.registry["Closing-v0"]


@pytest.mark.slow
def test_the_budget_is_kept():
    for minutes in (0.25, 0.5):
        begin = monotonic()
        front = fit(cartpole(), "CartPole-v1", keep=0.1, minutes=minutes, jobs=1, episodes=5)
        assert monotonic() - begin < 1.25 * 60 * minutes
        assert front.about["cut"] and front.best.returns


def test_fit_is_a_name_of_the_package():
    assert sb3_sparse.fit is fit and "fit" in dir(sb3_sparse)
