"""Export: every policy that can be exported acts as its model, exactly or on its grid; the passes change nothing."""

from dataclasses import replace
from functools import cache

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_contrib import ARS
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecFrameStack, VecMonitor, VecNormalize
from stable_baselines3.sac.policies import SACPolicy
from torch import nn
from torch.nn import functional as F

from sb3_sparse import OneShotPruningCallback, QATCallback, compress, restore
from sb3_sparse.export import compress_network, read_model
from sb3_sparse.export.passes import order, round_biases, round_weights, shrink, to_minifloats
from sb3_sparse.nn import prunable_layers
from sb3_sparse.nn import quantize as training_grid
from sb3_sparse.runtime import Policy
from sb3_sparse.runtime.format.artifact import encode
from sb3_sparse.runtime.network.records import Fixed, Head, Layer, Minifloats, Network
from sb3_sparse.runtime.network.reference import layer_inputs
from tests.algorithms import CASES, OFF_POLICY, Q_LEARNING
from tests.networks import ACTIVATIONS, AVAILABLE, EXACT, draw_network, draw_observations, expect_close, int8_actions, rounding

#: Recurrent policies have tests of their own.
EXPORTED = [name for name in CASES if name not in ("maskable_ppo", "recurrent_ppo")]
SEEDS = st.integers(0, 2**32)
ON_POLICY = CASES["ppo"].kwargs


class Spaces(gym.Env):
    """An environment with any spaces; actions have no effect."""

    def __init__(self, observations, actions, scale=1.0):
        self.observation_space, self.action_space, self._scale, self._steps = observations, actions, scale, 0

    def _observe(self):
        space = self.observation_space
        if space.dtype == np.uint8 or np.isfinite(space.low).all():
            return space.sample()
        return (self.np_random.normal(size=space.shape) * self._scale).astype(space.dtype)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self._steps += 1
        return self._observe(), float(self.np_random.normal()), False, self._steps >= 20, {}


def disturb(model, seed=0):
    """Move weights and biases far from where a few steps of training leave them; pruned weights stay pruned."""
    generator = th.Generator().manual_seed(seed)
    with th.no_grad():
        for parameter in model.policy.parameters():
            size = 1.2 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1
            noise = th.randn(parameter.shape, generator=generator) * size
            parameter += noise * ((parameter != 0) | (parameter.ndim == 1))
    return model


def train(algorithm, observations, actions, policy="MlpPolicy", steps=40, **kwargs):
    """A model of the algorithm on these spaces, trained for a few steps."""
    settings = {DQN: Q_LEARNING, PPO: ON_POLICY}.get(algorithm, OFF_POLICY)
    policy_kwargs = {"net_arch": [16, 16], **kwargs.pop("policy_kwargs", {})}
    env = kwargs.pop("env", None) or Spaces(observations, actions)
    model = algorithm(policy, env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **{**settings, **kwargs})
    model.learn(steps)
    return disturb(model)


@cache
def trained(name, sparse):
    model = CASES[name].make(sparse, policy_kwargs={"sparsity": 0.5} if sparse else None)
    model.learn(70)
    return disturb(model)


def observe(model, count=40):
    """Observations as the environment gives them, and some from far away."""
    space = model.observation_space
    if space.dtype == np.uint8:
        return np.stack([space.sample() for _ in range(count)])
    env, rng = model.get_env(), np.random.default_rng(0)
    rows = [env.reset()[0] if env is not None else rng.normal(size=space.shape)]
    while len(rows) < count // 2:
        actions = [env.action_space.sample() for _ in range(env.num_envs)] if env is not None else None
        rows.append(env.step(actions)[0][0] if env is not None else rng.normal(size=space.shape))
    far = rng.normal(size=(count - len(rows), *space.shape)) * 3
    return np.concatenate([np.stack(rows), far]).astype(np.float32)


def expect_parity(model, obs=None, *, seen=None, bits=32, backends=None, **kwargs):
    """
    Check that the exported policy acts as the model: one observation or a batch, in every backend, with arrays of its type.

    :param obs: Observations as the environment gives them.
    :param seen: The same as the model sees them, normalized.
    """
    __tracebackhide__ = True
    obs = observe(model) if obs is None else obs
    seen = obs if seen is None else seen
    expected = model.predict(seen, deterministic=True)[0]
    network = compress(model, bits=bits, backend="numpy", **kwargs).network
    # About 5e-5 for the convolutions of images that are far away, whose sums come to 40, and below 1e-5 for small networks.
    slack = rounding(network, obs)
    for backend in backends or AVAILABLE:
        policy = Policy(network, backend)
        expect_close(policy.predict(obs)[0], expected, network, obs, slack)
        for index in range(3):
            action, one = policy.predict(obs[index])[0], model.predict(seen[index], deterministic=True)[0]
            assert type(action) is type(one) and action.dtype == one.dtype and action.shape == one.shape
            expect_close(action[None], one[None], network, obs[index : index + 1], slack)
    return network


