"""
What the replay buffer that stores each frame once costs and saves, beside SB3's, on the stream of an Atari game.

    python -m benchmarks.speed.replay --json benchmarks/results/replay.json

Random actions are played in PongNoFrameskip-v4 under SB3's own wrappers, four frames stacked, and every transition is added to
both buffers, first until they are full and then for as long again as a fifth of that. ``replay/add_first`` are transitions
added per second over SB3's while the buffers fill, memory being touched for the first time; ``replay/add`` is the same for
buffers that are full. ``replay/sample`` are batches of 32 per second over SB3's. ``replay/bytes`` are bytes per transition
over SB3's.

Both sides have their turns in an order that is drawn anew in every round; a ratio is the median over the rounds. Time is CPU
time, as both sides use one thread and wait for nothing: other processes take turns with them, too. Batches that are drawn with
the same seed are compared, and the run fails if any two differ.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import islice

import numpy as np
import torch as th
from rich.progress import track
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecTransposeImage

from benchmarks.shared.question import ask, option, table
from benchmarks.shared.store import Result
from benchmarks.shared.turns import summarize
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


def fill_and_sample(buffers: Buffers, transitions: Iterator[Transition], rounds: int) -> dict[str, list[dict[str, float]]]:
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


def measure(args: Namespace) -> Result:
    """
    :param args: The game, the size of the buffers, and rounds of sampling.
    :return: Ratios of times and sizes, microseconds per transition or batch, and bytes per transition
    :raises ValueError: if it is no Atari game
    """
    if not is_atari(args.env):
        raise ValueError(f"{args.env} is no Atari game, or ale-py is missing: pip install sb3_sparse[atari]")
    env = make_env(args.env)
    spaces = env.observation_space, env.action_space
    buffers: Buffers = {
        kind: cls(args.transitions, *spaces, "cpu") for kind, cls in (("sb3", ReplayBuffer), ("ours", FrameReplayBuffer))
    }
    found = fill_and_sample(buffers, play(env), args.rounds)
    compare_batches(buffers, 200)
    seconds = {name: {side: np.array([one[side] for one in turns]) for side in buffers} for name, turns in found.items()}
    sizes = {side: nbytes(buffer) / (buffer.buffer_size * buffer.n_envs) for side, buffer in buffers.items()}
    result = summarize(
        {f"replay/{name}": sides["sb3"] / sides["ours"] for name, sides in seconds.items()}, np.random.default_rng(0)
    )
    result["ratios"]["replay/bytes"] = round(sizes["ours"] / sizes["sb3"], 4)
    per_turn = {"add": TRANSITIONS, "add_first": TRANSITIONS, "sample": BATCHES}
    return {
        **result,
        "microseconds": {
            f"{side}/{name}": round(1e6 * float(np.median(values)) / per_turn[name], 2)
            for name, sides in seconds.items()
            for side, values in sides.items()
        },
        "bytes_per_transition": {side: round(size, 1) for side, size in sizes.items()},
        "env": args.env,
        "transitions": args.transitions,
        "rounds": {name: len(turns) for name, turns in found.items()},
    }


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table
    """
    titles = {"add_first": "us to add, filling", "add": "us to add, full", "sample": f"us to sample {BATCH_SIZE}"}
    rows = []
    for name, title in titles.items():
        times = (f"{result['microseconds'][f'{side}/{name}']:.1f}" for side in ("sb3", "ours"))
        low, high = result["intervals"][f"replay/{name}"]
        rows.append((title, *times, f"{result['ratios'][f'replay/{name}']:.3f}", f"{low:.3f} - {high:.3f}"))
    sizes = (f"{result['bytes_per_transition'][side]:,.0f}" for side in ("sb3", "ours"))
    rows.append(("bytes per transition", *sizes, f"{result['ratios']['replay/bytes']:.4f}", ""))
    yield table(result["env"], ("", "SB3", "ours", "ratio", "95 % interval"), rows)


if __name__ == "__main__":
    ask(
        measure,
        option("--env", "PongNoFrameskip-v4", "an Atari game"),
        option("--transitions", 100_000, "of the buffers; SB3's has 56 kB each", quick=2_000),
        option("--rounds", 500, "rounds of sampling", quick=20),
        show=show,
        quick="small buffers",
    )
