"""Modules of the user's own, such as features extractors, are exported where their ``forward`` is a chain of known modules."""

import re

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from torch import nn
from torch.nn import functional as F

from sb3_sparse import compress
from sb3_sparse.export.trace.forward import FUNCTIONS, links
from sb3_sparse.runtime import Policy
from tests.networks import EXACT

IMAGE = spaces.Box(0, 255, (3, 16, 12), np.uint8)
VECTOR = spaces.Box(-2, 2, (6,), np.float32)


class Spaces(gym.Env):
    """Only the spaces count."""

    def __init__(self, observations, actions):
        self.observation_space, self.action_space = observations, actions

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


class Block(nn.Module):
    """A module in a module, with a child that its ``forward`` does not name."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Vector(BaseFeaturesExtractor):
    """Modules in another order than they were made, functions, and an argument with a default."""

    def __init__(self, space):
        super().__init__(space, 5)
        self.last = nn.Linear(7, 5)
        self.block = Block(8, 7)
        self.first = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.4))
        self.seen = 0

    def forward(self, observations, noise=None):
        self.seen += 1
        x = F.elu(self.first(observations.float()), 0.7)
        if noise is not None:
            x = x + noise
        if self.training:
            x = x * 2
        return th.tanh(self.last(F.dropout(self.block(x), training=self.training)))


class Image(BaseFeaturesExtractor):
    def __init__(self, space):
        super().__init__(space, 9)
        self.convolution = nn.Conv2d(3, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(24, 9)

    def forward(self, observations):
        x = F.max_pool2d(F.relu(self.norm(self.convolution(observations))), 2, stride=2)
        return self.linear(x.view(x.size(0), -1)).clamp(min=0)


class OwnMlp(nn.Module):
    """SB3's documentation has an mlp_extractor like it."""

    def __init__(self, features):
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = 4, 3
        self.policy_net, self.unused = nn.Linear(features, 8), nn.Linear(2, 2)
        self.second, self.value_net = nn.Linear(8, 4), nn.Linear(features, 3)

    def forward(self, features):
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features):
        return F.silu(self.second(F.relu(self.policy_net(features))))

    def forward_critic(self, features):
        return self.value_net(features) * 2


class OwnMlpPolicy(ActorCriticPolicy):
    def _build_mlp_extractor(self):
        self.mlp_extractor = OwnMlp(self.features_dim)


def make(extractor, observations=VECTOR, algorithm=SAC, policy="MlpPolicy", **policy_kwargs):
    """An untrained model with weights large enough for every activation to show."""
    actions = spaces.Discrete(4) if algorithm is DQN else spaces.Box(-1, 1, (2,), np.float32)
    policy_kwargs |= {"features_extractor_class": extractor} if extractor else {}
    model = algorithm(policy, Spaces(observations, actions), policy_kwargs=policy_kwargs, seed=0, device="cpu")
    generator = th.Generator().manual_seed(0)
    for parameter in model.policy.parameters():
        spread = 1.5 / parameter.shape[1] ** 0.5 if parameter.ndim == 2 else 0.3 if parameter.ndim == 4 else 0.05
        parameter.data.normal_(0, spread, generator=generator)
    return model


def expect_same(model):
    """The actions of the model on every backend, up to rounding."""
    policy = compress(model, bits=32)
    model.observation_space.seed(0)
    x = np.stack([model.observation_space.sample() for _ in range(40)])
    expected, _ = model.predict(x, deterministic=True)
    assert len(np.unique(expected)) > 1
    for backend in EXACT:
        np.testing.assert_allclose(Policy(policy.network, backend).predict(x)[0], expected, rtol=1e-5, atol=2e-5)
    return policy


@pytest.mark.parametrize("algorithm", [SAC, PPO, DQN])
def test_a_chain_of_modules_and_functions(algorithm):
    policy = expect_same(make(Vector, algorithm=algorithm))
    assert [layer.activation.name for layer in policy.network.layers[:3]] == ["elu", "leaky_relu", "tanh"]


@pytest.mark.parametrize("shared", [True, False])
def test_images(shared):
    model = make(Image, IMAGE, PPO, "CnnPolicy", share_features_extractor=shared)
    with th.no_grad():
        for name, buffer in model.policy.named_buffers():
            if "running" in name:
                buffer.copy_(th.rand(4) + 0.5)
    expect_same(model)


@pytest.mark.parametrize("extractor", [None, Vector])
def test_an_mlp_extractor(extractor):
    policy = expect_same(make(extractor, algorithm=PPO, policy=OwnMlpPolicy))
    assert [layer.activation.name for layer in policy.network.layers[-3:]] == ["relu", "silu", "identity"]


