"""What must hold of a masked model at any time, and a callback that looks after every optimizer step."""

from collections.abc import Iterable, Iterator

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


def remembered(optimizers: list[th.optim.Optimizer], layer: MaskedLayer) -> Iterator[tuple[str, th.Tensor]]:
    """
    :param optimizers: All optimizers of a model.
    :param layer: One of its masked layers.
    :return: What they remember of each of its weights, by the name that they have for it
    """
    for optimizer in optimizers:
        for key, value in optimizer.state.get(layer.weight, {}).items():
            if isinstance(value, th.Tensor) and value.shape == layer.weight.shape:
                yield key, value


def check(model: BaseAlgorithm) -> None:
    """
    Runs after every optimizer step of many tests, so it looks at all layers together.

    :param model: Any model; every pruned weight and all that its optimizer remembers of it must be exactly zero.
    """
    optimizers, layers = find_optimizers(model.policy), dict(masked(model))
    values, places = [], []
    for name, layer in layers.items():
        named = [(f"{name}: a pruned weight", layer.weight.detach())]
        named += [(f"{name}: {key} of a pruned weight", value) for key, value in remembered(optimizers, layer)]
        values += named
        places += [layer.mask] * len(named)
    if not values:
        return
    # True is more than False: what is not zero, be it NaN, and has no weight. The largest of bytes is found faster than any().
    outside = _joined(value for _, value in values).ne(0) > _joined(places)
    if outside.view(th.uint8).max():
        wrong = [text for (text, value), mask in zip(values, places, strict=True) if value[~mask].any()]
        raise AssertionError(f"not zero: {', '.join(wrong)}")
    multipliers = _joined(layer.multiplier for layer in layers.values())
    assert th.equal(multipliers, _joined(layer.mask for layer in layers.values()).to(multipliers.dtype))


def _joined(tensors: Iterable[th.Tensor]) -> th.Tensor:
    return th.cat([tensor.reshape(-1) for tensor in tensors])


def check_targets(model: BaseAlgorithm) -> None:
    """
    :param model: Any model; every weight of a target network whose online twin is pruned must be exactly zero.
    """
    for layer, twins in find_twins(model.policy).items():
        for twin in twins:
            if isinstance(layer, MaskedLayer):
                assert not twin.weight.detach().masked_fill(layer.mask, 0.0).any()


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
