"""The offline algorithms, each small enough for a test, and datasets of transitions that mean nothing."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_sparse.offline import BC, BCQ, DiscreteBC, DiscreteBCQ, OfflineAlgorithm, OfflineDataset

Arrays = dict[str, Any]
OBSERVATIONS = spaces.Box(-np.inf, np.inf, (3,), np.float32)
#: The ranges of the components differ, and their middles do not lie at zero.
BOX = spaces.Box(np.array([-2.0, 0.5], np.float32), np.array([1.0, 4.5], np.float32))
DISCRETE = spaces.Discrete(4)


def transitions(
    observation_space: spaces.Space[Any] = OBSERVATIONS, action_space: spaces.Space[Any] = BOX, count: int = 150, seed: int = 0
) -> Arrays:
    """
    Episodes of 15 steps, of which every other one terminates and the others are truncated. Rewards tell transitions apart.

    :param observation_space: Space of the observations.
    :param action_space: Space of the actions.
    :param count: Number of transitions.
    :param seed: Seed of the values.
    :return: Arguments of ``OfflineDataset.from_arrays``
    """
    rng = np.random.default_rng(seed)
    last = np.arange(count) % 15 == 14
    ends = np.arange(count) % 30 == 29
    before, after = (_draw(observation_space, count, rng) for _ in range(2))
    return {
        "observations": before,
        "actions": _draw(action_space, count, rng),
        "rewards": rng.permutation(np.linspace(-1.0, 1.0, count)).astype(np.float32),
        "next_observations": after,
        "terminations": ends,
        "truncations": last & ~ends,
        "observation_space": observation_space,
        "action_space": action_space,
    }


def _draw(space: spaces.Space[Any], count: int, rng: np.random.Generator) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _draw(part, count, rng) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.n, size=count)
    assert isinstance(space, spaces.Box)
    if space.dtype == np.uint8:
        return rng.integers(256, size=(count, *space.shape), dtype=np.uint8)
    if space.is_bounded():
        return rng.uniform(space.low, space.high, (count, *space.shape)).astype(np.float32)
    return rng.normal(size=(count, *space.shape)).astype(np.float32)


def make_data(*args: Any, **kwargs: Any) -> OfflineDataset:
    """
    :param args: Arguments of :func:`transitions`.
    :param kwargs: Likewise.
    :return: These transitions as a dataset
    """
    return OfflineDataset.from_arrays(**transitions(*args, **kwargs))


@dataclass(frozen=True)
class Case:
    """
    How to build one algorithm.

    :param algorithm: The class.
    :param networks: Names of its networks, in the order in which they are trained.
    :param targets: Names of its target networks.
    :param action_space: A space of actions that it takes.
    :param env: A real environment that it can act in.
    :param kwargs: Settings that make it fast.
    """

    algorithm: type[OfflineAlgorithm]
    networks: tuple[str, ...]
    targets: tuple[str, ...] = ()
    action_space: spaces.Space[Any] = field(default_factory=lambda: BOX)
    env: str = "Pendulum-v1"
    kwargs: dict[str, Any] = field(default_factory=dict)

    def make(
        self, dataset: OfflineDataset | None = None, policy: Any = "MlpPolicy", policy_kwargs: Any = None, **kwargs: Any
    ) -> OfflineAlgorithm:
        """
        :param dataset: The dataset; a small one by default.
        :param policy: The policy.
        :param policy_kwargs: Arguments of the policy.
        :param kwargs: Arguments of the algorithm that replace those of the case.
        :return: The model, seeded and on the CPU unless the arguments say otherwise
        """
        settings = {"seed": 0, "device": "cpu", "batch_size": 16, **self.kwargs, **kwargs}
        dataset = make_data(action_space=self.action_space) if dataset is None else dataset
        return self.algorithm(policy, dataset, policy_kwargs={"net_arch": [16, 16], **(policy_kwargs or {})}, **settings)


CASES = {
    "bc_vae": Case(BC, ("vae",), kwargs={"mode": "vae"}),
    "bc_mlp": Case(BC, ("actor",), kwargs={"mode": "mlp"}),
    "bcq": Case(BCQ, ("vae", "critic", "actor"), ("critic_target", "actor_target"), kwargs={"n_eval_actions": 20}),
    "discrete_bc": Case(DiscreteBC, ("actor",), (), DISCRETE, "CartPole-v1"),
    "discrete_bcq": Case(DiscreteBCQ, ("q_net", "imitation"), ("q_net_target",), DISCRETE, "CartPole-v1"),
}