TORCH = {
    "identity": lambda x, low, high: x,
    "relu": lambda x, low, high: F.relu(x),
    "tanh": lambda x, low, high: x.tanh(),
    "clip": lambda x, low, high: F.hardtanh(x, low, high),
    "leaky_relu": lambda x, low, high: F.leaky_relu(x, low),
    "elu": lambda x, low, high: F.elu(x, low),
    "sigmoid": lambda x, low, high: x.sigmoid(),
    "silu": lambda x, low, high: F.silu(x),
    "gelu": lambda x, low, high: F.gelu(x),
    "gelu_tanh": lambda x, low, high: F.gelu(x, approximate="tanh"),
    "mish": lambda x, low, high: F.mish(x),
    "softplus": lambda x, low, high: F.softplus(x),
    "softsign": lambda x, low, high: F.softsign(x),
    "hardswish": lambda x, low, high: F.hardswish(x),
}


def torch_actions(network, obs):
    """The outputs of the records in torch, with the weights that the integers stand for."""
    x = th.from_numpy(obs.astype(np.float32))
    if network.normalize is not None:
        mean, scale = th.from_numpy(network.normalize.mean), th.from_numpy(network.normalize.scale)
        x = ((x - mean) * scale).clamp(-network.normalize.limit, network.normalize.limit)
    inputs = [x if network.view is None else x.reshape(len(x), *network.view)]
    for layer in network.layers:
        weight, bias, x = th.from_numpy(layer.dense()), th.from_numpy(layer.biases), inputs[-1]
        if layer.convolution:
            x = F.conv2d(x.relu() if layer.rectify else x, weight, bias, layer.stride, layer.padding)
        else:
            x = F.linear(x.flatten(1), weight, bias)
        x = x + inputs[-2] if layer.residual else x
        if layer.norm is not None:
            scale, shift = th.from_numpy(layer.norm.scale), th.from_numpy(layer.norm.shift)
            x = F.layer_norm(x, scale.shape, scale, shift, layer.norm.epsilon)
        if layer.activation.slopes is None:
            x = TORCH[layer.activation.name](x, layer.activation.low, layer.activation.high)
        else:
            x = F.prelu(x, th.from_numpy(layer.activation.slopes))
        if layer.pool is not None:
            x = (F.avg_pool2d if layer.pool.mean else F.max_pool2d)(x, *layer.pool[:3])
        inputs.append(x)
    return network.head(inputs[-1].numpy())


@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
@pytest.mark.parametrize("name", EXPORTED)
def test_every_algorithm(name, sparse):
    expect_parity(trained(name, sparse))


@pytest.mark.parametrize(("bits", "calibrated"), [(8, True), (8, False), (3, True)])
@pytest.mark.parametrize("name", EXPORTED)
def test_integers(name, bits, calibrated):
    """The backends agree with the weights that the integers stand for, and eight bits are near to the model."""
    model = trained(name, True)
    obs = observe(model)
    network = compress(model, bits=bits, calibration=obs if calibrated else None, backend="numpy").network
    assert (network.ranges is not None) == calibrated and all(layer.quantized for layer in network.layers)
    assert max(np.abs(layer.weight).max() for layer in network.layers) <= 2 ** (bits - 1) - 1
    expected = torch_actions(network, obs)
    for backend in EXACT:
        expect_close(Policy(network, backend).predict(obs)[0], expected, network, obs)
    if "int8" in AVAILABLE and network.head.kind != "argmax":
        values, slack = int8_actions(network, obs)
        actions = Policy(network, "int8").predict(obs)[0]
        difference = np.abs(actions - network.head(values))
        assert (difference <= 2 * slack + 1e-5).all() and np.mean(difference < 2e-5) > 0.8
    if bits == 8 and calibrated:
        exact = model.predict(obs, deterministic=True)[0]
        if network.head.kind == "argmax":
            assert np.count_nonzero(exact != expected) <= 1
        else:
            # Of a torque from -2 to 2.
            assert np.abs(exact - expected).max() < 0.05 and np.abs(exact - expected).mean() < 0.01


