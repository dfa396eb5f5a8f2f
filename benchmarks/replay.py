"""
What the replay buffer that stores each frame once costs and saves, beside SB3's, on the stream of an Atari game.

    python benchmarks/replay.py --json benchmarks/results/replay.json

Random actions are played in PongNoFrameskip-v4 under SB3's own wrappers, four frames stacked, and every transition is added to
both buffers, first until they are full and then for as long again as a fifth of that. ``replay/add_first`` are transitions
added per second over SB3's while the buffers fill, memory being touched for the first time; ``replay/add`` is the same for
buffers that are full. ``replay/sample`` are batches of 32 per second over SB3's. ``replay/bytes`` are bytes per transition
over SB3's.

Both sides have their turns in an order that is drawn anew in every round; a ratio is the median over the rounds. Time is CPU
time, as both sides use one thread and wait for nothing: other processes take turns with them, too. Batches that are drawn with
the same seed are compared, and the run fails if any two differ.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path

import numpy as np
import torch as th
from overhead import interval
from report import store
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecTransposeImage

from sb3_sparse.pixels import FrameReplayBuffer
from sb3_sparse.pixels.atari import is_atari

BATCH_SIZE = 32
#: Per turn of a side.
TRANSITIONS, BATCHES = 100, 20
Buffers = dict[str, ReplayBuffer]
Transition = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict]]


def make_env(name: str) -> VecEnv:
    """
    :param name: Name of an Atari game.
    :return: It, as ``DQN`` sees it
    """
    return VecTransposeImage(VecFrameStack(make_atari_env(name, seed=0), n_stack=4))


def play(env: VecEnv) -> Iterator[Transition]:
    """
    :param env: The environment.
    :return: Transitions of random actions without end, as an off-policy algorithm adds them
    """
    env.action_space.seed(0)
    observation = env.reset()
    while True:
        action = np.array([env.action_space.sample() for _ in range(env.num_envs)])
        new, reward, done, infos = env.step(action)
        after = deepcopy(new)
        for number in np.flatnonzero(done):
            after[number] = infos[number]["terminal_observation"]
        yield observation, after, action, reward, done, infos
        observation = new


def clock(buffers: Buffers, work: Callable[[ReplayBuffer], object], rng: np.random.Generator) -> dict[str, float]:
    """
    :param buffers: The sides.
    :param work: What each of them does, in an order that is drawn.
    :param rng: Source of the order.
    :return: Seconds of each
    """
    seconds = {}
    for side in rng.permutation(list(buffers)):
        start = time.thread_time()
        work(buffers[side])
        seconds[str(side)] = time.thread_time() - start
    return seconds


def measure(buffers: Buffers, transitions: Iterator[Transition], rounds: int) -> dict[str, list[dict[str, float]]]:
    """
    :param buffers: The sides, empty.
    :param transitions: What to fill them with.
    :param rounds: Number of rounds of sampling.
    :return: Seconds of each side, by what was measured and round
    """
    rng = np.random.default_rng(0)
    size = buffers["ours"].buffer_size

    def add_all(count: int, what: str) -> list[dict[str, float]]:
        turns = track(range(count // TRANSITIONS), what)
        chunks = (list(islice(transitions, TRANSITIONS)) for _ in turns)
        return [clock(buffers, lambda buffer, part=chunk: [buffer.add(*one) for one in part], rng) for chunk in chunks]

    found = {"add_first": add_all(size, "filling"), "add": add_all(size // 5, "adding")}

    def sample(buffer: ReplayBuffer) -> None:
        for _ in range(BATCHES):
            buffer.sample(BATCH_SIZE)

    found["sample"] = [clock(buffers, sample, rng) for _ in track(range(rounds), "sampling")]
    return found


def compare_batches(buffers: Buffers, count: int) -> None:
    """
    :param buffers: The sides, filled with the same transitions.
    :param count: Number of batches.
    :raises AssertionError: if a batch differs
    """
    for seed in range(count):
        batches = []
        for buffer in buffers.values():
            np.random.seed(seed)
            batches.append(buffer.sample(BATCH_SIZE)[:5])
        if not all(th.equal(mine, other) for mine, other in zip(*batches, strict=True)):
            raise AssertionError(f"the batches of seed {seed} differ")


def nbytes(buffer: ReplayBuffer) -> int:
    """
    :param buffer: A buffer of either side.
    :return: Bytes of its arrays, the frames among them
    """
    if isinstance(buffer, FrameReplayBuffer):
        return buffer.nbytes
    arrays = (buffer.observations, buffer.next_observations, buffer.actions, buffer.rewards, buffer.dones, buffer.timeouts)
    return sum(array.nbytes for array in arrays)


def summarize(found: dict[str, list[dict[str, float]]], buffers: Buffers) -> dict[str, dict[str, object]]:
    """
    :param found: What :func:`measure` returns.
    :param buffers: The sides, full.
    :return: Ratios and intervals, microseconds per transition or batch, and bytes per transition
    """
    rng = np.random.default_rng(0)
    seconds = {name: {side: np.array([one[side] for one in turns]) for side in buffers} for name, turns in found.items()}
    ratios = {f"replay/{name}": sides["sb3"] / sides["ours"] for name, sides in seconds.items()}
    sizes = {side: nbytes(buffer) / (buffer.buffer_size * buffer.n_envs) for side, buffer in buffers.items()}
    per_turn = {"add": TRANSITIONS, "add_first": TRANSITIONS, "sample": BATCHES}
    return {
        "ratios": {
            **{name: round(float(np.median(values)), 4) for name, values in ratios.items()},
            "replay/bytes": round(sizes["ours"] / sizes["sb3"], 4),
        },
        "intervals": {name: interval(values, rng) for name, values in ratios.items()},
        "microseconds": {
            f"{side}/{name}": round(1e6 * float(np.median(values)) / per_turn[name], 2)
            for name, sides in seconds.items()
            for side, values in sides.items()
        },
        "bytes_per_transition": {side: round(size, 1) for side, size in sizes.items()},
    }


def show(result: dict[str, dict[str, object]]) -> None:
    """
    :param result: What :func:`summarize` returns.
    """
    table = Table("", "SB3", "ours", "ratio", "95 % interval")
    titles = {"add_first": "us to add, filling", "add": "us to add, full", "sample": f"us to sample {BATCH_SIZE}"}
    for name, title in titles.items():
        times = (f"{result['microseconds'][f'{side}/{name}']:.1f}" for side in ("sb3", "ours"))
        low, high = result["intervals"][f"replay/{name}"]
        table.add_row(title, *times, f"{result['ratios'][f'replay/{name}']:.3f}", f"{low:.3f} - {high:.3f}")
    sizes = (f"{result['bytes_per_transition'][side]:,.0f}" for side in ("sb3", "ours"))
    table.add_row("bytes per transition", *sizes, f"{result['ratios']['replay/bytes']:.4f}", "")
    Console().print(table)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="PongNoFrameskip-v4", help="an Atari game (%(default)s)")
    parser.add_argument("--transitions", type=int, default=100_000, help="of the buffers; SB3's has 56 kB each (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="2,000 transitions and 20 rounds: a check, not a result")
    parser.add_argument("--json", type=Path, help="where to store the result")
    args = parser.parse_args()
    if not is_atari(args.env):
        parser.error(f"{args.env} is no Atari game, or ale-py is missing: pip install sb3_sparse[atari]")
    th.set_num_threads(1)
    size, rounds = (2_000, 20) if args.quick else (args.transitions, 500)
    env = make_env(args.env)
    spaces = env.observation_space, env.action_space
    buffers: Buffers = {"sb3": ReplayBuffer(size, *spaces, "cpu"), "ours": FrameReplayBuffer(size, *spaces, "cpu")}
    found = measure(buffers, play(env), rounds)
    compare_batches(buffers, 200)
    result = summarize(found, buffers)
    show(result)
    if args.json:
        store(
            args.json,
            result | {"env": args.env, "transitions": size, "rounds": {name: len(turns) for name, turns in found.items()}},
        )


if __name__ == "__main__":
    main()
