"""rl-zoo3: its own command on our recipes, ours around it, resuming, and an installed wheel."""

import ast
import copy
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml
from stable_baselines3 import SAC
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_sparse import summarize
from sb3_sparse.cli import main, read_policy
from sb3_sparse.cost import summarize_parameters
from sb3_sparse.zoo import RECIPES, find_recipe, read_recipe, with_sparsity

ROOT = Path(__file__).parent.parent
CASES = [(path, env) for path in sorted(RECIPES.glob("*.yml")) for env in read_recipe(path) if not env.startswith("_")]
#: The methods with a phase of quantization, by the method that they extend; without one they extend plain training.
QAT = {"qat": None, "gmp_qat": "gmp"}
#: Small enough for a test; the rest of a recipe is as it is.
SHORT = "-n 60 --eval-freq -1 --seed 0 --device cpu --num-threads 1 --verbose 0"
SMALL = {
    "sac": "buffer_size:1000 learning_starts:30 batch_size:16",
    "td3": "buffer_size:1000 learning_starts:30 batch_size:16",
    "tqc": "buffer_size:1000 learning_starts:30 batch_size:16",
    "dqn": "buffer_size:1000 learning_starts:30 batch_size:16 train_freq:4 gradient_steps:1",
    "ppo": "n_envs:1 n_steps:32 batch_size:16 n_epochs:2",
}


def zoo(module, *arguments, cwd):
    """Run a command of rl-zoo3 or ours in a process of its own."""
    command = (
        [sys.executable, "-m", module, *arguments]
        if module.startswith("rl_zoo3")
        else [str(Path(sys.executable).with_name(module)), *arguments]
    )
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def callbacks_of(path, env):
    """The arguments of the callbacks of a recipe, by name."""
    return {name: arguments for callback in read_recipe(path)[env]["callback"] for name, arguments in callback.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("path", "env"), CASES, ids=[f"{path.stem}-{env}" for path, env in CASES])
def test_every_recipe_trains(path, env, tmp_path, monkeypatch):
    """Sixty steps of every entry of every recipe, through rl-zoo3 itself."""
    algo, recipe = path.stem.split("_", 1)
    if env.startswith("LunarLander"):
        pytest.importorskip("Box2D", reason="LunarLander needs the package box2d")
    callbacks = callbacks_of(path, env)
    pruning, quantization = (
        callbacks.get(f"sb3_sparse.{name}", {"network": []}) for name in ("GradualPruningCallback", "QATCallback")
    )
    sparsity = "--sparsity 0.75" if pruning["network"] else ""
    main(f"train --algo {algo} --env {env} --recipe {recipe} {sparsity} -f {tmp_path} {SHORT} -params {SMALL[algo]}".split())
    agent = tmp_path / algo / f"{env}_1" / f"{env}.zip"
    summary = summarize_parameters(read_policy(agent))
    pruned, quantized = (
        [names] if isinstance(names, str) else names for names in (pruning["network"], quantization["network"])
    )
    for network in pruned:
        assert summary.networks[network].sparsity == pytest.approx(0.75, abs=0.002)
    state = load_from_zip_file(agent, load_data=True)[0]["sparsity_state"]
    assert state["bits"] == {layer: 8 for network in quantized for layer in summary.networks[network].layers}


def test_rl_zoo3_runs_our_recipe_unmodified(tmp_path):
    arguments = (
        f"--algo sac --env Pendulum-v1 -conf {find_recipe('sac', 'gmp')} -f {tmp_path} -n 120 --eval-freq -1 --device cpu"
    )
    zoo("rl_zoo3.train", *arguments.split(), cwd=tmp_path)
    summary = summarize(SAC.load(tmp_path / "sac/Pendulum-v1_1/Pendulum-v1.zip"))
    assert summary.networks["actor"].nonzero == round(0.1 * 66_816)


def test_train_resume_enjoy_summary(tmp_path):
    """The whole way through the command: train, stop, go on with `-i`, watch, count."""
    train = f"train --algo sac --env Pendulum-v1 --recipe gmp --sparsity 0.95 --eval-freq -1 --device cpu -f {tmp_path}"
    small = "-params learning_starts:20 batch_size:16"
    zoo("sb3-sparse", *f"{train} -n 400 --save-freq 200 {small}".split(), cwd=tmp_path)
    first = tmp_path / "sac/Pendulum-v1_1"
    zoo("sb3-sparse", *f"{train} -n 100 -i {first}/rl_model_200_steps.zip {small}".split(), cwd=tmp_path)
    resumed = SAC.load(tmp_path / "sac/Pendulum-v1_2/Pendulum-v1.zip")
    (clock,) = resumed.sparsity_state["callbacks"].values()
    assert (clock["timestep"], clock["start"], clock["end"]) == (300, 80, 320)
    assert 0.8 < summarize(resumed).networks["actor"].sparsity < 0.95
    # Without -f it looks where train writes by default.
    (tmp_path / "logs").symlink_to(tmp_path)
    output = zoo("sb3-sparse", *"enjoy --algo sac --env Pendulum-v1 -n 200 --no-render --device cpu".split(), cwd=tmp_path)
    assert "Mean reward" in output
    output = zoo("sb3-sparse", "summary", str(first / "Pendulum-v1.zip"), "--load", cwd=tmp_path)
    assert output == f"{summarize(SAC.load(first / 'Pendulum-v1.zip'))}\n"


