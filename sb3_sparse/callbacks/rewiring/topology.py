"""
The history of a topology: the share of weights that have ever existed (the ITOP rate R_s of Liu et al. 2021, "Do We Actually
Need Dense Over-Parameterization?"), the share that each rewiring has replaced, and the neurons that have a weight.

It is part of the state that is saved with a model, one row per rewiring, so a resumed run continues it.
"""

from typing import TYPE_CHECKING

from sb3_sparse.nn import MaskedLayer
from sb3_sparse.sparsity import Named
from sb3_sparse.state import SparsityState, TopologyRow, has_state

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


class Topology:
    """
    The topology of one network, from now on.

    :param state: The state that is saved with the model.
    :param network: Name of the network.
    :param layers: Its layers by full name.
    :param timestep: Environment step, on the clock that :meth:`record` uses. If the history is ahead of this clock, it goes
        on from its own last step.
    """

    def __init__(self, state: SparsityState, network: str, layers: dict[str, MaskedLayer], timestep: int) -> None:
        self._state = state
        self._network = network
        self._layers = layers
        last = max((row.timestep for row in state.topologies().get(network, [])), default=0)
        self._offset = last if last > timestep else 0
        #: By layer: True where a weight has existed at any time.
        self.explored: Named = {}
        for name, layer in layers.items():
            saved = state.load_mask(name, layer.mask.shape, "explored")
            self.explored[name] = layer.mask.clone() if saved is None else layer.mask | saved.to(layer.mask.device)
            state.save_mask(name, self.explored[name], "explored")

    def record(self, timestep: int, old: Named) -> dict[str, float]:
        """
        Add a rewiring to the history.

        :param timestep: Environment step.
        :param old: The masks before it.
        :return: Values to log
        """
        replaced = existing = explored = total = active = 0
        for name, layer in self._layers.items():
            self.explored[name] |= layer.mask
            self._state.save_mask(name, self.explored[name], "explored")
            replaced += int((layer.mask & ~old[name]).sum())
            existing += int(layer.mask.sum())
            explored += int(self.explored[name].sum())
            total += layer.mask.numel()
            active += int(layer.mask.flatten(1).any(dim=1).sum())
        row = TopologyRow(timestep + self._offset, replaced, existing, explored, total, active)
        self._state.save_topology(self._network, row)
        return {f"sparsity/{self._network}_explored": explored / total, f"sparsity/{self._network}_churn": replaced / existing}


def topology_history(model: "BaseAlgorithm") -> dict[str, dict[str, list[float]]]:
    """
    The history of a model's topology: one entry per rewiring, of all its runs.

        history = topology_history(TD3.load("agent"))["critic"]
        plt.plot(history["timestep"], history["explored"])

    :param model: A model that a :class:`RewiringCallback` has trained or is training; others have no history.
    :return: By network: lists of the environment steps ("timestep"), the share of weights that have ever existed ("explored",
        the ITOP rate), the share of the existing weights that were new ("churn") and the neurons with at least one weight
        ("active_neurons")
    :raises ValueError: if the saved state is damaged
    """
    if not has_state(model):
        return {}
    return {
        network: {
            "timestep": [row.timestep for row in rows],
            "explored": [row.explored / row.total for row in rows],
            "churn": [row.replaced / row.existing for row in rows],
            "active_neurons": [row.active for row in rows],
        }
        for network, rows in SparsityState(model).topologies().items()
    }
