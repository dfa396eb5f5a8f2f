"""Target networks: as many weights as their online twins (`topk`), the same ones (`mask`), or the plain average (`polyak`)."""

import copy
import sys
from itertools import product

import numpy as np
import pytest
import torch as th
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import polyak_update

from sb3_sparse import OneShotPruningCallback, RewiringCallback, compress
from sb3_sparse.callbacks.rewiring.topk import TopkFollower, keep_largest, keep_largest_on_device
from sb3_sparse.nn import MaskedLayer, MaskedLinear
from tests.algorithms import CASES
from tests.rewirings import Rewirings, followers, rewiring, sparse_model

#: The algorithms with target networks, and how they average.
TARGETS = {
    "td3": ("td3", {}),
    "sac": ("sac", {}),
    "tqc": ("tqc", {}),
    "ddpg": ("ddpg", {}),
    "dqn-soft": ("dqn", {"tau": 0.5}),
    "dqn-hard": ("dqn", {"tau": 1.0}),
    "qrdqn": ("qrdqn", {"tau": 0.5}),
}

# ---------------------------------------------------------------- the largest


def naive(weight, like):
    """Sort, and keep the first; of equals the lower index."""
    flat = weight.flatten().tolist()
    ranked = sorted(range(len(flat)), key=lambda i: (-abs(flat[i]), i))
    kept = set(ranked[: int((like != 0).sum())])
    return th.tensor([value if i in kept else 0.0 for i, value in enumerate(flat)]).view(weight.shape)


