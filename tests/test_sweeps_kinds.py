"""Cells that train: they are killed and go on, distill an agent, and are taken from rl-zoo3."""

import os
import signal
import subprocess
import sys
import time
from zipfile import ZipFile

import pytest
import torch as th
import yaml
from stable_baselines3 import PPO, SAC

from sb3_sparse.agents import ALGORITHMS
from sb3_sparse.cli import main
from sb3_sparse.sweeps import Folder, read_grid
from sb3_sparse.sweeps.kinds import Distill, FineTune, Zoo
from sb3_sparse.sweeps.kinds.agent_files import digest_agent
from sb3_sparse.sweeps.kinds.evaluation import evaluate
from sb3_sparse.sweeps.kinds.hyperparams import check_changes
from sb3_sparse.zoo import find_recipe, read_recipe
from tests.house import ROOT

pytest.importorskip("joblib")
pytest.importorskip("rl_zoo3")

ZOO = {"algo": "ppo", "env": "CartPole-v1", "recipe": "gmp", "sparsity": 0.9, "steps": 1500, "engine": True}
SHORT = {"evaluations": 3, "evaluation_episodes": 1, "episodes": 2, "bits": [8], "checkpoints": 4}


def write_grid(folder, kind, fixed, **axes):
    file = folder / f"{kind}.yml"
    file.write_text(yaml.safe_dump({"title": "A test", "kind": kind, "fixed": fixed, "axes": axes}))
    return file


def made(result):
    return {name: result[name] for name in ("settings", "evaluations", "curve", "networks", "steps")}


@pytest.mark.slow
def test_a_killed_training_goes_on(tmp_path):
    """The result of a cell that died right after a checkpoint is that of one that did not, and it did not begin again."""
    grid = write_grid(tmp_path, "zoo", {**ZOO, **SHORT}, seed=[1])
    (cell,) = read_grid(str(grid)).cells
    main(["benchmark", "run", str(grid), "--folder", str(tmp_path / "whole"), "--jobs", "1"])
    broken = tmp_path / "broken"
    place = Folder(broken).cell_folder(cell.name)
    command = [sys.executable, "-c", "from sb3_sparse.cli import main; main()", "benchmark", "run", str(grid)]
    process = subprocess.Popen(
        [*command, "--folder", str(broken), "--jobs", "1"], env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT
    )
    while not list(place.glob("checkpoint-*[0-9]")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Folder(broken).read(cell.name) is None
    main(["benchmark", "run", str(grid), "--folder", str(broken), "--jobs", "1"])
    whole, resumed = (Folder(tmp_path / name).read(cell.name) for name in ("whole", "broken"))
    assert made(resumed) == made(whole)
    assert [len(returns) for returns in whole["curve"]["returns"]] == [1, 1, 1]
    assert set(whole["evaluations"]) == {"agent", "8 bits"}
    assert whole["networks"]["mlp_extractor"]["nonzero"] == round(0.1 * whole["networks"]["mlp_extractor"]["total"])
    assert "rl_zoo3" in whole["origin"]["versions"]
    assert "Loading pretrained agent" in (place / "log.txt").read_text()
    assert not list(place.glob("checkpoint*"))


@pytest.mark.slow
def test_a_distillation(tmp_path):
    """The agent itself, and its student."""
    agent = tmp_path / "CartPole-v1.zip"
    PPO("MlpPolicy", "CartPole-v1", n_steps=128, seed=0, device="cpu").learn(2_000).save(agent)
    fixed = {
        "agent": str(agent),
        "env": "CartPole-v1",
        "seed": 0,
        "steps": 2_000,
        "updates": 5_000,
        "episodes": 2,
        "trained_bits": 4,
        "bits": [4],
    }
    grid = write_grid(tmp_path, "distill", fixed, sparsity=[None, 0.9])
    main(["benchmark", "run", str(grid), "--folder", str(tmp_path / "sweep"), "--jobs", "1"])
    cells = read_grid(str(grid)).cells
    teacher, student = (Folder(tmp_path / "sweep").read(cell.name) for cell in cells)
    # The half that acts is sparse, and that of the values is the agent's.
    weights = [result["networks"]["mlp_extractor"]["nonzero"] for result in (teacher, student)]
    assert weights[1] - weights[0] / 2 < 0.1 * weights[0] / 2
    # It learnt with four bits.
    assert student["evaluations"]["4 bits"]["returns"] == student["evaluations"]["agent"]["returns"]
    assert student["evaluations"]["4 bits"]["nbytes"] < teacher["evaluations"]["4 bits"]["nbytes"]
    assert student["steps"] == 5_000 and teacher["steps"] == 0
    # It can be trained further.
    kept = PPO.load(Folder(tmp_path / "sweep").cell_folder(cells[1].name) / "student.zip", device="cpu")
    assert kept.lr_schedule(1.0) == PPO.load(agent, device="cpu").lr_schedule(1.0) > 0.0


def test_another_agent_is_another_cell(tmp_path):
    agent = tmp_path / "CartPole-v1.zip"
    names = []
    for seed in (0, 1):
        PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16, seed=seed, device="cpu").save(agent)
        cell = Distill(agent=str(agent), env="CartPole-v1", seed=0)
        cell.check()
        names.append(cell.name)
        digest_agent.cache_clear()
    assert names[0] != names[1]
    with pytest.raises(ValueError, match=r"there is no agent nothing\.zip"):
        Distill(agent="nothing.zip", env="CartPole-v1", seed=0).check()


