"""
Rolls an agent out into a local Minari dataset, for everything that learns offline.

    python benchmarks/make_dataset.py tqc-HalfCheetah-v4.zip --env HalfCheetah-v4 --id tqc/halfcheetah/expert-v0 --jobs 2

Stored are observations and rewards of the environment itself; statistics of ``VecNormalize`` go only into what the agent
sees. Every episode begins with its own seed (``--seed`` plus its number), so the number of jobs changes nothing. There are
exactly ``--transitions``: where the last episode is longer, it is cut, and marked as truncated there.

Finished episodes are kept beside Minari's folder until the dataset is complete, so an interrupted call goes on where it
stopped. Minari's folder is ``~/.minari/datasets``, or what ``MINARI_DATASETS_PATH`` says.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import warnings
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
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
from report import describe_versions, store
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from stable_baselines3 import SAC
from stable_baselines3.common.preprocessing import is_image_space

from sb3_sparse.agents import load_agent, load_normalization, make_environment

Episode = dict[str, np.ndarray]
#: What is asked for, beside the episodes, in the folder of an unfinished dataset.
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Rollout:
    """
    All that the episodes depend on.

    :param agent: Zip of an agent.
    :param env: Its environment.
    :param transitions: Exact number of transitions.
    :param seed: Seed of the first episode; those that follow have the next ones.
    :param stochastic: Whether actions are drawn, instead of the likeliest ones.
    :param algo: The agent's algorithm; by default found by the class of its policy.
    :param vecnormalize: Its file of ``VecNormalize``, or "none"; by default the one beside it.
    """

    agent: Path
    env: str
    transitions: int
    seed: int = 0
    stochastic: bool = False
    algo: str | None = None
    vecnormalize: Path | None = None

    def settings(self) -> dict[str, object]:
        """The same as JSON, with the contents of files instead of their names, and versions."""
        normalization = load_normalization(self.agent, self.env, self.vecnormalize)
        return {
            "agent_sha256": _sha256(self.agent),
            "vecnormalize_sha256": _sha256(normalization[0]) if normalization else None,
            "env": self.env,
            "transitions": self.transitions,
            "seed": self.seed,
            "stochastic": self.stochastic,
            "algorithm": type(load_agent(self.agent, self.algo)).__name__,
            "versions": describe_versions(),
        }


class Player:
    """
    An agent in its environment.

    :param rollout: Which ones.
    :raises ValueError: if they do not fit, or the environment shows the agent something else than it stores
    """

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.model = load_agent(rollout.agent, rollout.algo)
        normalization = load_normalization(rollout.agent, rollout.env, rollout.vecnormalize)
        self.normalize = normalization[1].normalize_obs if normalization else lambda observation: observation
        make_environment(rollout.env, self.model).close()
        self.env = gym.make(rollout.env)
        space = self.env.observation_space
        if space.shape is None:
            raise ValueError(f"observations of {rollout.env} are no arrays, but {space}")
        if is_image_space(space) and sorted(space.shape) != sorted(self.model.observation_space.shape or ()):
            raise ValueError(f"the agent sees {rollout.env} through wrappers (Atari): such datasets are not made here")

    def play(self, number: int) -> Episode:
        """
        :param number: Number of the episode.
        :return: Its arrays, with one observation more than there are actions
        """
        seed = self.rollout.seed + number
        self.model.set_random_seed(seed)
        if self.model.use_sde:
            self.model.policy.reset_noise()
        observation, _ = self.env.reset(seed=seed)
        observations, steps = [np.array(observation)], []
        for left in reversed(range(self.rollout.transitions)):
            action, _ = self.model.predict(self.normalize(observations[-1]), deterministic=not self.rollout.stochastic)
            observation, reward, terminated, truncated, _ = self.env.step(action)
            # A copy: the environment may write the next one into the same memory.
            observations.append(np.array(observation))
            steps.append((action, float(reward), bool(terminated), bool(truncated or (left == 0 and not terminated))))
            if terminated or truncated:
                break
        columns = zip(("actions", "rewards", "terminations", "truncations"), zip(*steps, strict=True), strict=True)
        return {"observations": np.stack(observations)} | {name: np.array(values) for name, values in columns}


_player: Player | None = None


def _start(rollout: Rollout) -> None:
    """A new process: it leaves Ctrl-C to its parent, and finishes its episode."""
    global _player
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    th.set_num_threads(1)
    _player = Player(rollout)


def _make(number: int, folder: Path) -> int:
    assert _player is not None
    return keep(_player.play(number), number, folder)


def keep(episode: Episode, number: int, folder: Path) -> int:
    """
    Keep an episode: its file is there completely, or not at all.

    :param episode: Its arrays.
    :param number: Its number.
    :param folder: Where to.
    :return: Its number of transitions
    """
    part = folder / f"{number}.part"
    with part.open("wb") as file:
        np.savez(file, **episode)
    part.replace(folder / f"{number}.npz")
    return len(episode["rewards"])


def prepare(rollout: Rollout, folder: Path) -> None:
    """
    Make the folder of the episodes, or make sure that those in it are of the same rollout.

    :param rollout: What is asked for.
    :param folder: The folder.
    :raises ValueError: if it has episodes that were made otherwise
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings, path = rollout.settings(), folder / SETTINGS
    if not path.exists():
        path.write_text(json.dumps(settings, indent=2) + "\n")
    kept = json.loads(path.read_text())
    different = [name for name, value in settings.items() if kept.get(name) != value]
    if different:
        raise ValueError(f"{folder} has episodes with another {', '.join(different)}: delete it, or give another --work")