@settings(max_examples=300, deadline=None)
@given(
    shape=st.sampled_from([(1,), (13,), (6, 7), (2, 3, 2, 2)]),
    seed=st.integers(0, 2**32 - 1),
    decimals=st.sampled_from([0, 1, 6]),
    densities=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    likely=st.none() | st.floats(0, 1),
)
@example(shape=(13,), seed=0, decimals=0, densities=(1.0, 0.0), likely=0.0)
def test_keep_largest(shape, seed, decimals, densities, likely):
    """Fast, on a device, and as one would write it down: the same, with ties and zeros, whatever the candidates."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape, dtype=np.float32).round(decimals) * (rng.random(shape) < densities[0])
    weight, like = th.from_numpy(weight.astype(np.float32)), th.from_numpy(rng.random(shape) < densities[1])
    expected = naive(weight, like)
    fast, there, off = weight.clone(), weight.clone(), weight.clone()
    candidates = None if likely is None else np.flatnonzero(rng.random(weight.numel()) < likely)
    again = keep_largest(fast, like, candidates)
    keep_largest_on_device(there, like, th.tensor(True))
    keep_largest_on_device(off, like, th.tensor(False))
    assert th.equal(fast, expected) and th.equal(there, expected) and th.equal(off, weight)
    keep_largest(fast, like, again)
    assert th.equal(fast, expected), "once more changes nothing"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tau=st.floats(0.001, 1), noise=st.floats(0, 1), decimals=st.sampled_from([2, 7]))
def test_keep_largest_again_and_again(seed, tau, noise, decimals):
    """Many soft updates with the candidates of the last time, and weights that move a little or a lot in between."""
    rng = np.random.default_rng(seed)
    mask = rng.random((20, 30)) < 0.5
    online = th.from_numpy((rng.normal(size=mask.shape) * mask).astype(np.float32))
    target, expected, candidates = online.clone(), online.clone(), None
    for step in range(12):
        if step % 4 == 3:
            mask = rng.permuted(mask, axis=1)
        online = (online + noise * th.from_numpy(rng.normal(size=mask.shape).astype(np.float32))) * th.from_numpy(mask)
        online = (online * 10**decimals).round() / 10**decimals
        for tensor in (target, expected):
            tensor.mul_(1 - tau).add_(online, alpha=tau)
        expected = naive(expected, online != 0)
        candidates = keep_largest(target, online, candidates)
        assert th.equal(target, expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [1, 3, 50])
def test_a_layer_whose_bias_stands_still(outputs, bias):
    """The weights of a layer move, and its bias has arrived: it is pruned all the same."""
    online, target = MaskedLinear(20, outputs, bias=bias), th.nn.Linear(20, outputs, bias=bias)
    mask = th.zeros_like(online.mask)
    mask[:, :5] = True
    online.set_mask(mask)
    follower = TopkFollower(online, target)
    follower.prune()
    if bias:
        online.bias.data[: min(outputs, 20)] = target.bias.data[: min(outputs, 20)]
    for _ in range(3):
        polyak_update(online.parameters(), target.parameters(), 0.1)
        assert int((target.weight != 0).sum()) > int(mask.sum())
        target(th.rand(2, 20))
        assert int((target.weight != 0).sum()) == int(mask.sum())


# ---------------------------------------------------------------- runs


class SoftUpdates(Rewirings):
    """
    Looks at every average as it is made, and compares what comes of it with the online network of that moment.

    :param targets: The rule for target networks.
    """

    def __init__(self, targets, monkeypatch):
        super().__init__(targets)
        self.monkeypatch = monkeypatch
        self.averages = self.forwards = self.pruned = 0

    def _init_callback(self):
        self.before, self.averaged, self.online = {}, {}, {}
        self.monkeypatch.setattr(sys.modules[type(self.model).train.__module__], "polyak_update", self._average)

    def _on_training_start(self):
        super()._on_training_start()
        hooks = [twin.register_forward_hook(self._used) for _, twin in followers(self.model)]
        self._handles += hooks

    def _average(self, params, target_params, tau):
        params, target_params = list(params), list(target_params)
        mine = [(layer, twin) for layer, twin in followers(self.model) if any(twin.weight is p for p in target_params)]
        for _, twin in mine:
            if self.targets == "polyak" and twin in self.averaged:
                assert th.equal(twin.weight, self.averaged[twin]), "nobody else has touched it"
        polyak_update(params, target_params, tau)
        for layer, twin in mine:
            self.averages += 1
            self.averaged[twin] = twin.weight.detach().clone()
            self.online[twin] = layer.weight.detach().clone()

    def _used(self, twin, *_):
        self.forwards += 1
        self._check_target(twin)

    def _check_target(self, twin):
        if twin in self.averaged and self.targets == "topk":
            expected = naive(self.averaged[twin], self.online[twin])
            assert th.equal(twin.weight, expected), "the largest, and no more than the online layer had"
            self.pruned += not th.equal(expected, self.averaged[twin])

    def _look(self):
        super()._look()
        for layer, twin in followers(self.model):
            self._check_target(twin)
            if self.targets == "mask":
                assert not twin.weight[~layer.mask].any()
                assert not isinstance(twin, MaskedLayer) or th.equal(twin.mask, layer.mask)


@pytest.mark.quick("td3-*-stock-1", "sac-topk-sparse-4", "dqn-*-sparse-4")
@pytest.mark.parametrize(("sparse", "gradient_steps"), [(False, 1), (True, 4)], ids=["stock-1", "sparse-4"])
@pytest.mark.parametrize(
    ("name", "targets"), [*((name, "topk") for name in TARGETS), *product(["td3", "dqn-soft"], ["mask", "polyak"])]
)
def test_after_every_average(name, targets, sparse, gradient_steps, monkeypatch):
    """At every use of a target network, after every call of train(), in every step and at the end."""
    algorithm, kwargs = TARGETS[name]
    model = sparse_model(algorithm, sparse, gradient_steps=gradient_steps, **kwargs)
    watch = SoftUpdates(targets, monkeypatch)
    model.learn(51, callback=[*rewiring(sparse, targets=targets), watch])
    assert len(watch.steps) >= 2
    assert watch.averages > 0 and watch.forwards > 0
    assert bool(watch.pruned) == (targets == "topk" and name != "dqn-hard")
    if targets == "polyak":
        assert any(twin.weight[~layer.mask].any() for layer, twin in followers(model))


@pytest.mark.parametrize("train_freq", [4, (1, "episode")])
def test_averages_between_two_trainings(train_freq, monkeypatch):
    """DQN averages as it collects; whoever saves the model in a later callback finds it pruned."""
    model, watch = CASES["dqn"].make(tau=0.3, target_update_interval=3, train_freq=train_freq), SoftUpdates(
        "topk", monkeypatch
    )
    model.learn(150, callback=[*rewiring(), watch])
    assert watch.pruned > 0


@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
def test_targets_of_their_own_topology(sparse):
    """The places of a target's weights differ from the online ones, and a dense target is pruned before the first step."""
    model = sparse_model("td3", sparse)
    model.learn(61, callback=[*rewiring(sparse), Rewirings()])
    assert any(twin.weight[~layer.mask].any() for layer, twin in followers(model))
    stock = CASES["td3"].make()
    callbacks = rewiring()
    callbacks[0].targets = "polyak"
    stock.learn(5, callback=callbacks)
    for layer, twin in followers(stock):
        assert int((twin.weight != 0).sum()) == int(layer.mask.sum())


