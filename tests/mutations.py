"""
Zips and VecNormalize files that are damaged, or made to do harm: each ends in an error of one sentence or in a right result.

    python -m tests.mutations --count 10000 --seed 0

"Right" is a policy that acts as SB3's model of the same file does. No code of a file may run, and nothing may take long or
much memory. A canary, which notes that it was unpickled, is put into many of the pickles.
"""

import argparse
import base64
import io
import json
import resource
import signal
import sys
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.random import Generator
from sb3_contrib import ARS, QRDQN, MaskablePPO, RecurrentPPO
from sb3_contrib.common.envs import InvalidActionEnvDiscrete
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse import GradualPruningCallback, QATCallback
from sb3_sparse.agents import load_agent, load_normalization
from sb3_sparse.agents.archive import read_policy
from sb3_sparse.agents.count import summarize_agent
from sb3_sparse.agents.observations import stack
from sb3_sparse.cli import main
from sb3_sparse.export import compress_network, read_model
from sb3_sparse.offline.spaces_env import make_spaces_env
from sb3_sparse.runtime import Policy
from tests.canary import CANARY, SONGS
from tests.old_zips import save_old, save_old_statistics

#: Seconds and bytes that one file may take. Longest sentence.
SECONDS, MEMORY, SENTENCE = 20, 400 << 20, 1200
#: Every so many files go through the commands as well.
COMMANDS = 100
#: Values of JSON that nobody expects.
STRANGE = (
    None,
    True,
    -1,
    0,
    1,
    3,
    2**31,
    10**12,
    10**30,
    -0.5,
    1e308,
    float("nan"),
    "",
    "MlpPolicy",
    "x" * 999,
    [],
    {},
    [[]] * 3,
    {"a": 1},
)


class TooLong(BaseException):
    """Not an Exception, so that nobody takes it for an error of the file."""


def originals(folder: Path, kinds: Sequence[str] = ()) -> list[tuple[Path, Path | None]]:
    """
    :param folder: Where to save.
    :param kinds: The kinds of agents; by default all.
    :return: Small agents of today's and of SB3 1.x's writing, each with its statistics
    """

    def make(kind: type[Any], env: Any, policy: str = "MlpPolicy", more: Any = None, **settings: Any) -> BaseAlgorithm:
        kwargs = {"net_arch": [6, 5], **(more or {})}
        return kind(policy, env, device="cpu", seed=0, policy_kwargs=kwargs, **settings)

    venv, hidden = VecNormalize(make_vec_env("Pendulum-v1")), VecNormalize(make_vec_env("Pendulum-v1"))
    place, action = spaces.Box(-2, 2, (3,)), spaces.Box(-1, 1, (2,))
    dictionary = spaces.Dict({"place": place, "goal": place, "kind": spaces.Discrete(3)})
    goals = VecNormalize(make_spaces_env(dictionary, action), norm_obs_keys=["place"])
    camera = make_spaces_env(spaces.Dict({"place": place, "camera": spaces.Box(0, 255, (36, 36, 1), np.uint8)}), action)
    masked = InvalidActionEnvDiscrete(dim=5, n_invalid_actions=2)
    multi, lstm, short = "MultiInputPolicy", {"lstm_hidden_size": 6}, {"n_steps": 16, "batch_size": 8, "n_epochs": 1}
    prune, quantize = GradualPruningCallback("all", 0.5, start=9, end=20, update_freq=5), QATCallback("actor", 20)
    models: dict[str, tuple[BaseAlgorithm, VecNormalize | None]] = {
        "ppo": (make(PPO, venv, n_steps=16, batch_size=8, n_epochs=1).learn(16), venv),
        "sac": (make(SAC, "Pendulum-v1", buffer_size=10), None),
        "dqn": (make(DQN, "CartPole-v1", buffer_size=10), None),
        "qrdqn": (make(QRDQN, "CartPole-v1", buffer_size=10), None),
        "td3": (make(TD3, "Pendulum-v1", buffer_size=99, learning_starts=9).learn(30, [prune, quantize]), None),
        "ars": (make(ARS, "CartPole-v1"), None),
        "dict": (make(PPO, goals, multi), goals),
        "images": (make(SAC, camera, multi, {"features_extractor_kwargs": {"cnn_output_dim": 4}}, buffer_size=10), None),
        "recurrent": (make(RecurrentPPO, hidden, "MlpLstmPolicy", lstm, **short).learn(16), hidden),
        "masked": (make(MaskablePPO, masked, **short).learn(16), None),
    }
    models = {name: model for name, model in models.items() if not kinds or name in kinds}
    found: list[tuple[Path, Path | None]] = []
    for name, (model, statistics) in models.items():
        for old in (False, True):
            agent, file = folder / name / f"{name}_{'old' if old else 'new'}.zip", None
            agent.parent.mkdir(exist_ok=True)
            (save_old if old else type(model).save)(model, agent)
            if statistics is not None:
                file = agent.with_name(f"{agent.stem}_vecnormalize.pkl")
                save_old_statistics(statistics, file) if old else statistics.save(str(file))
            found.append((agent, file))
    return found


