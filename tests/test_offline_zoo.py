"""The offline recipes through rl-zoo3, on small datasets under the names of Minari's."""

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch as th
from minari.data_collector import EpisodeBuffer
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_sparse import summarize
from sb3_sparse.agents import load_agent, load_normalization
from sb3_sparse.agents.archive import read_policy
from sb3_sparse.cli import main
from sb3_sparse.offline import ALGORITHMS, BCQ, OfflineDataset
from sb3_sparse.zoo import RECIPES, read_recipe

#: The first task of each recipe is trained in every run of the tests.
CASES = [
    pytest.param(algo, path, env, id=f"{path.stem}-{env}", marks=pytest.mark.slow if index else ())
    for algo in ALGORITHMS
    for path in sorted(RECIPES.glob(f"{algo}_*.yml"))
    for index, env in enumerate(env for env in read_recipe(path) if env != "default")
]
SHORT = "--eval-freq -1 --seed 0 --device cpu --num-threads 1 --verbose 0"
SMALL = "policy_kwargs:dict(net_arch=[32,32])"
#: Which happens to networks that are this small.
pytestmark = pytest.mark.filterwarnings("ignore:pruning has cut network:UserWarning")


def random_episodes(env, count, length):
    """Episodes of random actions, the last one cut off."""
    env.action_space.seed(0)
    for number in range(count):
        observations = [env.reset(seed=number)[0]]
        actions, rewards, terminations, truncations = [], [], [], []
        for step in range(length):
            actions.append(env.action_space.sample())
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated or (step == length - 1 and not terminated))
            if terminated or truncated:
                break
        yield EpisodeBuffer(
            observations=np.array(observations),
            actions=np.array(actions),
            rewards=rewards,
            terminations=terminations,
            truncations=truncations,
        )


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory):
    """Minari's folder, with small datasets of the names that the recipes have."""
    folder = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        for name in ("HalfCheetah", "Hopper", "Walker2d"):
            env = gym.make(f"{name}-v5")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".* is set to None", UserWarning)  # Author and the like.
                episodes = list(random_episodes(env, 4, 60))
                minari.create_dataset_from_buffers(f"mujoco/{name.lower()}/expert-v0", episodes, env=env)
            env.close()
        yield folder


def train(*arguments, folder, updates=60):
    """Our command, in this process."""
    main(["train", *arguments, "-n", str(updates), "-f", str(folder), *SHORT.split()])


@pytest.mark.parametrize(("algo", "path", "env"), CASES)
def test_every_entry_trains(algo, path, env, tmp_path):
    method = path.stem.removeprefix(f"{algo}_")
    train("--algo", algo, "--env", env, "--recipe", method, "-params", SMALL, folder=tmp_path)
    model = ALGORITHMS[algo].load(tmp_path / algo / f"{env}_1" / f"{env}.zip", device="cpu")
    assert model.num_timesteps == model._n_updates == 60
    expected = 0.0 if method == "dense" else 0.95
    for network in summarize(model).networks.values():
        assert network.nonzero == round((1 - expected) * network.total)


def test_the_published_networks():
    """What the recipes say without small networks, counted on a model of the real size."""
    path = RECIPES / "bcq_snip.yml"
    settings = read_recipe(path)["HalfCheetah-v5"]
    data = OfflineDataset.from_minari(settings["dataset"])
    kept = ("learning_rate", "batch_size", "tau", "gamma", "lmbda", "phi", "n_target_actions", "n_eval_actions")
    model = BCQ("MlpPolicy", data, **{key: settings[key] for key in kept}, device="cpu")
    assert {name: network.total for name, network in summarize(model).networks.items()} == {
        "vae": 1_186_500,
        "critic": 259_000,
        "actor": 131_000,
    }
    # The recipe says what the algorithm does anyhow.
    plain = BCQ("MlpPolicy", data, device="cpu")
    assert all(getattr(model, key) == getattr(plain, key) for key in kept)


def test_resume_goes_on_with_the_masks(tmp_path):
    command = ["--algo", "bcq", "--env", "Hopper-v5", "--recipe", "snip", "-params", SMALL]
    train(*command, folder=tmp_path / "first")
    first = tmp_path / "first/bcq/Hopper-v5_1/Hopper-v5.zip"
    train(*command, "-i", str(first), folder=tmp_path / "second")
    second = tmp_path / "second/bcq/Hopper-v5_1/Hopper-v5.zip"
    # The same run without a break.
    train(*command, folder=tmp_path / "whole", updates=120)
    whole = tmp_path / "whole/bcq/Hopper-v5_1/Hopper-v5.zip"
    ended, uninterrupted = read_policy(second), read_policy(whole)
    assert all(th.equal(ended[name], uninterrupted[name]) for name in uninterrupted)
    states = [load_from_zip_file(path)[0]["sparsity_state"]["masks"] for path in (first, second, whole)]
    assert states[0] == states[1] == states[2]


def test_sparsity_and_dataset_from_the_command_line(tmp_path):
    command = ["--algo", "bc", "--env", "HalfCheetah-v4", "--recipe", "grasp", "-params", SMALL]
    train(*command, "--sparsity", "0.5", "--dataset", "mujoco/halfcheetah/expert-v0", folder=tmp_path)
    model = load_agent(tmp_path / "bc/HalfCheetah-v4_1/HalfCheetah-v4.zip", "bc")
    (network,) = summarize(model).networks.values()
    assert network.nonzero == round(0.5 * network.total)


@pytest.mark.parametrize("algo", ["bc", "bcq"])
def test_in_the_engine(algo, tmp_path):
    """The same agent, up to rounding; a warning would say that the engine has not trained it."""
    command = ["--algo", algo, "--env", "Hopper-v5", "--recipe", "snip", "-params", SMALL]
    agents = []
    for name, option in (("torch", []), ("engine", ["--engine"])):
        train(*command, *option, folder=tmp_path / name)
        agents.append(read_policy(tmp_path / name / algo / "Hopper-v5_1" / "Hopper-v5.zip"))
    for name, value in agents[0].items():
        assert float((agents[1][name] - value).norm()) <= 1e-3 * float(value.norm()), name


def test_normalize_takes_its_statistics_from_the_dataset(tmp_path):
    normalize = "normalize:\"{'norm_obs': True, 'norm_reward': False}\""
    command = ["--algo", "bc", "--env", "Hopper-v5", "--recipe", "dense", "-params", SMALL, normalize]
    train(*command, folder=tmp_path)
    run = tmp_path / "bc/Hopper-v5_1"
    found = load_normalization(run / "Hopper-v5.zip", "Hopper-v5")
    assert found is not None
    _, statistics = found
    data = OfflineDataset.from_minari("mujoco/hopper/expert-v0")
    observations = data.batch(np.arange(len(data))).observations.numpy()
    np.testing.assert_allclose(statistics.obs_rms.mean, observations.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(statistics.obs_rms.var, observations.var(axis=0), rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_enjoy(tmp_path, root):
    train("--algo", "bc", "--env", "HalfCheetah-v5", "--recipe", "snip", "-params", SMALL, folder=tmp_path)
    command = [str(Path(sys.executable).with_name("sb3-sparse")), "enjoy", "--algo", "bc", "--env", "HalfCheetah-v5"]
    done = subprocess.run(
        [*command, "-f", str(tmp_path), "-n", "1000", "--no-render", "--device", "cpu"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Episode Reward" in done.stdout