def test_the_papers_setting():
    """Ivanov et al. 2025, Table 3, and 600 prunings between 20 % and 80 % of 1M steps, on six tasks in v4 and v5."""
    recipe = read_recipe(find_recipe("sac", "gmp"))
    for task in ("HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid", "Swimmer"):
        for version in ("v4", "v5"):
            entry = recipe[f"{task}-{version}"]
            assert entry["policy_kwargs"] == "dict(net_arch=[256, 256], optimizer_kwargs=dict(weight_decay=1e-4))"
            expected = {"n_timesteps": 1e6, "learning_rate": 3e-4, "gamma": 0.99, "buffer_size": 1_000_000, "batch_size": 256}
            expected |= {"tau": 0.005, "train_freq": 1, "gradient_steps": 1, "target_update_interval": 1}
            assert {key: entry[key] for key in expected} == expected
            (arguments,) = (next(iter(callback.values())) for callback in entry["callback"])
            assert (arguments["network"], arguments["start"], arguments["end"]) == ("actor", 0.2, 0.8)
            assert (arguments["end"] - arguments["start"]) * entry["n_timesteps"] / arguments["update_freq"] == pytest.approx(
                600
            )


@pytest.mark.parametrize("method", QAT)
@pytest.mark.parametrize("algo", SMALL)
def test_quantization_comes_on_top(algo, method):
    """Another fifth of the run with quantized weights; until then all that has a schedule keeps it, step for step."""
    recipe, base = (read_recipe(find_recipe(algo, name)) for name in (method, "gmp"))
    assert list(recipe) == list(base)
    for env in recipe:
        # The environments of a file share their settings.
        longer, shorter = copy.deepcopy(recipe[env]), copy.deepcopy(base[env])
        steps, total = shorter.pop("n_timesteps"), longer.pop("n_timesteps")
        assert total == pytest.approx(1.2 * steps)
        assert longer.pop("exploration_fraction", 0) * total == pytest.approx(shorter.pop("exploration_fraction", 0) * steps)
        *pruning, quantization = longer.pop("callback")
        assert round(quantization["sb3_sparse.QATCallback"]["start"] * total) == steps
        pruned = shorter.pop("callback")
        for callbacks, length in ((pruning, total), (pruned, steps)):
            for arguments in (arguments for callback in callbacks for arguments in callback.values()):
                arguments.update({moment: round(arguments[moment] * length) for moment in ("start", "end")})
        assert pruning == (pruned if QAT[method] else [])
        assert longer == shorter


def test_dense_twin_of_a_quantized_recipe_is_quantized():
    """Sparsity 0 takes the pruning away and leaves the quantizer: the control that is quantized only."""
    _, changed = with_sparsity(find_recipe("sac", "gmp_qat"), "HalfCheetah-v4", 0.0).split(":", 1)
    pruning, quantization = ast.literal_eval(changed)
    assert pruning["sb3_sparse.GradualPruningCallback"]["final_sparsity"] == 0.0
    assert quantization == {"sb3_sparse.QATCallback": {"network": "actor", "start": 0.8333333333, "bits": 8}}
    with pytest.raises(ValueError, match="no callback with a sparsity to set"):
        with_sparsity(find_recipe("sac", "qat"), "HalfCheetah-v4", 0.5)


def test_with_sparsity_changes_our_callbacks_alone(tmp_path):
    conf = tmp_path / "mine.yml"
    ours = {"network": "all", "final_sparsity": 0.9, "initial_sparsity": 0.8}
    callbacks = ["rl_zoo3.callbacks.X", {"other.Callback": {"sparsity": 0.1}}, {"sb3_sparse.GradualPruningCallback": ours}]
    conf.write_text(yaml.safe_dump({"default": {"callback": callbacks}}))
    name, changed = with_sparsity(conf, "a", 0.7).split(":", 1)
    ours.update(final_sparsity=0.7, initial_sparsity=0.7)
    assert (name, ast.literal_eval(changed)) == ("callback", callbacks)


@pytest.mark.slow
def test_wheel(tmp_path):
    """A wheel in an empty environment, outside the checkout: the command finds its recipes and trains."""
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "logs", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignore)
    wheels = tmp_path / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(source)], check=True)
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "--disable-pip-version-check", "-q", "install", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*install, "torch==2.13.0"], check=True)
    subprocess.run([*install, f"{next(wheels.glob('*.whl'))}[zoo]"], check=True)
    site = next(environment.glob("lib/python*/site-packages"))
    assert (site / "sb3_sparse/hyperparams/sac_gmp.yml").is_file()
    script = environment / "bin" / "sb3-sparse"
    arguments = f"train --algo sac --env Pendulum-v1 --recipe gmp -f {tmp_path / 'logs'} -n 120 --eval-freq -1 --device cpu"
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([python, script, *arguments.split()], cwd=tmp_path, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stdout + done.stderr
    where = [python, "-c", "import sb3_sparse; print(sb3_sparse.__file__)"]
    assert subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, env=clean).stdout.startswith(str(environment))
    summary = summarize_parameters(read_policy(tmp_path / "logs/sac/Pendulum-v1_1/Pendulum-v1.zip"))
    assert summary.networks["actor"].nonzero == round(0.1 * 66_816)
