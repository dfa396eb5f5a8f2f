"""One distillation of a trained agent, or the agent itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sb3_sparse.sweeps.kinds.agent_files import check_agent, digest_agent
from sb3_sparse.sweeps.kinds.cell import Cell, check_bits

#: CPU milliseconds of one update with its environment steps, and CPU seconds of a start (docs/results).
_UPDATE, _START = 0.6, 8.0


@dataclass(frozen=True, kw_only=True)
class Distill(Cell):
    """
    ``distill`` in the environment of the agent, and the returns of the student.

    :param agent: Zip of the agent, with its settings and statistics where rl-zoo3 or the hub keeps them.
    :param env: Its environment.
    :param algo: rl-zoo3's name of its algorithm; None for what the zip says.
    :param sparsity: Share of zeros in the student's network that acts; None for the agent itself, which sets the scale.
    :param net_arch: Widths of the student's hidden layers; None for the agent's.
    :param steps: Environment steps; None for those of ``distill``.
    :param updates: Gradient updates; None for those of ``distill``.
    :param trained_bits: Bits of the weights that the student learns with, ``bits`` of ``distill``; None for float weights.
    :param activation_bits: Bits of the activations that it learns with; None for float ones.
    :param critic_updates: Updates of a last phase through the agent's critics, as ``distill`` has it; 0 for none.
    :param episodes: Episodes of the student.
    :param bits: Bits in which it is exported and played as well.
    """

    kind: ClassVar[str] = "distill"

    agent: str
    env: str
    algo: str | None = None
    sparsity: float | None = None
    net_arch: tuple[int, ...] | None = None
    steps: int | None = None
    updates: int | None = None
    trained_bits: int | None = None
    activation_bits: int | None = None
    critic_updates: int = 0
    episodes: int = 50
    bits: tuple[int, ...] = ()

    def check(self) -> None:
        """
        :raises ValueError: if the agent or the environment does not exist, or the settings do not fit each other
        """
        from sb3_sparse.agents import ALGORITHMS
        from sb3_sparse.distillation.checks import read_widths
        from sb3_sparse.distillation.learning.training import BLOCK
        from sb3_sparse.distillation.plan import make_critic_plan, make_plan
        from sb3_sparse.sparsity import check_sparsity
        from sb3_sparse.zoo import check_registered

        check_agent(Path(self.agent))
        if self.algo not in (None, *ALGORITHMS):
            raise ValueError(f"algo has to be one of {', '.join(ALGORITHMS)}, got {self.algo}")
        check_registered(self.env)
        if self.net_arch is not None:
            read_widths(self.net_arch)
        if self.sparsity is not None:
            check_sparsity(self.sparsity)
            make_plan(self.sparsity, self.updates, self.steps, 0.0, BLOCK)
            if self.critic_updates:
                make_critic_plan(self.critic_updates, BLOCK)
        for name, least in (("seed", 0), ("episodes", 1), ("steps", 1), ("updates", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name in ("trained_bits", "activation_bits"):
            value = getattr(self, name)
            if value is not None and not 2 <= value <= 8:
                raise ValueError(f"{name} must be from 2 to 8, got {value}")
        check_bits(self.bits)

    def content(self) -> object:
        """
        :return: Hashes of the agent and of the files that belong to it
        """
        return digest_agent(Path(self.agent), self.env)

    @property
    def files(self) -> tuple[Path, ...]:
        """The agent."""
        return (Path(self.agent),)

    @property
    def work(self) -> int:
        """Gradient updates; 0 for the agent itself."""
        if self.sparsity is None:
            return 0
        return (self.updates or (100_000 if self.sparsity <= 0.96 else 600_000)) + self.critic_updates

    @property
    def rates(self) -> tuple[str, ...]:
        """Environment, agent, sparsity."""
        return (self.env, self.agent, str(self.sparsity))

    @property
    def usual(self) -> tuple[float, float]:
        """Those of an update hold its environment steps as well."""
        return _START, _UPDATE / 1000

    def make(self, folder: Path) -> dict[str, Any]:
        """
        :param folder: The cell's folder; the student is kept in ``student.zip``.
        :return: See :class:`~sb3_sparse.sweeps.kinds.cell.Cell`
        """
        from sb3_sparse.agents import open_agent
        from sb3_sparse.agents.load import restore_training
        from sb3_sparse.agents.player import find_masks, model_act
        from sb3_sparse.distillation import distill
        from sb3_sparse.sweeps.kinds.evaluation import evaluate
        from sb3_sparse.sweeps.kinds.resumption import ProgressCallback

        opened = open_agent(Path(self.agent), env=self.env, algorithm=self.algo)
        venv, model = opened.venv, opened.model
        assert venv is not None
        if self.sparsity is not None:
            model = distill(
                model,
                venv,
                self.sparsity,
                self.net_arch,
                self.trained_bits,
                activation_bits=self.activation_bits,
                critic_updates=self.critic_updates,
                steps=self.steps,
                updates=self.updates,
                seed=self.seed,
                normalization=opened.normalization,
                checkpoint=folder / "checkpoint",
                callback=ProgressCallback(folder, self.work),
            )
            restore_training(model, opened.path)
            model.save(folder / "student.zip")
        act = model_act(model, opened.normalization, find_masks(model, venv))
        found = evaluate(model, venv, opened.normalization, act, self.episodes, self.bits)
        venv.close()
        return {**found, "curve": {"steps": [], "returns": []}, "steps": self.work}
