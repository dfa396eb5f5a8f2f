"""rl-zoo3: its own command on our recipes, ours around it, resuming, and an installed wheel."""

import ast
import copy
import math
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import pytest
import torch as th
import yaml
from rl_zoo3.utils import get_callback_list
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_sparse import summarize, topology_history
from sb3_sparse.agents.archive import read_policy
from sb3_sparse.agents.load import load_agent
from sb3_sparse.cli import main
from sb3_sparse.cost import summarize_parameters
from sb3_sparse.nn import select_networks
from sb3_sparse.offline import ALGORITHMS, BC
from sb3_sparse.sparsity import Constant, erk
from sb3_sparse.state import SparsityState
from sb3_sparse.zoo import RECIPES, find_recipe, read_recipe, train_arguments, with_sparsity

ROOT = Path(__file__).parent.parent
#: One of the games that rl-zoo3 finds under the key atari.
GAME = "PongNoFrameskip-v4"


def method_of(path):
    """The method in a recipe's name, which may name a network before it and a period after it."""
    return re.sub(r"_\d+$", "", path.stem.split("_", 1)[1]).removeprefix("resnet_")


def alike(recipe):
    """The tasks of a recipe, those together that have the same settings."""
    groups = {}
    for env, settings in recipe.items():
        if not env.startswith("_"):
            groups.setdefault(repr(settings), []).append(env)
    return list(groups.values())


#: Offline algorithms have tests of their own.
ONLINE = [path for path in sorted(RECIPES.glob("*.yml")) if not path.stem.startswith(tuple(f"{name}_" for name in ALGORITHMS))]
#: The tasks of each recipe that have the same settings: one of them is trained, and all are parsed.
ALIKE = [(path, envs) for path in ONLINE for envs in alike(read_recipe(path))]
CASES = [(path, envs[0]) for path, envs in ALIKE]
#: The methods with a phase of quantization, by the method that they extend; without one they extend plain training.
QAT = {"qat": None, "gmp_qat": "gmp"}
#: The methods that are sparse from the first step, each with a rule for target networks.
SPARSE = {"static": "mask", "set": "topk", "rigl": "mask"}
#: The recipes of which the first settings are trained in every run of the tests: each method, and most algorithms.
QUICK = ("sac_gmp", "tqc_gmp_qat", "ppo_qat", "dqn_gmp", "td3_static", "sac_set", "td3_rigl", "dqn_rigl", "td3_dense")


def chosen(methods):
    """The settings that are trained of the recipes for these methods."""
    params, seen = [], set()
    for path, env in CASES:
        if method_of(path) in methods:
            quick = path.stem in QUICK and path not in seen
            params.append(pytest.param(path, env, id=f"{path.stem}-{env}", marks=() if quick else pytest.mark.slow))
            seen.add(path)
    return params