def test_names_of_layers():
    model = make(Vector, algorithm=PPO, policy=OwnMlpPolicy)
    names = [layer["name"] for layer in compress(model).report().to_dict()["layers"]]
    own, mlp = "features_extractor", "mlp_extractor"
    parts = ["first.0", "block.layers.0", "last"]
    assert names == [*(f"{own}.{part}" for part in parts), f"{mlp}.policy_net", f"{mlp}.second", "action_net"]


@pytest.mark.parametrize("part", ["features_extractor", "first", "block"])
def test_compiled_modules(part):
    model = make(Vector, algorithm=PPO)
    expected = compress(model, bits=32).network
    extractor = model.policy.features_extractor
    if part == "features_extractor":
        for name in ("features_extractor", "pi_features_extractor", "vf_features_extractor"):
            setattr(model.policy, name, th.compile(extractor, backend="eager"))
    else:
        setattr(extractor, part, th.compile(getattr(extractor, part), backend="eager"))
    found = compress(model, bits=32).network
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        np.testing.assert_array_equal(ours.dense(), theirs.dense())


def test_the_model_stays_as_it_is():
    """``forward`` counts its calls and writes into a buffer, and neither happens to the model when it is only read."""

    class Counting(BaseFeaturesExtractor):
        def __init__(self, space):
            super().__init__(space, 3)
            self.linear, self.seen, self.last = nn.Linear(6, 3), 0, None
            self.register_buffer("total", th.zeros(()))

        def forward(self, observations):
            self.seen += 1
            self.total += 1
            self.last = self.linear(observations)
            th.rand(1)
            return th.relu(self.last)

    extractor = Counting(VECTOR).train()
    state = th.random.get_rng_state()
    found = links(extractor, "features_extractor")
    assert [name for name, _ in found] == ["linear", "relu"] and found[0][1] is extractor.linear
    assert extractor.seen == 0 and extractor.last is None and extractor.total == 0 and extractor.training
    assert type(extractor) is Counting and th.equal(state, th.random.get_rng_state())


#: Arguments of each function behind the first, and a shape that it takes; by default none and a vector.
ARGUMENTS = {
    "leaky_relu": ((0.3,), (5,)),
    "elu": ((0.4,), (5,)),
    "celu": ((0.6,), (5,)),
    "gelu": ((), (5,)),
    "softplus": ((1.5, 30), (5,)),
    "hardtanh": ((-0.3, 0.7), (5,)),
    "clamp": ((-0.3, 0.7), (5,)),
    "clip": ((None, 0.7), (5,)),
    "max_pool1d": ((3, 2, 1), (2, 7)),
    "max_pool2d": ((3, 2, 1), (2, 7, 5)),
    "avg_pool1d": ((3, 2, 1), (2, 7)),
    "avg_pool2d": ((3, 2, 1), (2, 7, 5)),
    "adaptive_avg_pool1d": ((3,), (2, 7)),
    "adaptive_avg_pool2d": ((3,), (2, 7, 5)),
    "unsqueeze": ((1,), (5,)),
    "mean": ((2,), (2, 7)),
    "flatten": ((1,), (2, 3)),
    "dropout": ((0.5, False), (5,)),
}


