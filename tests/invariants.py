"""What must hold of a masked model at any time, and a callback that looks after every optimizer step."""

from collections.abc import Iterator

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse.nn import MaskedLayer, find_networks, find_optimizers, find_twins


def masked(model: BaseAlgorithm) -> Iterator[tuple[str, MaskedLayer]]:
    """
    :param model: Any model.
    :return: Its masked layers, without those of target networks
    """
    for layers in find_networks(model.policy).values():
        for name, layer in layers.items():
            if isinstance(layer, MaskedLayer):
                yield name, layer


def check(model: BaseAlgorithm) -> None:
    """
    :param model: Any model; every pruned weight and all that its optimizer remembers of it must be exactly zero.
    """
    for name, layer in masked(model):
        pruned = ~layer.mask
        assert th.equal(layer.multiplier, layer.mask.to(layer.multiplier.dtype)), name
        assert not layer.weight[pruned].any(), f"{name}: a pruned weight is not zero"
        for optimizer in find_optimizers(model.policy):
            for key, value in optimizer.state.get(layer.weight, {}).items():
                if isinstance(value, th.Tensor) and value.shape == layer.weight.shape:
                    assert not value[pruned].any(), f"{name}: {key} of a pruned weight is not zero"


def check_targets(model: BaseAlgorithm) -> None:
    """
    :param model: Any model; every weight of a target network whose online twin is pruned must be exactly zero.
    """
    for layer, twins in find_twins(model.policy).items():
        for twin in twins:
            if isinstance(layer, MaskedLayer):
                assert not twin.weight[~layer.mask].any()


class Watch(BaseCallback):
    """Checks the invariants after every optimizer step and every environment step; ``looks`` counts the former."""

    looks = 0

    def _on_training_start(self) -> None:
        def look(*_: object) -> None:
            self.looks += 1
            check(self.model)

        self._handles = [optimizer.register_step_post_hook(look) for optimizer in find_optimizers(self.model.policy)]

    def _on_step(self) -> bool:
        check(self.model)
        check_targets(self.model)
        return True

    def _on_training_end(self) -> None:
        check(self.model)
        check_targets(self.model)
        for handle in self._handles:
            handle.remove()
