"""An on-policy algorithm that trains in the engine, and acts there in its rollouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import explained_variance, obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_sparse.engine.engaged import Engaged
from sb3_sparse.engine.support import look_through_references
from sb3_sparse.engine.updates.actor_critic import ActorCriticUpdate


class OnPolicyLearner(Engaged, OnPolicyAlgorithm):
    """What is different in an on-policy algorithm that trains in the engine."""

    @property
    def _update(self) -> ActorCriticUpdate:
        update = self._session.update
        assert isinstance(update, ActorCriticUpdate)
        return update

    def train(self) -> None:
        with self._released_on_error():
            self._train()

    def _train(self) -> None:
        session, buffer = self._session, self.rollout_buffer
        # A schedule of the learning rate may look at the model.
        self._update_learning_rate(session.update.optimizers)
        if not session.take_over():
            super().train()
            return
        # A2C passes over the whole rollout once.
        epochs, size = getattr(self, "n_epochs", 1), getattr(self, "batch_size", buffer.buffer_size * buffer.n_envs)
        values = session.train(epochs, size)
        values["explained_variance"] = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        if self._update.std is not None:
            values["std"] = self._update.std
        for name, value in values.items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        with self._released_on_error():
            return self._collect(*args, **kwargs)

    def _collect(self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int) -> bool:
        # Who may hold layers of the model sees the true ones at every step, and may change them.
        session = self._session
        session.guests = look_through_references(callback)
        # SB3's loop, without the walk through all modules that switches to evaluation: no layer here differs.
        assert self._last_obs is not None, "No previous observation was provided"
        n_steps = 0
        rollout_buffer.reset()
        with session.open():
            callback.on_rollout_start()
        while n_steps < n_rollout_steps:
            obs_tensor = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
            actions, values, log_probs = self._decide(obs_tensor)
            clipped_actions = self._clip(actions)
            new_obs, rewards, dones, infos = env.step(clipped_actions)
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            with session.open():
                goes_on = callback.on_step()
            if not goes_on:
                return False
            self._update_info_buffer(infos, dones)
            n_steps += 1
            if isinstance(self.action_space, spaces.Discrete):
                actions = actions.reshape(-1, 1)
            # The end by a time limit is not an end.
            for idx, done in enumerate(dones):
                info = infos[idx]
                if done and info.get("terminal_observation") is not None and info.get("TimeLimit.truncated", False):
                    rewards[idx] += self.gamma * self._values(_batch(info["terminal_observation"])).numpy()[0, 0]
            rollout_buffer.add(
                self._last_obs,  # type: ignore[arg-type]
                actions,
                rewards,
                self._last_episode_starts,  # type: ignore[arg-type]
                values,
                log_probs,
            )
            self._last_obs = new_obs  # type: ignore[assignment]
            self._last_episode_starts = dones
        values = self._values(new_obs)
        rollout_buffer.compute_returns_and_advantage(last_values=values, dones=dones)
        callback.update_locals(locals())
        with session.open():
            callback.on_rollout_end()
        return True

    def _decide(self, obs_tensor: th.Tensor | dict[str, th.Tensor]) -> tuple[np.ndarray, th.Tensor, th.Tensor]:
        """Actions as the environment's space has them, values, and log probabilities."""
        rows = self._take_over(self._last_obs)
        if rows is not None:
            decided, values, log_probs = self._update.sample(rows)
            actions = decided.reshape(-1, *self.action_space.shape)  # type: ignore[misc]
            return actions, th.from_numpy(values), th.from_numpy(log_probs)
        with th.no_grad():
            chosen, values_tensor, log_probs_tensor = self.policy(obs_tensor)
        return chosen.numpy(), values_tensor, log_probs_tensor

    def _values(self, observations: Any) -> th.Tensor:
        rows = self._take_over(observations)
        if rows is not None:
            return th.from_numpy(self._update.values(rows))
        with th.no_grad():
            values: th.Tensor = self.policy.predict_values(obs_as_tensor(observations, self.device))
        return values

    def _clip(self, actions: np.ndarray) -> np.ndarray:
        space = self.action_space
        # np.clip() says the same in three times the time.
        return np.minimum(np.maximum(actions, space.low), space.high) if isinstance(space, spaces.Box) else actions

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
        actions = self._update.act(rows, deterministic=deterministic)
        return self._clip(actions.reshape(-1, *self.action_space.shape)), state  # type: ignore[misc]


def _batch(observation: np.ndarray | dict[str, np.ndarray]) -> np.ndarray | dict[str, np.ndarray]:
    """One observation as a batch."""
    if isinstance(observation, dict):
        return {name: np.asarray(part)[None] for name, part in observation.items()}
    return np.asarray(observation)[None]
