"""FrameReplayBuffer gives the batches of SB3's buffers, and stores each frame once."""

import os
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_sparse.offline import OfflineDataset
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


def by_strides(observations):
    """As VecTransposeImage makes them: channels first by strides alone."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(observations, 1, -1)), -1, 1)


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


def twins(size, space, n_envs, n_steps=1, frame_channels=1, memmap=None, **kwargs):
    theirs = {"n_steps": n_steps, "gamma": 0.9} if n_steps > 1 else {}
    other = (NStepReplayBuffer if n_steps > 1 else ReplayBuffer)(size, space, ACTIONS, "cpu", n_envs, **theirs, **kwargs)
    mine = {"n_steps": n_steps, "gamma": 0.9, "frame_channels": frame_channels, "memmap": memmap}
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
    transposed=st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_batches_of_stacks(seed, size, steps, n_envs, lengths, frame_channels, n_stack, n_steps, shades, handle, transposed):
    space = images(frame_channels * n_stack, side=3 if shades == 256 else 1)
    ours, theirs = twins(size * n_envs, space, n_envs, n_steps, frame_channels, handle_timeout_termination=handle)
    rng = np.random.default_rng(seed)
    for number, transition in enumerate(stream(rng, space, n_envs, steps, lengths, frame_channels, shades)):
        before, after, *rest = transition
        if transposed:
            before, after = by_strides(before), by_strides(after)
        for buffer in (ours, theirs):
            buffer.add(before, after, *rest)
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
@settings(deadline=None, max_examples=60)
def test_batches_of_strangers(seed, size, steps, n_envs, shape, dtype, n_steps, shades):
    space = spaces.Box(0, 255, shape, dtype)
    ours, theirs = twins(size * n_envs, space, n_envs, n_steps)
    for number, transition in enumerate(strangers(np.random.default_rng(seed), space, n_envs, steps, shades)):
        for buffer in (ours, theirs):
            buffer.add(*transition)
        assert_same_batches(ours, theirs, seed=number)


def stored_frames(buffer, frame_channels=1):
    """Frames other than zeros that SB3's buffer holds, those that are equal in one environment counted once."""
    rows = buffer.size()
    both = np.stack([buffer.observations[:rows], buffer.next_observations[:rows]])
    frames = both.reshape(2, rows, buffer.n_envs, -1, frame_channels, *buffer.obs_shape[1:])
    return sum(
        len({frame.tobytes() for frame in frames[:, :, env].reshape(-1, *frames.shape[4:]) if frame.any()})
        for env in range(buffer.n_envs)
    )


@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 12),
    steps=st.integers(1, 60),
    n_envs=st.integers(1, 3),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    frame_channels=st.sampled_from([1, 3]),
    n_stack=st.integers(2, 4),
)
@settings(deadline=None, max_examples=30)
def test_each_frame_is_stored_once_and_no_longer_than_needed(seed, size, steps, n_envs, lengths, frame_channels, n_stack):
    """However often the buffer goes round, and with one slot more, for the frame of zeros."""
    space = images(frame_channels * n_stack, side=12)
    ours, theirs = twins(size * n_envs, space, n_envs, frame_channels=frame_channels)
    for transition in stream(np.random.default_rng(seed), space, n_envs, steps, lengths, frame_channels):
        for buffer in (ours, theirs):
            buffer.add(*transition)
        assert len(ours._pool) == 1 + stored_frames(theirs, frame_channels)


def fill(buffers, space, n_envs, steps, lengths=(5, 1, 8), seed=0):
    for transition in stream(np.random.default_rng(seed), space, n_envs, steps, lengths):
        for buffer in buffers:
            buffer.add(*transition)


