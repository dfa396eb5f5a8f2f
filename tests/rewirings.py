"""What must hold while weights move: a callback that looks at every rewiring, right after it."""

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse import OneShotPruningCallback, RewiringCallback
from sb3_sparse.nn import MaskedLayer, find_optimizers, find_twins
from tests.algorithms import CASES
from tests.invariants import Watch, check, check_targets, masked, remembered


def masks_of(model: BaseAlgorithm) -> dict[str, th.Tensor]:
    """
    :param model: Any model.
    :return: Copies of its masks, without those of target networks
    """
    return {name: layer.mask.clone() for name, layer in masked(model)}


def followers(model: BaseAlgorithm) -> list[tuple[MaskedLayer, th.nn.Module]]:
    """
    :param model: Any model.
    :return: Its masked layers, each with a layer of a target network that follows it
    """
    twins = find_twins(model.policy).items()
    return [(layer, twin) for layer, layers in twins for twin in layers if isinstance(layer, MaskedLayer)]


def sparse_model(name: str, sparse: bool = False, sparsity: float = 0.5, **kwargs: object) -> BaseAlgorithm:
    """
    :param name: Name of an algorithm.
    :param sparse: Whether its policy is sparse by itself.
    :param sparsity: How sparse, in that case.
    :param kwargs: Arguments of the algorithm.
    :return: The model; a stock one is made sparse by :func:`rewiring`
    """
    return CASES[name].make(
        sparse, policy_kwargs={"sparsity": sparsity, "distribution": "uniform"} if sparse else None, **kwargs
    )


def rewiring(sparse: bool = False, network: object = "all", **kwargs: object) -> list[BaseCallback]:
    """
    :param sparse: Whether the policy is sparse by itself.
    :param network: Networks to rewire.
    :param kwargs: Arguments of the callback.
    :return: A rewiring every ten steps, after a random topology if the policy has none
    """
    dynamic = RewiringCallback(network, **{"fraction": 0.3, "update_freq": 10, **kwargs})
    static = OneShotPruningCallback(network, 0.5, saliency="random", distribution="uniform", targets=dynamic.targets)
    return [dynamic] if sparse else [static, dynamic]


class Rewirings(Watch):
    """
    Checks every rewiring right after it: counts, the weights that stay, and the new ones, which begin at nothing.

    :param targets: The rule for target networks.
    """

    def __init__(self, targets: str = "topk") -> None:
        super().__init__()
        self.targets = targets
        #: Environment steps of the rewirings, and the masks before and after each.
        self.steps: list[int] = []
        self.masks: list[dict[str, th.Tensor]] = []

    def _on_training_start(self) -> None:
        super()._on_training_start()
        optimizers = find_optimizers(self.model.policy)
        self._handles += [optimizer.register_step_post_hook(self._remember) for optimizer in optimizers]
        self._remember()

    def _remember(self, *_: object) -> None:
        self._weights = {name: layer.weight.detach().clone() for name, layer in masked(self.model)}

    def _on_rollout_start(self) -> None:
        self._look()

    def _on_step(self) -> bool:
        if not self.masks:
            self.masks.append(masks_of(self.model))
        self._look()
        return True

    def _on_training_end(self) -> None:
        self._look()
        for handle in self._handles:
            handle.remove()

    def _look(self) -> None:
        check(self.model)
        if self.targets == "mask":
            check_targets(self.model)
        if self.targets == "topk":
            assert all(int((twin.weight != 0).sum()) <= int(layer.mask.sum()) for layer, twin in followers(self.model))
        new = masks_of(self.model)
        if self.masks and any(not th.equal(mask, self.masks[-1][name]) for name, mask in new.items()):
            optimizers = find_optimizers(self.model.policy)
            for name, layer in masked(self.model):
                self._check_rewired(name, layer, self.masks[-1][name], optimizers)
            self.masks.append(new)
            self.steps.append(self.num_timesteps)

    def _check_rewired(self, name: str, layer: MaskedLayer, old: th.Tensor, optimizers: list[th.optim.Optimizer]) -> None:
        assert int(layer.mask.sum()) == int(old.sum()), name
        grown = layer.mask & ~old
        assert not layer.weight[grown].any(), f"{name}: a new weight is not zero"
        stays = layer.mask & old
        assert th.equal(layer.weight[stays], self._weights[name][stays]), f"{name}: a weight that stays has changed"
        for key, value in remembered(optimizers, layer):
            assert not value[grown].any(), f"{name}: {key} of a new weight is not zero"
