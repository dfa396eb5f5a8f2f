"""
Which discrete actions are allowed, as the ``predict`` of sb3-contrib's MaskablePPO takes it: the others never win.

The outputs of the last layer, of which the largest of each group wins, come from the same network with another head.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Floats, Head, Network


def with_outputs(network: Network) -> Network:
    """
    :param network: A network.
    :return: The same network; its action is the outputs of its last layer, ``[inputs of the head]``
    :raises ValueError: if its actions are not discrete
    """
    if network.head.kind != "argmax":
        raise ValueError("masks of actions are for Discrete and MultiDiscrete actions, which this policy does not have")
    bound = np.full(network.head.inputs, np.inf, np.float32)
    return replace(network, head=Head("clip", (network.head.inputs,), -bound, bound))


def choose(head: Head, outputs: Floats, masks: Any) -> NDArray[np.generic]:
    """
    :param head: A head of discrete actions.
    :param outputs: Outputs of the last layer, ``[n, inputs]``.
    :param masks: Whether each action is allowed, ``[n, inputs]``; the actions of several groups follow each other. A group
        without an allowed action gets its first, as in sb3-contrib.
    :return: The actions, ``[n, *shape]``
    :raises ValueError: if the masks have the wrong shape
    """
    allowed = np.asarray(masks)
    if allowed.dtype.kind not in "fiub" or allowed.size != outputs.size:
        raise ValueError(f"action_masks of shape {allowed.shape} do not fit: they have to be of shape {outputs.shape}")
    return head(np.where(allowed.astype(bool).reshape(outputs.shape), outputs, np.float32(-np.inf)))