VECTOR, TORQUE = spaces.Box(-np.inf, np.inf, (5,)), spaces.Box(-2, 2, (2,))
ODD = spaces.Box(np.array([-1, 0, 0.25, -3], np.float32), np.array([2, 0.1, 0.75, 100], np.float32))
VARIANTS = {
    "sac, gSDE": lambda: train(SAC, VECTOR, TORQUE, use_sde=True),
    "tqc, gSDE": lambda: train(CASES["tqc"].algorithm, VECTOR, TORQUE, use_sde=True),
    "ppo, gSDE": lambda: train(PPO, VECTOR, TORQUE, use_sde=True),
    "ppo, gSDE, squashed": lambda: train(PPO, VECTOR, ODD, use_sde=True, policy_kwargs={"squash_output": True}),
    **{
        f"{algorithm.__name__}, {net_arch}": lambda algorithm=algorithm, net_arch=net_arch: train(
            algorithm, VECTOR, spaces.Discrete(4) if algorithm is DQN else TORQUE, policy_kwargs={"net_arch": net_arch}
        )
        for algorithm in (SAC, TD3, DQN, PPO)
        for net_arch in ([], [9, 8, 7, 6, 5])
    },
    **{
        f"{algorithm.__name__}, {function.__name__}": lambda algorithm=algorithm, function=function: train(
            algorithm, VECTOR, TORQUE, policy_kwargs={"activation_fn": function}
        )
        for algorithm in (SAC, TD3, PPO)
        for function in (
            *(nn.Tanh, nn.ELU, nn.LeakyReLU, nn.SiLU, nn.Sigmoid, nn.ReLU6, nn.Identity),
            *(nn.GELU, nn.Mish, nn.Softplus, nn.SELU, nn.CELU, nn.Softsign, nn.Hardswish, nn.PReLU),
        )
    },
    "networks apart": lambda: train(PPO, VECTOR, TORQUE, policy_kwargs={"net_arch": {"pi": [7], "vf": [9]}}),
    "no bias": lambda: without_biases(train(SAC, VECTOR, TORQUE)),
    "multi-discrete": lambda: train(PPO, VECTOR, spaces.MultiDiscrete([3, 2, 5])),
    "multi-discrete of one": lambda: train(PPO, VECTOR, spaces.MultiDiscrete([4])),
    "multi-binary": lambda: train(PPO, VECTOR, spaces.MultiBinary(5)),
    "discrete": lambda: train(PPO, VECTOR, spaces.Discrete(6)),
    "odd bounds, sac": lambda: train(SAC, VECTOR, ODD),
    "odd bounds, ppo": lambda: train(PPO, VECTOR, ODD),
    "matrix of actions, td3": lambda: train(TD3, VECTOR, spaces.Box(-1, 3, (2, 3))),
    "matrix of actions, ppo": lambda: train(PPO, VECTOR, spaces.Box(-1, 3, (2, 3))),
    "matrix of observations": lambda: train(SAC, spaces.Box(-np.inf, np.inf, (2, 3)), TORQUE),
    "box of observations": lambda: train(TD3, spaces.Box(-np.inf, np.inf, (2, 3, 4)), TORQUE),
    "four dimensions": lambda: train(PPO, spaces.Box(-np.inf, np.inf, (2, 1, 2, 2)), spaces.Box(-1, 1, (1, 2, 1, 2))),
    "observations of doubles": lambda: train(SAC, spaces.Box(-np.inf, np.inf, (3,), np.float64), TORQUE),
    "extractors apart, ppo": lambda: train(PPO, VECTOR, TORQUE, policy_kwargs={"share_features_extractor": False}),
}


def without_biases(model):
    for layer in prunable_layers(model.policy.actor).values():
        layer.bias = None
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant):
    expect_parity(VARIANTS[variant]())


PIXELS = spaces.Box(0, 255, (2, 36, 37), np.uint8)
SMALL = {"features_extractor_kwargs": {"features_dim": 24}}
IMAGES = {
    "dqn": lambda: train(DQN, PIXELS, spaces.Discrete(3), "CnnPolicy", policy_kwargs=SMALL, buffer_size=100),
    "ppo": lambda: train(PPO, PIXELS, spaces.Discrete(3), "CnnPolicy", policy_kwargs=SMALL),
    "sac": lambda: train(SAC, PIXELS, TORQUE, "CnnPolicy", policy_kwargs=SMALL, buffer_size=100, steps=24),
    "ppo, extractors apart": lambda: train(
        PPO, PIXELS, TORQUE, "CnnPolicy", policy_kwargs={**SMALL, "share_features_extractor": False}
    ),
    "ppo, not normalized": lambda: train(
        PPO, spaces.Box(0, 1, (3, 36, 36)), TORQUE, "CnnPolicy", policy_kwargs={**SMALL, "normalize_images": False}
    ),
    "ppo, bytes not normalized": lambda: train(PPO, PIXELS, TORQUE, policy_kwargs={"normalize_images": False}),
    "mlp": lambda: train(PPO, spaces.Box(0, 255, (1, 8, 9), np.uint8), TORQUE),
}


@cache
def image_model(name):
    model = IMAGES[name]()
    if "bytes not" in name:
        with th.no_grad():
            model.policy.mlp_extractor.policy_net[0].weight /= 255
    return model


@pytest.mark.parametrize("name", IMAGES)
def test_images(name):
    network = expect_parity(image_model(name), observe(image_model(name), 18))
    assert network.image == (name != "ppo, not normalized")


