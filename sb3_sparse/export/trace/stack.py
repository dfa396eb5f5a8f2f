"""
The stack of frames that a policy is to keep itself, as ``VecFrameStack`` kept it in training.

A ``VecNormalize`` outside has statistics of a whole stack, and normalizes the zeros before an episode as well. One inside, as
in rl-zoo3, has statistics of a frame, and the zeros come behind it.
"""

from collections.abc import Iterator

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize, VecTransposeImage
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from sb3_sparse.export.trace.observation import normalize_array, read_statistics
from sb3_sparse.runtime.network.records import Shape, Stack

#: Most frames that the compact file has room for.
_MOST = 255


def read_stack(model: BaseAlgorithm, normalization: VecNormalize | None, frames: int) -> Stack:
    """
    :param model: A model that was trained on stacks of frames.
    :param normalization: The statistics that its observations were normalized with, if they were.
    :param frames: Number of frames of a stack.
    :return: The stack, with the normalization of a frame if the statistics are those of a frame
    :raises ValueError: if the model's observations are not such stacks, or its environment stacks in another way
    """
    if not isinstance(frames, int) or isinstance(frames, bool) or not 2 <= frames <= _MOST:
        raise ValueError(f"frame_stack={frames!r}: give the number of frames that VecFrameStack puts together, 2 to {_MOST}")
    space = model.observation_space
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"frame_stack={frames} is for observations of one Box, not {space}: leave it out and give predict() stacked "
            "observations"
        )
    shape = tuple(map(int, space.shape))
    axis = 0 if is_image_space(space) else len(shape) - 1
    if not shape or shape[axis] % frames != 0:
        raise ValueError(
            f"observations of shape {shape} are not {frames} frames that VecFrameStack has put together along their "
            f"{'first' if axis == 0 else 'last'} dimension: give the number of the training, or leave frame_stack out"
        )
    _check_environment(model, frames, shape, axis)
    frame = (*shape[:axis], shape[axis] // frames, *shape[axis + 1 :])
    if normalization is None or not _is_of_frames(normalization, frame):
        return Stack(frames)
    statistics = read_statistics(normalization, spaces.Box(-np.inf, np.inf, frame))
    if is_image_space(space) or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"VecFrameStack around VecNormalize cannot be exported for observations of {space.dtype}, because it rounds "
            "normalized frames to that: train with VecNormalize around VecFrameStack, or on observations of float32"
        )
    return Stack(frames, normalize_array(statistics[""], normalization))


def _is_of_frames(normalization: VecNormalize, frame: Shape) -> bool:
    """Statistics of any other shape are left to those who read them."""
    statistics = normalization.obs_rms if normalization.norm_obs else None
    return not isinstance(statistics, dict) and statistics is not None and statistics.mean.shape == frame


def _check_environment(model: BaseAlgorithm, frames: int, shape: Shape, axis: int) -> None:
    """Whether frames lie along this axis. A model that has its environment tells more than its zip does."""
    if model.get_env() is None:
        # SB3 takes the smallest dimension for the channels. Where that may have been the height, frames lie elsewhere.
        ambiguous = shape[-1] % frames == 0 and shape[-1] // frames < shape[0]
        if axis < len(shape) - 1 and (ambiguous or shape[0] >= min(shape[1:])):
            raise ValueError(
                f"images of shape {shape} with their channels first do not tell along which dimension {frames} frames are "
                "stacked: give the model its environment with load(..., env=...)"
            )
        return
    wrappers = list(_wrappers(model))
    stacks = [wrapper for wrapper in wrappers if isinstance(wrapper, VecFrameStack)]
    if len(stacks) != 1 or type(stacks[0]) is not VecFrameStack:
        names = " and ".join(type(stack).__name__ for stack in stacks) or "none"
        raise ValueError(
            f"frame_stack={frames} is for models of one VecFrameStack, and the model's environment has {names}: leave it out "
            "and give predict() stacked observations"
        )
    stacked = stacks[0].stacked_obs
    if stacked.n_stack != frames:
        raise ValueError(f"frame_stack={frames} does not fit the model's environment, which stacks {stacked.n_stack} frames")
    found = 0 if stacked.channels_first else len(shape) - 1
    for wrapper in wrappers[: wrappers.index(stacks[0])]:
        # Channels from the last dimension to the first.
        found = (found + 1) % 3 if isinstance(wrapper, VecTransposeImage) else found
    if found != axis:
        raise ValueError(
            f"VecFrameStack has stacked the observations of shape {shape} along dimension {found}, and those of the policy "
            f"would lie along dimension {axis}: leave frame_stack out and give predict() stacked observations"
        )


def _wrappers(model: BaseAlgorithm) -> Iterator[VecEnvWrapper]:
    """Those of the model's environment, the outermost first."""
    venv = model.get_env()
    while isinstance(venv, VecEnvWrapper):
        yield venv
        venv = venv.venv
