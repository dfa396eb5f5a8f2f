"""One training of rl-zoo3 that begins with a trained agent."""

from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

from sb3_sparse.sweeps.kinds.agent_files import check_agent, digest_agent
from sb3_sparse.sweeps.kinds.hyperparams import read_changes
from sb3_sparse.sweeps.kinds.zoo import Zoo
from sb3_sparse.zoo.notation import read_literal

#: Hyperparameters that nothing reads where an agent is loaded, and those that this kind sets.
_UNREAD = {"policy", "policy_kwargs", "learning_starts", "exploration_initial_eps"}


@dataclass(frozen=True, kw_only=True)
class FineTune(Zoo):
    """
    ``sb3-sparse train -i`` with one thread on the CPU: an agent is loaded with its networks and its optimizers, and trained
    further by a recipe, whose clock and schedules begin anew. Its settings are those of kind zoo, but for data.

    A zip has no replay buffer, and with an empty one SB3 would take random actions for ``learning_starts`` steps, and train on
    those alone. So the agent plays ``collected`` steps first, exploring as it does in training, and training begins with the
    first step after them; ``learning_starts`` is 0. Algorithms that explore by an epsilon do so with the last one of the
    recipe from the first step.

    The networks are those of the agent, as well as ``optimizer_kwargs`` such as a decay of weights: rl-zoo3 does not take
    ``policy_kwargs`` of a recipe then.

    :param agent: Zip of the agent.
    :param collected: Steps that the agent plays before its training, if it has a replay buffer.
    """

    kind: ClassVar[str] = "finetune"

    agent: str
    collected: int = 10_000

    def check(self) -> None:
        """
        :raises ValueError: if the agent does not exist or is one of another algorithm, its observations are normalized, or a
            setting does not fit
        """
        from sb3_sparse.offline import ALGORITHMS

        check_agent(Path(self.agent))
        if self.algo in ALGORITHMS:
            raise ValueError(f"kind {self.kind} trains in an environment, and {self.algo} on recorded data: use kind zoo")
        if self.collected < 1:
            raise ValueError(f"collected must be at least 1, got {self.collected}")
        super().check()
        if unread := _UNREAD & read_changes(self.hyperparams).keys():
            raise ValueError(f"hyperparams has {', '.join(sorted(unread))}: the agent has its own networks, and no warm-up")
        _check_start(Path(self.agent), self.algo, self.env)
        if self._hyperparameter("normalize"):
            raise ValueError(
                f"recipe {self.recipe} normalizes the observations of {self.env}, and {self.agent} was trained without: add"
                ' "normalize:False" to hyperparams'
            )

    def content(self) -> dict[str, Any]:
        """
        :return: The recipe's hyperparameters for the environment, and hashes of the agent and of the files that belong to it
        """
        return {"recipe": super().content(), **digest_agent(Path(self.agent), self.env)}

    @property
    def files(self) -> tuple[Path, ...]:
        """The agent."""
        return (Path(self.agent),)

    @property
    def start(self) -> tuple[Path, int] | None:
        """The agent."""
        return Path(self.agent), self.collected

    @property
    def changes(self) -> tuple[str, ...]:
        """Nothing is random that the agent does."""
        return (*self.hyperparams, *_without_warm_up(self.algo, self._hyperparameter("exploration_final_eps")))

    def is_run(self, run: Path) -> bool:
        """
        :param run: A folder of rl-zoo3.
        :return: Whether it holds this cell, which cannot be known: rl-zoo3 does not say what an agent was when it was loaded
        """
        return False

    def _hyperparameter(self, name: str) -> object:
        """That of the recipe, or what it is changed to."""
        changes = read_changes(self.hyperparams)
        return read_literal(changes[name]) if name in changes else super().content().get(name)


@cache
def _check_start(agent: Path, algo: str, env: str) -> None:
    """Once for all seeds and sparsities."""
    from sb3_sparse.agents import ALGORITHMS, load_agent, load_normalization
    from sb3_sparse.agents.normalization import check_normalization
    from sb3_sparse.zoo.settings import find_settings

    found = load_normalization(agent, env)
    model = load_agent(agent)
    if not issubclass(ALGORITHMS[algo], type(model)):
        raise ValueError(f"{agent} holds an agent of {type(model).__name__}, not of {algo}")
    check_normalization(agent, model, found, find_settings(agent, env))
    if found is not None and found[1].norm_obs:
        raise ValueError(
            f"{agent} was trained on normalized observations, as {found[0]} says, and kind finetune does not"
            " normalize: use kind distill"
        )


def _without_warm_up(algo: str, last_epsilon: object) -> list[str]:
    from sb3_sparse.agents import ALGORITHMS

    parameters = signature(ALGORITHMS[algo].__init__).parameters
    changes = ["learning_starts:0"] if "learning_starts" in parameters else []
    if "exploration_final_eps" in parameters:
        last = parameters["exploration_final_eps"].default if last_epsilon is None else last_epsilon
        changes.append(f"exploration_initial_eps:{last}")
    return changes
