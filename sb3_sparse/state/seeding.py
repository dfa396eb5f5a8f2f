"""Random numbers that can be resumed: each draw has a generator that follows from a seed and the draw's number."""

from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import torch as th

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


def first_seed(seed: int | None, model: "BaseAlgorithm") -> int:
    """
    :param seed: The user's seed, or None.
    :param model: The model, whose seed is used if the user has given none.
    :return: The seed of a run; a fresh one if neither has a seed
    """
    seed = seed if seed is not None else model.seed
    return seed if seed is not None else int(np.random.SeedSequence().generate_state(1)[0])


def draw_generator(seed: int, draw: int, purpose: str) -> th.Generator:
    """
    :param seed: Seed of the run.
    :param draw: Number of the draw.
    :param purpose: Purpose of the draw, such as the name of a network: other purposes get independent numbers.
    :return: A CPU generator
    """
    entropy = [seed, draw, crc32(purpose.encode())]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1)
    return th.Generator().manual_seed(int(state))