def forms(name):
    """The ways to call a function."""
    spaces_ = [getattr(space, form) for space in (th, F) for form in (name, f"{name}_") if hasattr(space, form)]
    methods = [form for form in (name, f"{name}_") if hasattr(th.Tensor, form)]
    functions = [form for form in spaces_ if callable(form) and form is not th.float]
    return [*functions, *(lambda x, *arguments, form=form: getattr(x, form)(*arguments) for form in methods)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_its_module(name):
    arguments, shape = ARGUMENTS.get(name, ((), (5,)))
    called = forms(name)
    assert called
    for function in called:
        kind = type("Own", (nn.Module,), {"forward": lambda self, x, function=function: function(x, *arguments)})
        ((_, module),) = links(kind(), "own")
        x = th.randn(4, *shape, generator=th.Generator().manual_seed(0)) * 2
        th.testing.assert_close(module.eval()(x), function(x.clone(), *arguments), rtol=0, atol=0)


class Signal(BaseFeaturesExtractor):
    """A convolution over the time of a signal with two channels."""

    def __init__(self, space):
        super().__init__(space, 12)
        self.convolution = nn.Conv2d(2, 3, (1, 3), stride=(1, 2), padding=(0, 1))
        self.flat = nn.Flatten()

    def forward(self, observations):
        return self.flat(F.gelu(self.convolution(observations)))


def test_a_convolution_of_height_1():
    expect_same(make(Signal, spaces.Box(-2, 2, (2, 1, 8), np.float32), PPO))


def residual(self, x):
    return x + self.a(x)


def twice(self, x):
    first = self.a(x)
    self.b(first)
    return self.b(x)


def scaled(self, x):
    return self.a(x) * 2


def branching(self, x):
    x = self.a(x)
    if x.mean() > 0:
        x = -x
    return x


def tensor(self, x):
    return F.linear(x, self.a.weight)


def early(self, x):
    x = self.a(x)
    self.b(x)
    return x


def flat(self, x):
    return self.a(x).view(-1, 2)


def dropped(self, x):
    return F.dropout(self.a(x))


def sized(self, x):
    x = self.a(x)
    return x.flatten(x.size(0))


def averaged(self, x):
    return self.a(x).mean(dim=1)


def behind(self, x):
    return self.a(x).unsqueeze(-1)


def several(self, x):
    return self.a(x), x


REFUSED = {
    residual: "has the call add(), which does not take the last result alone",
    twice: "has the call of 'b', which does not take the last result alone",
    scaled: "has the call mul(), which is none of the known functions (relu, ",
    branching: "cannot be followed by torch.fx at `if x.mean() > 0:`: symbolically traced variables cannot be used",
    tensor: "has the tensor 'a.weight', which does not take the last result alone",
    early: "returns something other than its last result",
    flat: "has the call view(), which is neither view(len, -1) nor view(len, channels, ...) with the number of observations",
    dropped: "has the call dropout(), whose arguments are not those of the known one: it drops numbers in predict() as well",
    sized: "has the call flatten(), whose arguments depend on the number of observations",
    averaged: "has the call mean(), whose arguments are not those of the known one: it is not the mean over all",
    behind: "has the call unsqueeze(), whose arguments are not those of the known one: it makes another",
    several: "returns something other than its last result",
}


@pytest.mark.parametrize("forward", REFUSED, ids=lambda forward: forward.__name__)
def test_what_is_not_a_chain(forward):
    def begin(self, space):
        BaseFeaturesExtractor.__init__(self, space, 6)
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    own = type("Own", (BaseFeaturesExtractor,), {"__init__": begin, "forward": forward})
    with pytest.raises(ValueError) as refused:
        links(own(VECTOR), "features_extractor")
    sentence = f"the forward() of 'features_extractor' (Own) {REFUSED[forward]}"
    assert str(refused.value).startswith(sentence)
    assert "write it as one nn.Sequential, or let the policy list its modules in a method action_path()" in str(refused.value)
    if forward is residual:
        with pytest.raises(ValueError, match=re.escape(sentence)):
            compress(make(own, algorithm=PPO))


def test_an_mlp_extractor_that_is_not_a_chain():
    class Scaled(MlpExtractor):
        def forward_actor(self, features):
            return self.policy_net(features) * 0.5

    class ScaledPolicy(ActorCriticPolicy):
        def _build_mlp_extractor(self):
            self.mlp_extractor = Scaled(self.features_dim, self.net_arch, self.activation_fn)

    with pytest.raises(ValueError, match=r"the forward_actor\(\) of 'mlp_extractor' \(Scaled\) has the call mul\(\)"):
        compress(make(None, algorithm=PPO, policy=ScaledPolicy))


def test_hooks_in_an_extractor_are_refused():
    model = make(Vector, algorithm=PPO)
    model.policy.features_extractor.block.layers[0].register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(ValueError, match=r"'features_extractor.block.layers.0' \(Linear\) with a hook"):
        compress(model)


class Named(nn.Sequential):
    """An ``nn.Sequential`` with a name of its own, as a features extractor."""

    def __init__(self, space):
        super().__init__(nn.Linear(space.shape[0], 7), Inner(nn.Tanh(), nn.Linear(7, 5)))
        self.features_dim = 5


class Inner(nn.Sequential):
    pass


class Backwards(Inner):
    def __iter__(self):
        return iter(list(super().__iter__())[::-1])


class Twice(Inner):
    def __call__(self, x):
        return super().__call__(x) * 2


def test_subclasses_of_sequential():
    """They are exported where they are called as nn.Sequential is, and refused by name where they are not, or have a hook."""
    env = Spaces(VECTOR, spaces.Discrete(4))
    model = PPO("MlpPolicy", env, policy_kwargs={"features_extractor_class": Named}, device="cpu", seed=0)
    observations = np.stack([VECTOR.sample() for _ in range(200)])
    with th.no_grad():
        model.policy.action_net.weight.mul_(100)
    expected = model.predict(observations, deterministic=True)[0]
    policy = compress(model, bits=32)
    assert (policy.predict(observations)[0] == expected).all() and len(set(expected)) > 1
    inner = model.policy.features_extractor[1]
    for kind in (Backwards, Twice):
        inner.__class__ = kind
        with pytest.raises(ValueError, match=kind.__name__):
            compress(model, bits=32)
    inner.__class__ = Inner
    inner.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"Inner.*with a hook"):
        compress(model, bits=32)
