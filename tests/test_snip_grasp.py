"""Saliencies that see data: SNIP and GraSP, the losses that they rank by, and networks of parts."""

import re
import subprocess
import sys
import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn
from torch.nn import functional as F

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, QATCallback, RewiringCallback, summarize
from sb3_sparse.callbacks.pruning.losses import find_losses
from sb3_sparse.nn import MaskedLayer, find_networks, find_optimizers, find_parts, mask_layers, unmask_layers
from sb3_sparse.sparsity import (
    DISTRIBUTIONS,
    SAMPLES,
    by_parts,
    erdos_renyi,
    find_distribution,
    global_,
    grasp,
    magnitude,
    prune_to,
    snip,
)
from sb3_sparse.state import draw_generator
from tests.algorithms import CASES
from tests.invariants import Watch, check, check_targets
from tests.test_save_load import masks_of, seed_everything

#: Tiny networks have tiny layers; the warning about them has a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore:pruning has left network")
BY_DATA = {"snip": snip, "grasp": grasp}


class Sums(nn.Module):
    """A tanh network of two layers, in double precision, and its squared error on a fixed batch."""

    def __init__(self):
        super().__init__()
        th.manual_seed(0)
        self.one, self.two = nn.Linear(3, 4).double(), nn.Linear(4, 2).double()
        self.x, self.y = th.randn(7, 3).double(), th.randn(7, 2).double()

    @property
    def weights(self):
        return {"one": self.one.weight, "two": self.two.weight}

    def loss(self, one=None, two=None):
        one, two = self.one.weight if one is None else one, self.two.weight if two is None else two
        hidden = F.linear(self.x, one, self.one.bias).tanh()
        return F.mse_loss(F.linear(hidden, two, self.two.bias), self.y)


def flat(named):
    return th.cat([tensor.detach().flatten() for tensor in named.values()])


# ---------------------------------------------------------------- the scores


def test_snip_is_the_gradient_of_a_mask():
    net = Sums()
    masks = {name: th.ones_like(weight, requires_grad=True) for name, weight in net.weights.items()}
    loss = net.loss(*(weight * mask for weight, mask in zip(net.weights.values(), masks.values(), strict=True)))
    expected = [gradient.abs() for gradient in th.autograd.grad(loss, list(masks.values()))]
    for score, gradient in zip(snip(net.weights, net.loss).values(), expected, strict=True):
        th.testing.assert_close(score, gradient)


def test_grasp_is_the_weight_times_the_hessian_times_the_gradient():
    net = Sums()
    weights = tuple(net.weights.values())
    blocks = th.autograd.functional.hessian(net.loss, weights)
    sizes = [weight.numel() for weight in weights]
    rows = [th.cat([block.reshape(size, -1) for block in row], dim=1) for size, row in zip(sizes, blocks, strict=True)]
    gradient = th.cat([g.flatten() for g in th.autograd.grad(net.loss(), weights)])
    th.testing.assert_close(flat(grasp(net.weights, net.loss)), flat(net.weights) * (th.cat(rows) @ gradient))


def test_grasp_equals_finite_differences():
    """To first order, removing a weight takes twice its score from the squared norm of the gradient."""
    net = Sums()
    scores = flat(grasp(net.weights, net.loss))
    sizes = [weight.numel() for weight in net.weights.values()]
    start = flat(net.weights)

    def squared_norm(values):
        one, two = (part.view_as(w) for part, w in zip(values.split(sizes), net.weights.values(), strict=True))
        one, two = one.clone().requires_grad_(), two.clone().requires_grad_()
        return sum(g.square().sum() for g in th.autograd.grad(net.loss(one, two), (one, two)))

    for index, score in enumerate(scores):
        step = th.zeros_like(start)
        step[index] = 1e-5 * start[index]
        slope = (squared_norm(start - step) - squared_norm(start + step)) / 2e-5
        assert float(slope) == pytest.approx(-2 * float(score), rel=1e-5, abs=1e-9)


def test_grasp_removes_the_largest_of_the_papers_scores():
    net = Sums()
    gradients = th.autograd.grad(net.loss(), list(net.weights.values()), create_graph=True)
    products = th.autograd.grad(gradients, list(net.weights.values()), [g.detach() for g in gradients])
    s = th.cat([-(w * product).detach().flatten() for w, product in zip(net.weights.values(), products, strict=True)])
    removed = s.sort(descending=True, stable=True).indices[:10]
    masks = {name: th.ones_like(weight, dtype=th.bool) for name, weight in net.weights.items()}
    kept = prune_to(net.weights, masks, 0.5, saliency=grasp, distribution=global_, loss=net.loss)
    assert sorted((~flat(kept)).nonzero().flatten().tolist()) == sorted(removed.tolist())