@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_integers_of_images(name):
    model = image_model(name)
    obs = observe(model, 18)
    for calibration in (None, obs):
        network = compress(model, calibration=calibration, backend="numpy").network
        assert all(layer.quantized for layer in network.layers)
        for backend in EXACT:
            expect_close(Policy(network, backend).predict(obs)[0], torch_actions(network, obs), network, obs)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last(channels):
    """SB3 turns the images of the environment, and predict takes both forms; an exported policy does the same."""
    model = train(PPO, spaces.Box(0, 255, (36, 38, channels), np.uint8), TORQUE, "CnnPolicy", policy_kwargs=SMALL)
    first = np.stack([model.observation_space.sample() for _ in range(6)])
    assert first.shape[1:] == (channels, 36, 38)
    expect_parity(model, first)
    expect_parity(model, first.transpose(0, 2, 3, 1), calibration=first.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("name", ["sac", "ppo", "dqn"])
@pytest.mark.parametrize("clip", [0.7, 10.0, np.inf])
def test_vec_normalize(name, clip):
    """The statistics and their limits are part of the policy."""
    algorithm = CASES[name].algorithm
    space = spaces.Discrete(3) if name == "dqn" else TORQUE
    env = VecNormalize(DummyVecEnv([lambda: Spaces(VECTOR, space, scale=np.array([1, 10, 1e-2, 300, 0.5]))]), clip_obs=clip)
    model = train(algorithm, VECTOR, space, env=env, steps=100)
    rng = np.random.default_rng(0)
    obs = (rng.normal(size=(40, 5)) * [1, 10, 1e-2, 300, 0.5] * 2).astype(np.float32)
    obs[0] = 1e6
    seen = env.normalize_obs(obs)
    assert np.isinf(clip) or (np.abs(seen) == np.float32(clip)).any()
    rows = slice(1, None) if np.isinf(clip) else slice(None)
    network = expect_parity(model, obs[rows], seen=seen[rows])
    assert network.normalize.limit == clip
    assert expect_parity(model, obs[rows], seen=seen[rows], normalization=env).normalize is not None
    env.norm_obs = False
    assert compress(model, bits=32).network.normalize is None


def test_vec_normalize_of_images():
    env = VecNormalize(DummyVecEnv([lambda: Spaces(PIXELS, TORQUE)]), clip_obs=1.0)
    model = train(PPO, PIXELS, TORQUE, "CnnPolicy", env=env, policy_kwargs={**SMALL, "normalize_images": False})
    obs = np.stack([PIXELS.sample() for _ in range(18)])
    expect_parity(model, obs, seen=env.normalize_obs(obs))


def test_statistics_that_do_not_fit():
    env = VecFrameStack(VecNormalize(DummyVecEnv([lambda: Spaces(VECTOR, TORQUE)])), 2)
    around = "VecFrameStack around VecNormalize is exported with frame_stack=2"
    with pytest.raises(ValueError, match=rf"shape \(5,\), .* shape \(10,\): {around}"):
        compress(SAC("MlpPolicy", env, device="cpu"))
    other = VecNormalize(DummyVecEnv([lambda: Spaces(spaces.Box(-1, 1, (3,)), TORQUE)]))
    with pytest.raises(ValueError, match=r"shape \(3,\), those of the model have shape \(5,\)$"):
        compress(SAC("MlpPolicy", Spaces(VECTOR, TORQUE), device="cpu"), normalization=other)


class Doubles(VecEnvWrapper):
    """A user's wrapper that changes observations."""

    def reset(self):
        return 2 * self.venv.reset()

    def step_wait(self):
        observations, *rest = self.venv.step_wait()
        return 2 * observations, *rest


def test_what_is_around_the_normalization():
    """It changes what the model sees once more; what leaves observations alone does not matter."""
    inner = VecNormalize(DummyVecEnv([lambda: Spaces(VECTOR, TORQUE)]))
    for around, message in ((Doubles, "has Doubles around its VecNormalize"), (VecNormalize, "inside of another one")):
        with pytest.raises(ValueError, match=message):
            compress(PPO("MlpPolicy", around(inner), device="cpu"))
    model = PPO("MlpPolicy", VecMonitor(inner), device="cpu")
    raw = np.full((1, 5), 0.5, np.float32)
    expected = model.predict(inner.normalize_obs(raw), deterministic=True)[0]
    np.testing.assert_allclose(compress(model, 32).predict(raw)[0], expected, atol=1e-5)


class LeavesOneAlone(VecNormalize):
    """What a user's VecNormalize may do: one feature is passed on as it is."""

    def _normalize_obs(self, obs, obs_rms):
        normalized = super()._normalize_obs(obs, obs_rms)
        normalized[..., 0] = obs[..., 0]
        return normalized


class Renamed(VecNormalize):
    """A subclass that normalizes as its base does."""


def test_subclasses_of_vec_normalize():
    """They are exported as they normalize, or not at all."""
    model = train(SAC, VECTOR, TORQUE, env=Renamed(DummyVecEnv([lambda: Spaces(VECTOR, TORQUE)])), steps=60)
    obs = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    expect_parity(model, obs, seen=model.get_vec_normalize_env().normalize_obs(obs))
    model = SAC("MlpPolicy", LeavesOneAlone(DummyVecEnv([lambda: Spaces(VECTOR, TORQUE)])), device="cpu")
    with pytest.raises(ValueError, match=r"LeavesOneAlone normalizes observations by a _normalize_obs\(\) of its own"):
        compress(model)
    env = VecNormalize(DummyVecEnv([lambda: Spaces(VECTOR, TORQUE)]))
    env.normalize_obs = lambda obs: obs
    with pytest.raises(ValueError, match=r"normalize_obs\(\) of its own"):
        compress(SAC("MlpPolicy", env, device="cpu"))


def test_algorithms_that_act_in_their_own_way():
    """What no path describes is found by the comparison with ``predict``."""

    class Halves(SAC):
        def predict(self, *args, **kwargs):
            actions, state = super().predict(*args, **kwargs)
            return actions / 2, state

    with pytest.raises(ValueError, match="Halves or its policy changes observations or actions"):
        compress(Halves("MlpPolicy", Spaces(VECTOR, TORQUE), device="cpu"))


# Quantization-aware training

GOVERNED = {
    "sac": ["actor.latent_pi.0", "actor.latent_pi.2", "actor.mu"],
    "tqc": ["actor.latent_pi.0", "actor.latent_pi.2", "actor.mu"],
    "crossq": ["actor.latent_pi.1", "actor.latent_pi.4", "actor.mu"],
    "td3": ["actor.mu.0", "actor.mu.2", "actor.mu.4"],
    "dqn": ["q_net.q_net.0", "q_net.q_net.2", "q_net.q_net.4"],
    "ppo": ["mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2", "action_net"],
    "conv": [*(f"q_net.features_extractor.{name}" for name in ("cnn.0", "cnn.2", "cnn.4", "linear.0")), "q_net.q_net.0"],
}


def callbacks(bits):
    return [OneShotPruningCallback("all", 0.4, at=10), QATCallback("all", start=0.5, bits=bits)]


def qat_model(name, bits, sparse=False):
    if name != "conv":
        model = CASES[name].make(sparse)
        model.learn(60, callback=callbacks(bits))
        return model
    env = Spaces(PIXELS, spaces.Discrete(3))
    policy_kwargs = {**SMALL, "net_arch": []}
    model = DQN("CnnPolicy", env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **{**Q_LEARNING, "buffer_size": 100})
    model.learn(26, callback=callbacks(bits))
    return model


def expect_training_grid(model, network, names):
    """Check that the integers of each layer are those of training, without dead neurons; yield the steps, ours and theirs."""
    trained = prunable_layers(model.policy)
    for ours, theirs in zip(network.layers, [trained[name] for name in names], strict=True):
        steps, integers = training_grid(theirs.weight, theirs.bits)
        integers = integers.numpy().reshape(len(integers), -1)
        rows = sorted(tuple(np.sort(row[row != 0])) for row in integers)
        kept = sorted(tuple(np.sort(row[row != 0])) for row in ours.weight.reshape(ours.outputs, -1))
        assert ours.quantized
        if ours.weight.size == integers.size:
            assert kept == rows
        else:
            assert ours.weight.size < integers.size and {n for row in kept for n in row} <= {n for row in rows for n in row}
        yield ours.scales, steps.numpy()


@pytest.mark.parametrize(("sparse", "bits"), [(False, 8), (True, 3)], ids=["stock", "sparse"])
@pytest.mark.parametrize("name", ["sac", "td3", "tqc", "dqn", "ppo"])
def test_training_grid(name, bits, sparse, tmp_path):
    model = qat_model(name, bits, sparse)
    for wanted in (8, 32):
        network = expect_parity(model, bits=wanted, backends=EXACT)
        for ours, step in expect_training_grid(model, network, GOVERNED[name]):
            assert (ours == step).all()
    model.save(tmp_path / "agent")
    loaded = CASES[name].algorithm.load(tmp_path / "agent", device="cpu")
    assert encode(compress(loaded).network) == encode(compress(model).network), "the bits are in the file"
    restore(loaded)
    expect_parity(loaded, observe(model), bits=8, backends=EXACT)


@pytest.mark.parametrize("bits", [4, 8])
def test_training_grid_of_convolutions(bits):
    model = qat_model("conv", bits)
    network = expect_parity(model, observe(model, 18), bits=8, backends=EXACT)
    values = layer_inputs(network, observe(model, 18).astype(np.float32))[-1]
    with th.no_grad():
        exact = model.q_net(th.from_numpy(observe(model, 18))).numpy()
    assert values.shape == exact.shape
    for index, (ours, step) in enumerate(expect_training_grid(model, network, GOVERNED["conv"])):
        factor = 1 / 255 if index == 0 else 1
        assert np.isin(ours.astype(np.float32), (np.atleast_1d(step) * np.float32(factor)).astype(np.float32)).mean() > 0.9


def test_training_grid_goes_through_batch_norm():
    model = qat_model("crossq", 4)
    network = expect_parity(model, bits=8, backends=EXACT)
    for _ in expect_training_grid(model, network, GOVERNED["crossq"]):
        pass


# What cannot be exported


class Doubled(BaseFeaturesExtractor):
    def __init__(self, space):
        super().__init__(space, int(np.prod(space.shape)))

    def forward(self, observations):
        return observations.flatten(1) * 2


class Flat(FlattenExtractor):
    def forward(self, observations):
        return super().forward(observations) * 2


class OwnPredict(SACPolicy):
    def _predict(self, observation, deterministic=False):
        return -super()._predict(observation, deterministic)


class OwnActor(SACPolicy):
    def make_actor(self, features_extractor=None):
        actor = super().make_actor(features_extractor)
        actor.__class__ = type("TimidActor", (type(actor),), {"forward": lambda self, *args, **kwargs: th.zeros(1, 1)})
        return actor


class OwnFeatures(ActorCriticPolicy):
    def extract_features(self, obs, features_extractor=None):
        return 2 * super().extract_features(obs, features_extractor)


def with_module(change):
    model = train(SAC, VECTOR, TORQUE, steps=25)
    change(model.policy.actor)
    return model


def with_convolution(change):
    model = train(PPO, PIXELS, TORQUE, "CnnPolicy", policy_kwargs=SMALL, steps=32)
    cnn = model.policy.features_extractor.cnn
    change(cnn)
    return model


def extracted_by(extractor):
    return SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"features_extractor_class": extractor}, device="cpu")


