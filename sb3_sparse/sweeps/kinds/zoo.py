"""One training of rl-zoo3, online or on recorded data."""

import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from sb3_sparse import zoo
from sb3_sparse.sweeps.kinds.cell import Cell, check_bits
from sb3_sparse.sweeps.kinds.hyperparams import check_changes, read_changes
from sb3_sparse.zoo.beside import folder_of
from sb3_sparse.zoo.notation import read_literal
from sb3_sparse.zoo.recipes import read_hyperparams
from sb3_sparse.zoo.settings import load_data

#: CPU milliseconds of one step or update without the engine, measured with the networks of rl-zoo3's settings for MuJoCo and
#: for classic control (docs/results), and of algorithms that are not listed.
_USUAL = {"sac": 16.0, "td3": 9.6, "ddpg": 9.6, "tqc": 22.0, "dqn": 4.3, "ppo": 0.8, "a2c": 0.8, "bcq": 113.0, "bc": 27.0}
_OTHERS = 10.0
#: How many times faster the engine is than that, at least.
_ENGINE = 2.0
#: CPU seconds until a training begins.
_START = 8.0


@dataclass(frozen=True, kw_only=True)
class Zoo(Cell):
    """
    ``sb3-sparse train`` with one thread on the CPU, and the returns of the agent that comes out.

    :param algo: rl-zoo3's name of the algorithm.
    :param env: Environment.
    :param recipe: Name of a recipe, such as "gmp".
    :param sparsity: Sparsity of what the recipe prunes, 0 for its dense twin; None for that of the recipe.
    :param steps: Environment steps, or updates on recorded data; None for those of the recipe.
    :param engine: Whether to train in the engine.
    :param precision: Of the products in dense layers in the engine, "float32" or "bf16".
    :param dataset: Id of the Minari dataset of an offline algorithm; None for that of the recipe.
    :param hyperparams: Hyperparameters to overwrite, as rl-zoo3 takes them. ``sparsity`` is set in callbacks among
        them as well.
    :param flush_denormal: Whether numbers below 1e-38 are zero, for speed.
    :param evaluations: Evaluations during training.
    :param evaluation_episodes: Episodes of each of them.
    :param episodes: Episodes of the trained agent.
    :param bits: Bits in which it is exported and played as well.
    :param checkpoints: Checkpoints during training. The environment is reset at each: a training with more is another one.
    """

    kind: ClassVar[str] = "zoo"

    algo: str
    env: str
    recipe: str
    sparsity: float | None = None
    steps: int | None = None
    engine: bool = False
    precision: str = "float32"
    dataset: str | None = None
    hyperparams: tuple[str, ...] = ()
    flush_denormal: bool = False
    evaluations: int = 20
    evaluation_episodes: int = 5
    episodes: int = 20
    bits: tuple[int, ...] = ()
    checkpoints: int = 10

    def check(self) -> None:
        """
        :raises ValueError: if there is no such recipe or environment, or the settings do not fit it
        """
        for name, least in (("seed", 0), ("evaluations", 0), ("evaluation_episodes", 1), ("episodes", 1), ("checkpoints", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.precision not in ("float32", "bf16"):
            raise ValueError(f"precision is float32 or bf16, got {self.precision}")
        _check(self.algo, self.env, self.recipe, self.sparsity, self.engine, self.precision, self.dataset, self.hyperparams)
        if self.work < 1:
            raise ValueError(f"steps must be positive, got {self.work}")
        check_bits(self.bits)

    def content(self) -> dict[str, Any]:
        """
        :return: The recipe's hyperparameters for the environment
        """
        return _hyperparams(self.algo, self.recipe, self.env)

    @property
    def start(self) -> tuple[Path, int] | None:
        """Zip of an agent that is trained further, and how many steps it plays before that; None for a new agent."""
        return None

    @property
    def changes(self) -> tuple[str, ...]:
        """Hyperparameters to overwrite."""
        return self.hyperparams

    @property
    def work(self) -> int:
        """Environment steps, or updates."""
        return int(_hyperparams(self.algo, self.recipe, self.env)["n_timesteps"]) if self.steps is None else self.steps

    @property
    def rates(self) -> tuple[str, ...]:
        """Algorithm and engine, environment, recipe, sparsity."""
        return (f"{self.algo}, engine: {self.engine and self.precision}", self.env, self.recipe, str(self.sparsity))

    @property
    def usual(self) -> tuple[float, float]:
        """By the algorithm."""
        return _START, _USUAL.get(self.algo, _OTHERS) / 1000 / (_ENGINE if self.engine else 1.0)

    def make(self, folder: Path) -> dict[str, Any]:
        """
        :param folder: The cell's folder; the trained agent is kept in ``run``.
        :return: See :class:`~sb3_sparse.sweeps.kinds.cell.Cell`
        """
        import torch as th

        from sb3_sparse.sweeps.kinds.resumption import find_checkpoint

        if self.flush_denormal:
            th.set_flush_denormal(True)
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        zoo.train(self.arguments(folder, find_checkpoint(folder)))
        return self.measure(run / self.algo / f"{folder_of(self.env)}_1")

    def measure(self, run: Path, *, trust: bool = True) -> dict[str, Any]:
        """
        :param run: A folder of rl-zoo3 with one finished training.
        :param trust: Whether to unpickle whatever its files name; those of this cell's own process are trusted.
        :return: What the result says of it
        """
        import numpy as np

        from sb3_sparse.agents import open_agent
        from sb3_sparse.sweeps.kinds.evaluation import evaluate

        opened = open_agent(run / f"{folder_of(self.env)}.zip", env=self.env, algorithm=self.algo, trust=trust)
        assert opened.venv is not None
        found = evaluate(opened.model, opened.venv, opened.normalization, opened.act, self.episodes, self.bits)
        opened.venv.close()
        curve: dict[str, Any] = {"steps": [], "returns": []}
        if (run / "evaluations.npz").is_file():
            with np.load(run / "evaluations.npz") as arrays:
                curve = {"steps": arrays["timesteps"].tolist(), "returns": arrays["results"].tolist()}
        return {**found, "curve": curve, "steps": self.work}

    def is_run(self, run: Path) -> bool:
        """
        :param run: A folder of rl-zoo3.
        :return: Whether it holds a finished training with the settings of this cell
        :raises ValueError: if the zip of its agent is damaged
        """
        from sb3_sparse.agents.archive import read_settings

        env = folder_of(self.env)
        files = {name: run / env / f"{name}.yml" for name in ("args", "config")}
        if run.parent.name != self.algo or not (run / f"{env}.zip").is_file() or not all(map(Path.is_file, files.values())):
            return False
        try:
            args, config = (load_data(file) for file in files.values())
            steps = args["n_timesteps"] if args["n_timesteps"] != -1 else config["n_timesteps"]
            own = (args["env"], args["seed"], steps, args["trained_agent"])
        except (KeyError, ValueError):
            return False
        # Those of the command line are not in config.yml.
        if args.get("env_kwargs") or args.get("eval_env_kwargs"):
            return False
        words = zoo.train_arguments(
            self.algo,
            self.env,
            recipe=self.recipe,
            sparsity=self.sparsity,
            dataset=self.dataset,
            engine=self.engine,
            precision=self.precision,
            overrides=self.hyperparams,
        )
        changes = words[words.index("--hyperparams") + 1 :] if "--hyperparams" in words else []
        wanted = {**self.content(), **{name: read_literal(value) for name, value in read_changes(changes).items()}}
        if own != (self.env, self.seed, self.work, "") or config != wanted:
            return False
        # rl-zoo3 saves an agent as well when its training is interrupted.
        done = read_settings(run / f"{env}.zip").get("num_timesteps")
        return isinstance(done, int) and done >= self.work

    def arguments(self, folder: Path, checkpoint: Path | None = None) -> list[str]:
        """
        :param folder: The cell's folder.
        :param checkpoint: Where to go on.
        :return: The command line of the training, for rl-zoo3
        """
        from sb3_sparse.offline import ALGORITHMS

        steps = self.work
        first: dict[str, Any] = {"folder": str(folder), "freq": steps // (self.checkpoints + 1) + 1}
        first |= {"offline": self.algo in ALGORITHMS, "checkpoint": None if checkpoint is None else str(checkpoint)}
        others = {
            "--seed": self.seed,
            "-n": steps,
            "--eval-freq": max(1, steps // self.evaluations) if self.evaluations else -1,
            "--eval-episodes": self.evaluation_episodes,
            "--num-threads": 1,
            "--device": "cpu",
            "-f": folder / "run",
            "--verbose": 0,
        }
        if checkpoint is not None:
            others["-i"] = checkpoint / "agent.zip"
        elif self.start is not None:
            others["-i"], first["collected"] = self.start
        return zoo.train_arguments(
            self.algo,
            self.env,
            recipe=self.recipe,
            sparsity=self.sparsity,
            dataset=self.dataset,
            engine=self.engine,
            precision=self.precision,
            overrides=self.changes,
            others=[str(word) for pair in others.items() for word in pair],
            first_callback={"sb3_sparse.sweeps.kinds.resumption.ResumableCallback": first},
        )


@cache
def _hyperparams(algo: str, recipe: str, env: str) -> dict[str, Any]:
    return read_hyperparams(zoo.find_recipe(algo, recipe), env)


@cache
def _check(
    algo: str,
    env: str,
    recipe: str,
    sparsity: float | None,
    engine: bool,
    precision: str,
    dataset: str | None,
    hyperparams: tuple[str, ...],
) -> None:
    """Once for all seeds: reading a recipe takes milliseconds."""
    zoo.train_arguments(
        algo,
        env,
        recipe=recipe,
        sparsity=sparsity,
        dataset=dataset,
        engine=engine,
        precision=precision,
        overrides=hyperparams,
        # A cell has one in front, see `arguments`.
        first_callback={},
    )
    check_changes(algo, _hyperparams(algo, recipe, env), hyperparams)
    zoo.check_registered(env)