@pytest.mark.parametrize("saliency", BY_DATA.values(), ids=BY_DATA)
@pytest.mark.parametrize("factor", [1e-3, 4.0, 300.0])
def test_a_factor_of_the_loss_changes_nothing(saliency, factor):
    net = Sums()
    masks = {name: th.ones_like(weight, dtype=th.bool) for name, weight in net.weights.items()}
    one, other = (
        prune_to(net.weights, masks, 0.6, saliency=saliency, distribution=global_, loss=lambda f=f: f * net.loss())
        for f in (1.0, factor)
    )
    assert all(th.equal(one[name], other[name]) for name in one)


def test_grasp_of_one_batch_is_that_of_two_halves():
    """As in the authors' code: the gradients of both halves are added up, and then the products."""
    net = Sums()
    net.x, net.y = th.randn(8, 3).double(), th.randn(8, 2).double()
    weights = list(net.weights.values())
    whole, halves = (net.x, net.y), [(net.x[:4], net.y[:4]), (net.x[4:], net.y[4:])]
    gradients, products = [0.0, 0.0], [0.0, 0.0]
    for net.x, net.y in halves:
        gradients = [a + b for a, b in zip(gradients, th.autograd.grad(net.loss(), weights), strict=True)]
    for net.x, net.y in halves:
        own = th.autograd.grad(net.loss(), weights, create_graph=True)
        products = [a + b for a, b in zip(products, th.autograd.grad(own, weights, gradients), strict=True)]
    net.x, net.y = whole
    expected = th.cat([(w.detach() * p).flatten() for w, p in zip(weights, products, strict=True)])
    th.testing.assert_close(4 * flat(grasp(net.weights, net.loss)), expected)


@pytest.mark.parametrize("saliency", BY_DATA.values(), ids=BY_DATA)
def test_gradients_are_left_alone(saliency):
    net = Sums()
    net.one.weight.grad = th.full_like(net.one.weight, 3.0)
    with th.no_grad():
        scores = saliency(net.weights, net.loss)
    assert (net.one.weight.grad == 3.0).all()
    assert all(parameter.grad is None for parameter in (net.one.bias, net.two.weight, net.two.bias))
    assert not any(score.requires_grad for score in scores.values())


@pytest.mark.parametrize("saliency", BY_DATA.values(), ids=BY_DATA)
def test_what_the_loss_does_not_depend_on_scores_nothing(saliency):
    net = Sums()
    weights = {**net.weights, "other": nn.Parameter(th.randn(2, 2))}
    scores = saliency(weights, net.loss)
    assert not scores["other"].any() and scores["one"].all()
    # A linear loss has no curvature.
    assert not flat(grasp(net.weights, lambda: net.one.weight.sum())).any()


@pytest.mark.parametrize("name", BY_DATA)
def test_errors_of_the_scores(name):
    net, saliency = Sums(), BY_DATA[name]
    with pytest.raises(ValueError, match=rf"saliency '{name}' needs a loss, and got none: use OneShotPruningCallback"):
        saliency(net.weights)
    with pytest.raises(ValueError, match="these take none: one"):
        saliency({"one": net.one.weight.detach(), "two": net.two.weight}, net.loss)
    for loss in (lambda: net.one.bias.sum(), lambda: th.tensor(1.0)):
        with pytest.raises(ValueError, match="depends on none of the weights of one, two"):
            saliency(net.weights, loss)
    masks = {name: th.ones_like(weight, dtype=th.bool) for name, weight in net.weights.items()}
    for distribution in (global_, DISTRIBUTIONS["erk"], by_parts(global_, [["one"], ["two"]])):
        with pytest.raises(ValueError, match="'one' contain NaN: the training has diverged"):
            prune_to(net.weights, masks, 0.5, saliency=saliency, distribution=distribution, loss=lambda: net.loss() * th.nan)


@pytest.mark.parametrize("saliency", BY_DATA.values(), ids=BY_DATA)
def test_masked_and_quantized_layers(saliency):
    """The gradient is that of a plain layer with the weight that the layer computes with; what is pruned scores nothing."""
    net = Sums()
    mask_layers(net)
    mask = th.rand(4, 3) < 0.5
    net.one.set_mask(mask)
    net.one.set_bits(4)
    masked = saliency(net.weights, lambda: F.mse_loss(net.two(net.one(net.x).tanh()), net.y))
    assert not masked["one"][~mask].any() and masked["one"][mask].all()
    weight = nn.Parameter(net.one._forward_weight().detach())
    fine = {"one": weight, "two": net.two.weight}
    plain = saliency(fine, lambda: net.loss(one=weight * mask))
    th.testing.assert_close((masked["one"] * weight).abs(), (plain["one"] * net.one.weight).abs())
    th.testing.assert_close(masked["two"], plain["two"])


# ---------------------------------------------------------------- losses


