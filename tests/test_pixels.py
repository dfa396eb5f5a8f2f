"""Convolutional policies: what holds of masks and quantizers holds of kernels, in every network for images."""

import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.envs import FakeImageEnv
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import sb3_sparse.policies as policies
from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, QATCallback, RewiringCallback, restore, summarize
from sb3_sparse.callbacks import saved_bits
from sb3_sparse.nn import MaskedConv2d, find_networks
from sb3_sparse.pixels import FrameReplayBuffer
from sb3_sparse.policies import MinAtarExtractor, ResNetExtractor
from tests.algorithms import CASES
from tests.invariants import Watch, check, check_targets
from tests.test_rewiring_resume import expect_same
from tests.test_save_load import masks_of, seed_everything


class Images(NamedTuple):
    """A features extractor, and the images that it is for, as an environment gives them."""

    extractor: type[nn.Module] | None
    height: int
    channels: int

    def policy_kwargs(self, **kwargs):
        chosen = {} if self.extractor is None else {"features_extractor_class": self.extractor, "net_arch": []}
        return {**chosen, "features_extractor_kwargs": {"features_dim": 16, **kwargs}}


class RandomImages(FakeImageEnv):
    """The same images after the same seed."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.observation_space.seed(seed)
        return super().reset(seed=seed, options=options)


IMAGES = {
    "nature": Images(None, 36, 1),
    "minatar": Images(MinAtarExtractor, 10, 4),
    "resnet": Images(ResNetExtractor, 24, 1),
}
ALGORITHMS = {"dqn": "DQN", "qrdqn": "QRDQN", "ppo": "PPO", "a2c": "A2C", "sac": "SAC"}
#: tests/test_policies.py trains sparse policies with NatureCNN.
EVERY = [(name, images, False) for name in ALGORITHMS for images in IMAGES]
EVERY += [(name, "resnet", True) for name in ALGORITHMS] + [("dqn", "minatar", True)]
IDS = [f"{name}-{images}-{'sparse' if sparse else 'stock'}" for name, images, sparse in EVERY]


def make(name, images, sparse=False, extractor=None, **kwargs):
    """A model that trains on random images within a few steps."""
    case, form = CASES[name], IMAGES[images]
    discrete = name != "sac"
    env = RandomImages(screen_height=form.height, screen_width=form.height, n_channels=form.channels, discrete=discrete)
    policy = getattr(policies, f"Sparse{ALGORITHMS[name]}CnnPolicy") if sparse else "CnnPolicy"
    settings = {**case.kwargs, **({"buffer_size": 200, "batch_size": 8} if "buffer_size" in case.kwargs else {}), **kwargs}
    policy_kwargs = form.policy_kwargs(**(extractor or {}))
    return case.algorithm(policy, env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **settings)


def shares_of(shapes, sparsity):
    """
    Real numbers of weights per layer by Erdős-Rényi-Kernel: density ``min(1, eps * (n_in + n_out + k_w + k_h) /
    (n_in * n_out * k_w * k_h))``, with the eps that gives the sparsity, by bisection.
    """
    sizes = {name: float(np.prod(shape)) for name, shape in shapes.items()}
    low, high = 0.0, 1e9
    for _ in range(200):
        eps = (low + high) / 2
        shares = {name: min(sizes[name], eps * sum(shape)) for name, shape in shapes.items()}
        low, high = (eps, high) if sum(shares.values()) < (1 - sparsity) * sum(sizes.values()) else (low, eps)
    return shares


def check_counts(model, sparsity):
    """
    Every network has its whole number of weights, and every layer its share of them. A whole budget moves eps a little, and a
    layer of thousands of weights with it: half a weight by rounding, and a thousandth.
    """
    for name, layers in find_networks(model.policy).items():
        shapes = {layer: tuple(module.weight.shape) for layer, module in layers.items()}
        counts = {layer: int(module.mask.sum()) for layer, module in layers.items()}
        assert sum(counts.values()) == round((1 - sparsity) * sum(np.prod(shape) for shape in shapes.values())), name
        for layer, share in shares_of(shapes, sparsity).items():
            assert abs(counts[layer] - share) <= 0.5 + 1e-3 * share, layer


@pytest.mark.quick(
    "dqn-minatar-sparse", "dqn-resnet-stock", "ppo-nature-stock", "ppo-minatar-stock", "ppo-resnet-sparse", "sac-minatar-stock"
)
@pytest.mark.parametrize(("name", "images", "sparse"), EVERY, ids=IDS)
def test_pruned_and_quantized(name, images, sparse):
    """Gradual pruning, then quantization: zeros in weights and moments, budgets by ERK, targets, grids per channel."""
    model, watch = make(name, images, sparse), Watch()
    pruning = GradualPruningCallback("all", 0.9, start=24, end=40, update_freq=8)
    model.learn(56, callback=[pruning, QATCallback("all", 44), watch])
    assert watch.looks > 0
    check_counts(model, 0.9)
    layers = {name: layer for network in find_networks(model.policy).values() for name, layer in network.items()}
    assert sum(isinstance(layer, MaskedConv2d) for layer in layers.values()) >= (3 if images == "resnet" else 1)
    for layer in layers.values():
        computed, weight = layer._forward_weight().detach(), layer.weight.detach()
        over = (1, 2, 3) if isinstance(layer, MaskedConv2d) else (0, 1)
        scale = weight.abs().amax(over, keepdim=True) / 127
        integers = (weight / scale.where(scale > 0, 1.0)).round()
        assert th.equal(computed, integers * scale)
        assert ((integers.abs().amax(over, keepdim=True) == 127) | (scale == 0)).all()


@pytest.mark.quick("dqn-set", "ppo-rigl")
@pytest.mark.parametrize("grow", ["random", "gradient"], ids=["set", "rigl"])
@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_residual_networks_are_rewired(name, grow):
    """The budgets of a random topology stay while its kernels change, those in residual blocks too."""
    model = make(name, "resnet", extractor={"depth": 1})
    static = OneShotPruningCallback("all", 0.9, saliency="random")
    rewiring = RewiringCallback("all", fraction=0.3, update_freq=8, grow=grow, targets="mask")
    model.learn(32, callback=static)
    before = masks_of(model)
    model.learn(48, callback=[static, rewiring, Watch()], reset_num_timesteps=False)
    check_counts(model, 0.9)
    convolutions = {name: mask for name, mask in masks_of(model).items() if mask.dim() == 4}
    assert len(convolutions) == 3 * 3
    for layer, mask in convolutions.items():
        assert not th.equal(mask, before[layer]) and mask.sum() == before[layer].sum(), layer


@pytest.mark.parametrize(
    ("name", "images", "sparse", "cut"),
    [
        pytest.param("dqn", "nature", False, 37, marks=pytest.mark.slow),
        ("dqn", "nature", True, 50),
        ("dqn", "minatar", False, 50),
        pytest.param("dqn", "resnet", False, 50, marks=pytest.mark.slow),
        pytest.param("dqn", "resnet", True, 37, marks=pytest.mark.slow),
        pytest.param("sac", "resnet", False, 37, marks=pytest.mark.slow),
    ],
)
def test_resumed_equals_uninterrupted(name, images, sparse, cut, tmp_path):
    """Saved while it is pruned, or when it is quantized: the run that goes on from the file is the one that never stopped."""

    def callbacks():
        return [GradualPruningCallback("all", 0.9, start=24, end=44, update_freq=4), QATCallback("all", 48)]

    through = make(name, images, sparse)
    through.learn(cut, callback=callbacks())
    through.save(tmp_path / "agent.zip")
    through.save_replay_buffer(tmp_path / "buffer.pkl")
    seed_everything(through, 1)
    through.learn(60 - cut, callback=callbacks(), reset_num_timesteps=False)

    resumed = CASES[name].algorithm.load(tmp_path / "agent.zip", env=make(name, images).get_env(), device="cpu")
    resumed.load_replay_buffer(tmp_path / "buffer.pkl")
    seed_everything(resumed, 1)
    resumed.learn(60 - cut, callback=[*callbacks(), Watch()], reset_num_timesteps=False)

    check_counts(resumed, 0.9)
    expect_same(through, resumed)


@pytest.mark.parametrize("form", ["paper", "impala"])
@pytest.mark.parametrize(("width", "depth"), [(1, 2), (2, 1)])
def test_flops_are_those_that_torch_counts(form, width, depth):
    """Of the network as it is; pruned, each layer has two per connection and pixel."""
    extractor = {
        "features_extractor_class": ResNetExtractor,
        "features_extractor_kwargs": {"form": form, "width": width, "depth": depth},
        "net_arch": [],
    }
    model = DQN("CnnPolicy", FakeImageEnv(n_channels=4), buffer_size=1, policy_kwargs=extractor, device="cpu")
    with FlopCounterMode(display=False) as counter:
        model.q_net(th.zeros(1, 4, 84, 84))
    summary = summarize(model)
    assert summary.flops == summary.dense_flops == counter.get_total_flops()
    layers = summary.networks["q_net"].layers
    assert sum(len(layer.shape) == 4 for layer in layers.values()) == 3 * (1 + 2 * depth)

    model.learn(1, callback=OneShotPruningCallback("q_net", 0.9))
    pruned = summarize(model)
    assert pruned.dense_flops == summary.dense_flops
    for name, layer in pruned.networks["q_net"].layers.items():
        assert layer.flops * layer.total == layers[name].flops * layer.connections


@pytest.mark.slow
def test_zips(tmp_path):
    """
    One of SB3's own network loads where this package cannot be imported, whatever its buffer, and computes with the float
    weights; one of our extractor says whose class is missing.
    """
    for images in ("nature", "resnet"):
        model = make("dqn", images, replay_buffer_class=FrameReplayBuffer, replay_buffer_kwargs={"frame_channels": 1})
        model.learn(40, callback=[GradualPruningCallback("q_net", 0.9, update_freq=8), QATCallback("q_net", 0.5)])
        model.save(tmp_path / f"{images}.zip")
    loaded = DQN.load(tmp_path / "nature.zip", device="cpu")
    assert type(loaded.replay_buffer) is FrameReplayBuffer
    observation = np.stack([loaded.observation_space.sample() for _ in range(4)])
    np.save(tmp_path / "observation.npy", observation)
    np.save(tmp_path / "actions.npy", loaded.predict(observation, deterministic=True)[0])
    script = """