def flip(data: bytes, rng: Generator) -> bytes:
    """Some bytes are others, gone, or there twice."""
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at, how = int(rng.integers(len(damaged) or 1)), rng.integers(6)
        if how == 0:
            del damaged[at : at + int(rng.integers(1, 40))]
        elif how == 1:
            damaged[at:at] = damaged[at : at + int(rng.integers(1, 40))]
        elif how == 2 and len(damaged) > 8:
            damaged[at : at + 4] = int(rng.integers(2**32)).to_bytes(4, "little")
        elif damaged:
            damaged[at % len(damaged)] = int(rng.choice([0, 1, 127, 128, 255, rng.integers(256)]))
    return bytes(damaged if rng.random() > 0.03 else damaged[: int(rng.integers(len(damaged) + 1))])


def change_pickle(data: bytes, rng: Generator) -> bytes:
    """Damaged, with other numbers, or with a canary in front of its end, in its middle, or instead of it."""
    how = rng.integers(6)
    if how == 0:
        return CANARY
    if how == 1 and data[-1:] == b".":
        # A tuple of the object and a canary.
        return data[:-1] + CANARY[2:-1] + b"\x86."
    if how == 2 and data[-1:] == b".":
        return data[:-1] + CANARY[2:-1] + b"0."
    if how == 3:
        old, new = rng.choice([b"gym", b"numpy", b"stable_baselines3", b"MlpPolicy", b"Box", b"K\x06", b"K\x05"], 2)
        return data.replace(bytes(old), bytes(new), int(rng.integers(1, 4)))
    if how == 4:
        # A number of one byte becomes one of four.
        at = data.find(b"K", int(rng.integers(len(data))))
        return data if at < 0 else data[:at] + b"J" + int(rng.integers(2**31)).to_bytes(4, "little") + data[at + 2 :]
    return flip(data, rng)


def change_json(data: bytes, rng: Generator) -> bytes:
    """Some attributes have other values, other pickles, or are gone."""
    try:
        settings = json.loads(data)
        assert isinstance(settings, dict)
    except (ValueError, AssertionError):
        # Damaged before.
        return flip(data, rng)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        name = str(rng.choice(list(settings) or ["nothing"]))
        value, how = settings.get(name), rng.integers(5)
        if how == 0:
            settings.pop(name, None)
        elif isinstance(value, dict) and ":serialized:" in value and how < 4:
            written = change_pickle(base64.b64decode(value[":serialized:"]), rng)
            settings[name] = {**value, ":serialized:": base64.b64encode(written).decode()}
        elif how == 1:
            settings[name] = settings[str(rng.choice(list(settings)))]
        else:
            settings[name] = STRANGE[rng.integers(len(STRANGE))]
    return json.dumps(settings).encode()


def change_tensors(data: bytes, rng: Generator) -> bytes:
    """A file of torch is a zip itself, of a pickle and numbers."""
    return change_zip(data, rng, {".pkl": change_pickle}) if zipfile.is_zipfile(io.BytesIO(data)) else flip(data, rng)