class Normed(BaseFeaturesExtractor):
    """Batch normalization and dropout: layers that behave otherwise in training, and one that remembers."""

    def __init__(self, observation_space, drop=0.0):
        super().__init__(observation_space, 8)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(drop) if drop else nn.Identity())

    def forward(self, observations):
        return self.net(observations)


def image_model(**kwargs):
    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=True)
    arguments = {"learning_starts": 20, "buffer_size": 100, "batch_size": 16, "train_freq": 1, "seed": 0, "device": "cpu"}
    extractor = {"features_extractor_kwargs": {"features_dim": 16}}
    return DQN("CnnPolicy", env, policy_kwargs=extractor, **{**arguments, **kwargs})


def normalized_model(**kwargs):
    env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=3, seed=0))
    arguments = {**CASES["td3"].kwargs, "policy_kwargs": {"net_arch": [16, 16]}, "seed": 0, "device": "cpu"}
    return TD3("MlpPolicy", env, **{**arguments, **kwargs})


def normed_model(drop=0.0, **kwargs):
    extractor = {"features_extractor_class": Normed, "features_extractor_kwargs": {"drop": drop}}
    return CASES["td3"].make(policy_delay=1, policy_kwargs=extractor, **kwargs)


MODELS = {
    "sac": CASES["sac"].make,
    "sac_fixed": lambda **kwargs: CASES["sac"].make(ent_coef=0.3, **kwargs),
    "sac_sde": lambda **kwargs: CASES["sac"].make(use_sde=True, **kwargs),
    "sac_n_steps": lambda **kwargs: CASES["sac"].make(n_steps=3, **kwargs),
    "sac_sparse": lambda **kwargs: CASES["sac"].make(True, policy_kwargs={"sparsity": 0.5}, **kwargs),
    "td3": lambda **kwargs: CASES["td3"].make(policy_delay=1, **kwargs),
    "td3_normalized": lambda **kwargs: normalized_model(policy_delay=1, **kwargs),
    "td3_batch_norm": normed_model,
    "ddpg": CASES["ddpg"].make,
    "dqn": lambda **kwargs: CASES["dqn"].make(max_grad_norm=1e9, **kwargs),
    "dqn_n_steps": lambda **kwargs: CASES["dqn"].make(max_grad_norm=1e9, n_steps=3, **kwargs),
    "dqn_cnn": lambda **kwargs: image_model(max_grad_norm=1e9, **kwargs),
}


def weights_of(model):
    networks = find_networks(model.policy)
    return {network: {name: layer.weight for name, layer in layers.items()} for network, layers in networks.items()}


