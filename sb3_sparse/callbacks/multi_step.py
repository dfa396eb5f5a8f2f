"""Delayed multi-step targets: one step while the value function is still untrained, several steps later."""

from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_sparse.callbacks.arguments import check_moment
from sb3_sparse.state import Clock, Identity, SparsityState


class DelayedMultiStepCallback(BaseCallback):
    """
    Train with one-step targets until ``start``, and with the model's ``n_steps`` from then on. It is one of the two methods
    that RLx2 adds to dynamic sparse training, so that training relies less on the values of a sparse critic (Tan et al. 2023;
    three steps after 300,000 updates).

        model = TD3("MlpPolicy", "Hopper-v4", n_steps=3)
        model.learn(1_000_000, callback=DelayedMultiStepCallback(start=300_000))

    Until ``start`` the targets are those of a model with ``n_steps=1``, up to rounding. SB3's replay buffer computes the
    multi-step targets when it is sampled, so the switch costs nothing and no transition is lost.

    :param start: When: a share of the run if a float, environment steps if an int.
    :param verbose: Verbosity level: 0 for no output, 1 for a line at the switch.
    :raises ValueError: on a ``start`` that is not a moment of a run; at the start of training on a model with ``n_steps=1``
    """

    def __init__(self, start: float | int, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.start = check_moment("start", start)

    @property
    def timestep(self) -> int:
        """Environment steps since this callback's first run on the model, even if SB3 has reset ``num_timesteps``."""
        return self._clock.timestep

    def _init_callback(self) -> None:
        model = self.model
        buffer = model.replay_buffer if isinstance(model, OffPolicyAlgorithm) and model.n_steps > 1 else None
        if not isinstance(model, OffPolicyAlgorithm) or not isinstance(buffer, NStepReplayBuffer):
            raise ValueError(
                f"this {type(model).__name__} has no multi-step targets to delay: build it with n_steps=3, as in "
                'TD3("MlpPolicy", env, n_steps=3)'
            )
        self._buffer = buffer
        self._n_steps = model.n_steps
        self._clock = Clock(model, SparsityState(model), Identity(type(self), {}, {"start": self.start}))
        self._clock.start()
        self._clock.saved.setdefault("start", self._clock.resolve(self.start))

    def _on_training_start(self) -> None:
        self._buffer.n_steps = 1
        self._switch()

    def _on_step(self) -> bool:
        self._clock.tick()
        self._switch()
        return True

    def _switch(self) -> None:
        if self._buffer.n_steps != self._n_steps and self.timestep >= self._clock.saved["start"]:
            self._buffer.n_steps = self._n_steps
            if self.verbose > 0:
                print(f"{type(self).__name__}: step {self.timestep}, targets of {self._n_steps} steps")

    def _on_training_end(self) -> None:
        if not hasattr(self, "_clock"):
            return  # rl-zoo3 calls this also when training has failed to start.
        start = self._clock.saved["start"]
        if self.verbose > 0 and self.timestep < start:
            print(f"{type(self).__name__}: stopped at step {self.timestep}, before it begins at {start}")
        # Without this callback the model has the targets that it was built with.
        self._buffer.n_steps = self._n_steps

    def _on_rollout_end(self) -> None:
        self.logger.record("train/n_steps", self._buffer.n_steps)
