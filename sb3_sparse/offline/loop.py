"""
The training loop of an algorithm that does not step in an environment: its clock counts gradient updates.

``num_timesteps``, ``total_timesteps`` and every callback count them.
"""

import sys
import time
from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_sparse.offline.update import LossMeans

SelfUpdateLoop = TypeVar("SelfUpdateLoop", bound="UpdateLoop")


class UpdateLoop(BaseAlgorithm):
    """An SB3 algorithm that learns by gradient updates alone. Its constructor is that of SB3's base class."""

    #: Samples per update.
    batch_size: int
    #: Updates between two calls of the callbacks.
    updates_per_call: ClassVar[int] = 1
    #: The losses since the last entry of the log.
    _means: LossMeans

    @abstractmethod
    def _prepare(self) -> None:
        """
        Make sure that there are data to train on.

        :raises ValueError: if there are none
        """

    @abstractmethod
    def train(self, gradient_steps: int, batch_size: int) -> None:
        """
        :param gradient_steps: Number of updates.
        :param batch_size: Samples per update.
        """

    def learn(
        self: SelfUpdateLoop,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1000,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfUpdateLoop:
        """
        Train. Callbacks see each update as they see an environment step of SB3's off-policy algorithms: right after it.

        :param total_timesteps: Number of gradient updates.
        :param callback: Callbacks; their steps are updates.
        :param log_interval: Updates between two entries of the log; None writes none.
        :param tb_log_name: Name of the run for tensorboard; that of the algorithm by default.
        :param reset_num_timesteps: Whether the clock starts again at zero.
        :param progress_bar: Whether to show a progress bar.
        :return: The model
        :raises ValueError: if the model has no data
        """
        self._prepare()
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name or type(self).__name__, progress_bar
        )
        # Some callbacks of SB3 read these local variables.
        dones, rewards, infos, new_obs = np.zeros(1, dtype=bool), np.zeros(1), [dict[str, Any]()], self._last_obs
        callback.on_training_start(locals(), globals())
        # A resumed run may need the dense gradients of its first update: RigL asks for them at the end of a rollout.
        callback.on_rollout_end()
        while self.num_timesteps < total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            if not self._before_train():
                break
            self.train(gradient_steps=self.updates_per_call, batch_size=self.batch_size)
            if not self._tell(callback, locals()):
                break
            if log_interval is not None and self.num_timesteps % log_interval == 0:
                self.dump_logs()
        callback.on_training_end()
        return self

    def _before_train(self) -> bool:
        """
        What an algorithm does before it computes updates.

        :return: Whether to go on
        """
        return True

    def _tell(self, callback: BaseCallback, variables: dict[str, Any]) -> bool:
        """
        Tell the callbacks of an update, and count it.

        :param callback: The callbacks.
        :param variables: The local variables of :meth:`learn`.
        :return: Whether to go on
        """
        callback.on_rollout_start()
        self.num_timesteps += self.updates_per_call
        callback.update_locals(variables)
        if not callback.on_step():
            return False
        callback.on_rollout_end()
        return True

    def dump_logs(self) -> None:
        """Write the mean losses since the last entry to the log."""
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self._means.record(self.logger)
        self.logger.dump(self.num_timesteps)