def change_zip(data: bytes, rng: Generator, changes: dict[str, Callable[[bytes, Generator], bytes]]) -> bytes:
    """One part is another, and the checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = str(rng.choice(list(parts)))
    how = rng.integers(12)
    if how == 0:
        del parts[name]
    elif how == 1:
        parts[name] = b""
    elif how == 2:
        parts[name] = parts[str(rng.choice(list(parts)))]
    else:
        change = next((change for end, change in changes.items() if name.endswith(end)), flip)
        parts[name] = change(parts[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return out.getvalue()


def mutate(data: bytes, rng: Generator) -> bytes:
    """
    :param data: An SB3 zip.
    :param rng: Source of the damage.
    :return: Another
    """
    if rng.random() < 0.15:
        return flip(data, rng)
    for _ in range(rng.choice([1, 1, 1, 2])):
        data = change_zip(data, rng, {"data": change_json, ".pth": change_tensors})
    return data


@contextmanager
def limits() -> Iterator[None]:
    """
    Of time and memory.

    :raises TooLong: if it takes too long
    :raises AssertionError: if it takes too much memory
    """

    def ring(*_: object) -> None:
        raise TooLong

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Of the processor: the machine may be busy.
    previous = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < MEMORY, f"it takes {grown >> 20} MB"


def answer(act: Callable[[], object]) -> str:
    """
    :param act: What to do with a file.
    :return: "right", or the error without the names in it
    """
    try:
        act()
    except ValueError as error:
        text, frames = str(error), traceback.extract_tb(error.__traceback__)
        assert text and text.isprintable() and len(text) < SENTENCE, f"not a sentence: {text!r}"
        # What other packages say is not about this file.
        assert "sb3_sparse" in frames[-1].filename or frames[-1].name == "command", f"{frames[-1]} says: {text}"
        return text
    return "right"


def export(agent: Path, statistics: Path | None) -> None:
    """What ``compress`` does without an environment. The policy acts as its model."""
    read_policy(agent)
    model = load_agent(agent)
    found = load_normalization(agent, path=statistics)
    normalization = None if found is None else found[1]
    original = read_model(model, normalization)
    compress_network(original)
    exact = Policy(compress_network(original, 32).network, "numpy")
    space = model.observation_space
    space.seed(0)
    state: Any = None
    own: Any = None
    masks = {}
    if isinstance(model, MaskablePPO):
        masks["action_masks"] = np.random.default_rng(0).random((4, exact.network.head.inputs)) < 0.7
    # What is remembered shows in the second step.
    for _ in range(1 + bool(exact.network.lstms)):
        observations = stack([space.sample() for _ in range(4)])
        normalized = observations if normalization is None else normalization.normalize_obs(observations)
        expected, state = model.predict(normalized, state, deterministic=True, **masks)
        actions, own = exact.predict(observations, own, **masks)
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(actions, expected, rtol=1e-3, atol=1e-3 * float(np.abs(expected).max(initial=1e-2)))
        else:
            assert (actions == expected).mean() >= 0.5, f"{actions} for {expected}"


def command(*arguments: str) -> None:
    """
    The command itself.

    :raises ValueError: with its error
    """
    errors = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(errors):
        try:
            main(arguments)
        except SystemExit as stop:
            assert stop.code == 2, f"it ends with {stop.code}"
            raise ValueError(errors.getvalue().strip().split("error: ", 1)[-1]) from stop


def check(agent: Path, statistics: Path | None, *, thorough: bool, commands: bool) -> list[str]:
    """
    :param agent: A zip.
    :param statistics: A file of VecNormalize.
    :param thorough: Whether to count its connections after loading as well.
    :param commands: Whether to call the commands as well.
    :return: How its export, its counts and the others have ended
    :raises AssertionError: if one of them is neither right nor a sentence, or code has run
    """
    tries: list[Callable[[], object]] = [
        lambda: export(agent, statistics),
        lambda: str(summarize_agent(agent, load=False)),
    ]
    if thorough:
        tries.append(lambda: str(summarize_agent(agent, load=True)))
    if commands:
        given = [] if statistics is None else ["--vecnormalize", str(statistics)]
        out = str(agent.with_name("out"))
        tries += [
            lambda: command("summary", str(agent)),
            lambda: command("compress", str(agent), "-o", out, "--no-latency", *given),
        ]
    answers = []
    for act in tries:
        with limits():
            answers.append(answer(act))
        assert not SONGS, "code of the file has run"
    return answers


def survive(
    count: int, seed: int, folder: Path, log: Callable[[str], None] = print, kinds: Sequence[str] = ()
) -> tuple[Counter[str], list[str]]:
    """
    :param count: Number of files.
    :param seed: What they follow from.
    :param folder: Where to write them.
    :param log: What is told of failures.
    :param kinds: The kinds of agents; by default all.
    :return: How often an export ended how, and a description of each failure
    """
    agents = []
    for agent, file in originals(folder, kinds):
        found = check(agent, file, thorough=True, commands=True)
        assert found == ["right"] * 5, (agent, found)
        agents.append((agent.read_bytes(), file and file.read_bytes()))
    ends: Counter[str] = Counter()
    failures = []
    # Where no other statistics are found.
    folder = folder / "mutated"
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        data, statistics = agents[number % len(agents)]
        agent, file = folder / "agent.zip", None
        if statistics is not None:
            file = folder / "statistics.pkl"
            if rng.random() < 0.5:
                statistics = change_pickle(statistics, rng)
            else:
                data = mutate(data, rng)
            file.write_bytes(statistics)
        else:
            data = mutate(data, rng)
        agent.write_bytes(data)
        start = process_time()
        try:
            answers = check(agent, file, thorough=rng.random() < 0.25, commands=rng.random() < 1 / COMMANDS)
            ends["right" if answers[0] == "right" else "a sentence"] += 1
        except (Exception, TooLong) as error:
            SONGS.clear()
            where = traceback.extract_tb(error.__traceback__)
            inner = next((frame for frame in reversed(where) if "sb3_sparse" in frame.filename), where[-1])
            failures.append(f"{number}: {type(error).__name__}: {str(error)[:300]} ({inner.filename}:{inner.lineno})")
            log(failures[-1])
        if number % 500 == 499:
            log(f"{number + 1} files: {dict(ends)}, {len(failures)} failures")
        if process_time() - start > SECONDS / 2:
            log(f"{number} took {process_time() - start:.1f} s")
    return ends, failures


def run() -> None:
    """Survive, and say what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=[], help="kinds of agents, such as dict; by default all")
    args = parser.parse_args()
    start = perf_counter()
    with TemporaryDirectory() as folder:
        ends, failures = survive(args.count, args.seed, Path(folder), lambda text: print(text, flush=True), args.kinds)
    print(f"{args.count} files in {perf_counter() - start:.0f} s: {dict(ends)}, {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    run()