def normalize_weight(actor):
    nn.utils.parametrizations.weight_norm(actor.latent_pi[0])


#: How to make a model, and what is said of it.
REFUSED = {
    "extractor": (lambda: extracted_by(Doubled), r"'actor.features_extractor' \(Doubled\) has the call mul"),
    "subclass of an extractor": (lambda: extracted_by(Flat), r"features_extractor' \(Flat\) has the call mul"),
    "prediction": (lambda: SAC(OwnPredict, "Pendulum-v1", device="cpu"), "the policy OwnPredict"),
    "actor": (lambda: SAC(OwnActor, "Pendulum-v1", device="cpu"), r"the actor TimidActor with a forward\(\) of its own"),
    "features": (lambda: PPO(OwnFeatures, "Pendulum-v1", device="cpu"), r"OwnFeatures with a extract_features\(\) of its own"),
    "GroupNorm": (
        lambda: with_module(lambda actor: actor.latent_pi.insert(1, nn.GroupNorm(2, 16))),
        r"'actor.latent_pi.1' \(GroupNorm",
    ),
    "LogSigmoid": (
        lambda: train(TD3, VECTOR, TORQUE, policy_kwargs={"activation_fn": nn.LogSigmoid}),
        r"'actor.mu.1' \(LogSigmoid",
    ),
    "weight norm": (lambda: with_module(normalize_weight), r"'actor.latent_pi.0' \(Parametrized"),
    "no finite weight": (
        lambda: with_module(lambda actor: actor.mu.weight.data.fill_(np.nan)),
        "'actor.mu' has numbers that are not finite",
    ),
    "groups": (
        lambda: with_convolution(lambda cnn: cnn.__setitem__(0, nn.Conv2d(2, 32, 8, 4, groups=2))),
        r"cnn.0' \(Conv2d.*groups=2",
    ),
    "padding": (lambda: with_convolution(lambda cnn: setattr(cnn[0], "padding_mode", "reflect")), r"cnn.0' \(Conv2d"),
    "dilation": (lambda: with_convolution(lambda cnn: setattr(cnn[4], "dilation", (2, 2))), r"cnn.4' \(Conv2d"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        compress(make())


@pytest.mark.parametrize("bits", [0, 1, 9, 16, 33, 8.5, "8", None, True])
def test_wrong_bits(bits):
    """They are found before the model is looked at, which cannot be exported either."""
    with pytest.raises(ValueError, match="give a number from 2 to 8, or 32"):
        compress(extracted_by(Doubled), bits=bits)
    with pytest.raises(ValueError, match="give a number from 2 to 8, or 32"):
        compress_network(read_model(trained("sac", False)), bits)


@pytest.mark.parametrize(
    "calibration",
    [np.zeros((0, 3)), np.zeros(3), np.zeros((4, 4)), np.full((4, 3), np.nan), np.array([["a"] * 3]), 1.0, [[1, 2, np.inf]]],
    ids=["none", "one", "wide", "nan", "text", "number", "infinite"],
)
def test_wrong_calibration(calibration):
    with pytest.raises(ValueError, match=r"calibration"):
        compress(trained("sac", False), calibration=calibration)


@pytest.mark.parametrize("factor", [0, 1e-42, 1e-30, 1e30])
def test_inputs_of_any_size(factor):
    """An input that hardly moves, or is constant, does not spoil the others."""
    model = trained("sac", False)
    obs = observe(model) * np.array([1, factor, 1], np.float32)
    network = compress(model, calibration=obs, backend="numpy").network
    assert all(np.isfinite(layer.dense()).all() for layer in network.layers)
    exact, action = model.predict(obs, deterministic=True)[0], Policy(network, "numpy").predict(obs)[0]
    assert np.median(np.abs(exact - action)) < 0.1


# The passes


def dying(rng, network):
    """The network with dead units: rows and columns without weights, and at times a whole layer without."""
    layers = []
    for layer in network.layers:
        weight = layer.weight.copy()
        weight[rng.random(layer.outputs) < 0.3] = 0
        weight[:, rng.random(weight.shape[1]) < 0.3] = 0
        layers.append(replace(layer, weight=weight * (rng.random() < 0.9)))
    outputs = network.layers[-1].outputs
    return replace(network, layers=tuple(layers), head=Head("clip", (outputs,), *infinite(outputs)))


def infinite(outputs):
    bound = np.full(outputs, np.inf, np.float32)
    return -bound, bound


def sizes(network):
    """Number of units, of weights, and of elements of the weight, of each layer."""
    return [(layer.outputs, np.count_nonzero(layer.weight), layer.weight.size) for layer in network.layers]


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.booleans(), st.sampled_from(ACTIVATIONS))
def test_shrinking_and_ordering_change_nothing(seed, image, activation):
    rng = np.random.default_rng(seed)
    small = expect_to_shrink(rng, draw_network(rng, image=image, activation=activation if seed % 2 else None, width=20))
    for layer, after in zip(small.layers, small.layers[1:], strict=False):
        fed = layer.weight.reshape(layer.outputs, -1).any(axis=1)
        read = after.weight.reshape(after.outputs, layer.outputs, -1).any(axis=(0, 2))
        assert layer.outputs == 1 or read.all(), "a unit is left that no layer reads"
        constant = layer.activation(layer.biases) != 0
        assert layer.outputs == 1 or (fed | (constant & any(after.padding))).all(), "a unit is left that is constant"
    ordered = order(small)
    assert sorted(sizes(ordered)) == sorted(sizes(small))
    for layer in ordered.layers[:-1]:
        assert (np.diff(np.count_nonzero(layer.weight.reshape(layer.outputs, -1), axis=1)) <= 0).all()


def expect_to_shrink(rng, network):
    """Check that a network with dead units shrinks in one call without a change of its outputs; return the smaller network."""
    network = dying(rng, network)
    network = replace(network, layers=tuple(replace(layer, bias=layer.biases) for layer in network.layers))
    x = draw_observations(rng, network, 10)
    expected = layer_inputs(network, x)[-1]
    small = shrink(network)
    for other in (small, order(small), order(network)):
        np.testing.assert_allclose(layer_inputs(other, x)[-1], expected, rtol=1e-4, atol=1e-5)
    assert sizes(shrink(small)) == sizes(small), "a second call finds nothing"
    assert (np.array(sizes(small)) <= np.array(sizes(network))).all()
    return small


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 8), st.booleans(), st.booleans())
def test_properties_of_rounding(seed, bits, image, calibrated):
    rng = np.random.default_rng(seed)
    network = draw_network(rng, image=image, quantized=False, width=20)
    x = draw_observations(rng, network, 30)
    small = round_weights(network, bits, x if calibrated else None)
    top = 2 ** (bits - 1) - 1
    for before, after in zip(network.layers, small.layers, strict=True):
        assert after.weight.dtype == np.int8 and after.quantized and np.abs(after.weight).max() <= top
        assert not after.weight[before.weight == 0].any(), "pruned weights stay pruned"
        assert np.isfinite(after.dense()).all() and (after.scales > 0).all()
        gain = 1 if after.gain is None else after.gain.values
        largest = np.abs(before.weight / gain).reshape(before.outputs, -1).max(axis=1)
        assert (after.scales * top >= largest * (1 - 1e-5)).all(), "no weight is cut off"
        assert calibrated or np.array_equal(after.biases, before.biases)
    assert (small.ranges is not None) == calibrated
    if calibrated:
        for layer, inputs, most in zip(small.layers, layer_inputs(small, x), small.ranges, strict=False):
            gained = inputs if layer.gain is None else inputs.reshape(len(x), -1) * layer.gain.values
            assert most == pytest.approx(np.abs(gained).max(), rel=1e-5, abs=1e-6)
    for layer in round_biases(small).layers:
        assert isinstance(layer.bias, Fixed)
    for layer, rounded in zip(small.layers, round_biases(small).layers, strict=True):
        assert (np.abs(layer.biases - rounded.biases) <= np.abs(layer.biases).max() / 32767 * 0.51).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50), st.integers(-20, 20), st.booleans())
