"""
An offline algorithm is an SB3 algorithm that trains on a dataset and steps in no environment.

Its clock is the gradient update: ``num_timesteps``, ``total_timesteps`` and every callback count updates. One update samples
a minibatch and takes one optimizer step for each of :meth:`OfflineAlgorithm.losses`, in their order. The same dict serves
pruning and logging, so an algorithm is a policy and its losses.
"""

import sys
import time
from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from torch import Tensor

from sb3_sparse.nn import flush_moments, fuse_adam
from sb3_sparse.offline.data import OfflineBatch, OfflineDataset
from sb3_sparse.offline.feeder import Feeder, find_dataset
from sb3_sparse.offline.policy import OfflinePolicy
from sb3_sparse.offline.spaces_env import make_spaces_env
from sb3_sparse.sparsity import Loss

FLUSH_FREQ = 250  # Updates between two looks for numbers that only cost time.

SelfOfflineAlgorithm = TypeVar("SelfOfflineAlgorithm", bound="OfflineAlgorithm")


class OfflineAlgorithm(BaseAlgorithm):
    """
    Base class of the offline algorithms.

    The dataset is not saved with the model. A loaded model predicts without it, and is given it again to go on training:
    ``BCQ.load("agent", dataset=data)``. Minibatch and noise of update n follow from the seed and n, so a run that was saved
    and resumed is the run that never stopped.

    :param policy: Name of a policy, or its class.
    :param dataset: The transitions to learn from, or the id of a Minari dataset, which is downloaded if it is not there.
    :param env: An environment for evaluation, or its name. It is not needed: without one the spaces are the dataset's.
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
    #: Action spaces that the algorithm is made for.
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (spaces.Box,)

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
        self._feeder: Feeder | None = None
        #: For whoever goes on: Minari's id of the dataset, and whether observations were normalized.
        self.dataset_name: str | None = None
        self.normalized = False
        #: Sums of the losses since the log's last entry, and of how many updates.
        self._sums, self._summed = dict[str, Tensor](), 0
        if _init_setup_model:
            self._feed()
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
        """Arguments of the algorithm that say how its policy acts."""
        return {}

    @abstractmethod
    def _losses(self, batch: OfflineBatch, generator: th.Generator | None) -> dict[str, Loss]:
        """
        The losses of one update. All noise is drawn here, so that a loss is a function of the weights alone.

        :param batch: A minibatch, as :meth:`sample` gives it.
        :param generator: CPU generator of the noise; None takes torch's global one.
        :return: By the name of the network whose weights it trains, in the order of the optimizer steps
        """

    def _after_update(self) -> None:
        """Update what is not trained, such as target networks."""

    def sample(self, batch_size: int, generator: th.Generator | None = None) -> OfflineBatch:
        """
        :param batch_size: Number of transitions.
        :param generator: CPU generator of the draws; None takes torch's global one.
        :return: A minibatch on the model's device, Box actions scaled to [-1, 1], observations as the policy takes them
        :raises ValueError: if the model has no dataset
        """
        return self._feed().sample(batch_size, generator)

    def losses(self, batch: OfflineBatch | None = None, *, generator: th.Generator | None = None) -> dict[str, Loss]:
        """
        The losses of one minibatch: what training minimizes, and what SNIP and GraSP differentiate. Each is a function without
        arguments, and gives the same value whenever it is called at the same weights (dropout aside); losses of later networks
        see what the steps of the earlier ones have changed.

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
            generator = self._draw(self._n_updates)
            for name, loss in self.losses(self.sample(batch_size, generator), generator=generator).items():
                optimizer = networks[name].optimizer
                parameters = [p for group in optimizer.param_groups for p in group["params"]]
                value = loss()
                for p in parameters:
                    p.grad = None  # What zero_grad() does, and some more, which takes a while.
                # Gradients of other networks, through which the loss may pass, are not asked for.
                value.backward(inputs=parameters)  # type: ignore[no-untyped-call]
                optimizer.step()
                self._sums[name] = self._sums[name] + value.detach() if name in self._sums else value.detach()
            self._after_update()
            self._n_updates += 1
            if self._n_updates % FLUSH_FREQ == 0:
                for network in networks.values():
                    flush_moments(network.optimizer)
            self._summed += 1

    def _draw(self, number: int) -> th.Generator:
        """A CPU generator for one update. Torch uses 32 bits of a seed; with an odd factor no two updates have the same."""
        return th.Generator().manual_seed((self.draw_seed + number * 2_654_435_761) % 2**32)

    def learn(
        self: SelfOfflineAlgorithm,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1000,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfOfflineAlgorithm:
        """
        Train. Callbacks see each update as SB3's off-policy algorithms show an environment step, right after it was made.

        :param total_timesteps: Number of gradient updates.
        :param callback: Callbacks; their steps are updates.
        :param log_interval: Updates between two entries of the log; None writes none.
        :param tb_log_name: Name of the run for tensorboard; that of the algorithm by default.
        :param reset_num_timesteps: Whether the clock begins anew.
        :param progress_bar: Whether to show one.
        :return: The model
        :raises ValueError: if the model has no dataset
        """
        self._feed()
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name or type(self).__name__, progress_bar
        )
        # Some callbacks look for these.
        dones, rewards, infos, new_obs = np.zeros(1, dtype=bool), np.zeros(1), [dict[str, Any]()], self._last_obs
        callback.on_training_start(locals(), globals())
        # What the last run's end has announced for the next update: gradients to grow by.
        callback.on_rollout_end()
        while self.num_timesteps < total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self.train(gradient_steps=1, batch_size=self.batch_size)
            callback.on_rollout_start()
            self.num_timesteps += 1
            callback.update_locals(locals())
            if not callback.on_step():
                break
            callback.on_rollout_end()
            if log_interval is not None and self.num_timesteps % log_interval == 0:
                self.dump_logs()
        callback.on_training_end()
        return self

    def dump_logs(self) -> None:
        """Write the mean losses since the last time to the log."""
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, total in self._sums.items():
            self.logger.record(f"train/{name}_loss", float(total) / self._summed)
        self._sums, self._summed = {}, 0
        self.logger.dump(self.num_timesteps)

    def _find_dataset(self) -> OfflineDataset:
        self.dataset = find_dataset(self.dataset, type(self).__name__, getattr(self, "dataset_name", None))
        if not isinstance(self.dataset.action_space, self.action_spaces):
            others = "BCQ and BC take Box actions, DiscreteBCQ and DiscreteBC Discrete ones"
            raise ValueError(f"{type(self).__name__} cannot take {self.dataset.action_space}: {others}")
        return self.dataset

    def _feed(self) -> Feeder:
        """The dataset that the model has now, and an environment if it has none."""
        dataset = self._find_dataset()
        if self._feeder is None or self._feeder.dataset is not dataset or self._feeder.env is not self.env:
            env = self.env or self._wrap_env(make_spaces_env(dataset.observation_space, dataset.action_space))
            feeder = Feeder(dataset, env, self.observation_space, self.action_space, self.device)
            if self.normalized and not feeder.normalizes:
                raise ValueError("the model was trained on normalized observations: load it with env=, a VecNormalize")
            self.env, self.n_envs, self._feeder = env, env.num_envs, feeder
            self.dataset_name, self.normalized = dataset.name, feeder.normalizes
        return self._feeder

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", *(f"policy.{name}.optimizer" for name in self.policy.networks)], []

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "dataset", "_feeder", "_sums", "_summed"]
