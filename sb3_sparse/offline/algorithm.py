"""
The base class of the offline algorithms: SB3 algorithms that train on a dataset and do not step in an environment.

One update samples a minibatch and takes one optimizer step for each of :meth:`OfflineAlgorithm.losses`, in their order.
Pruning and logging use the same losses, so an algorithm consists of a policy and its losses.
"""

from abc import abstractmethod
from collections.abc import Mapping
from inspect import isabstract
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_sparse.nn import flush_moments, fuse_adam
from sb3_sparse.offline.data import OfflineBatch, OfflineDataset
from sb3_sparse.offline.data.batch_sampler import BatchSampler
from sb3_sparse.offline.data.resolve import resolve_dataset
from sb3_sparse.offline.loop import UpdateLoop
from sb3_sparse.offline.policy import OfflinePolicy
from sb3_sparse.offline.spaces_env import make_spaces_env
from sb3_sparse.offline.update import LossMeans, take_step, update_generator
from sb3_sparse.sparsity import Loss

#: Updates between two searches for moments so small that they only slow down the optimizer.
FLUSH_FREQ = 250


class OfflineAlgorithm(UpdateLoop):
    """
    Base class of the offline algorithms. A subclass names its policy (``policy_aliases``) and its kinds of actions
    (``action_spaces``), and returns its losses (``_losses``).

    The dataset is not saved with the model. A loaded model predicts without it, and needs it again to go on training:
    ``BCQ.load("agent", dataset=data)``. The seed and n determine the minibatch and the noise of update n, so a run that was
    saved and resumed equals a run that never stopped.

    :param policy: "MlpPolicy", "MultiInputPolicy" for dict observations, or a class.
    :param dataset: The transitions to learn from, or the id of a Minari dataset, which is downloaded if it is not there.
    :param env: An environment for evaluation, or its name. Training works without one: the spaces are the dataset's then.
    :param learning_rate: Learning rate of all optimizers, or a function of the remaining progress (1 to 0).
    :param batch_size: Transitions per update.
    :param policy_kwargs: Arguments of the policy.
    :param tensorboard_log: Folder of the log for tensorboard.
    :param verbose: Verbosity level: 0 for no output, 1 for information, 2 for debugging.
    :param seed: Seed of the initial weights, of the minibatches and of the noise; a loaded model keeps the last two.
    :param device: Device of the networks.
    :param _init_setup_model: Whether to build the networks now.
    :raises ValueError: without a dataset, or if it does not fit the environment or the algorithm
    """

    policy: OfflinePolicy
    #: Kinds of action spaces that the algorithm takes.
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (spaces.Box,)
    #: The network "actor" is updated once every ``policy_delay`` updates, as in SB3's TD3.
    policy_delay: int = 1

    def __init__(
        self,
        policy: str | type[OfflinePolicy],
        dataset: OfflineDataset | str | None = None,
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 1e-3,
        batch_size: int = 100,
        policy_kwargs: dict[str, Any] | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        self.dataset = dataset
        if _init_setup_model:
            dataset = self._find_dataset()
            env = env or make_spaces_env(dataset.observation_space, dataset.action_space)
        super().__init__(
            policy,
            env,
            learning_rate,
            policy_kwargs=policy_kwargs,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
            supported_action_spaces=self.action_spaces,
        )
        self.batch_size = batch_size
        self.draw_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._sampler: BatchSampler | None = None
        #: Saved for a resumed run: Minari's id of the dataset, and whether observations were normalized.
        self.dataset_name: str | None = None
        self.normalized = False
        self._means = LossMeans()
        if _init_setup_model:
            self._find_sampler()
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        policy: Any = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **self._policy_arguments(), **self.policy_kwargs
        )
        self.policy = policy.to(self.device)
        for network in self.policy.networks.values():
            fuse_adam(network.optimizer)

    def _policy_arguments(self) -> dict[str, Any]:
        """The algorithm's arguments that its policy needs to act."""
        return {}

    @abstractmethod
    def _losses(self, batch: OfflineBatch, generator: th.Generator | None) -> dict[str, Loss]:
        """
        The losses of one update. All noise is sampled here, so that a loss is a function of the weights alone.

        :param batch: A minibatch, as :meth:`sample` gives it.
        :param generator: CPU generator of the noise; None takes torch's global one.
        :return: By the name of the network whose weights it trains, in the order of the optimizer steps
        """

    def _after_update(self) -> None:
        """Update the networks that are not trained, such as target networks."""

    @classmethod
    def extra_forward(cls, settings: Mapping[str, object]) -> dict[str, float] | None:
        """
        The forward passes of an update that its counted cost (three forward passes of each trained network) does not contain.

        :param settings: The attributes of a model by name, or the plain values among them, as its zip holds them.
        :return: Passes per sample, by name of a network or of a part of it; None if there are none, or if these are not the
            settings of such a model
        """
        return None

    def sample(self, batch_size: int, generator: th.Generator | None = None) -> OfflineBatch:
        """
        :param batch_size: Number of transitions.
        :param generator: CPU generator of the sample; None takes torch's global one.
        :return: A minibatch on the model's device, Box actions scaled to [-1, 1], observations as the policy takes them
        :raises ValueError: if the model has no dataset
        """
        return self._find_sampler().sample(batch_size, generator)

    def losses(self, batch: OfflineBatch | None = None, *, generator: th.Generator | None = None) -> dict[str, Loss]:
        """
        The losses of one minibatch. Training minimizes them; SNIP and GraSP differentiate them. Each is a function without
        arguments that returns the same value whenever it is called at the same weights (dropout aside). During training, the
        losses of later networks see the weights after the steps of earlier ones.

        :param batch: A minibatch, as :meth:`sample` gives it; by default a new one of ``batch_size`` transitions.
        :param generator: CPU generator of minibatch and noise; None takes torch's global one.
        :return: By the name of the network whose weights it trains, in the order of the optimizer steps
        :raises ValueError: if there is neither a batch nor a dataset
        """
        return self._losses(self.sample(self.batch_size, generator) if batch is None else batch, generator)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """
        :param gradient_steps: Number of updates.
        :param batch_size: Transitions per update.
        """
        if not self.policy.training:
            self.policy.set_training_mode(True)
        networks = self.policy.networks
        self._update_learning_rate([network.optimizer for network in networks.values()])
        for _ in range(gradient_steps):
            generator = update_generator(self.draw_seed, self._n_updates)
            losses = self.losses(self.sample(batch_size, generator), generator=generator)
            for name, loss in losses.items():
                if name != "actor" or (self._n_updates + 1) % self.policy_delay == 0:
                    self._means.add(name, take_step(networks[name], loss))
            self._n_updates += 1
            self._after_update()
            if self._n_updates % FLUSH_FREQ == 0:
                for network in networks.values():
                    flush_moments(network.optimizer)

    def _find_dataset(self) -> OfflineDataset:
        self.dataset = resolve_dataset(self.dataset, type(self).__name__, getattr(self, "dataset_name", None))
        space = self.dataset.action_space
        if not isinstance(space, self.action_spaces):
            kinds = " or ".join(kind.__name__ for kind in self.action_spaces)
            algorithms = [cls for cls in OfflineAlgorithm.__subclasses__() if not isabstract(cls)]
            fitting = [cls.__name__ for cls in algorithms if isinstance(space, cls.action_spaces)]
            instead = f"use {' or '.join(fitting)}" if fitting else "no offline algorithm takes these"
            raise ValueError(f"{type(self).__name__} takes {kinds} actions, and the dataset has {space}: {instead}")
        return self.dataset

    def _prepare(self) -> None:
        self._find_sampler()

    def _find_sampler(self) -> BatchSampler:
        """The sampler of the present dataset and environment; a model without an environment gets one that only has spaces."""
        dataset = self._find_dataset()
        if self._sampler is None or self._sampler.dataset is not dataset or self._sampler.env is not self.env:
            env = self.env or self._wrap_env(make_spaces_env(dataset.observation_space, dataset.action_space))
            sampler = BatchSampler(dataset, env, self.observation_space, self.action_space, self.device)
            if self.normalized and not sampler.normalizes:
                raise ValueError(
                    "the model was trained on normalized observations: load it with env=, a VecNormalize of its environment"
                )
            self.env, self.n_envs, self._sampler = env, env.num_envs, sampler
            self.dataset_name, self.normalized = dataset.name, sampler.normalizes
        return self._sampler

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", *(f"policy.{name}.optimizer" for name in self.policy.networks)], []

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "dataset", "_sampler", "_means"]