PRUNED = ("gmp", "gmp_both", "gmp_both_98", "gmp_both_fisher", *QAT)
GRADUAL, AT_ONCE, DENSE = (chosen(methods) for methods in (PRUNED, SPARSE, ("dense",)))
#: Small enough for a test; the rest of a recipe is as it is.
SHORT = "-n 60 --eval-freq -1 --seed 0 --device cpu --num-threads 1 --verbose 0"
SMALL = {
    "sac": "buffer_size:1000 learning_starts:30 batch_size:16",
    "td3": "buffer_size:1000 learning_starts:30 batch_size:16",
    "tqc": "buffer_size:1000 learning_starts:30 batch_size:16",
    "dqn": "buffer_size:1000 learning_starts:30 batch_size:16 train_freq:4 gradient_steps:1",
    "qrdqn": "buffer_size:1000 learning_starts:30 batch_size:16",
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


def networks_of(path, env, callback):
    """The networks that the callbacks of this name work on."""
    callbacks = [each for each in read_recipe(path)[env]["callback"] if isinstance(each, dict)]
    chosen = [each[f"sb3_sparse.{callback}"]["network"] for each in callbacks if f"sb3_sparse.{callback}" in each]
    return [name for names in chosen for name in ([names] if isinstance(names, str) else names)]


def train_shortly(path, env, folder, *options):
    """
    Sixty steps of an entry of a recipe, through rl-zoo3 itself.

    :return: The agent that it writes
    """
    algo, recipe = path.stem.split("_", 1)
    if env.startswith("LunarLander"):
        pytest.importorskip("Box2D", reason="LunarLander needs the package box2d")
    if env.startswith("MinAtar"):
        pytest.importorskip("minatar", reason="these games need the package minatar")
    if env == "atari":
        pytest.importorskip("ale_py", reason="Atari needs the package ale-py")
        pytest.importorskip("cv2", reason="AtariWrapper needs the package opencv-python-headless")
        env = GAME
    main(
        [
            *f"train --algo {algo} --env {env} --recipe {recipe} -f {folder} {SHORT}".split(),
            *(option for option in options if not option.startswith("callback:")),
            *("-params", *SMALL[algo].split()),
            *(option for option in options if option.startswith("callback:")),
        ]
    )
    return folder / algo / f"{env}_1" / f"{env}.zip"


@pytest.mark.parametrize(("path", "env"), GRADUAL)
def test_every_recipe_trains(path, env, tmp_path):
    """Every entry of the recipes for pruning and quantization."""
    pruned, quantized = (networks_of(path, env, name) for name in ("GradualPruningCallback", "QATCallback"))
    agent = train_shortly(path, env, tmp_path, *(("--sparsity", "0.75") if pruned else ()))
    summary = summarize_parameters(read_policy(agent))
    for network in pruned:
        assert summary.networks[network].sparsity == pytest.approx(0.75, abs=0.002)
    state = load_from_zip_file(agent, load_data=True)[0]["sparsity_state"]
    assert state["bits"] == {layer: 8 for network in quantized for layer in summary.networks[network].layers}


def test_every_recipe_is_trained():
    assert len(GRADUAL) + len(AT_ONCE) + len(DENSE) == len(CASES) > 80
    assert {path.stem for path in ONLINE}.issuperset(QUICK)


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in ONLINE])
def test_every_entry_is_parsed(path):
    """Its environment is one that rl-zoo3 finds, and its callbacks take their arguments; one of those alike is trained."""
    entries = {env: settings for env, settings in read_recipe(path).items() if not env.startswith("_")}
    assert sorted(entries) == sorted(env for recipe, envs in ALIKE if recipe == path for env in envs)
    for env, settings in entries.items():
        assert env == "atari" or env.startswith("MinAtar") or gym.spec(env).id == env
        callbacks = get_callback_list(copy.deepcopy(settings))
        assert len(callbacks) == len(settings.get("callback", []))


def named(callbacks, name):
    """The arguments of all callbacks of a name."""
    return [arguments for callback in callbacks for key, arguments in callback.items() if key == f"sb3_sparse.{name}"]


