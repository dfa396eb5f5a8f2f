"""Distributions with arguments, as YAML writes them, in callbacks and sparse policies: counts that lambdas fix, or draw."""

from functools import partial

import pytest
import torch as th
from stable_baselines3 import SAC, TD3

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback
from sb3_sparse.policies import SparseTD3Policy
from sb3_sparse.sparsity import erdos_renyi

#: Pendulum: 3 inputs, 1 action. Of the hidden layers of 32-32, round(2 (n_in + n_out)) weights exist, at most all.
LAMBDAS = {"erdos_renyi": {"lambdas": [2, 4]}}
DRAWN = {"erdos_renyi": {"lambdas": [2, 4], "counts": "bernoulli"}}
HIDDEN = {"actor.mu.0": 70, "actor.mu.2": 256} | {f"critic.qf{i}.{j}": n for i in range(2) for j, n in ((0, 72), (2, 256))}
OUTPUTS = ["actor.mu.4", "critic.qf*.4"]
SMALL = {"buffer_size": 100, "learning_starts": 10, "batch_size": 8, "seed": 0}
NET = {"net_arch": [32, 32]}


def make(policy="MlpPolicy", **policy_kwargs):
    return TD3(policy, "Pendulum-v1", policy_kwargs=NET | policy_kwargs, **SMALL)


def counts(model):
    return {name: int(weight.count_nonzero()) for name, weight in weights_of(model).items()}


def weights_of(model):
    parameters = dict(model.policy.named_parameters())
    return {name: parameters[f"{name}.weight"] for name in HIDDEN}


def one_shot(distribution, sparsity=None, **kwargs):
    return OneShotPruningCallback("all", sparsity, saliency="random", distribution=distribution, exclude=OUTPUTS, **kwargs)


def test_callback():
    model = make()
    model.learn(20, callback=one_shot(LAMBDAS))
    assert counts(model) == HIDDEN
    assert all(model.policy.get_parameter(f"{name}.weight").all() for name in ("actor.mu.4", "critic.qf1.4"))


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_lambdas_leave_a_sparsity_nothing_to_say(sparsity):
    """0.0 is what a sparse policy has by default: it would be dense without a word."""
    message = f"sparsity={sparsity} must not be given: give sparsity=None"
    with pytest.raises(ValueError, match=message):
        one_shot(LAMBDAS, sparsity)
    with pytest.raises(ValueError, match=message):
        one_shot(partial(erdos_renyi, lambdas=(2, 4)), sparsity)
    for given in ({}, {"sparsity": sparsity}, {"sparsity": {"actor": None, "critic": sparsity}}):
        with pytest.raises(ValueError, match=message if given else "sparsity=0.0 must not be given"):
            make(SparseTD3Policy, exclude=OUTPUTS, distribution=LAMBDAS, **given)


def test_nothing_pruned_is_said_once():
    """Lambdas that ask for more than there is, a sparsity below one weight, and one that the network is beyond."""
    model = make()
    large = {"erdos_renyi": {"lambdas": [7, 64]}}
    with pytest.warns(UserWarning) as found:
        model.learn(20, callback=one_shot(large))
    expected = [f"lambdas (7, 64) keep every layer of network '{network}' dense" for network in ("actor", "critic")]
    assert [str(warning.message) for warning in found] == expected
    model.learn(20, callback=one_shot(large), reset_num_timesteps=False)
    with pytest.warns(UserWarning, match="a sparsity of 1e-06 keeps every layer of network 'actor' dense"):
        model.learn(1, callback=OneShotPruningCallback("actor", 1e-6))
    model.learn(1, callback=OneShotPruningCallback("critic", 0.9))
    before = "network 'critic' has a sparsity of 0.90 already, more than the "
    with pytest.warns(UserWarning, match=before + "0.5 asked for"):
        model.learn(1, callback=OneShotPruningCallback("critic", 0.5))
    with pytest.warns(UserWarning, match=before + r"lambdas \(7, 64, 1\) asked for"):
        model.learn(1, callback=OneShotPruningCallback("critic", None, distribution={"erdos_renyi": {"lambdas": [7, 64, 1]}}))
    # As sparse as asked for, or nothing asked for, is nothing to be said.
    for sparsity in (0.0, 0.9):
        model.learn(1, callback=OneShotPruningCallback("critic", sparsity, seed=3))