def test_an_agent_that_has_diverged():
    """Its actions are clipped, and its returns may look like any others."""
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16, seed=0, device="cpu")
    assert len(evaluate(model, model.env, None, model.predict, 0, [])["networks"]) == 3
    with th.no_grad():
        model.policy.value_net.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"weights value_net\.bias of the agent are not finite: the training has diverged"):
        evaluate(model, model.env, None, model.predict, 0, [])


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"updates": 4000}, "updates=4000 and steps=300000 are too few"),
        ({"critic_updates": 10}, "critic_updates=10 are too few"),
        ({"algo": "saac"}, "algo has to be one of sac, "),
        ({"trained_bits": 1}, "trained_bits must be from 2 to 8"),
        ({"net_arch": [0]}, r"net_arch=\(0,\) must be a list of widths"),
    ],
)
def test_a_distillation_that_cannot_be(changes, sentence, tmp_path):
    agent = tmp_path / "agent.zip"
    agent.touch()
    with pytest.raises(ValueError, match=r"agent\.zip is not the zip of an agent that SB3 has saved"):
        Distill(agent=str(agent), env="CartPole-v1", seed=0).check()
    with ZipFile(agent, "w") as file:
        file.writestr("data", "{}")
    with pytest.raises(ValueError, match=sentence):
        Distill.read({"agent": str(agent), "env": "CartPole-v1", "sparsity": 0.9, "seed": 0, **changes}).check()


@pytest.mark.slow
def test_runs_of_rl_zoo3_are_imported(tmp_path):
    """A run with the settings of a cell, and not one with others."""
    train = "train --algo ppo --env CartPole-v1 --recipe gmp --sparsity 0.9 --eval-freq -1 --verbose 0 --device cpu".split()
    main([*train, "--seed", "1", "-n", "300", "-f", str(tmp_path / "logs")])
    fixed = {**ZOO, **SHORT, "steps": 300, "engine": False}
    grid = write_grid(tmp_path, "zoo", fixed, seed=[1, 2], sparsity=[0.8, 0.9])
    main(["benchmark", "import", str(grid), str(tmp_path / "logs"), "--folder", str(tmp_path / "sweep")])
    found = {(cell.seed, cell.sparsity): Folder(tmp_path / "sweep").read(cell.name) for cell in read_grid(str(grid)).cells}
    result = found.pop((1, 0.9))
    assert set(found.values()) == {None}
    assert len(result["evaluations"]["agent"]["returns"]) == 2
    assert (result["cpu_seconds"], result["curve"]["steps"]) == (None, [])
    assert result["origin"]["imported"] == str(tmp_path / "logs/ppo/CartPole-v1_1")
    run = tmp_path / "logs/ppo/CartPole-v1_1"
    cell, changed = (Zoo.read({**fixed, "seed": 1, "sparsity": 0.9, "hyperparams": each}) for each in ([], ["gamma:0.9"]))
    assert cell.is_run(run) and not changed.is_run(run)
    # One that was interrupted is saved as well, and arguments of the environment are nowhere but on the command line.
    args, agent = run / "CartPole-v1/args.yml", run / "CartPole-v1.zip"
    written = args.read_text()
    for name in ("env_kwargs", "eval_env_kwargs"):
        args.write_text(written.replace(f"  - - {name}\n    - null", f"  - - {name}\n    - sutton_barto_reward: true"))
        assert args.read_text() != written and not cell.is_run(run)
    args.write_text(written)
    model = PPO.load(agent, device="cpu")
    model.num_timesteps = 299
    model.save(agent)
    assert not cell.is_run(run)


@pytest.mark.parametrize(
    "hyperparams, sentence",
    [
        (["gama:0.9"], "has 'gama', which neither ppo nor rl-zoo3 knows: is it gamma"),
        (["zzz:1"], "has 'zzz', which neither ppo nor rl-zoo3 knows$"),
        (["n_timesteps:600"], "a cell has the setting steps for it"),
        (["seed:5"], "hyperparams has seed: a cell has the setting seed for it"),
        (["device:'cpu'"], "hyperparams has device, which is not free in a cell"),
        (["noise_std:0.1"], "has 'noise_std', which neither ppo nor rl-zoo3 knows"),
        (["callback:[x]"], r"callback:\[x\] is no literal"),
        (["callback:[]"], "callback: of --hyperparams has no callback with a sparsity"),
    ],
)
def test_hyperparameters_that_cannot_be(hyperparams, sentence):
    with pytest.raises(ValueError, match=sentence):
        Zoo.read({**ZOO, "hyperparams": hyperparams, "seed": 0}).check()