@pytest.mark.parametrize("name", MODELS)
def test_losses_are_those_of_train(name):
    """The same minibatch and the same noise give the gradients that train() steps with, to the last bit."""
    # With a learning rate of zero, the actor's loss in train() meets the critic that we meet.
    model = MODELS[name](learning_rate=0.0)
    model.learn(45)
    losses = find_losses(model, 64, draw_generator(7, 0, "losses"))
    scores = {network: snip(weights, losses[network]) for network, weights in weights_of(model).items()}
    stepped = {}

    def keep(optimizer, *_):
        stepped.update({p: p.grad.clone() for group in optimizer.param_groups for p in group["params"] if p.grad is not None})

    for optimizer in find_optimizers(model.policy):
        optimizer.register_step_pre_hook(keep)
    batch_seed, noise_seed = th.randint(2**32, (2,), generator=draw_generator(7, 0, "losses")).tolist()
    np.random.seed(batch_seed)
    th.manual_seed(noise_seed)
    model.train(gradient_steps=1, batch_size=64)
    assert set(scores) == set(find_networks(model.policy))
    for network, weights in weights_of(model).items():
        for layer, weight in weights.items():
            assert stepped[weight].any(), layer
            th.testing.assert_close(scores[network][layer], (weight * stepped[weight]).abs(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", [*MODELS, "td3_dropout"])
def test_losses_leave_no_trace(name):
    """Neither the random states nor the model; and a loss has one value."""
    model = normed_model(drop=0.5) if name == "td3_dropout" else MODELS[name]()
    model.learn(45)
    model.policy.set_training_mode(False)
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    grads = {p: None if p.grad is None else p.grad.clone() for p in model.policy.parameters()}
    exploration = getattr(model.actor.action_dist, "exploration_mat", None) if name.startswith("sac") else None
    state = np.random.get_state()[1].copy(), th.get_rng_state(), model.replay_buffer.pos
    losses = find_losses(model, 100, th.Generator().manual_seed(0))
    for network, loss in losses.items():
        for saliency in BY_DATA.values():
            saliency(weights_of(model)[network], loss)
        assert th.equal(loss(), loss())
    assert (np.random.get_state()[1] == state[0]).all() and th.equal(th.get_rng_state(), state[1])
    assert all(th.equal(value, before[key]) for key, value in model.policy.state_dict().items())
    assert all(p.grad is None if grad is None else th.equal(p.grad, grad) for p, grad in grads.items())
    assert not any(module.training for module in model.policy.modules())
    assert name != "sac_sde" or model.actor.action_dist.exploration_mat is exploration
    again = find_losses(model, 100, th.Generator().manual_seed(0))
    other = find_losses(model, 100, th.Generator().manual_seed(1))
    for network, loss in losses.items():
        assert th.equal(loss(), again[network]()) and not th.equal(loss(), other[network]())


def best(scores, count):
    """Masks of the highest scores over all layers."""
    flat_scores = th.cat([score.flatten() for score in scores.values()])
    mask = th.zeros(len(flat_scores), dtype=th.bool)
    mask[flat_scores.sort(descending=True, stable=True).indices[:count]] = True
    sizes = [score.numel() for score in scores.values()]
    return {n: part.view_as(scores[n]) for n, part in zip(scores, mask.split(sizes), strict=True)}


@pytest.mark.parametrize("saliency", BY_DATA)
@pytest.mark.parametrize("name", ["sac", "td3", "dqn", "dqn_cnn", "td3_normalized"])
def test_masks_are_those_of_a_few_lines(name, saliency):
    model = MODELS[name]()
    model.learn(45)
    losses = find_losses(model, SAMPLES[saliency], draw_generator(0, 0, "losses"))
    expected = {}
    for network, named in weights_of(model).items():
        weights = list(named.values())
        gradients = th.autograd.grad(losses[network](), weights, create_graph=True)
        if saliency == "snip":
            scores = [(w * g).abs() for w, g in zip(weights, gradients, strict=True)]
        else:
            products = th.autograd.grad(gradients, weights, [g.detach() for g in gradients])
            scores = [w * p for w, p in zip(weights, products, strict=True)]
        total = sum(weight.numel() for weight in weights)
        expected |= best(dict(zip(named, scores, strict=True)), round((1 - 0.6) * total))
    # The buffer is filled, so it prunes before the first step; the model's seed is the callback's.
    model.learn(3, callback=OneShotPruningCallback("all", 0.6, saliency=saliency), reset_num_timesteps=False)
    found = masks_of(model)
    assert all(th.equal(found[layer], mask) for layer, mask in expected.items())


# ---------------------------------------------------------------- callbacks


class Sparsities(BaseCallback):
    """The sparsity of the first network at every step, and at every optimizer step."""

    def __init__(self):
        super().__init__()
        self.steps, self.updates = [], []

    def _sparsity(self):
        network, *_ = find_networks(self.model.policy).values()
        masks = [layer.mask for layer in network.values() if isinstance(layer, MaskedLayer)]
        return round(1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks), 2)

    def _on_training_start(self):
        for optimizer in find_optimizers(self.model.policy):
            optimizer.register_step_pre_hook(lambda *_: self.updates.append(self._sparsity()))

    def _on_step(self):
        self.steps.append(self._sparsity())
        return True


@pytest.mark.parametrize(
    ("kwargs", "at", "first"),
    [
        ({}, 0, 21),
        ({}, 5, 21),
        ({}, 0.75, 30),
        ({"learning_starts": 0}, 0, 2),  # In step 1 the buffer is empty; pruned after it, before the first update.
        ({"train_freq": 4}, 0, 21),
        ({"learning_starts": 0, "train_freq": 4}, 0, 2),
    ],
)
@pytest.mark.parametrize("name", ["sac", "td3", "dqn"])
def test_it_waits_for_the_first_batch(name, kwargs, at, first):
    model = CASES[name].make(**kwargs)
    look = Sparsities()
    callback = OneShotPruningCallback("all", 0.5, at=at, saliency="snip", distribution="erk")
    model.learn(40, callback=[callback, look, Watch()])
    assert look.steps == [0.0] * (first - 1) + [0.5] * (41 - first)
    assert look.updates and (set(look.updates) == {0.5} or first > 21)
    for network in summarize(model).networks.values():
        assert network.nonzero <= round(0.5 * network.total)


def test_several_environments():
    model = normalized_model()
    look = Sparsities()
    model.learn(60, callback=[OneShotPruningCallback("all", 0.75, saliency="grasp"), look, Watch()])
    assert look.steps == [0.0] * 6 + [0.75] * 14
    assert set(look.updates) == {0.75}


def test_hindsight_waits_for_an_episode():
    env = BitFlippingEnv(n_bits=8, max_steps=30)
    arguments = {"learning_starts": 40, "buffer_size": 100, "train_freq": 1, "seed": 0, "policy_kwargs": {"net_arch": [16]}}
    model = DQN("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, device="cpu", **arguments)
    look = Sparsities()
    model.learn(80, callback=[OneShotPruningCallback("q_net", 0.5, at=10, saliency="snip"), look])
    assert look.steps == [0.0] * 40 + [0.5] * 40 and set(look.updates) == {0.5}


def test_a_run_that_ends_too_early_says_so_and_can_go_on():
    model = CASES["sac"].make()
    callback = OneShotPruningCallback("all", 0.5, saliency="snip")
    with pytest.warns(UserWarning, match="OneShotPruningCallback: training has ended before there was a batch of data"):
        model.learn(15, callback=callback)
    callback.on_training_end()  # rl-zoo3 calls it twice, and one warning is enough.
    model.learn(15, callback=[callback, Watch()], reset_num_timesteps=False)
    assert summarize(model).networks["actor"].sparsity == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("saliency", BY_DATA)
@pytest.mark.filterwarnings("ignore:pruning has cut network 'actor' off")
def test_gradually(saliency):
    """Each pruning sees a batch of its own, and takes away from what is left."""
    model = CASES["td3"].make()
    look = Sparsities()
    callback = GradualPruningCallback("all", 0.9, start=10, end=90, update_freq=10, saliency=saliency, initial_sparsity=0.1)
    model.learn(100, callback=[callback, look, Watch()])
    assert callback.pruner.n_samples == SAMPLES[saliency]
    assert look.steps[19] == 0.0 and look.steps == sorted(look.steps)
    for network in summarize(model).networks.values():
        assert network.nonzero <= round(0.1 * network.total)


@pytest.mark.parametrize("saliency", BY_DATA)
@pytest.mark.parametrize("name", ["sac", "td3", "dqn"])
def test_masks_follow_from_the_seed(name, saliency):
    def masks(**kwargs):
        model = CASES[name].make(seed=0)
        model.learn(30, callback=OneShotPruningCallback("all", 0.7, saliency=saliency, **kwargs))
        return masks_of(model)

    first, same, default = masks(), masks(), masks(n_samples=SAMPLES[saliency], seed=0)
    assert all(th.equal(mask, same[layer]) and th.equal(mask, default[layer]) for layer, mask in first.items())
    for other in (masks(seed=1), masks(n_samples=7)):
        assert not all(th.equal(mask, other[layer]) for layer, mask in first.items())


@pytest.mark.quick("td3-21-gradual", "dqn-21-one shot")
@pytest.mark.parametrize("kind", ["one shot", "gradual"])
@pytest.mark.parametrize("cut", [*(pytest.param(x, marks=pytest.mark.slow) for x in (15, 60)), 21])
@pytest.mark.parametrize("name", ["sac", "td3", "dqn"])
@pytest.mark.filterwarnings("ignore:pruning has cut network 'actor' off")
def test_resumed_equals_uninterrupted(name, cut, kind, tmp_path):
    def callback():
        if kind == "gradual":
            return GradualPruningCallback("all", 0.9, start=10, end=80, update_freq=7, saliency="grasp")
        return OneShotPruningCallback("all", 0.8, saliency="snip")

    def learn(model, steps, **kwargs):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(pruning has left|.*training has ended before)")
            model.learn(steps, callback=[callback(), Watch()], **kwargs)

    through = CASES[name].make()
    learn(through, cut)
    through.save(tmp_path / "agent.zip")
    through.save_replay_buffer(tmp_path / "buffer.pkl")
    seed_everything(through, 1)
    learn(through, 100 - cut, reset_num_timesteps=False)
    resumed = CASES[name].algorithm.load(tmp_path / "agent.zip", env=CASES[name].make().get_env(), device="cpu")
    resumed.load_replay_buffer(tmp_path / "buffer.pkl")
    seed_everything(resumed, 1)
    learn(resumed, 100 - cut, reset_num_timesteps=False)
    assert resumed.sparsity_state == through.sparsity_state
    theirs = resumed.policy.state_dict()
    assert all(th.equal(value, theirs[key]) for key, value in through.policy.state_dict().items())


@pytest.mark.parametrize("targets", ["mask", "topk", "polyak"])
def test_targets_follow(targets):
    model = CASES["td3"].make(policy_delay=100)
    model.learn(25, callback=OneShotPruningCallback("all", 0.8, saliency="snip", targets=targets))
    check(model)
    twin, online = model.critic_target.qf0[2], model.critic.qf0[2]
    assert bool(twin.weight[~online.mask].any()) is (targets == "polyak")


@pytest.mark.parametrize("targets", ["mask", "topk"])
def test_with_rewiring_and_quantization(targets):
    model = CASES["sac"].make()
    callbacks = [
        OneShotPruningCallback("all", 0.6, saliency="snip", targets=targets),
        RewiringCallback("all", 0.2, 10, grow="gradient", targets=targets),
        QATCallback("actor", start=10),
    ]
    model.learn(100, callback=[*callbacks, Watch()] if targets == "mask" else callbacks)
    for name, layers in find_networks(model.policy).items():
        total = sum(layer.mask.numel() for layer in layers.values())
        assert sum(int(layer.mask.sum()) for layer in layers.values()) == round(0.4 * total), name


def test_a_callback_puts_back_what_others_draw():
    """With nothing to prune, training is bit-identical to a run without it: neither global random state is touched."""
    plain, pruned = CASES["sac"].make(), CASES["sac"].make()
    seed_everything(plain, 1)
    plain.learn(60)
    state = th.get_rng_state(), np.random.get_state()[1]
    seed_everything(pruned, 1)
    pruned.learn(60, callback=OneShotPruningCallback("all", 0.0, saliency="snip"))
    assert th.equal(th.get_rng_state(), state[0]) and (np.random.get_state()[1] == state[1]).all()
    theirs = pruned.policy.state_dict()
    assert all(th.equal(value, theirs[key]) for key, value in plain.policy.state_dict().items())


def test_the_default_distribution():
    for callback in (OneShotPruningCallback, GradualPruningCallback):
        for saliency in ("magnitude", "random", "magnitude_by_sign", magnitude, lambda weights, loss=None, **_: weights):
            assert callback("actor", 0.5, saliency=saliency).distribution is DISTRIBUTIONS["erk"]
        for saliency in ("snip", grasp):
            assert callback("actor", 0.5, saliency=saliency).distribution is global_
            assert callback("actor", 0.5, saliency=saliency, distribution="erk").distribution is DISTRIBUTIONS["erk"]


def test_a_function_of_ones_own_gets_a_loss_if_it_asks_for_data():
    given = []

    def own(weights, loss=None, *, generator=None):
        given.append(None if loss is None else loss().item())
        return snip(weights, loss) if loss is not None else magnitude(weights)

    for n_samples in (None, 50):
        model = CASES["dqn"].make()
        model.learn(30, callback=OneShotPruningCallback("q_net", 0.5, saliency=own, n_samples=n_samples))
        assert summarize(model).networks["q_net"].sparsity == pytest.approx(0.5, abs=0.01)
    assert given[0] is None and given[1] > 0


@pytest.mark.slow
def test_zips_load_without_the_package(tmp_path):
    lines = ["import sys; sys.modules['sb3_sparse'] = None", "import numpy as np, stable_baselines3 as sb3"]
    for name, saliency in (("sac", "snip"), ("td3", "grasp"), ("dqn", "snip")):
        model = CASES[name].make()
        model.learn(40, callback=OneShotPruningCallback("all", 0.8, saliency=saliency))
        model.save(tmp_path / f"{name}.zip")
        unmask_layers(model.policy)
        obs = np.stack([model.observation_space.sample() for _ in range(4)])
        np.savez(tmp_path / f"{name}.npz", obs=obs, actions=model.predict(obs, deterministic=True)[0])
        lines += [
            f"model = sb3.{name.upper()}.load({str(tmp_path / f'{name}.zip')!r}, device='cpu')",
            f"saved = np.load({str(tmp_path / f'{name}.npz')!r})",
            "np.testing.assert_array_equal(model.predict(saved['obs'], deterministic=True)[0], saved['actions'])",
        ]
    done = subprocess.run([sys.executable, "-c", "\n".join([*lines, "print('loaded')"])], capture_output=True, text=True)
    assert done.stdout.strip() == "loaded", done.stderr


# ---------------------------------------------------------------- offline, and networks of parts


class Autoencoder(nn.Module):
    """Two parts, and a layer outside of them."""

    parts: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 4))
        self.decoder = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))
        self.scale = nn.Linear(3, 3)

    def forward(self, x, noise):
        return self.scale(self.decoder(self.encoder(x) + 0.1 * noise))