def test_minifloats(values, exponent, up):
    values = (np.array(values, np.float64) * 10.0**exponent).astype(np.float32)
    numbers = to_minifloats(values, up=up)
    largest = values.max()
    assert isinstance(numbers, Minifloats) and numbers.codes.dtype == np.uint8 and numbers.unit > 0
    if largest < 1e-30:
        return  # The unit would be a denormal float.
    near = values > largest / 60000
    ratio = numbers.values[near] / values[near]
    assert (ratio >= (1 - 2e-6 if up else 1 - 0.032)).all() and (ratio <= (1.0626 if up else 1.0323)).all()
    assert (numbers.values >= values * (1 - 2e-6)).all() or not up
    assert (numbers.values[~near] <= largest / 50000).all()
    assert numbers.values.max() == pytest.approx(largest, rel=1e-6)


def test_error_feedback_pays():
    """
    The mean square error of the outputs of random layers: less than half of plain rounding's where inputs are correlated, as
    those of trained networks are, and hardly ever more.
    """
    ratios = {False: [], True: []}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        correlated, density = seed % 2 == 1, rng.choice([0.3, 1.0])
        inputs, outputs, bits = 24, 12, int(rng.integers(3, 9))
        x = rng.normal(size=(500, 4 if correlated else inputs)).astype(np.float32)
        if correlated:
            x = (x @ rng.normal(size=(4, inputs)) + 0.1 * rng.normal(size=(500, inputs))).astype(np.float32)
        exists = rng.random((outputs, inputs)) < density
        weight = np.where(exists, rng.normal(size=(outputs, inputs)), 0).astype(np.float32)
        layer = Layer(weight, np.zeros(outputs, np.float32))
        # A unit layer of integers stands before it, so that its inputs are not equalized.
        unit = Layer(np.eye(inputs, dtype=np.int8), np.zeros(inputs, np.float32), scale=np.ones(inputs, np.float32))
        network = Network((inputs,), False, None, (unit, layer), Head("clip", (outputs,), *infinite(outputs)))
        rounded = round_weights(network, bits, x).layers[1]
        plain = np.rint(weight / rounded.scales[:, None]) * rounded.scales[:, None]
        ours, theirs = (np.square(x @ (matrix - weight).T).mean() for matrix in (rounded.dense(), plain))
        ratios[correlated].append(ours / theirs)
    assert np.median(ratios[True]) < 0.5 and max(ratios[True]) < 1.1
    assert np.median(ratios[False]) < 1.05 and max(ratios[False]) < 1.3