def check_counts(policy, state, callbacks, method):
    """Every layer has exactly the weights that the recipe says, and none elsewhere; the target networks obey their rule."""
    saved = SparsityState(SimpleNamespace(sparsity_state=state))
    networks = summarize_parameters(policy).networks
    masked = set()
    for pruning in named(callbacks, "OneShotPruningCallback"):
        assert (pruning["saliency"], pruning["targets"]) == ("random", SPARSE[method])
        names = [pruning["network"]] if isinstance(pruning["network"], str) else pruning["network"]
        for network in names:
            outputs = ("actor.mu.4", "critic.qf0.4", "critic.qf1.4") if "exclude" in pruning else ()
            shapes = {name: layer.shape for name, layer in networks[network].layers.items() if name not in outputs}
            expected = erk({name: th.zeros(shape) for name, shape in shapes.items()}, pruning["sparsity"] or 0.0)
            if pruning["sparsity"] is None:
                lambdas = pruning["distribution"]["erdos_renyi"]["lambdas"] * (len(shapes) // 2)
                sizes = zip(lambdas, shapes.items(), strict=True)
                expected = {name: min(math.prod(shape), round(factor * sum(shape))) for factor, (name, shape) in sizes}
            for name, shape in shapes.items():
                mask = saved.load_mask(name, th.Size(shape))
                assert int(mask.sum()) == expected[name]
                assert not policy[f"{name}.weight"][~mask].any()
                twin = policy.get(f"{name.replace(network, f'{network}_target', 1)}.weight")
                if twin is not None and method == "set":
                    assert twin.count_nonzero() <= expected[name]
                elif twin is not None:
                    assert not twin[~mask].any()
            masked.update(shapes)
    assert masked == saved.masked


@pytest.mark.parametrize(("path", "env"), AT_ONCE)
def test_sparse_recipes_train(path, env, tmp_path):
    """Rewired every tenth step."""
    method = method_of(path)
    callbacks = copy.deepcopy(read_recipe(path)[env]["callback"])
    rewirings = named(callbacks, "RewiringCallback")
    for rewiring in rewirings:
        rewiring["update_freq"] = 10
    agent = train_shortly(path, env, tmp_path, f"callback:{callbacks!r}")
    state = load_from_zip_file(agent, load_data=True)[0]["sparsity_state"]
    check_counts(read_policy(agent), state, callbacks, method)
    assert len(rewirings) == (method != "static")
    for rewiring in rewirings:
        names = [rewiring["network"]] if isinstance(rewiring["network"], str) else rewiring["network"]
        assert all(any(replaced > 0 for _, replaced, *_ in state["topology"][network]) for network in names)


@pytest.mark.parametrize(
    ("env", "inputs", "actions", "connections"),
    [
        ("HalfCheetah-v4", 17, 6, 106_169),
        ("Walker2d-v4", 17, 6, 106_169),
        ("Hopper-v4", 11, 3, 105_233),
        ("Ant-v5", 111, 8, 145_544),
        ("Humanoid-v4", 376, 17, 220_898),
    ],
)
def test_connections_of_ds_td3(env, inputs, actions, connections):
    """Sokar et al. 2022 with dense output layers; Ant-v3 has 111 inputs, and v5 the same lambda."""
    for method in SPARSE:
        (pruning,) = named(read_recipe(find_recipe("td3", method))[env]["callback"], "OneShotPruningCallback")
        first, second = pruning["distribution"]["erdos_renyi"]["lambdas"]
        layers = (
            (first, inputs),
            (second, 256),
            (first, inputs + actions),
            (second, 256),
            (first, inputs + actions),
            (second, 256),
        )
        assert sum(factor * (n + 256) for factor, n in layers) + 256 * (actions + 2) == connections


def test_ant_with_27_inputs_is_as_dense_as_with_111():
    (pruning,) = named(read_recipe(find_recipe("td3", "set"))["Ant-v4"]["callback"], "OneShotPruningCallback")

    def density(factor, inputs):
        layers = (inputs, inputs + 8, inputs + 8)
        return sum(factor * (n + 256) for n in layers) / sum(256 * n for n in layers)

    factor = pruning["distribution"]["erdos_renyi"]["lambdas"][0]
    assert density(factor, 27) == pytest.approx(density(40, 111), abs=0.005)


@pytest.mark.parametrize(
    ("algo", "base", "methods"),
    [("td3", "dense", SPARSE), ("td3", "gmp", ["dense"]), ("sac", "gmp", SPARSE), ("dqn", "gmp", SPARSE)],
    ids=["td3", "td3_dense", "sac", "dqn"],
)
def test_methods_differ_in_their_callbacks_alone(algo, base, methods):
    """So that what they reach compares; static, SET and RigL begin with the same topology."""
    recipes = [read_recipe(find_recipe(algo, method)) for method in methods]
    control = read_recipe(find_recipe(algo, base))
    for env in (name for name in recipes[0] if not name.startswith("_")):
        topologies = []
        for recipe in recipes:
            entry = dict(recipe[env])
            pruning = named(entry.pop("callback", []), "OneShotPruningCallback")
            topologies.append([{**arguments, "targets": ""} for arguments in pruning])
            if env in control:
                assert entry == {key: value for key, value in control[env].items() if key != "callback"}
        assert all(topology == topologies[0] for topology in topologies)
    assert all(recipe.keys() == recipes[0].keys() for recipe in recipes)
    elsewhere = ("_", "InvertedDoublePendulum", "MinAtar", "atari")
    only_one_has = {env for env in recipes[0].keys() ^ control.keys() if not env.startswith(elsewhere)}
    assert only_one_has <= {"Swimmer-v4", "Swimmer-v5"}


@pytest.mark.parametrize(("algo", "network"), [("dqn", ""), ("dqn", "resnet_"), ("qrdqn", ""), ("ppo", "")])
def test_dense_controls_on_pixels(algo, network):
    """What a pruned network is compared with is trained as it is: pruning is the one difference."""
    dense, pruned = (read_recipe(find_recipe(algo, f"{network}{method}")) for method in ("dense", "gmp"))
    games = {env for env in pruned if env.startswith(("atari", "MinAtar"))}
    assert games == dense.keys() and "atari" in games
    for env in games:
        ours, control = dict(pruned[env]), dict(dense[env])
        _, *others = ours.pop("callback")
        assert others == control.pop("callback", [])
        assert control == ours


@pytest.mark.parametrize(("network", "epsilon"), [("", "eps=1e-8,"), ("resnet_", "eps=3.125e-4, weight_decay=1e-5,")])
def test_the_papers_setting_on_atari(network, epsilon):
    """Ivanov et al. 2025, tables 1 and 2, and 300 prunings between 20 % and 80 % of 10M steps."""
    entry = read_recipe(find_recipe("dqn", f"{network}gmp"))["atari"]
    expected = {"n_timesteps": 1e7, "learning_rate": 1e-4, "gamma": 0.99, "buffer_size": 1_000_000, "batch_size": 32}
    expected |= {"target_update_interval": 8000, "tau": 1.0, "train_freq": 4, "gradient_steps": 1, "learning_starts": 20_000}
    expected |= {"exploration_fraction": 0.01, "exploration_final_eps": 0.01}
    assert {key: entry[key] for key in expected} == expected
    # The tables count environment steps; SB3 counts steps of all environments together.
    assert "n_envs" not in entry
    assert f"optimizer_kwargs=dict({epsilon} fused=True)" in entry["policy_kwargs"]
    arguments = entry["callback"][0]["sb3_sparse.GradualPruningCallback"]
    assert (arguments["network"], arguments["start"], arguments["end"]) == ("q_net", 0.2, 0.8)
    prunings = (arguments["end"] - arguments["start"]) * entry["n_timesteps"] / arguments["update_freq"]
    assert prunings == pytest.approx(300)


@pytest.mark.filterwarnings("ignore:stop=0.95 is step 57")
def test_sparsity_of_a_sparse_recipe(tmp_path):
    """One sparsity for all networks, also where lambdas fix the counts; the budget is that of the hidden layers."""
    _, changed = with_sparsity(find_recipe("td3", "set"), "Ant-v5", 0.9).split(":", 1)
    pruning, rewiring = ast.literal_eval(changed)
    original = read_recipe(find_recipe("td3", "set"))["Ant-v5"]["callback"]
    expected = named(original, "OneShotPruningCallback")[0] | {"sparsity": 0.9, "distribution": "erdos_renyi"}
    assert pruning == {"sb3_sparse.OneShotPruningCallback": expected}
    assert rewiring == original[1]
    _, changed = with_sparsity(find_recipe("sac", "rigl"), "Ant-v5", 0.7).split(":", 1)
    assert [arguments["sparsity"] for arguments in named(ast.literal_eval(changed), "OneShotPruningCallback")] == [0.7, 0.7]
    main(
        f"train --algo td3 --env Pendulum-v1 --recipe set --sparsity 0.9 -f {tmp_path} {SHORT} -params {SMALL['td3']}".split()
    )
    model = TD3.load(tmp_path / "td3/Pendulum-v1_1/Pendulum-v1.zip")
    saved = SparsityState(model)
    for layers in select_networks(model.policy, "all", ["mu.4", "qf*.4"]).values():
        counts = [int(saved.load_mask(name, layer.weight.shape).sum()) for name, layer in layers.items()]
        assert sum(counts) == round(0.1 * sum(layer.weight.numel() for layer in layers.values()))


def test_dense_twin_of_a_sparse_recipe(tmp_path):
    """Sparsity 0 takes away what has nothing to do then, and is the dense control, bit for bit."""
    assert with_sparsity(find_recipe("td3", "rigl"), "HalfCheetah-v4", 0.0) == "callback:[]"
    agents = []
    for options in ("set --sparsity 0", "dense"):
        command = f"train --algo td3 --env Pendulum-v1 --recipe {options} -f {tmp_path} {SHORT} -params {SMALL['td3']}"
        main(command.split())
        agents.append(read_policy(tmp_path / f"td3/Pendulum-v1_{len(agents) + 1}/Pendulum-v1.zip"))
    assert all(th.equal(weight, agents[1][name]) for name, weight in agents[0].items())
    for sparsity in (0.0, 0.5):
        with pytest.raises(ValueError, match="no callback with a sparsity to set for 'Ant-v5': leave --sparsity out"):
            with_sparsity(find_recipe("td3", "dense"), "Ant-v5", sparsity)


@pytest.mark.parametrize(("path", "env"), DENSE)
def test_dense_recipes_train(path, env, tmp_path):
    summary = summarize_parameters(read_policy(train_shortly(path, env, tmp_path)))
    assert all(network.sparsity == 0.0 for network in summary.networks.values())


def test_rl_zoo3_runs_our_recipe_unmodified(tmp_path):
    arguments = (
        f"--algo sac --env Pendulum-v1 -conf {find_recipe('sac', 'gmp')} -f {tmp_path} -n 120 --eval-freq -1 --device cpu"
    )
    zoo("rl_zoo3.train", *arguments.split(), cwd=tmp_path)
    summary = summarize(SAC.load(tmp_path / "sac/Pendulum-v1_1/Pendulum-v1.zip"))
    assert summary.networks["actor"].nonzero == round(0.1 * 66_816)


@pytest.mark.slow
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


@pytest.mark.quick("rigl")
@pytest.mark.parametrize("method", ["set", "rigl"])
def test_a_rewired_run_goes_on(method, tmp_path):
    """Resumed with `-i`, although rl-zoo3 counts from zero: the same clocks, masks and history."""
    callbacks = read_recipe(find_recipe("td3", method))["Pendulum-v1"]["callback"]
    (rewiring,) = named(callbacks, "RewiringCallback")
    rewiring["update_freq"] = 20
    command = f"train --algo td3 --env Pendulum-v1 --recipe {method} --eval-freq -1 --seed 0 --device cpu --num-threads 1"
    params = ["-params", *SMALL["td3"].split(), f"callback:{callbacks!r}"]
    main([*f"{command} --verbose 0 -f {tmp_path} -n 400 --save-freq 110".split(), *params])
    checkpoint = tmp_path / "td3/Pendulum-v1_1/rl_model_110_steps.zip"
    for steps in (5, 200):
        main([*f"{command} --verbose 0 -f {tmp_path} -n {steps} -i {checkpoint}".split(), *params])
    agents = [TD3.load(path) for path in (checkpoint, *(tmp_path / f"td3/Pendulum-v1_{i}/Pendulum-v1.zip" for i in (2, 3)))]
    first, short, long = ({name.split("(")[0]: clock for name, clock in x.sparsity_state["callbacks"].items()} for x in agents)
    assert list(first) == list(short) == list(long) == ["OneShotPruningCallback", "RewiringCallback"]
    assert all(clock["updates"] == 1 for clock in (x["OneShotPruningCallback"] for x in (first, short, long)))
    assert first["RewiringCallback"]["stop"] == round(400 * rewiring["stop"])
    for clocks, timestep in ((first, 110), (short, 115), (long, 310)):
        clock = clocks["RewiringCallback"]
        assert clock["timestep"] == timestep
        assert all(clock[name] == first["RewiringCallback"][name] for name in ("seed", "start", "stop"))
    histories = [topology_history(agent) for agent in agents]
    # Nothing is due within five steps.
    assert histories[0] == histories[1]
    masks = [
        {
            name: SparsityState(agent).load_mask(name, layer.weight.shape)
            for layers in select_networks(agent.policy, "all", rewiring["exclude"]).values()
            for name, layer in layers.items()
        }
        for agent in agents
    ]
    assert all(th.equal(mask, masks[1][name]) for name, mask in masks[0].items())
    assert all(mask.sum() == masks[2][name].sum() for name, mask in masks[0].items())
    for network, columns in histories[0].items():
        n, steps = len(columns["timestep"]), histories[2][network]["timestep"]
        assert n > 0 and {name: column[:n] for name, column in histories[2][network].items()} == columns
        assert len(steps) > n and all(110 < step <= min(310, first["RewiringCallback"]["stop"]) for step in steps[n:])


@pytest.mark.filterwarnings("ignore:stop=0.95 is step")
def test_the_papers_counts(tmp_path):
    """Sokar et al. 2022, table 2, of the models that rl-zoo3 makes of the recipes."""
    summaries = []
    for method in ("dense", "set"):
        command = f"train --algo td3 --env HalfCheetah-v5 --recipe {method} -f {tmp_path} {SHORT}"
        main([*command.split(), "-params", "buffer_size:1000", "learning_starts:50"])
        agent = load_agent(tmp_path / f"td3/HalfCheetah-v5_{len(summaries) + 1}/HalfCheetah-v5.zip")
        summaries.append(summarize(agent))
    dense, sparse = summaries
    assert (dense.connections, sparse.connections) == (214_784, 106_169)
    assert dense.training_flops(1_000_000) == sparse.training_flops(1_000_000, schedule=Constant(0.0))
    assert dense.training_flops(1_000_000) == pytest.approx(1.0744e14, rel=5e-5)
    assert sparse.training_flops(1_000_000) / dense.training_flops(1_000_000) == pytest.approx(0.4918, abs=5e-5)


def test_the_engine_trains_on_the_cpu():
    """Where there is a GPU, rl-zoo3 takes it; a device of the user's own counts."""
    arguments = train_arguments("sac", "Pendulum-v1", engine=True, others=["--device", "cuda"])
    assert [arguments[index + 1] for index, name in enumerate(arguments) if name == "--device"] == ["cpu", "cuda"]
    assert "--device" not in train_arguments("sac", "Pendulum-v1")


def test_precision_of_the_engine():
    """It is that of the callback which trains, and needs the engine."""
    arguments = train_arguments("sac", "HalfCheetah-v4", recipe="gmp", engine=True, precision="bf16")
    assert arguments[-1].endswith("{'sb3_sparse.EngineCallback': {'precision': 'bf16'}}]")
    with pytest.raises(ValueError, match="bf16 is one of training in the engine: add engine"):
        train_arguments("sac", "HalfCheetah-v4", recipe="gmp", precision="bf16")


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


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in ONLINE if method_of(path) in QAT])
def test_quantization_comes_on_top(path):
    """Another fifth of the run with quantized weights; until then all that has a schedule keeps it, step for step."""
    method = method_of(path)
    recipe, base = read_recipe(path), read_recipe(path.with_stem(path.stem.removesuffix(method) + "gmp"))
    assert list(recipe) == list(base)
    for env in recipe:
        # The environments of a file share their settings.
        longer, shorter = copy.deepcopy(recipe[env]), copy.deepcopy(base[env])
        steps, total = shorter.pop("n_timesteps"), longer.pop("n_timesteps")
        assert total == pytest.approx(1.2 * steps)
        assert longer.pop("exploration_fraction", 0) * total == pytest.approx(shorter.pop("exploration_fraction", 0) * steps)
        # What has no arguments has no schedule.
        assert [x for x in longer["callback"] if isinstance(x, str)] == [x for x in shorter["callback"] if isinstance(x, str)]
        *pruning, quantization = (callback for callback in longer.pop("callback") if isinstance(callback, dict))
        assert round(quantization["sb3_sparse.QATCallback"]["start"] * total) == steps
        pruned = [callback for callback in shorter.pop("callback") if isinstance(callback, dict)]
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