@pytest.mark.quick("topk-pruning-first", "mask-rewiring-first", "polyak-pruning-first")
@pytest.mark.parametrize("order", [1, -1], ids=["pruning-first", "rewiring-first"])
@pytest.mark.parametrize("targets", ["topk", "polyak", "mask"])
def test_whoever_changes_a_mask_last_decides_over_targets(targets, order):
    """The default of a pruning callback does not undo what a rewiring has done, also in later calls of learn()."""

    def callbacks(pruning):
        static = OneShotPruningCallback("all", 0.5, saliency="random", targets=pruning)
        return [static, RewiringCallback("all", 0.3, 10, targets=targets)][::order]

    ends = []
    for pruning in ("topk", "mask"):
        model = CASES["td3"].make()
        for _ in range(2):
            model.learn(41, callback=[*callbacks(pruning), Rewirings(targets)], reset_num_timesteps=not model.num_timesteps)
        ends.append(model.policy.state_dict())
    assert all(th.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_pruning_alone_keeps_its_rule():
    """Rewiring of one network has no say about the targets of another."""
    model = CASES["td3"].make()
    callbacks = [OneShotPruningCallback("all", 0.5, saliency="random"), RewiringCallback("critic", 0.3, 10)]
    model.learn(61, callback=callbacks)
    outside = {twin: bool(twin.weight[~layer.mask].any()) for layer, twin in followers(model)}
    assert not any(outside[twin] for twin in model.actor_target.modules() if twin in outside)
    assert any(outside[twin] for twin in model.critic_target.modules() if twin in outside)


def test_the_rule_outlasts_training():
    """As masks do: the targets of a model that goes on without the callback are pruned as before."""
    model, callbacks = CASES["td3"].make(), rewiring()
    model.learn(60, callback=callbacks)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    callbacks[1].on_training_end()
    assert all(th.equal(before[name], value) for name, value in model.policy.state_dict().items())
    model.learn(20, reset_num_timesteps=False)
    model.policy.state_dict()
    assert all(int((twin.weight != 0).sum()) <= int(layer.mask.sum()) for layer, twin in followers(model))
    for targets in ("topk", "polyak"):
        model.learn(20, callback=RewiringCallback("all", 0.3, 10, targets=targets), reset_num_timesteps=False)
        assert {len(layer._forward_pre_hooks) for layer in model.policy.modules()} == ({0, 1} if targets == "topk" else {0})
    assert any(int((twin.weight != 0).sum()) > int(layer.mask.sum()) for layer, twin in followers(model))


@pytest.mark.parametrize("name", ["td3", "dqn-hard"])
def test_the_trained_model_is_exported_in_the_same_session(name):
    """The hooks on the target layers do not lie on the path to an action."""
    algorithm, kwargs = TARGETS[name]
    model = sparse_model(algorithm, **kwargs)
    model.learn(120, callback=rewiring())
    assert any(twin._forward_pre_hooks for _, twin in followers(model))
    obs = np.stack([model.observation_space.sample() for _ in range(8)])
    actions = compress(model, bits=32, backend="numpy").predict(obs)[0]
    np.testing.assert_allclose(actions, model.predict(obs, deterministic=True)[0], rtol=1e-4, atol=1e-5)


def test_what_is_saved_between_two_looks_is_pruned():
    """rl-zoo3 saves after Ctrl-C, without the callback's end of training."""
    model = CASES["td3"].make(policy_delay=1)

    class Interrupt(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            if self.num_timesteps == 41:
                self.model.train(gradient_steps=1, batch_size=16)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.learn(80, callback=[*rewiring(), Interrupt()])
    assert any(int((twin.weight != 0).sum()) > int((layer.weight != 0).sum()) for layer, twin in followers(model))
    model.get_parameters()
    assert all(int((twin.weight != 0).sum()) <= int((layer.weight != 0).sum()) for layer, twin in followers(model))


def test_a_copy_of_the_policy_in_the_middle_of_training(tmp_path):
    """It can be used, saved and thrown away, and the original goes on as if nothing had been."""

    class Copy(Rewirings):
        def _on_step(self):
            if self.num_timesteps % 17 == 0:
                policy = copy.deepcopy(self.model.policy)
                obs, actions = th.linspace(-1, 1, 12).view(4, 3), th.zeros(4, 1)
                with th.no_grad():
                    values = zip(policy.critic_target(obs, actions), self.model.critic_target(obs, actions), strict=True)
                assert all(th.equal(*pair) for pair in values)
                policy.critic_target.qf0[2].weight.data.fill_(1.0)
                policy.critic_target.qf0[2].bias.data.fill_(1.0)
                policy.critic_target(obs, actions)
                self.model.policy.save(tmp_path / "policy.pth")
                self.model.save(tmp_path / "agent.zip")
            return super()._on_step()

    ends = []
    for watch in (Rewirings(), Copy()):
        model = CASES["td3"].make()
        model.learn(60, callback=[*rewiring(), watch])
        ends.append(model.policy.state_dict())
    assert all(th.equal(value, ends[1][name]) for name, value in ends[0].items())