import sys; sys.modules["sb3_sparse"] = None
import warnings; warnings.simplefilter("error")
import numpy as np
from stable_baselines3 import DQN
others = {"replay_buffer_class": None, "replay_buffer_kwargs": {}, "buffer_size": 1}
model = DQN.load("nature.zip", device="cpu", custom_objects=others)
actions = model.predict(np.load("observation.npy"), deterministic=True)[0]
np.testing.assert_array_equal(actions, np.load("actions.npy"))
warnings.simplefilter("default")
try:
    DQN.load("resnet.zip", device="cpu", custom_objects=others)
except Exception as error:
    print("refused:", repr(error))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused:") and "sb3_sparse" in done.stdout + done.stderr
    resnet = DQN.load(tmp_path / "resnet.zip", device="cpu")
    restore(resnet)
    check(resnet)
    check_targets(resnet)
    check_counts(resnet, 0.9)
    assert set(saved_bits(resnet).values()) == {8}


@pytest.mark.parametrize("extractor", [MinAtarExtractor, ResNetExtractor])
def test_wrong_arguments_of_extractors_are_named(extractor):
    """Not what torch says of a layer that cannot be."""
    images = spaces.Box(0, 255, (4, 42, 42), np.uint8)
    for name, value in {"width": 0, "features_dim": -3}.items():
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got {value}"):
            extractor(images, **{name: value})
    with pytest.raises(ValueError, match="is not a space of images: use MlpPolicy"):
        extractor(spaces.Box(-1, 1, (4,), np.float32))
    # Floats are images if they are said to be.
    assert extractor(spaces.Box(0, 1, (4, 42, 42), np.float32), normalized_image=True)(th.zeros(1, 4, 42, 42)).shape[0] == 1


def test_what_cannot_be_built_is_said():
    with pytest.raises(ValueError, match=r"images of shape \(4, 2, 2\) are too small for MinAtarExtractor"):
        MinAtarExtractor(spaces.Box(0, 255, (4, 2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"depth must be a whole number of at least 0, got 1\.5"):
        ResNetExtractor(spaces.Box(0, 255, (4, 42, 42), np.uint8), depth=1.5)
    with pytest.raises(ValueError, match="unknown form 'papr': use one of paper, impala"):
        ResNetExtractor(spaces.Box(0, 255, (4, 42, 42), np.uint8), form="papr")
