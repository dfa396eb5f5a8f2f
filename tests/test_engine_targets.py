"""Target networks with weights of their own, quantized networks, and DQN's target in the engine: as SB3 computes them."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse import EngineCallback, OneShotPruningCallback, QATCallback, RewiringCallback
from sb3_sparse.engine.learner import Learner
from sb3_sparse.engine.session import Session
from sb3_sparse.engine.support import find_update, why_not_now
from sb3_sparse.nn import find_follower, find_networks, find_twins, mask_layers, quantized_bits
from tests.test_engine import build, distance, state, train

#: Algorithm, and how often and how far DQN's target follows: SB3 copies it by default, which leaves it no weights of its own.
SETTINGS = {"dqn": {"target_update_interval": 3, "tau": 0.3}, "qrdqn": {"target_update_interval": 3, "tau": 0.3}}
#: The kernels store a layer with few weights as a sparse one. At the second sparsity only the target network has many.
CASES = [
    ("sac", "topk", 0.8),
    ("td3", "topk", 0.55),
    ("dqn", "topk", 0.8),
    ("qrdqn", "topk", 0.3),
    ("td3", "polyak", 0.8),
    ("tqc", "polyak", 0.55),
    ("dqn", "polyak", 0.55),
]


def callbacks(targets, sparsity, update_freq=20, grow="random"):
    pruning = OneShotPruningCallback("all", sparsity, saliency="random", targets="mask")
    return [pruning, RewiringCallback("all", fraction=0.3, update_freq=update_freq, targets=targets, grow=grow, seed=3)]


def make(name):
    return build(name, steps=90, **SETTINGS.get(name, {}))


def learned(name, made, steps=5):
    """A model that SB3 has trained with these callbacks."""
    return make(name).learn(steps, callback=made, reset_num_timesteps=False, log_interval=1000)


def rewired(name, targets, sparsity):
    """A model that SB3 has rewired, whose target network has weights where its network has none."""
    return learned(name, callbacks(targets, sparsity), 45)


def parameters(model):
    """Everything but the moments, some of which nearly cancel out."""
    return {name: tensor for name, tensor in state(model).items() if "exp_avg" not in name}


def places(model):
    return {name: tensor != 0 for name, tensor in model.policy.state_dict().items() if "_target" in name}


def outside(model):
    """How many weights of the target network are where the network has none."""
    twins = find_twins(model.policy)
    online = [layer for layers in find_networks(model.policy).values() for layer in layers.values()]
    return sum(int((twin.weight[layer.weight == 0] != 0).sum()) for layer in online for twin in twins.get(layer, []))


class Reasons(BaseCallback):
    """Why the engine has left gradient steps to SB3."""

    def __init__(self):
        super().__init__()
        self.reasons = set()

    def _on_rollout_start(self):
        # Just after the gradient steps.
        assert isinstance(self.model, Learner)
        self.reasons |= {self.model._session.reason} - {None}

    def _on_step(self):
        return True


@pytest.mark.parametrize("name, targets, sparsity", CASES)
def test_one_update_equals_sb3(name, targets, sparsity):
    models = [rewired(name, targets, sparsity) for _ in range(2)]
    assert why_not_now(models[1], find_update(models[1])) is None
    assert sparsity < 0.5 or outside(models[0]) > 0
    count = 2 if name == "td3" else 1
    for model, engine in zip(models, (False, True), strict=True):
        train(model, count, engine=engine)
    deviation, where = distance(*map(parameters, models))
    assert deviation < 1e-5, where
    deviation, where = distance(*map(state, models))
    assert deviation < 1e-4, where


def learn_both(name, make_callbacks, steps=60):
    """Two models, of which the engine trains the second."""
    models, reasons = [make(name), make(name)], Reasons()
    for model, extra in zip(models, ([], [EngineCallback(strict=True), reasons]), strict=True):
        th.manual_seed(2)
        np.random.seed(2)
        model.learn(steps, callback=[*make_callbacks(), *extra], reset_num_timesteps=False, log_interval=1000)
    return models, reasons.reasons


@pytest.mark.quick("td3-*")
@pytest.mark.parametrize("name, targets, sparsity", CASES)
def test_a_run_with_rewirings_equals_sb3(name, targets, sparsity):
    """The same places at the end, and values to the rounding that training makes larger."""
    (stock, engine), reasons = learn_both(name, lambda: callbacks(targets, sparsity, 25))
    assert not reasons
    for name, there in places(stock).items():
        assert th.equal(there, places(engine)[name]), name
    deviation, where = distance(parameters(stock), parameters(engine))
    assert deviation < 1e-4, where


def test_sb3_and_the_engine_take_turns():
    """SB3 trains where gradients are recorded, and leaves a target network that its hooks have not pruned yet."""
    (stock, engine), reasons = learn_both("sac", lambda: callbacks("topk", 0.8, 25, "gradient"))
    assert reasons == {"gradients of pruned weights are recorded"}
    assert all(th.equal(there, places(engine)[name]) for name, there in places(stock).items())
    deviation, where = distance(parameters(stock), parameters(engine))
    assert deviation < 1e-4, where


@pytest.mark.quick("topk")
@pytest.mark.parametrize("targets", ["topk", "polyak"])
def test_a_hundred_updates_on_the_same_batches(targets):
    """Without an environment, whose states carry every rounding on."""
    models = [rewired("td3", targets, 0.8) for _ in range(2)]
    for model, engine in zip(models, (False, True), strict=True):
        train(model, 100, engine=engine)
    stock, ours = map(places, models)
    assert all(th.equal(stock[name], ours[name]) for name in stock)
    deviation, where = distance(*map(parameters, models))
    assert deviation < 1e-3, where


def test_a_target_that_somebody_changes():
    """Weights where the kernels had none: the layout is made anew."""
    model = build("sac", sparsity=0.8)
    session = Session(model, find_update(model))
    assert session.take_over() and not session.update.changed
    target = model.policy.critic_target.qf0[2].weight
    with th.no_grad():
        target[target == 0] = 0.25
    assert session.update.changed and session.update.differ
    session.look()
    assert session.take_over() and not session.update.changed
    expected = target.clone()
    session.update.write_weights()
    assert th.equal(target, expected)


def test_other_hooks_are_left_to_sb3():
    model = rewired("sac", "topk", 0.8)
    layer = model.policy.critic_target.qf0[0]
    assert find_follower(layer) is not None and why_not_now(model, find_update(model)) is None
    with layer.register_forward_hook(lambda *_: None):
        assert "hooks" in why_not_now(model, find_update(model))
    with layer.register_forward_pre_hook(lambda *_: None):
        assert "hooks" in why_not_now(model, find_update(model))


# Quantized networks


def quantize(network, start=115, sparsity=0.0):
    pruning = [OneShotPruningCallback("all", sparsity, saliency="random", targets="mask")] if sparsity else []
    return [*pruning, QATCallback(network, start)]


@pytest.mark.parametrize("name, network, sparsity", [("sac", "actor", 0.8), ("td3", "all", 0.0), ("dqn", "q_net", 0.55)])
def test_one_quantized_update_equals_sb3(name, network, sparsity):
    """The target network follows the float weights, and computes with them."""
    models = [learned(name, quantize(network, 92, sparsity)) for _ in range(2)]
    assert quantized_bits(models[1].policy) and why_not_now(models[1], find_update(models[1])) is None
    count = 2 if name == "td3" else 1
    logs = [train(model, count, engine=engine) for model, engine in zip(models, (False, True), strict=True)]
    for key, value in logs[0].items():
        assert logs[1][key] == pytest.approx(value, rel=1e-5), key
    deviation, where = distance(*map(parameters, models))
    assert deviation < 1e-5, where
    deviation, where = distance(*map(state, models))
    assert deviation < 1e-4, where


@pytest.mark.parametrize("name, network, sparsity", [("sac", "actor", 0.0), ("td3", "all", 0.8)])
def test_a_run_into_quantization_equals_sb3(name, network, sparsity):
    (stock, engine), reasons = learn_both(name, lambda: quantize(network, sparsity=sparsity))
    assert not reasons
    assert quantized_bits(stock.policy) == quantized_bits(engine.policy) != {}
    deviation, where = distance(parameters(stock), parameters(engine))
    assert deviation < 1e-4, where


def test_quantized_targets_are_left_to_sb3():
    model = rewired("td3", "polyak", 0.8)
    mask_layers(model.policy.actor_target, persistent=False)
    model.policy.actor_target.mu[0].set_bits(8)
    assert "target" in why_not_now(model, find_update(model))


# DQN


@pytest.mark.parametrize("name", ["dqn", "qrdqn"])
def test_the_target_of_dqn_follows_in_the_engine(name, monkeypatch):
    """At the same steps as in SB3, and nobody looks at the model for it."""
    looks = []
    monkeypatch.setattr(Session, "look", lambda self: (looks.append(1), look(self)))
    (stock, engine), _ = learn_both(name, lambda: [], steps=40)
    assert len(looks) < 10
    assert stock._n_calls == engine._n_calls and stock.exploration_rate == engine.exploration_rate
    deviation, where = distance(parameters(stock), parameters(engine))
    assert deviation < 1e-3, where


look = Session.look