def test_callbacks_that_a_cell_cannot_have():
    """It has one of its own beside them, also where it sets no sparsity."""
    settings = {**ZOO, "sparsity": None, "hyperparams": ["callback:[x]"], "seed": 0}
    with pytest.raises(ValueError, match=r"callback:\[x\] is no literal"):
        Zoo.read(settings).check()


@pytest.mark.parametrize("recipe", sorted(find_recipe("sac", "gmp").parent.glob("*.yml")), ids=lambda file: file.stem)
def test_hyperparameters_of_all_recipes_are_known(recipe):
    """What our recipes set is what a cell may set."""
    algo = next(name for name in sorted(ALGORITHMS, key=len, reverse=True) if recipe.stem.startswith(f"{name}_"))
    for name, entry in read_recipe(recipe).items():
        if not name.startswith("_"):
            changes = [f"{key}:{value}" for key, value in entry.items() if key != "n_timesteps"]
            check_changes(algo, {}, changes)


TUNED = {"algo": "sac", "env": "Pendulum-v1", "recipe": "gmp", "sparsity": 0.5, "steps": 600, "collected": 200}


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """A SAC agent with fewer units than the recipe has."""
    agent = tmp_path_factory.mktemp("agents") / "agent.zip"
    SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [16, 16]}, seed=7, device="cpu", buffer_size=1).save(agent)
    return agent


@pytest.mark.slow
def test_an_agent_is_trained_further(agent, tmp_path):
    """It is pruned from what it was: rl-zoo3 loads it, with the widths of its own and none of its steps."""
    grid = write_grid(
        tmp_path, "finetune", {"agent": str(agent), **TUNED, **SHORT, "checkpoints": 1, "engine": True}, seed=[0]
    )
    (cell,) = read_grid(str(grid)).cells
    main(["benchmark", "run", str(grid), "--folder", str(tmp_path / "sweep"), "--jobs", "1"])
    result = Folder(tmp_path / "sweep").read(cell.name)
    actor = result["networks"]["actor"]
    # 3 inputs, twice 16 units, and mean and deviation of one action; the distribution is the recipe's.
    assert (actor["total"], actor["nonzero"]) == (3 * 16 + 16 * 16 + 2 * 16, round(0.5 * (3 * 16 + 16 * 16 + 2 * 16)))
    assert result["curve"]["steps"] == [200, 400, 600] and result["steps"] == 600
    assert "Loading pretrained agent" in (Folder(tmp_path / "sweep").cell_folder(cell.name) / "log.txt").read_text()


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"agent": "nothing.zip"}, r"there is no agent nothing\.zip"),
        ({"algo": "td3"}, "holds an agent of SAC, not of td3"),
        ({"algo": "bc", "recipe": "snip"}, "trains in an environment, and bc on recorded data"),
        ({"collected": 0}, "collected must be at least 1"),
        ({"hyperparams": ["normalize:True"]}, "normalizes the observations of Pendulum-v1"),
        ({"hyperparams": ["learning_rte:1.0"]}, "'learning_rte', which neither sac nor rl-zoo3 knows: is it learning_rate"),
        ({"hyperparams": ["learning_starts:250"]}, "has learning_starts: the agent has its own networks, and no warm-up"),
        ({"hyperparams": ["noise_std:0.1"]}, "has noise_std without a noise_type"),
        ({"sparsity": 1.0}, "sparsity"),
    ],
)
def test_an_agent_that_cannot_be_trained_further(agent, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        FineTune.read({"agent": str(agent), **TUNED, "seed": 0, **changes}).check()


def test_what_is_changed_to_train_an_agent_further(agent):
    """No random actions, which SB3 takes at the beginning of a run, and DQN at the beginning of its schedule."""
    tuned = {"agent": str(agent), **TUNED, "seed": 0}
    cell = FineTune.read(tuned)
    cell.check()
    words = cell.arguments(ROOT)
    assert "learning_starts:0" in words and words[words.index("-i") + 1] == str(agent)
    assert "-i" not in Zoo(algo="sac", env="Pendulum-v1", recipe="gmp", seed=0).arguments(ROOT)
    resumed = cell.arguments(ROOT, ROOT / "checkpoint-100")
    assert resumed[resumed.index("-i") + 1] == str(ROOT / "checkpoint-100/agent.zip")
    assert "collected" in " ".join(words) and "collected" not in " ".join(resumed)
    other = FineTune.read({**tuned, "algo": "dqn", "env": "CartPole-v1"})
    assert other.changes == (
        "learning_starts:0",
        f"exploration_initial_eps:{other.content()['recipe']['exploration_final_eps']}",
    )
    chosen = FineTune.read({**tuned, "algo": "dqn", "env": "CartPole-v1", "hyperparams": ["exploration_final_eps:0.2"]})
    assert chosen.changes == ("exploration_final_eps:0.2", "learning_starts:0", "exploration_initial_eps:0.2")
    assert FineTune.read({**tuned, "algo": "ppo", "env": "CartPole-v1"}).changes == ()
    # Settings that are not the agent's are those of a training from its start.
    assert not cell.is_run(ROOT)
