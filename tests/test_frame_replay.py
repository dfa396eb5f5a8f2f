"""FrameReplayBuffer gives the batches of SB3's buffers, and stores each frame once."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer

from sb3_sparse.pixels import FrameReplayBuffer

ACTIONS = spaces.Discrete(3)


def images(channels, side=4, dtype=np.uint8):
    return spaces.Box(0, 255, (channels, side, side), dtype)


def stream(rng, space, n_envs, steps, lengths, frame_channels=1, shades=256):
    """Transitions as an off-policy algorithm adds them, of stacks as VecFrameStack makes them; episodes are of ``lengths``."""

    def frame():
        return rng.integers(0, shades, (frame_channels, *space.shape[1:])).astype(space.dtype)

    def first():
        stack = np.zeros(space.shape, space.dtype)
        stack[-frame_channels:] = frame()
        return stack

    stacks = [first() for _ in range(n_envs)]
    left = [lengths[env % len(lengths)] for env in range(n_envs)]
    for step in range(steps):
        after = [np.concatenate([stack[frame_channels:], frame()]) for stack in stacks]
        left = [count - 1 for count in left]
        dones = np.array([count == 0 for count in left])
        infos = [{"TimeLimit.truncated": bool(done and rng.integers(2))} for done in dones]
        actions, rewards = rng.integers(0, 3, n_envs), rng.normal(size=n_envs)
        yield np.stack(stacks), np.stack(after), actions, rewards, dones, infos
        stacks = [first() if done else stack for done, stack in zip(dones, after, strict=True)]
        left = [lengths[(step + env) % len(lengths)] if count == 0 else count for env, count in enumerate(left)]


def strangers(rng, space, n_envs, steps, shades):
    """Transitions between images that have nothing to do with each other."""
    for _ in range(steps):
        pair = rng.integers(0, shades, (2, n_envs, *space.shape)).astype(space.dtype)
        dones = rng.random(n_envs) < 0.3
        infos = [{"TimeLimit.truncated": bool(done and rng.integers(2))} for done in dones]
        yield pair[0], pair[1], rng.integers(0, 3, n_envs), rng.normal(size=n_envs), dones, infos


def assert_same_batches(ours, theirs, env=None, seed=0):
    for size in (1, 7):
        batches = []
        for buffer in (ours, theirs):
            np.random.seed(seed)
            batches.append(buffer.sample(size, env=env))
        for mine, other in zip(*batches, strict=True):
            assert (mine is None) == (other is None)
            if mine is not None:
                assert mine.dtype == other.dtype and mine.shape == other.shape
                assert mine.is_contiguous() == other.is_contiguous()
                assert mine.numpy().tobytes() == other.numpy().tobytes()


def twins(size, space, n_envs, n_steps=1, frame_channels=1, **kwargs):
    theirs = {"n_steps": n_steps, "gamma": 0.9} if n_steps > 1 else {}
    other = (NStepReplayBuffer if n_steps > 1 else ReplayBuffer)(size, space, ACTIONS, "cpu", n_envs, **theirs, **kwargs)
    mine = {"n_steps": n_steps, "gamma": 0.9, "frame_channels": frame_channels}
    return FrameReplayBuffer(size, space, ACTIONS, "cpu", n_envs, **mine, **kwargs), other


@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 12),
    steps=st.integers(1, 40),
    n_envs=st.integers(1, 3),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    frame_channels=st.sampled_from([1, 3]),
    n_stack=st.integers(1, 4),
    n_steps=st.sampled_from([1, 3]),
    shades=st.sampled_from([1, 2, 256]),
    handle=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_batches_of_stacks(seed, size, steps, n_envs, lengths, frame_channels, n_stack, n_steps, shades, handle):
    space = images(frame_channels * n_stack, side=3 if shades == 256 else 1)
    ours, theirs = twins(size * n_envs, space, n_envs, n_steps, frame_channels, handle_timeout_termination=handle)
    rng = np.random.default_rng(seed)
    for number, transition in enumerate(stream(rng, space, n_envs, steps, lengths, frame_channels, shades)):
        for buffer in (ours, theirs):
            buffer.add(*transition)
        assert (ours.size(), ours.pos, ours.full) == (theirs.size(), theirs.pos, theirs.full)
        assert_same_batches(ours, theirs, seed=number)
    assert th.equal(th.as_tensor(ours.observations[:]), th.as_tensor(theirs.observations))
    assert th.equal(th.as_tensor(ours.next_observations[:]), th.as_tensor(theirs.next_observations))


@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 12),
    steps=st.integers(1, 30),
    n_envs=st.integers(1, 3),
    shape=st.sampled_from([(1,), (6,), (2, 3), (3, 3, 3), (4, 5, 6), (2, 2, 2, 2)]),
    dtype=st.sampled_from([np.uint8, np.float32, np.int64]),
    n_steps=st.sampled_from([1, 3]),
    shades=st.sampled_from([2, 256]),
)
@settings(deadline=None, max_examples=100)
def test_batches_of_strangers(seed, size, steps, n_envs, shape, dtype, n_steps, shades):
    space = spaces.Box(0, 255, shape, dtype)
    ours, theirs = twins(size * n_envs, space, n_envs, n_steps)
    for number, transition in enumerate(strangers(np.random.default_rng(seed), space, n_envs, steps, shades)):
        for buffer in (ours, theirs):
            buffer.add(*transition)
        assert_same_batches(ours, theirs, seed=number)


@pytest.mark.parametrize("kwargs", [{"optimize_memory_usage": True}, {"n_steps": 0}, {"frame_channels": 3}])
def test_refusals(kwargs):
    with pytest.raises(ValueError, match=r"optimize_memory_usage|n_steps|frame_channels"):
        FrameReplayBuffer(10, images(4), ACTIONS, **kwargs)