class Offline(TD3):
    """Has losses of its own, and data from the first moment; what it trains is TD3."""

    def _setup_model(self):
        super()._setup_model()
        self.policy.vae = Autoencoder()

    def sample(self, n_samples, generator):
        return th.randn(n_samples, 3, generator=generator)

    def losses(self, batch, *, generator):
        noise = th.randn(len(batch), 4, generator=generator)
        return {
            "vae": lambda: F.mse_loss(self.policy.vae(batch, noise), batch),
            "actor": lambda: self.actor(batch).square().mean(),
        }


def offline(**kwargs):
    return Offline("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", policy_kwargs={"net_arch": [16, 16]}, **kwargs)


class Stop(BaseCallback):
    """Ends the run at its first step, and keeps the sparsity that it then has."""

    def _on_step(self):
        self.networks = summarize(self.model).networks
        return False


@pytest.mark.parametrize("saliency", BY_DATA)
def test_offline_it_happens_before_the_first_step(saliency):
    model, stop = offline(), Stop()
    model.learn(10, callback=[OneShotPruningCallback(["vae", "actor"], 0.8, saliency=saliency), stop])
    for network in ("vae", "actor"):
        assert stop.networks[network].nonzero == round(0.2 * stop.networks[network].total)
    check_targets(model)


