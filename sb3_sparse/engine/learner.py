"""A model goes into the engine; and how an off-policy algorithm trains and explores there."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv

from sb3_sparse.engine.engaged import Engaged, put_between, release
from sb3_sparse.engine.offline import OfflineLearner
from sb3_sparse.engine.on_policy import OnPolicyLearner
from sb3_sparse.engine.session import Session
from sb3_sparse.engine.support import look_through_references
from sb3_sparse.offline import UpdateLoop

if TYPE_CHECKING:
    from stable_baselines3.common.buffers import ReplayBuffer

__all__ = ["engage", "release"]


class Learner(Engaged, OffPolicyAlgorithm):
    """What is different in an off-policy algorithm that trains in the engine."""

    def train(self, gradient_steps: int, batch_size: int | None = None) -> None:
        if batch_size is None:
            batch_size = signature(self._stock.train).parameters["batch_size"].default  # type: ignore[attr-defined]
        with self._released_on_error():
            self._train(gradient_steps, batch_size)

    def _train(self, gradient_steps: int, batch_size: int) -> None:
        session = self._session
        # A schedule of the learning rate may look at the model.
        self._update_learning_rate(session.update.optimizers)
        if not session.take_over():
            super().train(gradient_steps, batch_size)
            # Before a callback changes the number of weights that they are pruned to.
            session.update.prune_targets()
            return
        means = session.train(gradient_steps, batch_size)
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, mean in means.items():
            self.logger.record(f"train/{name}", mean)

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> RolloutReturn:
        with self._released_on_error():
            return self._collect(*args, **kwargs)

    def _collect(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        # Who may hold layers of the model sees the true ones at every step, and may change them.
        session = self._session
        session.guests = look_through_references(callback)
        # SB3's loop, without the walks through all modules that switch between training and evaluation: no layer here differs.
        num_collected_steps, num_collected_episodes = 0, 0
        assert train_freq.frequency > 0, "Should at least collect one step or episode."
        if env.num_envs > 1:
            assert train_freq.unit == TrainFrequencyUnit.STEP, "You must use only one env when doing episodic training."
        with session.open():
            callback.on_rollout_start()
        continue_training = True
        while should_collect_more_steps(train_freq, num_collected_steps, num_collected_episodes):
            actions, buffer_actions = self._sample_action(learning_starts, action_noise, env.num_envs)
            new_obs, rewards, dones, infos = env.step(actions)
            self.num_timesteps += env.num_envs
            num_collected_steps += 1
            callback.update_locals(locals())
            with session.open():
                goes_on = callback.on_step()
            if not goes_on:
                return RolloutReturn(num_collected_steps * env.num_envs, num_collected_episodes, continue_training=False)
            self._update_info_buffer(infos, dones)
            self._store_transition(replay_buffer, buffer_actions, new_obs, rewards, dones, infos)  # type: ignore[arg-type]
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            self._on_step()
            for idx, done in enumerate(dones):
                if done:
                    num_collected_episodes += 1
                    self._episode_num += 1
                    if action_noise is not None:
                        kwargs = dict(indices=[idx]) if env.num_envs > 1 else {}
                        action_noise.reset(**kwargs)
                    if log_interval is not None and self._episode_num % log_interval == 0:
                        self.dump_logs()
        with session.open():
            callback.on_rollout_end()
        return RolloutReturn(num_collected_steps * env.num_envs, num_collected_episodes, continue_training)

    def _on_step(self) -> None:
        if not self._session.on_step():
            super()._on_step()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        rows = self._take_over(observation)
        if rows is None:
            return super().predict(observation, state, episode_start, deterministic)
        actions = self._session.update.act(rows, deterministic=deterministic)
        if isinstance(self.action_space, spaces.Box):
            shaped = actions.reshape(-1, *self.action_space.shape)
            actions = self.__dict__["policy"].unscale_action(shaped)
        return actions, state

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.num_timesteps < learning_starts:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        assert self._last_obs is not None
        action, _ = self.predict(self._last_obs, deterministic=False)
        if not isinstance(self.action_space, spaces.Box):
            return action, action
        policy = self.__dict__["policy"]
        scaled_action = policy.scale_action(action)
        if action_noise is not None:
            scaled_action = np.clip(scaled_action + action_noise(), -1, 1)
        return policy.unscale_action(scaled_action), scaled_action


def engage(model: BaseAlgorithm, session: Session) -> None:
    """
    Let a model train in the engine.

    :param model: The model.
    :param session: The engine's work on it.
    """
    if isinstance(model, OnPolicyAlgorithm):
        put_between(model, session, OnPolicyLearner)
    elif isinstance(model, UpdateLoop):
        put_between(model, session, OfflineLearner)  # type: ignore[type-abstract]
    else:
        put_between(model, session, Learner)
