"""``sb3-sparse compress``: from an SB3 zip to files, figures and an honest comparison."""

import json
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecEnv

from sb3_sparse.agents.compression.files import as_json, c_name, check_writable, write_files
from sb3_sparse.agents.compression.latency import Latency, measure_latency
from sb3_sparse.agents.compression.web import open_page
from sb3_sparse.agents.environment import close
from sb3_sparse.agents.observations import Observation, length, stack
from sb3_sparse.agents.opening import Agent, open_agent
from sb3_sparse.agents.player import Player, model_act
from sb3_sparse.agents.progress import Progress
from sb3_sparse.agents.returns import Episodes, Returns, compare_returns, compare_with_training, play_starts
from sb3_sparse.export import check_bits, compress_network
from sb3_sparse.export.targets import check_targets, write_target
from sb3_sparse.runtime import BACKENDS, Policy, load
from sb3_sparse.runtime.backends.families import FAMILIES

#: Names in tables and in report.json.
SB3_ZIP, SB3_PREDICT = "SB3 zip", "SB3 predict"
_PACKAGES = ("sb3_sparse", "stable_baselines3", "sb3_contrib", "gymnasium", "torch", "numpy")


def compress_agent(
    path: Path,
    out: Path,
    *,
    env: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    env_wrapper: object = None,
    frame_stack: int | None = None,
    one_frame: bool = False,
    config: Path | None = None,
    algorithm: str | None = None,
    vecnormalize: Path | None = None,
    bits: int = 8,
    calibration_steps: int = 4096,
    episodes: int = 20,
    seed: int = 0,
    time_limit: float = 600,
    latency: bool = True,
    targets: Iterable[str] = (),
    web: bool = False,
    dense: Path | None = None,
    trust: bool = False,
) -> None:
    """
    Write ``<agent>.sb3s``, ``<agent>.h``, ``<agent>.onnx``, ``densities.png``, ``report.json`` and the projects of targets.
    Print the contents of the report. With ``web``, write ``<agent>.html`` as well.

    :param path: An SB3 zip.
    :param out: Folder to write to; it is made if it does not exist.
    :param env: Name of the environment; without it there is neither a calibration nor a comparison of returns.
    :param env_kwargs: Arguments of the environment, which count before those in its settings.
    :param env_wrapper: Its wrappers in rl-zoo3's notation, an empty list for none; by default those in the settings.
    :param frame_stack: How many observations ``VecFrameStack`` puts together; by default as the settings say.
    :param one_frame: Whether the exported policy takes one of them and keeps the others itself.
    :param config: rl-zoo3's settings of the training, or "none"; by default the ``config.yml`` next to the zip or below.
    :param algorithm: Name of the algorithm, if the zip does not say it.
    :param vecnormalize: Statistics of ``VecNormalize``; by default found where SB3 and rl-zoo3 save them.
    :param bits: Bits per weight, 2 to 8, or 32.
    :param calibration_steps: Number of observations to calibrate with, from the model's own episodes.
    :param episodes: Number of episodes to compare returns over.
    :param seed: Seed of the first episode; the others have the next seeds, and the episodes for calibration those after them.
    :param time_limit: Seconds that calibration and episodes may take together; infinite for no limit. What there is by then is
        used, and the report says how much that was.
    :param latency: Whether to measure times.
    :param targets: Names in :data:`~sb3_sparse.export.targets.TARGETS`; each has a folder of this name.
    :param web: Whether to write a web page with the policy, see :mod:`sb3_sparse.export.web.page`.
    :param dense: Zip of another agent, such as the teacher of a student, to play beside the exported policy on the page; by
        default the agent itself does, in float32.
    :param trust: Whether to unpickle and import whatever the files name, which may run any code.
    :raises ValueError: if an argument is wrong, or something in the model cannot be exported; nothing is written then
    :raises OSError: if a file cannot be read or written
    """
    for name, number, least in (("episodes", episodes, 1), ("calibration_steps", calibration_steps, 0), ("seed", seed, 0)):
        if number < least:
            raise ValueError(f"{name.replace('_', ' ')} must be at least {least}, got {number}")
    if not time_limit > 0:
        raise ValueError(f"the time limit must be more than 0 seconds, got {time_limit}")
    if dense is not None and not web:
        raise ValueError("--dense is the agent of the page that --web writes: give that as well")
    check_bits(bits)
    targets = check_targets(targets)
    check_writable(out)
    agent = open_agent(
        path,
        env=env,
        env_kwargs=env_kwargs,
        env_wrapper=env_wrapper,
        frame_stack=frame_stack,
        one_frame=one_frame,
        config=config,
        algorithm=algorithm,
        vecnormalize=vecnormalize,
        trust=trust,
    )
    settings, wrappers, masks = agent.settings, agent.wrappers, isinstance(agent.model, MaskablePPO)
    calibration = Progress("observations for calibration", calibration_steps, time_limit / 4)
    try:
        # What cannot be exported is refused before any episode is played.
        check_targets(targets, masks=masks)
        original = agent.original
        page = open_page(agent, dense, trust=trust) if web else None
        observations, starts = _observations(agent, seed + episodes, calibration)
        compressed = compress_network(original, bits, observations, starts)
        out.mkdir(parents=True, exist_ok=True)
        for target in targets:
            write_target(compressed.network, target, out / target, name=c_name(path.stem), masks=masks)
        compact = out / f"{path.stem}.sb3s"
        compact.write_bytes(compressed.data)
        found = compressed.report
        nbytes = {SB3_ZIP: path.stat().st_size, **found.nbytes}
        seen = replace(settings, frame_stack=None) if one_frame else settings
        report = replace(found, nbytes=nbytes, notes=(*found.notes, *seen.notes))
        print(f"\n{report}\n")
        written = [f"{target}/" for target in targets]
        written += [compact.name, *write_files(path.stem, original, compressed, out, masks=masks), "report.json"]
        # Loaded from the file, as its user does.
        exported = load(compact)
        comparison = Progress("episodes", 2 * episodes, time_limit - calibration.seconds)
        returns = (
            None if agent.venv is None else _compare(agent, agent.venv, exported, range(seed, seed + episodes), comparison)
        )
        if page is not None:
            page.write(out / f"{path.stem}.html", compressed, returns, max(0, comparison.limit - comparison.seconds))
            written.append(f"{path.stem}.html")
        times = _time(agent, exported, compact, observations) if latency else None
    finally:
        close(agent.venv)
    content = {
        "agent": path.name,
        "algorithm": type(agent.model).__name__,
        "env": env,
        "env_used": None if agent.venv is None else agent.venv.get_attr("spec")[0].id,
        "env_kwargs": {name: as_json(value) for name, value in settings.env_kwargs.items()},
        "env_wrapper": str(wrappers) if wrappers and wrappers.classes else None,
        "frame_stack": agent.frames or settings.frame_stack,
        "one_frame": one_frame,
        "bits": bits,
        "calibration_steps": 0 if observations is None else length(observations),
        "vecnormalize": agent.normalization is not None,
        **report.to_dict(),
        "returns": None if returns is None else returns.to_dict(),
        "stopped": [progress.stopped for progress in (calibration, comparison) if progress.stopped],
        "latency_us": None if times is None else times.to_dict(),
        "versions": {"python": platform.python_version(), **{package: _version(package) for package in _PACKAGES}},
        "machine": {"processor": platform.processor() or platform.machine(), "system": platform.platform()},
    }
    (out / "report.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    print(f"\nwritten to {out}: {', '.join(written)}")


def _observations(agent: Agent, seed: int, progress: Progress) -> Episodes | tuple[None, None]:
    if agent.venv is None:
        print("without --env: no calibration and no comparison of returns")
    if agent.venv is None or progress.total == 0:
        return None, None
    print(f"{progress.total} observations for calibration ...", flush=True)
    return play_starts(agent.venv, agent.act, progress.total, seed, progress)


def _compare(agent: Agent, venv: VecEnv, exported: Policy, seeds: range, progress: Progress) -> Returns | None:
    print(f"{len(seeds)} episodes of {venv.get_attr('spec')[0].id} each ...", flush=True)
    returns = compare_returns(venv, agent.act, Player(exported, masks=agent.masks), seeds, progress)
    if returns is None:
        print("not one episode of each has ended, so there is no comparison of returns")
    else:
        doubt = compare_with_training(agent.model, returns.model)
        print(f"{returns}\n" + (f"note: {doubt}\n" if doubt else ""), flush=True)
    return returns


def _time(agent: Agent, exported: Policy, compact: Path, observations: Observation | None) -> Latency:
    if observations is None:
        space = agent.model.observation_space if agent.frames is None else agent.space
        space.seed(0)
        observations = stack([space.sample() for _ in range(256)])
    contestants: dict[str, Callable[[Observation], object]] = {
        SB3_PREDICT: model_act(agent.model, agent.normalization, frames=agent.stack)
    }
    for backend in BACKENDS:
        try:
            if backend != "auto":
                policy = exported if backend == exported.backend else load(compact, backend)
                # What a policy remembers belongs to its time.
                contestants[backend] = Player(policy) if policy.network.remembers else policy.predict
        except RuntimeError as error:
            # Each family of kernels is for some processors: that there is none at all is said of "int8".
            if backend not in FAMILIES:
                print(str(error).splitlines()[0])
    latency = measure_latency(contestants, observations)
    print(latency, flush=True)
    return latency


def _version(package: str) -> str | None:
    """None for a package that is imported from where it lies."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