def kept_by_part(model):
    parts = find_parts(model.policy, "vae", find_networks(model.policy)["vae"])
    layers = find_networks(model.policy)["vae"]
    return [(sum(int(layers[n].mask.sum()) for n in part), sum(layers[n].mask.numel() for n in part)) for part in parts]


@pytest.mark.parametrize("sparsity", [*(pytest.param(x, marks=pytest.mark.slow) for x in (0.1, 0.5, 0.83)), 0.95])
@pytest.mark.parametrize("distribution", ["global_", "erk", "uniform", "erdos_renyi"])
@pytest.mark.parametrize("saliency", ["snip", "grasp", "magnitude", "random"])
def test_parts_are_ranked_for_themselves(saliency, distribution, sparsity):
    model = offline()
    # As one pool, the encoder would be left with next to nothing.
    with th.no_grad():
        model.policy.vae.decoder[0].weight *= 100
    model.learn(1, callback=OneShotPruningCallback("vae", sparsity, saliency=saliency, distribution=distribution))
    kept = kept_by_part(model)
    assert sum(count for count, _ in kept) == round((1 - sparsity) * sum(total for _, total in kept))
    assert all(abs(count - (1 - sparsity) * total) <= 1 for count, total in kept)


def test_parts_are_ranked_gradually():
    model = offline()
    callback = GradualPruningCallback("vae", 0.9, start=2, end=40, update_freq=1, saliency="snip")
    model.learn(45, callback=[callback, Watch()])
    assert sum(count for count, _ in kept_by_part(model)) == round(0.1 * sum(total for _, total in kept_by_part(model)))