def test_padding_by_the_first_frame():
    """gymnasium's FrameStackObservation fills up with the frame of the reset: a single frame."""
    space = images(4)
    buffer = FrameReplayBuffer(10, space, ACTIONS)
    frame = np.full((1, 4, 4), 7, np.uint8)
    stack = np.concatenate([frame] * 4)[None]
    buffer.add(stack, stack, np.zeros(1), np.zeros(1), np.zeros(1), [{}])
    assert len(buffer._pool) == 2
    assert (buffer.observations[0] == 7).all()


def test_zeros_of_either_sign_are_kept():
    space = spaces.Box(-1, 1, (2, 3), np.float32)
    buffer = FrameReplayBuffer(10, space, ACTIONS)
    observation = np.array([[[-0.0, 0.0, np.nan], [0.0, 0.0, 0.0]]], np.float32)
    buffer.add(observation, -observation, np.zeros(1), np.zeros(1), np.zeros(1), [{}])
    assert buffer.observations[0].tobytes() == observation.tobytes()
    assert buffer.next_observations[0].tobytes() == (-observation).tobytes()


def test_samples_are_copies():
    """A batch that is changed in place does not change the buffer, nor what was handed in."""
    space = images(4)
    ours, theirs = twins(20, space, 2)
    transitions = list(stream(np.random.default_rng(0), space, 2, 15, [4]))
    for transition in transitions:
        for buffer in (ours, theirs):
            buffer.add(*transition)
    for observations, *_ in transitions:
        observations[:] = 0
    for tensor in ours.sample(5)[:-1]:
        tensor.zero_()
    assert_same_batches(ours, theirs)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_normalized_batches(n_steps):
    space = images(4)
    ours, theirs = twins(20, space, 2, n_steps)
    fill((ours, theirs), space, 2, 15)
    env = VecNormalize(DummyVecEnv([lambda: FakeImageEnv(3, 4, 4, n_channels=4, channel_first=True)]))
    env.obs_rms.update(ours.observations[:15, 0].astype(np.float64))
    env.ret_rms.var = np.array(7.0)
    assert_same_batches(ours, theirs, env=env)
    assert not th.equal(ours.sample(5, env=env).observations, ours.sample(5).observations)


def test_the_number_of_steps_can_change():
    """As DelayedMultiStepCallback changes it: with one step there are no discounts."""
    space = images(4)
    ours, theirs = twins(20, space, 1, n_steps=3)
    _, one_step = twins(20, space, 1)
    fill((ours, theirs, one_step), space, 1, 30)
    ours.n_steps = 1
    assert_same_batches(ours, one_step)
    ours.n_steps = 3
    assert_same_batches(ours, theirs)


def test_reset():
    space = images(4)
    ours, theirs = twins(20, space, 2)
    fill((ours, theirs), space, 2, 30)
    for buffer in (ours, theirs):
        buffer.reset()
    assert (ours.size(), ours.pos, ours.full, len(ours._pool)) == (0, 0, False, 1)
    fill((ours, theirs), space, 2, 7, seed=1)
    assert_same_batches(ours, theirs)
    assert len(ours._pool) == 1 + stored_frames(theirs)


def test_offline_dataset():
    """Whoever reads a buffer of SB3 can read this one."""
    space = images(4)
    ours, theirs = twins(20, space, 2)
    fill((ours, theirs), space, 2, 13)
    mine, other = (OfflineDataset.from_replay_buffer(buffer) for buffer in (ours, theirs))
    assert len(mine) == len(other) == 20
    for part, other_part in zip(mine.batch(range(20)), other.batch(range(20)), strict=True):
        assert th.equal(part, other_part)


def test_extend():
    space = images(4)
    ours, theirs = twins(20, space, 1)
    for buffer in (ours, theirs):
        buffer.extend(*map(list, zip(*stream(np.random.default_rng(0), space, 1, 15, [4]), strict=True)))
    assert_same_batches(ours, theirs)


