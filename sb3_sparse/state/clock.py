"""A clock that is saved with the model and goes on where a saved run stopped."""

import warnings
from typing import TYPE_CHECKING

from sb3_sparse.state.identity import Identity, find_run
from sb3_sparse.state.sparsity_state import SparsityState

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


class Clock:
    """
    The clock of one callback. It starts with :meth:`start`.

    :param model: The model.
    :param state: Its saved state.
    :param identity: Identity of the callback, which decides which saved run goes on.
    """

    def __init__(self, model: "BaseAlgorithm", state: SparsityState, identity: Identity) -> None:
        self._model = model
        self._offset = 0
        self.key, changes = find_run(identity, state.clocks)
        #: The integers that are saved with the model; the callback may add its own.
        self.saved: dict[str, int] = state.clocks.setdefault(self.key, {})
        if changes is not None:
            networks = identity.scope.get("network")
            where = f" on {', '.join(map(str, networks))}" if isinstance(networks, list) else ""
            warnings.warn(
                f"{identity.callback.__name__} starts anew{where}, because its arguments are not those of the saved run: "
                f"{changes}",
                stacklevel=2,
            )

    def start(self) -> None:
        """Go on from the saved time."""
        self._offset = max(0, self.saved.get("timestep", 0) - self._model.num_timesteps)

    @property
    def timestep(self) -> int:
        """Environment steps since the callback's first run on the model, even if SB3 has reset ``num_timesteps``."""
        return self._model.num_timesteps + self._offset

    def tick(self) -> None:
        """Save the time."""
        self.saved["timestep"] = self.timestep

    def resolve(self, when: float | int) -> int:
        """
        :param when: A share of this run if a float, a number of environment steps if an int.
        :return: The same moment on the clock of :attr:`timestep`
        """
        if isinstance(when, float):
            begin = self._model._num_timesteps_at_start
            return begin + round(when * (self._model._total_timesteps - begin))
        return when