def test_a_part_is_ranked_by_the_loss_of_its_network():
    model = offline()
    losses = model.losses(model.sample(100, generator := draw_generator(0, 0, "losses")), generator=generator)
    scores = snip(weights_of(model)["vae"], losses["vae"])
    parts = find_parts(model.policy, "vae", scores)
    assert parts == [["vae.encoder.0", "vae.encoder.2"], ["vae.decoder.0", "vae.decoder.2"], ["vae.scale"]]
    model.learn(1, callback=OneShotPruningCallback("vae", 0.75, saliency="snip"))
    masks = masks_of(model)
    for part in parts:
        own = {name: scores[name] for name in part}
        expected = best(own, sum(int(masks[name].sum()) for name in part))
        assert all(th.equal(masks[name], expected[name]) for name in part)


def test_lambdas_are_for_the_whole_network():
    lambdas = find_distribution({"erdos_renyi": {"lambdas": [1, 1, 1, 1, 1]}})
    model = offline()
    model.learn(1, callback=OneShotPruningCallback("vae", None, saliency="random", distribution=lambdas))
    layers = find_networks(model.policy)["vae"]
    counts = erdos_renyi({name: layer.weight for name, layer in layers.items()}, lambdas=(1,) * 5)
    assert {name: int(layer.mask.sum()) for name, layer in layers.items()} == counts


sizes = st.tuples(st.integers(1, 30), st.integers(1, 30))
shares = st.floats(0, 0.99)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(sizes, min_size=1, max_size=3), min_size=1, max_size=4), shares, shares, st.data())
def test_the_counts_of_parts_add_up(shapes, low, high, data):
    """For every distribution: exact totals, proportional parts, nested counts, and no layer without weights."""
    low, high = sorted((low, high))
    parts = [[f"{i}.{j}" for j in range(len(part))] for i, part in enumerate(shapes)]
    rng = th.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    scores = {f"{i}.{j}": th.rand(shape, generator=rng) for i, part in enumerate(shapes) for j, shape in enumerate(part)}
    total = sum(score.numel() for score in scores.values())
    distribution = by_parts(DISTRIBUTIONS[data.draw(st.sampled_from(sorted(DISTRIBUTIONS)))], parts)
    try:
        counts = [distribution(scores, sparsity) for sparsity in (low, high)]
    except ValueError as error:
        assert "each needs at least one" in str(error)
        return
    for count, sparsity in zip(counts, (low, high), strict=True):
        assert list(count) == list(scores)
        assert sum(count.values()) == round((1 - sparsity) * total)
        assert all(1 <= count[name] <= scores[name].numel() for name in scores)
    assert all(counts[1][name] <= counts[0][name] for name in scores)


def test_names_of_parts():
    class Wrong(nn.Module):
        parts: ClassVar[tuple[str, ...]] = ("body", "tail")

    class Other(nn.Module):
        parts = 3

    policy = nn.ModuleDict({"wrong": Wrong(), "other": Other()})
    with pytest.raises(ValueError, match=r"Wrong.parts names body, tail, and network 'wrong' has no such child"):
        find_parts(policy, "wrong", ["wrong.body"])
    assert find_parts(policy, "other", ["other.0", "other.1"]) == [["other.0", "other.1"]]