def test_a_recipe_belongs_to_the_longest_name(tmp_path, monkeypatch):
    """td3_bc_snip is the recipe snip of td3_bc, not the recipe bc_snip of td3."""
    monkeypatch.setitem(ALGORITHMS, "td3_bc", BC)
    monkeypatch.setattr("sb3_sparse.zoo.recipes.RECIPES", tmp_path)
    for name in ("td3_bc_snip", "td3_gmp", "ppo_lstm_gmp"):
        (tmp_path / f"{name}.yml").touch()
    assert find_recipe("td3_bc", "snip") == find_recipe("td3_bc", "td3_bc_snip") == tmp_path / "td3_bc_snip.yml"
    assert find_recipe("ppo_lstm", "gmp") == tmp_path / "ppo_lstm_gmp.yml"
    for algo, name in (("td3", "bc_snip"), ("td3", "td3_bc_snip"), ("ppo", "lstm_gmp")):
        with pytest.raises(ValueError, match=f"there is no recipe '{name}' for algorithm '{algo}'"):
            find_recipe(algo, name)


def test_with_sparsity_changes_our_callbacks_alone(tmp_path):
    conf = tmp_path / "mine.yml"
    ours = {"network": "all", "final_sparsity": 0.9, "initial_sparsity": 0.8}
    callbacks = ["rl_zoo3.callbacks.X", {"other.Callback": {"sparsity": 0.1}}, {"sb3_sparse.GradualPruningCallback": ours}]
    conf.write_text(yaml.safe_dump({"default": {"callback": callbacks}}))
    name, changed = with_sparsity(conf, "a", 0.7).split(":", 1)
    ours.update(final_sparsity=0.7, initial_sparsity=0.7)
    assert (name, ast.literal_eval(changed)) == ("callback", callbacks)


