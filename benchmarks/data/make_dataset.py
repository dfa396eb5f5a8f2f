"""
Rolls an agent out into a local Minari dataset, for everything that learns offline.

    python -m benchmarks.data.make_dataset tqc-HalfCheetah-v4.zip --env HalfCheetah-v4 --id tqc/halfcheetah/expert-v0 --jobs 2

Stored are observations and rewards of the environment itself; statistics of ``VecNormalize`` go only into what the agent
sees. Every episode begins with its own seed (``--seed`` plus its number), so the number of jobs changes nothing. There are
exactly ``--transitions``: where the last episode is longer, it is cut, and marked as truncated there.

Finished episodes are kept beside Minari's folder until the dataset is complete, so an interrupted call goes on where it
stopped. Minari's folder is ``~/.minari/datasets``, or what ``MINARI_DATASETS_PATH`` says.
"""

import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import torch as th
from minari import MinariDataset
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import parse_dataset_id
from minari.namespace import validate_namespace
from minari.storage import get_dataset_path
from stable_baselines3 import SAC

from benchmarks.data.rollouts import SETTINGS, Player, Rollout, make_episodes, prepare, read_episodes, returns_of
from benchmarks.shared.question import make_parser, option, parse
from benchmarks.shared.store import store


def make_dataset(rollout: Rollout, dataset_id: str, jobs: int, folder: Path, force: bool) -> tuple[MinariDataset, list[float]]:
    """
    :param rollout: What it holds.
    :param dataset_id: Its name, such as "tqc/halfcheetah/expert-v0".
    :param jobs: Number of processes.
    :param folder: Where episodes are kept until it is complete.
    :param force: Whether it may replace one of this name.
    :return: The dataset, and the returns of its whole episodes
    :raises ValueError: if the name is malformed or taken, or something does not fit
    :raises OSError: if a file cannot be read
    """
    _check_id(dataset_id)
    path = get_dataset_path(dataset_id)
    if path.exists() and not force:
        raise ValueError(f"there is a dataset {dataset_id} in {path}: give another --id, or --force to replace it")
    if rollout.transitions < 1 or jobs < 1:
        raise ValueError("--transitions and --jobs must be at least 1")
    Player(rollout).env.close()
    prepare(rollout, folder)
    make_episodes(rollout, folder, jobs)
    episodes = read_episodes(rollout, folder)
    returns = returns_of(episodes, folder)
    settings = json.loads((folder / SETTINGS).read_text())
    shutil.rmtree(path, ignore_errors=True)
    try:
        dataset = _write(rollout, dataset_id, episodes, settings, returns)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    shutil.rmtree(folder)
    return dataset, returns


def _write(
    rollout: Rollout, dataset_id: str, episodes: list[EpisodeBuffer], settings: dict[str, object], returns: list[float]
) -> MinariDataset:
    """The dataset in Minari's own form; images without loss."""
    env = gym.make(rollout.env)
    actions = "drawn" if rollout.stochastic else "deterministic"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is set to None", UserWarning)
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            episodes,
            env=env,
            eval_env=env,
            algorithm_name=str(settings["algorithm"]),
            author="sb3_sparse/benchmarks/data/make_dataset.py",
            description=f"{rollout.agent.name} in {rollout.env} with {actions} actions",
            jpeg_encoding=False,
        )
    env.close()
    statistics = {"mean_return": float(np.mean(returns)), "std_return": float(np.std(returns))} if returns else {}
    dataset.storage.update_metadata({"rollout": settings, **statistics})
    return dataset


def make_small(folder: Path, jobs: int = 1, seed: int = 0) -> tuple[MinariDataset, list[float]]:
    """
    :param folder: Where to put it; Minari looks for datasets there from now on.
    :param jobs: Number of processes.
    :param seed: Seed of the first episode.
    :return: A dataset of an untrained agent, and the returns of its episodes
    """
    os.environ["MINARI_DATASETS_PATH"] = str((folder / "datasets").resolve())
    folder.mkdir(parents=True, exist_ok=True)
    agent = folder / "sac-Pendulum-v1.zip"
    SAC("MlpPolicy", gym.make("Pendulum-v1"), seed=0, device="cpu").save(agent)
    rollout = Rollout(agent, "Pendulum-v1", transitions=1000, seed=seed)
    return make_dataset(rollout, "quick/pendulum-v0", jobs, folder / "work", force=True)


def quick(jobs: int, seed: int) -> dict[str, object]:
    """
    :param jobs: Number of processes.
    :param seed: Seed of the first episode.
    :return: What was read back from a small dataset, in a folder that is removed
    """
    with tempfile.TemporaryDirectory() as name:
        dataset, returns = make_small(Path(name), jobs, seed)
        return describe(minari.load_dataset(dataset.id), returns)


def describe(dataset: MinariDataset, returns: list[float]) -> dict[str, object]:
    """
    :param dataset: A dataset.
    :param returns: The returns of its whole episodes.
    :return: What there is to say of it
    """
    counts = {"transitions": int(dataset.total_steps), "episodes": int(dataset.total_episodes), "returns": returns}
    print(f"{dataset.id}: {counts['transitions']:,} transitions in {counts['episodes']} episodes", end="")
    print(f", returns {np.mean(returns):,.1f} ± {np.std(returns):,.1f}" if returns else ", the only one cut")
    return {"ratios": {}, "intervals": {}, "id": dataset.id, **counts, "rollout": dataset.storage.metadata["rollout"]}


def _check_id(dataset_id: str) -> None:
    try:
        namespace = parse_dataset_id(dataset_id)[0]
        if namespace is not None:
            validate_namespace(namespace)
    # Minari stumbles over a name without a version.
    except (TypeError, ValueError) as error:
        form = "it ends in a version (-v0), and the part before the last slash has at least two characters"
        raise ValueError(f"'{dataset_id}' is no name of a dataset: {form}") from error


OPTIONS = (
    option("agent", None, "zip of an agent", type=Path, nargs="?"),
    option("--env", None, "its environment"),
    option("--id", None, "name of the dataset, such as tqc/halfcheetah/expert-v0"),
    option("--transitions", 100_000, "exact number of transitions"),
    option("--jobs", 1, "number of processes"),
    option("--seed", 0, "seed of the first episode"),
    option("--stochastic", False, "draw actions, instead of taking the likeliest"),
    option("--algo", None, "the agent's algorithm, where its zip does not say"),
    option("--vecnormalize", None, "its file of VecNormalize, or none; by default the one beside it", type=Path),
    option("--work", None, "where to keep finished episodes until the dataset is complete", type=Path),
    option("--force", False, "replace a dataset of the same name"),
)


def main() -> None:
    """Roll out, store, and say what was stored."""
    parser = make_parser(__doc__, OPTIONS, "an untrained agent and 1,000 transitions")
    args = parse(parser, OPTIONS)
    th.set_num_threads(1)
    if not args.quick and None in (args.agent, args.env, args.id):
        parser.error("give an agent, --env and --id, or --quick")
    try:
        if args.quick:
            result = quick(args.jobs, args.seed)
        else:
            root = get_dataset_path()
            folder = args.work or root.with_name(f"{root.name}-work") / args.id.replace("/", "-")
            wanted = (args.transitions, args.seed, args.stochastic, args.algo, args.vecnormalize)
            rollout = Rollout(args.agent, args.env, *wanted)
            result = describe(*make_dataset(rollout, args.id, args.jobs, folder, args.force))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, "interrupted: finished episodes are kept, the same command goes on\n")
    if args.json:
        store(args.json, result)


if __name__ == "__main__":
    main()