def test_a_network_that_is_a_constant():
    """With all weights pruned, the action follows from the biases."""
    model = train(TD3, VECTOR, TORQUE, steps=25)
    with th.no_grad():
        for layer in prunable_layers(model.policy.actor).values():
            layer.weight.zero_()
    for bits in (8, 32):
        network = compress(model, bits=bits, backend="numpy").network
        assert not any(layer.weight.any() for layer in network.layers) and network.layers[0].outputs == 1
        for backend in AVAILABLE:
            actions = Policy(network, backend).predict(observe(model))[0]
            np.testing.assert_allclose(actions, model.predict(observe(model), deterministic=True)[0], atol=1e-4)


def test_the_model_stays_what_it_is():
    model = trained("crossq", True)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    compress(model, calibration=observe(model))
    assert all(th.equal(value, before[name]) for name, value in model.policy.state_dict().items())
    model.learn(5)


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
@pytest.mark.parametrize("policy", ["MlpPolicy", "LinearPolicy"])
def test_ars(policy, env):
    """Its layers may have no bias, and linear policies have one layer."""
    model = ARS(policy, env, seed=0, device="cpu", zero_policy=False)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.normal_()
    obs = np.random.default_rng(0).normal(size=(50, model.observation_space.shape[0])).astype(np.float32)
    expect_parity(model, obs)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_scripted_modules_are_refused():
    model = PPO("MlpPolicy", DummyVecEnv([lambda: Spaces(VECTOR, TORQUE)]), device="cpu")
    model.policy.action_net = th.jit.script(model.policy.action_net)
    with pytest.raises(ValueError, match="action_net"):
        compress(model)