def test_yaml_and_code_say_the_same(tmp_path):
    """A run from a recipe goes on from a script; other lambdas are another run."""
    model = make()
    model.learn(20, callback=one_shot(LAMBDAS, seed=1))
    model.save(tmp_path / "agent")
    model = TD3.load(tmp_path / "agent", env=model.get_env())
    model.learn(10, callback=one_shot(partial(erdos_renyi, lambdas=(2, 4)), seed=1), reset_num_timesteps=False)
    assert len(model.sparsity_state["callbacks"]) == 1
    model.learn(10, callback=one_shot({"erdos_renyi": {"lambdas": [1, 2]}}, seed=1), reset_num_timesteps=False)
    first, second = model.sparsity_state["callbacks"]
    assert "'distribution'" not in first and "distribution=\"erdos_renyi(('lambdas', (2, 4)))\"" in first
    assert "distribution=\"erdos_renyi(('lambdas', (1, 2)))\"" in second
    model.learn(10, callback=one_shot("erdos_renyi", 0.9), reset_num_timesteps=False)
    assert "distribution='erdos_renyi'" in list(model.sparsity_state["callbacks"])[2]


def test_drawn_counts():
    """Two seeds draw two networks; each within six sigma, and the same again from the same seed."""
    seen = []
    for seed in (0, 1, 1):
        model = make()
        model.learn(1, callback=one_shot(DRAWN, seed=seed))
        seen.append(counts(model))
        assert all(abs(seen[-1][name] - expected) <= 6 * expected**0.5 for name, expected in HIDDEN.items())
    assert seen[0] != seen[1] == seen[2]


def test_sparse_policy(tmp_path):
    """Lambdas in policy_kwargs are saved with the model."""
    outputs = {"exclude": OUTPUTS, "distribution": LAMBDAS}
    model = make(SparseTD3Policy, sparsity=None, **outputs)
    assert counts(model) == HIDDEN
    model.save(tmp_path / "agent")
    loaded = TD3.load(tmp_path / "agent")
    assert loaded.policy_kwargs["distribution"] == LAMBDAS
    assert all(th.equal(weight, weights_of(model)[name]) for name, weight in weights_of(loaded).items())
    only = make(SparseTD3Policy, sparsity={"actor": None}, exclude=["actor.mu.4"], distribution=LAMBDAS)
    assert {name: n for name, n in counts(only).items() if n == HIDDEN[name]} == {"actor.mu.0": 70, "actor.mu.2": 256}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sparsity": None}, "sparsity=None needs a distribution whose counts are fixed"),
        ({"sparsity": None, "distribution": {"erdos_renyi": {}}}, "give a sparsity, or lambdas"),
        ({"sparsity": 0.5, "distribution": {"erk": {"lambdas": [1]}}}, "distribution 'erk' has no arguments"),
        ({"sparsity": 0.5, "distribution": {"x": {}}}, "unknown distribution 'x': use one of uniform"),
        ({"sparsity": None, "distribution": DRAWN, "saliency": "magnitude"}, "draws the weights: use saliency 'random'"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        OneShotPruningCallback("all", **kwargs)
    with pytest.raises(ValueError, match=message):
        make(SparseTD3Policy, **kwargs)


def test_errors_before_training():
    """What only the layers can tell: three of them have no two lambdas. And fixed counts cannot be reached gradually."""
    with pytest.raises(ValueError, match="network 'actor': erdos_renyi needs one positive lambda for each of"):
        make().learn(1, callback=OneShotPruningCallback("actor", None, distribution=LAMBDAS))
    for fixed in (LAMBDAS, DRAWN, {"erdos_renyi": {"lambdas": [700, 700]}}):
        callback = GradualPruningCallback("actor", 0.9, distribution=fixed, exclude=["mu.4"])
        with pytest.raises(ValueError, match="has fixed counts, which cannot be reached gradually"):
            make().learn(1, callback=callback)


def test_magnitude_by_sign_in_a_callback():
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=NET, **SMALL)
    before = {name: weight.clone() for name, weight in model.actor.named_parameters() if name == "latent_pi.2.weight"}
    model.learn(1, callback=OneShotPruningCallback("actor", 0.75, saliency="magnitude_by_sign", distribution="uniform"))
    weight, old = model.actor.latent_pi[2].weight, before["latent_pi.2.weight"]
    for sign in (1, -1):
        assert int((weight.sign() == sign).sum()) == pytest.approx(0.25 * int((old.sign() == sign).sum()), abs=1)
