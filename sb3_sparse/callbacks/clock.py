"""A clock that is saved with the model, and goes on where a saved run stopped."""

from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse.state.state import SparsityState


class ClockedCallback(BaseCallback):
    """
    Base class of callbacks that do something at some moment of training, also of training that was interrupted.

    The clock is a dict of integers in ``model.sparsity_state``, under the callback's name and arguments.

    :param verbose: Verbosity level.
    """

    _key: str
    _clock: dict[str, int]
    _offset: int

    @property
    def timestep(self) -> int:
        """Environment steps since this callback's first run on the model began, whatever SB3 resets ``num_timesteps`` to."""
        return self.model.num_timesteps + self._offset

    def _find_clock(self, arguments: dict[str, object]) -> SparsityState:
        """
        :param arguments: What makes one run differ from another, as printable values.
        :return: The state that the clock is a part of
        """
        state = SparsityState(self.model)
        self._key = f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"
        self._clock = state.clock(self._key)
        return state

    def _start_clock(self) -> None:
        """Go on from what the clock shows."""
        self._offset = max(0, self._clock.get("timestep", 0) - self.model.num_timesteps)

    def _resolve(self, when: float | int) -> int:
        """
        :param when: A share of this run if a float, a number of environment steps if an int.
        :return: The same moment on the clock of :attr:`timestep`
        """
        if isinstance(when, float):
            begin = self.model._num_timesteps_at_start
            return begin + round(when * (self.model._total_timesteps - begin))
        return when
