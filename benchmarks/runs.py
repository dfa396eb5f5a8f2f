"""Training runs of rl-zoo3 that are kept: a second call trains only what is missing, or was made by other code."""

import hashlib
import resource
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from report import describe_versions
from rich.progress import Progress
from rl_zoo3 import ALGOS
from rl_zoo3.utils import create_test_env, get_saved_hyperparams
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy

import sb3_sparse
from sb3_sparse import restore
from sb3_sparse.runtime import Policy
from sb3_sparse.zoo import find_recipe, register

#: Seeds of the evaluation episodes begin here, the same for every agent.
EVALUATION_SEED = 10_000


@dataclass(frozen=True)
class Run:
    """
    One training run of rl-zoo3 and where its files are.

    :param sparsity: Share of zeros, or None for what the recipe says.
    :param eval_episodes: Episodes of each evaluation during training.
    :param flush: Whether numbers below 1e-38 are zero, for speed.
    :param dataset: Id of the dataset of an offline algorithm, whose steps are updates; None for the recipe's.
    :param evaluations: Number of evaluations during training.
    :param hyperparams: Hyperparameters to overwrite, as rl-zoo3 takes them.
    :param save_freq: Steps between two checkpoints, or None for none.
    :param engine: Whether it trains in the engine.
    """

    algo: str
    env: str
    recipe: str
    sparsity: float | None
    seed: int
    steps: int
    root: Path
    eval_episodes: int = 10
    flush: bool = False
    dataset: str | None = None
    evaluations: int = 20
    hyperparams: tuple[str, ...] = ()
    save_freq: int | None = None
    engine: bool = False

    @property
    def folder(self) -> Path:
        """The folder of this run, under rl-zoo3's own naming."""
        return self.logs / self.algo / f"{self.env}_1"

    @property
    def logs(self) -> Path:
        """The log folder that rl-zoo3 is given, one for each run."""
        engine = "_engine" if self.engine else ""
        kind = f"{self.algo}_{self.env}_{self.recipe}_{self.steps}"
        return self.root / kind / f"sparsity{self.sparsity}{engine}_seed{self.seed}"

    @property
    def zip(self) -> Path:
        """The trained agent."""
        return self.folder / f"{self.env}.zip"

    @property
    def mark(self) -> Path:
        """Written when the run has finished; holds what it was made by, as that was when it began."""
        return self.logs / "finished.txt"

    @property
    def cpu_time(self) -> Path:
        """Written when the run has finished; holds the CPU seconds that it took, with its start and its evaluations."""
        return self.logs / "cpu_seconds.txt"

    def maker(self) -> str:
        """What a finished run depends on: the command, the code and the versions."""
        sources = [*Path(sb3_sparse.__file__).parent.rglob("*.py"), find_recipe(self.algo, self.recipe)]
        code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()
        return f"{shlex.join(self.command())}\n{code}\n{describe_versions()}\n"

    def is_finished(self) -> bool:
        """Whether it was trained to its end by this command, this code and these versions."""
        return self.mark.is_file() and self.mark.read_text() == self.maker()

    @property
    def name(self) -> str:
        """How it is called in tables and bars."""
        kind = (
            self.recipe if self.sparsity is None else "dense" if self.sparsity == 0 else f"{self.recipe} {self.sparsity:.0%}"
        )
        return f"{kind}{' in the engine' if self.engine else ''}, seed {self.seed}"

    def command(self) -> list[str]:
        """The command that trains it."""
        sparsity = () if self.sparsity is None else ("--sparsity", str(self.sparsity))
        flush = ("--flush-denormal",) if self.flush else ()
        dataset = () if self.dataset is None else ("--dataset", self.dataset)
        engine = ("--engine",) if self.engine else ()
        return [
            *(
                "sb3-sparse",
                "train",
                "--algo",
                self.algo,
                "--env",
                self.env,
                "--recipe",
                self.recipe,
                *sparsity,
                *flush,
                *dataset,
                *engine,
            ),
            *("--seed", str(self.seed), "-n", str(self.steps)),
            *(
                "--eval-freq",
                str(max(1, self.steps // self.evaluations)),
                "--eval-episodes",
                str(self.eval_episodes),
                "--num-threads",
                "1",
                "--device",
                "cpu",
            ),
            *(("--hyperparams", *self.hyperparams) if self.hyperparams else ()),
            *(("--save-freq", str(self.save_freq)) if self.save_freq else ()),
            *("-f", str(self.logs), "-tb", str(self.logs / "tensorboard"), "--verbose", "0"),
        ]

    def start(self) -> tuple[subprocess.Popen, str]:
        """Start to train it, in the background and from the beginning; also what it is made by: code may change meanwhile."""
        maker = self.maker()
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        program, *arguments = self.command()
        with open(self.logs / "output.txt", "w") as output:
            command = [str(Path(sys.executable).with_name(program)), *arguments]
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT), maker

    def steps_done(self) -> int:
        """Environment steps in finished episodes; of an offline run, updates until the last evaluation."""
        try:
            if self.dataset is not None:
                return int(learning_curve(self)[0][-1])
            rows = [row for path in self.folder.glob("*.monitor.csv") for row in path.read_text().splitlines()[2:]]
            return sum(int(row.split(",")[1]) for row in rows)
        except (OSError, EOFError, BadZipFile, IndexError, ValueError):  # not there yet, or being written
            return 0


def train(runs: list[Run], jobs: int) -> None:
    """
    Train what is not there yet.

    :param runs: The runs.
    :param jobs: How many at a time.
    :raises RuntimeError: if one of them fails
    """
    waiting = [run for run in runs if not run.is_finished()]
    for run in waiting:
        print("$", shlex.join(run.command()))
    running: dict[Run, tuple[subprocess.Popen, str]] = {}
    with ExitStack() as stack:
        stack.callback(lambda: [process.kill() for process, _ in running.values()])
        progress = stack.enter_context(Progress())
        bars = {run: progress.add_task(run.name, total=run.steps, start=False) for run in waiting}
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                running[run] = run.start()
                progress.start_task(bars[run])
            time.sleep(0.5)
            for run, (process, maker) in list(running.items()):
                progress.update(bars[run], completed=run.steps_done())
                # That of a process counts from when it is waited for.
                before = _cpu_seconds()
                if process.poll() is None:
                    continue
                if process.returncode != 0:
                    raise RuntimeError(f"training failed: {run.name}\n{(run.logs / 'output.txt').read_text()[-3000:]}")
                run.cpu_time.write_text(f"{_cpu_seconds() - before:.1f}\n")
                run.mark.write_text(maker)
                progress.update(bars[run], completed=run.steps)
                del running[run]


def _cpu_seconds() -> float:
    """CPU time of all processes that have been started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def load(run: Run) -> BaseAlgorithm:
    """
    :param run: A finished run.
    :return: Its agent, on the CPU, masked and quantized as it was trained
    """
    model = _load(run, run.zip)
    restore(model)
    return model


def load_checkpoint(run: Run, steps: int) -> BaseAlgorithm:
    """
    :param run: A finished run with checkpoints.
    :param steps: When the checkpoint was saved.
    :return: The agent of that time, on the CPU, with float weights
    """
    # Quantization may have begun at this very step, before the first update with it: what the run remembers is left out.
    return _load(run, run.folder / f"rl_model_{steps}_steps.zip", sparsity_state={})


def _load(run: Run, path: Path, **replaced: object) -> BaseAlgorithm:
    register()
    # An agent that only plays needs no room for a million frames.
    return ALGOS[run.algo].load(path, device="cpu", custom_objects={"buffer_size": 1, **replaced})


def returns_of(run: Run, model: BaseAlgorithm | Policy, episodes: int) -> list[float]:
    """
    :param run: A finished run.
    :param model: Its agent, or what was exported of it.
    :param episodes: Number of evaluation episodes, each with its own seed.
    :return: Return of each episode
    """
    hyperparams, stats_path = get_saved_hyperparams(str(run.folder / run.env), test_mode=True)
    env = create_test_env(run.env, stats_path=stats_path, hyperparams=hyperparams, should_render=False)
    returns = []
    for episode in range(episodes):
        env.seed(EVALUATION_SEED + episode)
        returns.append(round(float(evaluate_policy(model, env, n_eval_episodes=1, warn=False)[0]), 3))
    env.close()
    return returns


def learning_curve(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """
    :param run: A finished run.
    :return: Steps, and the mean return of the evaluation at each of them
    """
    evaluations = np.load(run.folder / "evaluations.npz")
    return evaluations["timesteps"], evaluations["results"].mean(axis=1)