def test_sparsity_of_callbacks_on_the_command_line():
    """It is set in those, and not in those of the recipe that they stand for."""
    own = {"sb3_sparse.OneShotPruningCallback": {"network": "critic", "sparsity": 0.5, "saliency": "random"}}
    words = train_arguments(
        "sac", "Pendulum-v1", recipe="gmp", sparsity=0.9, engine=True, overrides=["gamma:0.9", f"callback:[{own}]"]
    )
    gamma, callbacks = words[words.index("--hyperparams") + 1 :]
    own["sb3_sparse.OneShotPruningCallback"]["sparsity"] = 0.9
    assert gamma == "gamma:0.9"
    assert ast.literal_eval(callbacks.removeprefix("callback:")) == [own, "sb3_sparse.EngineCallback"]


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
    # What is imported is compiled as it is; torch as a whole takes long.
    install = [python, *pip[1:], "install", "--no-compile", "-c", str(ROOT / "constraints.txt")]
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


@pytest.mark.parametrize("able", [True, False])
def test_flush_denormal(able, monkeypatch, capsys):
    """Set before rl-zoo3 begins, and kept from its command line; a processor that cannot do it says so."""
    calls = []
    monkeypatch.setattr("torch.set_flush_denormal", lambda flush: calls.append(flush) or able)
    monkeypatch.setattr("sb3_sparse.zoo.train", calls.append)
    main("train --algo td3 --env Pendulum-v1 --flush-denormal -n 10".split())
    assert calls == [True, ["--algo", "td3", "--env", "Pendulum-v1", "-n", "10"]]
    assert ("cannot" in capsys.readouterr().out) is not able


def test_an_assertion_of_rl_zoo3_is_one_line(tmp_path, monkeypatch):
    """rl-zoo3 checks its arguments by assertions; a fault elsewhere keeps its traceback."""
    with pytest.raises(SystemExit, match=rf"sb3-sparse enjoy: The {tmp_path}/none\S* folder was not found"):
        main(["enjoy", "--algo", "td3", "--env", "Pendulum-v1", "-f", f"{tmp_path}/none"])

    def fail():
        raise AssertionError("a fault")

    monkeypatch.setattr("rl_zoo3.enjoy.enjoy", fail)
    with pytest.raises(AssertionError, match="a fault"):
        main(["enjoy"])