# ---------------------------------------------------------------- warnings and errors


@pytest.mark.filterwarnings("default:pruning has left network")
def test_layers_with_next_to_no_weights_are_named_once():
    model = CASES["td3"].make()
    with th.no_grad():
        model.actor.mu[2].weight *= 1e-3
    callback = GradualPruningCallback("actor", 0.9, start=1, end=40, update_freq=5, distribution="global_")
    with pytest.warns(UserWarning) as caught:
        model.learn(60, callback=callback)
    (message,) = (str(w.message) for w in caught if "pruning has left" in str(w.message))
    assert re.search(r"network 'actor' with \d+\.\d% of its weights, but next to none in 'actor.mu.2' \(\d+ of 256\)", message)
    assert int(model.actor.mu[2].mask.sum()) >= 1


def error_of(model, callback):
    """The error comes before the first step, and nothing is changed."""
    before = repr(model.policy)
    with pytest.raises(ValueError) as error:
        model.learn(50, callback=callback)
    assert model.num_timesteps == 0 and repr(model.policy) == before
    return str(error.value)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"sac", "td3", "ddpg", "dqn"}))
def test_algorithms_without_losses(name):
    for kind, saliency in ((OneShotPruningCallback, "snip"), (GradualPruningCallback, "grasp")):
        model = CASES[name].make()
        message = error_of(model, kind("all", 0.5, saliency=saliency))
        assert f"{type(model).__name__} are not known: use SAC, TD3, DDPG, DQN, an offline algorithm" in message


def test_an_algorithm_with_a_training_of_its_own():
    class Mine(SAC):
        def train(self, gradient_steps, batch_size=64):
            super().train(gradient_steps, batch_size)

    class Same(SAC):
        pass

    arguments = {**CASES["sac"].kwargs, "policy_kwargs": {"net_arch": [16, 16]}, "seed": 0, "device": "cpu"}
    assert "those of Mine are not known" in error_of(
        Mine("MlpPolicy", "Pendulum-v1", **arguments), OneShotPruningCallback("all", 0.5, saliency="snip")
    )
    Same("MlpPolicy", "Pendulum-v1", **arguments).learn(30, callback=OneShotPruningCallback("all", 0.5, saliency="snip"))


def test_networks_without_a_loss():
    message = (
        "Offline has no loss for network 'critic', so a saliency that needs data cannot rank it; it has losses for: vae, actor"
    )
    assert error_of(offline(), OneShotPruningCallback(["actor", "critic"], 0.5, saliency="snip")) == message
    assert error_of(offline(), OneShotPruningCallback("all", 0.5, at=30, saliency="grasp")) == message
    model = CASES["dqn"].make()
    model.policy.features_extractor = nn.Linear(2, 2)
    message = error_of(model, OneShotPruningCallback("features_extractor", 0.5, saliency="snip"))
    assert message.startswith("DQN has no loss for network 'features_extractor'")
    assert message.endswith("it has losses for: q_net")


def test_frozen_layers():
    model = CASES["td3"].make()
    model.actor.mu[0].weight.requires_grad_(False)
    message = error_of(model, OneShotPruningCallback("all", 0.5, saliency="snip"))
    assert message == "saliency 'snip' needs gradients, so exclude the layers without any: ['actor.mu.0']"
    model.learn(30, callback=OneShotPruningCallback("all", 0.5, saliency="snip", exclude=["actor.mu.0"]))


def test_arguments():
    for name in BY_DATA:
        for n_samples in (0, -1, 2.5, "100"):
            with pytest.raises(ValueError, match=r"n_samples=.* must be a whole number, at least 1"):
                OneShotPruningCallback("actor", 0.5, saliency=name, n_samples=n_samples)
        with pytest.raises(ValueError, match=rf"drop='{name}' needs data, and a rewiring has none: use 'magnitude'"):
            RewiringCallback("actor", drop=name)
        with pytest.raises(ValueError, match=rf"'{name}' needs data, .*use OneShotPruningCallback\(..., saliency='{name}'\)"):
            CASES["sac"].make(True, policy_kwargs={"sparsity": 0.5, "saliency": name})
        with pytest.raises(ValueError, match="draws the weights: use saliency 'random'"):
            drawn = {"erdos_renyi": {"lambdas": [1], "counts": "bernoulli"}}
            OneShotPruningCallback("actor", None, saliency=name, distribution=drawn)
    for saliency in ("magnitude", "random", "magnitude_by_sign", magnitude):
        with pytest.raises(ValueError, match="needs no data: leave out n_samples=10"):
            OneShotPruningCallback("actor", 0.5, saliency=saliency, n_samples=10)
