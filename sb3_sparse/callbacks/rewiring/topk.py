"""
The target rule of DS-TD3: after each soft update a layer of the target network keeps its largest weights, as many as its
online twin has nonzero ones (Sokar et al. 2022, Algorithm 1, line 32). Their places may differ.

SB3 updates target networks in the middle of ``train()``, where no callback is called. So a :class:`~sb3_sparse.nn.Follower`
prunes each target layer just before it is used or saved, and the callback prunes all of them before others may look at the
model. Like a mask, a follower stays with its layer when training ends.

A soft update changes the bias of a layer. If the bias is the same as at the last pruning, the layer need not be pruned again.
A short bias may stay the same by rounding; then the weights, which are few, are compared instead.
"""

import math

import numpy as np
import torch as th
from torch import Tensor

from sb3_sparse.nn import Follower, Layer, MaskedLayer, find_follower

#: A bias of fewer entries may round to what it was before a soft update.
SHORT = 16


class TopkFollower(Follower):
    """
    One layer of a target network, with hooks that prune it before it is used or saved.

    :param online: The layer that it follows.
    :param target: The layer of the target network.
    """

    def __init__(self, online: MaskedLayer, target: Layer) -> None:
        super().__init__(online, target)
        self._seen: Tensor | None = None
        self._candidates: np.ndarray | None = None

    def prune(self) -> None:
        if self.online.pruned:
            # Attribute access on modules is slow, and this runs several times per gradient step.
            parameters = self.target._parameters
            witness = parameters["bias"]
            if witness is None or len(witness) < SHORT:
                witness = parameters["weight"]
            assert witness is not None
            if self._seen is None or not witness.is_cpu or not th.equal(witness, self._seen):
                self._prune(witness)

    @th.no_grad()
    def _prune(self, witness: Tensor) -> None:
        weight, like = self.target.weight, self.online.weight
        if self._seen is None:
            # A resumed target was pruned before online weights were grown, and those are still zero.
            self._seen = th.full_like(witness, math.nan)
            like = self.online.mask
        if weight.is_cpu and weight.is_contiguous():
            self._candidates = keep_largest(weight, like, self._candidates)
        else:
            keep_largest_on_device(weight, like, (witness != self._seen).any())
        # Last, because the witness may be the weight.
        self._seen.copy_(witness)


@th.no_grad()
def keep_largest(weight: Tensor, like: Tensor, candidates: np.ndarray | None = None) -> np.ndarray | None:
    """
    Zero the smallest entries in place, until there are at most as many nonzero ones as in another tensor.

    >>> weight = th.tensor([1.0, -3.0, 2.0])
    >>> _ = keep_largest(weight, like=th.tensor([True, False, True]))
    >>> weight
    tensor([ 0., -3.,  2.])

    :param weight: The tensor to prune, contiguous and on the CPU; among equal magnitudes the lower index stays.
    :param like: The tensor that has the right number of nonzero entries.
    :param candidates: Flat indices, ascending, of entries that are probably among the smallest. They save time and do not
        change the result: if other entries are as small as the largest one to be zeroed, all are compared.
    :return: Candidates for the next time
    """
    # numpy compares and selects with vector instructions, where torch's count_nonzero, topk and kthvalue do not.
    entries = weight.detach().numpy().reshape(-1)
    exists = entries != 0
    excess = int(np.count_nonzero(exists)) - int(np.count_nonzero(like.detach().numpy() != 0))
    if excess <= 0:
        return candidates
    if candidates is not None and len(candidates) >= excess:
        magnitude = np.abs(entries[candidates])
        magnitude[magnitude == 0] = np.inf
        largest = np.partition(magnitude, excess - 1)[excess - 1]
        small = exists & _within(entries, largest)
        if largest < np.inf and int(np.count_nonzero(small)) == int(np.count_nonzero(magnitude <= largest)):
            _drop(entries, candidates, magnitude, largest, excess)
            return candidates
        candidates = np.flatnonzero(exists & _within(entries, 2.0 * largest))
        magnitude = np.abs(entries[candidates])
    else:
        candidates = np.flatnonzero(exists)
        magnitude = np.abs(entries[candidates])
    largest = np.partition(magnitude, excess - 1)[excess - 1]
    _drop(entries, candidates, magnitude, largest, excess)
    likely: np.ndarray = candidates[magnitude <= 2.0 * largest]
    return likely


def _within(entries: np.ndarray, bound: np.floating) -> np.ndarray:
    within: np.ndarray = entries <= bound
    within &= entries >= -bound
    return within


def _drop(entries: np.ndarray, places: np.ndarray, magnitude: np.ndarray, largest: np.floating, count: int) -> None:
    """Zero the ``count`` smallest of these places, up to ``largest``; of equal ones those with high indices."""
    smaller, ties = places[magnitude < largest], places[magnitude == largest]
    entries[smaller] = 0.0
    entries[ties[len(smaller) - count :]] = 0.0


@th.no_grad()
def keep_largest_on_device(weight: Tensor, like: Tensor, condition: Tensor) -> None:
    """
    Same as ``if condition: keep_largest(weight, like)``, on any device and without synchronising with the host.

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
    :return: A new follower for each target layer, in place of the one that it had
    """
    unfollow(twins)
    return [TopkFollower(online, target) for online, targets in twins.items() for target in targets]


def unfollow(twins: dict[MaskedLayer, list[Layer]]) -> None:
    """
    :param twins: By online layer: the layers of target networks that get another rule.
    """
    for target in (target for targets in twins.values() for target in targets):
        follower = find_follower(target)
        if follower is not None:
            follower.detach()
