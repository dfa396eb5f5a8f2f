"""
The target rule of DS-TD3: after each soft update a layer of the target network keeps its largest weights, as many as its
online twin has nonzero ones (Sokar et al. 2022, Algorithm 1, line 32). Their places may differ.

SB3 updates target networks in the middle of ``train()``, where no callback is called. But whoever uses a target network goes
through the forward pass of its layers, so each prunes itself right before that; and the callback has all of them looked after
whenever others may look at the model. A soft update moves biases, so a layer that has seen its bias before has nothing to do.
"""

import numpy as np
import torch as th
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from sb3_sparse.nn import Layer, MaskedLayer


class TopkFollower:
    """
    One layer of a target network, and a forward pre-hook on it.

    :param online: The layer that it follows.
    :param target: The layer of the target network.
    """

    def __init__(self, online: MaskedLayer, target: Layer) -> None:
        self.online = online
        self.target = target
        self._seen: Tensor | None = None
        self._handle: RemovableHandle = target.register_forward_pre_hook(self._before_forward)

    def detach(self) -> None:
        """Leave the target network to the averaging."""
        self._handle.remove()

    def _before_forward(self, *_: object) -> None:
        self.prune()

    @th.no_grad()
    def prune(self) -> None:
        """Prune the target layer if it has changed since the last time."""
        if not self.online.pruned:
            return
        if isinstance(self.target, MaskedLayer) and self.target.pruned:
            # Its topology is its own; a mask would take weights away when it is loaded.
            self.target.set_mask(th.ones_like(self.target.mask))
        witness = self.target.weight if self.target.bias is None else self.target.bias
        if self._seen is None:
            # It may be that of a resumed run, pruned when the online weights that are zero now had a value.
            self._seen = witness.detach().clone()
            keep_largest(self.target.weight, self.online.mask)
        elif witness.is_cpu:
            if not th.equal(witness, self._seen):
                self._seen.copy_(witness)
                keep_largest(self.target.weight, self.online.weight)
        else:
            # The same without asking the device for an answer.
            changed = (witness != self._seen).any()
            self._seen.copy_(witness)
            keep_largest_on_device(self.target.weight, self.online.weight, changed)


@th.no_grad()
def keep_largest(weight: Tensor, like: Tensor) -> None:
    """
    Zero the smallest entries in place, until there are at most as many nonzero ones as in another tensor.

    >>> weight = th.tensor([1.0, -3.0, 2.0])
    >>> keep_largest(weight, like=th.tensor([True, False, True]))
    >>> weight
    tensor([ 0., -3.,  2.])

    :param weight: The tensor to prune, on any device; among equal magnitudes the lower index stays.
    :param like: The tensor that has the right number of nonzero entries.
    """
    if not weight.is_cpu:
        keep_largest_on_device(weight, like, th.ones((), dtype=th.bool, device=weight.device))
        return
    magnitude = np.abs(weight.detach().numpy()).reshape(-1)
    count = int(np.count_nonzero(like.detach().numpy() != 0))
    excess = int(np.count_nonzero(magnitude != 0)) - count
    if excess <= 0:
        return
    # numpy selects with vector instructions, where torch's topk and kthvalue do not.
    threshold = np.partition(magnitude, len(magnitude) - count - 1)[len(magnitude) - count - 1]
    keep = magnitude > threshold
    ties = np.flatnonzero(magnitude == threshold)
    keep[ties[: count - int(np.count_nonzero(keep))]] = True
    weight.mul_(th.from_numpy(keep).view(weight.shape))


@th.no_grad()
def keep_largest_on_device(weight: Tensor, like: Tensor, condition: Tensor) -> None:
    """
    Same as ``if condition: keep_largest(weight, like)``, but the host waits for nothing.

    :param weight: The tensor to prune.
    :param like: The tensor that has the right number of nonzero entries.
    :param condition: Boolean scalar on the same device.
    """
    ranked = weight.abs().flatten().argsort(descending=True, stable=True)
    within = th.arange(len(ranked), device=weight.device) < th.count_nonzero(like)
    keep = th.empty_like(within)
    keep[ranked] = within | ~condition
    weight.mul_(keep.view(weight.shape))


def follow_topk(twins: dict[MaskedLayer, list[Layer]]) -> list[TopkFollower]:
    """
    :param twins: By online layer: the layers of target networks that follow it.
    :return: A follower for each of these, at work at once
    """
    return [TopkFollower(online, target) for online, targets in twins.items() for target in targets]