def make_episodes(rollout: Rollout, folder: Path, jobs: int) -> None:
    """
    Play the episodes that are missing.

    :param rollout: What is asked for.
    :param folder: Where episodes are kept.
    :param jobs: Number of processes.
    """
    lengths = {int(path.stem): _length(path) for path in folder.glob("*.npz")}
    fresh = max(lengths, default=-1) + 1
    # Those that were being played when an earlier call stopped, and then as many as it takes.
    missing = [number for number in range(fresh) if number not in lengths]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    context = multiprocessing.get_context("spawn")
    running: dict[Future[int], int] = {}
    with (
        Progress(*columns) as progress,
        ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(rollout,)) as pool,
    ):
        bar = progress.add_task(rollout.env, total=rollout.transitions)
        while missing or running or sum(lengths.values()) < rollout.transitions:
            progress.update(bar, completed=min(rollout.transitions, sum(lengths.values())))
            while len(running) < jobs and (missing or sum(lengths.values()) < rollout.transitions):
                number, fresh = (missing.pop(0), fresh) if missing else (fresh, fresh + 1)
                running[pool.submit(_make, number, folder)] = number
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                lengths[running.pop(future)] = future.result()
        progress.update(bar, completed=rollout.transitions)


def read_episodes(rollout: Rollout, folder: Path) -> list[EpisodeBuffer]:
    """
    :param rollout: What was asked for.
    :param folder: Where its episodes are kept.
    :return: Exactly as many transitions as asked for, in the order of the episodes' numbers; the last one may be cut
    """
    buffers: list[EpisodeBuffer] = []
    left = rollout.transitions
    while left > 0:
        number = len(buffers)
        with np.load(folder / f"{number}.npz") as file:
            episode = dict(file)
        steps = min(left, len(episode["rewards"]))
        cut = {name: values[: steps + (name == "observations")] for name, values in episode.items()}
        cut["truncations"][-1] |= not cut["terminations"][-1]
        buffers.append(EpisodeBuffer(id=number, seed=rollout.seed + number, **cut))
        left -= steps
    return buffers


def returns_of(episodes: list[EpisodeBuffer], folder: Path) -> list[float]:
    """
    :param episodes: The episodes of a dataset.
    :param folder: Where they come from.
    :return: The return of each, except of a last one that was cut
    """
    whole = len(episodes) - (_length(folder / f"{len(episodes) - 1}.npz") > len(episodes[-1]))
    return [float(np.sum(episode.rewards)) for episode in episodes[:whole]]


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
            author="sb3_sparse/benchmarks/make_dataset.py",
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


def _length(path: Path) -> int:
    with np.load(path) as file:
        return len(file["rewards"])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Roll out, store, and say what was stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", type=Path, nargs="?", help="zip of an agent")
    parser.add_argument("--env", help="its environment")
    parser.add_argument("--id", help="name of the dataset, such as tqc/halfcheetah/expert-v0")
    parser.add_argument("--transitions", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode")
    parser.add_argument("--stochastic", action="store_true", help="draw actions, instead of taking the likeliest")
    parser.add_argument("--algo", help="the agent's algorithm, where its zip does not say")
    parser.add_argument("--vecnormalize", type=Path, help="its file of VecNormalize, or none; by default the one beside it")
    parser.add_argument("--work", type=Path, help="where to keep finished episodes until the dataset is complete")
    parser.add_argument("--force", action="store_true", help="replace a dataset of the same name")
    parser.add_argument("--quick", action="store_true", help="an untrained agent and 1,000 transitions, for a check")
    parser.add_argument("--json", type=Path, help="where to store transitions, episodes and returns")
    args = parser.parse_args()
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