@pytest.mark.parametrize("steps", [6, 30])
@pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])
def test_pickles_go_on_where_they_were(tmp_path, in_file, steps):
    """A pickle holds its frames, also those of a file, and no more of them than were stored."""
    space = images(4, side=20)
    kwargs = {"memmap": tmp_path / "frames"} if in_file else {}
    ours, theirs = FrameReplayBuffer(1000, space, ACTIONS, "cpu", 2, **kwargs), ReplayBuffer(1000, space, ACTIONS, "cpu", 2)
    fill((ours, theirs), space, 2, steps)
    file, capacity = pickle.dumps(ours), ours._pool.capacity
    assert len(file) < ours.nbytes + 20_000 < ours._pool.capacity * 400
    fill((ours,), space, 2, 10, seed=2)
    ours = pickle.loads(file)
    # With its room for more, so that the next frame does not have all of them copied.
    assert ours._pool.capacity == capacity
    assert in_file or ours._pool._frames.flags.owndata
    assert_same_batches(ours, theirs)
    for seed in range(5):
        fill((ours, theirs), space, 2, 150, seed=seed)
        assert_same_batches(ours, theirs)
    assert ours.full and len(ours._pool) == 1 + stored_frames(theirs)


def test_frames_in_a_file(tmp_path):
    """It grows with what it has to hold, and nothing is left of it."""
    space = images(4, side=20)
    ours, theirs = FrameReplayBuffer(50, space, ACTIONS, "cpu", memmap=tmp_path / "new" / "folder"), ReplayBuffer(
        50, space, ACTIONS, "cpu"
    )
    capacity = ours._pool.capacity
    for transition in strangers(np.random.default_rng(0), space, 1, 120, 256):
        for buffer in (ours, theirs):
            buffer.add(*transition)
    assert_same_batches(ours, theirs)
    assert ours._pool.capacity > capacity and os.fstat(ours._pool._file.fileno()).st_size == ours._pool.capacity * 400
    assert (tmp_path / "new" / "folder").is_dir() and not list((tmp_path / "new" / "folder").iterdir())


def test_a_full_disk_is_found_before_it_is_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    space = images(4, side=100)
    with pytest.raises(OSError, match=r"the frames need 2 MB, and .* has room for 1 MB: give a folder on a larger disk"):
        FrameReplayBuffer(200, space, ACTIONS, memmap=tmp_path)
    ours, theirs = twins(50, space, 1, memmap=tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="make the replay buffer smaller"):
        for transition in strangers(np.random.default_rng(0), space, 1, 50, 256):
            ours.add(*transition)
            theirs.add(*transition)
    assert_same_batches(ours, theirs)


def test_too_little_memory_is_warned_of(monkeypatch):
    psutil = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=3_000_000))
    monkeypatch.setattr("sb3_sparse.pixels.replay.psutil", psutil)
    with pytest.warns(UserWarning, match=r"not have apparently enough memory .* replay buffer 0.01GB > 0.00GB"):
        FrameReplayBuffer(1000, images(4, side=84), ACTIONS)
    FrameReplayBuffer(400, images(4, side=84), ACTIONS)


