"""
Transitions from Stable-Baselines3's replay buffers.

Off-policy algorithms of Stable-Baselines3 store the actions of a Box scaled to [-1, 1], whatever its bounds, and the buffer
does not record that: this module brings them back to the environment's units. A buffer holds original observations and
rewards, and VecNormalize is applied when it is sampled. (The last observation of an episode is an exception:
Stable-Baselines3 has brought it back from its normalized form, with rounding and clipping.)
"""

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_sparse.offline.data import checks
from sb3_sparse.offline.data.blocks import Block, Source
from sb3_sparse.offline.data.checks import Array


def replay_source(buffer: ReplayBuffer) -> Source:
    """
    :param buffer: A replay buffer that an off-policy algorithm has filled, with any number of environments.
    :return: Its transitions as a source: those of the first environment from old to new, then those of the next one
    :raises TypeError: if this is not a replay buffer
    :raises ValueError: if it is empty, or its spaces are not supported
    """
    if not isinstance(buffer, ReplayBuffer):
        raise TypeError(f"a ReplayBuffer of Stable-Baselines3 is needed, got {type(buffer).__name__}")
    leaves = checks.observation_leaves(buffer.observation_space)
    action_space = checks.action_leaf(buffer.action_space)
    first, steps = (buffer.pos, buffer.buffer_size) if buffer.full else (0, buffer.pos)
    if buffer.full and buffer.optimize_memory_usage:
        # The newest observation has overwritten the oldest one, and so its transition.
        first, steps = first + 1, steps - 1
    if steps == 0:
        raise ValueError("this replay buffer is empty: fill it with learn(), or with load_replay_buffer()")

    def read(start: int, stop: int) -> Block:
        environment, step = np.divmod(np.arange(start, stop), steps)
        at = (first + step) % buffer.buffer_size, environment
        if buffer.optimize_memory_usage:
            after, after_at = buffer.observations, ((at[0] + 1) % buffer.buffer_size, environment)
        else:
            after, after_at = buffer.next_observations, at
        timeouts = buffer.timeouts[at].astype(bool)
        dones = buffer.dones[at].astype(bool)
        return Block(
            observations={key: _of(buffer.observations, key)[at] for key in leaves},
            actions=_unscaled(buffer.actions[at], action_space),
            rewards=buffer.rewards[at],
            next_observations={key: _of(after, key)[after_at] for key in leaves},
            terminations=dones & ~timeouts,
            truncations=dones & timeouts,
        )

    ends = tuple(range(steps, steps * buffer.n_envs, steps))
    return Source(steps * buffer.n_envs, read, leaves, action_space, ends)


def _of(observations: Array | dict[str, Array], key: str) -> Array:
    return observations[key] if isinstance(observations, dict) else observations


def _unscaled(actions: Array, space: spaces.Box | spaces.Discrete) -> Array:
    """The same as ``policy.unscale_action``, to the last bit."""
    if isinstance(space, spaces.Discrete):
        return actions
    actions = actions.reshape(len(actions), *space.shape)
    unscaled: Array = space.low + (0.5 * (actions + 1.0) * (space.high - space.low))
    return unscaled