@pytest.mark.parametrize(
    ("space", "kwargs", "sentence"),
    [
        (images(4), {"optimize_memory_usage": True}, "leave out optimize_memory_usage=True"),
        (images(4), {"n_steps": 0}, "n_steps must be at least 1, got 0"),
        (images(4), {"frame_channels": 3}, "4 channels are not a stack of frames with frame_channels=3 each"),
        (images(4), {"frame_channels": 0}, "4 channels are not a stack of frames with frame_channels=0 each"),
        (
            spaces.Box(0, 255, (84, 84, 4)),
            {},
            'channels last: stack frames with VecFrameStack(env, n_stack, channels_order="first")',
        ),
        (spaces.Dict({"observation": images(4)}), {}, "not of a Dict (and does not replace HerReplayBuffer)"),
        (spaces.Discrete(4), {}, "not of a Discrete"),
    ],
)
def test_refusals(space, kwargs, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        FrameReplayBuffer(10, space, ACTIONS, **kwargs)


def test_observations_are_no_more_than_they_seem():
    """Parts of observations and several rows at once are refused: nobody is misled."""
    buffer = FrameReplayBuffer(10, images(4), ACTIONS)
    assert buffer.observations.shape == (10, 1, 4, 4, 4) and len(buffer.observations) == 10
    assert buffer.observations.dtype == np.uint8
    assert np.array_equal(np.asarray(buffer.observations), np.zeros((10, 1, 4, 4, 4)))
    with pytest.raises(IndexError, match="take them whole"):
        buffer.observations[:, :, 0]
    with pytest.raises(TypeError):
        buffer.observations[0:1] = np.zeros((1, 1, 4, 4, 4))
    with pytest.raises(ValueError, match="reshape"):
        buffer.observations[0] = np.zeros((2, 4, 4, 4))


def frame_env(n_envs=1, n_channels=1, channel_first=True):
    """Random images of a seed, in stacks of four."""
    env = DummyVecEnv([lambda: FakeImageEnv(3, 36, 36, n_channels, channel_first=channel_first) for _ in range(n_envs)])
    for number, single in enumerate(env.envs):
        single.observation_space.seed(number)
        single.ep_length = 5 + 3 * number
    return VecFrameStack(env, 4)


def trained(buffer_class, tmp_path, n_steps=1, **env_kwargs):
    """Weights of a DQN that is saved with its buffer, loaded and trained further."""
    kwargs = {"n_steps": n_steps, "gamma": 0.9} if n_steps > 1 else {}
    if buffer_class is FrameReplayBuffer:
        kwargs["frame_channels"] = env_kwargs.get("n_channels", 1)
    settings = dict(buffer_size=60, learning_starts=20, train_freq=4, batch_size=8, target_update_interval=20, seed=0)
    settings |= dict(replay_buffer_class=buffer_class, replay_buffer_kwargs=kwargs, device="cpu", exploration_fraction=0.5)
    policy_kwargs = {"features_extractor_kwargs": {"features_dim": 16}}
    model = DQN("CnnPolicy", frame_env(**env_kwargs), policy_kwargs=policy_kwargs, **settings).learn(100)
    model.save(tmp_path / "model.zip")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    model = DQN.load(tmp_path / "model.zip", frame_env(**env_kwargs), device="cpu")
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    model.set_random_seed(1)
    model.learn(40, reset_num_timesteps=False)
    assert type(model.replay_buffer) is buffer_class and model.replay_buffer.full
    return model.policy.state_dict()


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"n_envs": 2}, {"n_steps": 3}, {"n_channels": 3, "channel_first": False}],
    ids=lambda kwargs: "-".join(kwargs),
)
def test_dqn_learns_the_same(kwargs, tmp_path):
    """With either buffer the same weights, saved and resumed on the way."""
    theirs = trained(NStepReplayBuffer if kwargs.get("n_steps") else ReplayBuffer, tmp_path, **kwargs)
    ours = trained(FrameReplayBuffer, tmp_path, **kwargs)
    assert all(th.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_a_million_transitions_of_pong_fit():
    """Into 8 GB, by what a thousand steps take, with the frames of their resets; SB3 needs 56."""
    gymnasium = pytest.importorskip("gymnasium")
    gymnasium.register_envs(pytest.importorskip("ale_py"))
    pytest.importorskip("cv2")
    env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", seed=0), 4)
    model = DQN("CnnPolicy", env, buffer_size=1_000, learning_starts=2_000, replay_buffer_class=FrameReplayBuffer)
    model.learn(1_500)
    buffer = model.replay_buffer
    assert buffer.observations.shape == (1_000, 1, 4, 84, 84) and buffer.dones.any()
    assert 1e6 * buffer.nbytes / 1_000 < 8e9
    # A frame, four slots of each of two stacks, a count, action, reward, done and timeout.
    assert buffer.nbytes == len(buffer._pool._references) * (84 * 84 + 4) + 1_000 * (2 * 4 * 4 + 8 + 4 + 4 + 4)
