"""Policies and networks that torch.compile has wrapped: names of layers, budgets, masks and files are as without it."""

import zipfile

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC

from sb3_sparse import EngineCallback, OneShotPruningCallback, QATCallback, RewiringCallback, compress, restore, summarize
from sb3_sparse.agents import load_agent
from sb3_sparse.agents.count import summarize_agent
from sb3_sparse.cli import main
from sb3_sparse.nn import find_networks, find_twins, overlooked_layers, select_networks
from tests.algorithms import CASES

#: What is compiled: the whole policy, or some of its networks and layers.
COMPILED = [("sac", ("actor", "critic")), ("sac", ()), ("dqn", ("q_net",)), ("ppo", ("mlp_extractor",))]


def make(name, sparse=False, **kwargs):
    return CASES[name].make(sparse=sparse, **kwargs)


def wrap(model, parts):
    """The backend computes by the same operations, so the results are the same to the last bit."""
    if not parts:
        model.policy = th.compile(model.policy, backend="eager")
    for part in parts:
        setattr(model.policy, part, th.compile(getattr(model.policy, part), backend="eager"))
    return model


def callbacks():
    static = OneShotPruningCallback("all", 0.5, saliency="random", targets="topk")
    return [static, RewiringCallback("all", 0.3, update_freq=15), QATCallback("all", 0.5)]


def observations(model, count=20):
    return np.stack([model.observation_space.sample() for _ in range(count)])


@pytest.mark.parametrize(("name", "parts"), COMPILED, ids=str)
def test_everything_is_as_without_compilation(name, parts, tmp_path):
    plain = make(name).learn(64, callback=callbacks())
    compiled = wrap(make(name), parts).learn(64, callback=callbacks())
    assert compiled.sparsity_state == plain.sparsity_state
    assert str(summarize(compiled)) == str(summarize(plain))
    seen = observations(plain)
    exported = [compress(model, bits=32, backend="numpy") for model in (plain, compiled)]
    np.testing.assert_array_equal(exported[0].predict(seen)[0], exported[1].predict(seen)[0])
    np.testing.assert_allclose(
        exported[1].predict(seen)[0], compiled.predict(seen, deterministic=True)[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "parts", "sparse"),
    [("sac", ("actor", "critic"), False), ("dqn", ("q_net", "q_net_target"), True), ("ppo", (), True), ("ppo", (), False)],
    ids=str,
)
def test_a_zip_loads_with_its_masks(name, parts, sparse, tmp_path, capsys):
    model = wrap(make(name, sparse=sparse), parts)
    model.learn(64, callback=callbacks())
    agent = tmp_path / "agent.zip"
    model.save(agent)
    loaded = load_agent(agent)
    assert summarize(loaded).networks == summarize(model).networks
    seen = observations(model)
    np.testing.assert_array_equal(*(each.predict(seen, deterministic=True)[0] for each in (loaded, model)))
    counted = summarize_agent(agent, load=False).networks
    assert {network: part.nonzero for network, part in counted.items()} == {
        network: part.nonzero for network, part in summarize(model).networks.items()
    }
    main(["compress", str(agent), "-o", str(tmp_path / "out"), "--no-latency"])
    assert (tmp_path / "out/agent.sb3s").exists()


def test_budgets_are_by_network():
    """Without the names of networks, actor, critics and targets would share one budget."""
    model = wrap(make("sac"), ())
    model.learn(40, callback=OneShotPruningCallback("all", 0.75))
    for layers in find_networks(model.policy).values():
        total = sum(layer.weight.numel() for layer in layers.values())
        assert sum(int(layer.mask.sum()) for layer in layers.values()) == round(0.25 * total)


def test_names():
    plain, model = make("sac"), wrap(wrap(make("sac"), ("actor", "critic", "critic_target")), ())
    names = {network: list(layers) for network, layers in find_networks(plain.policy).items()}
    assert {network: list(layers) for network, layers in find_networks(model.policy).items()} == names
    assert list(select_networks(model.policy, "all", ["qf*", "actor.mu"])) == ["actor"]
    assert sorted(map(len, find_twins(model.policy).values())) == sorted(map(len, find_twins(plain.policy).values()))
    assert overlooked_layers(model.policy) == []
    with pytest.raises(ValueError, match="SACPolicy has no network 'q_net'"):
        select_networks(model.policy, "q_net")


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, of the layer's input.
def test_a_compiled_layer_is_pruned_and_exported():
    model = wrap(make("sac"), ())
    model.policy.actor.mu = th.compile(model.policy.actor.mu, backend="eager")
    model.policy.actor.latent_pi[0] = th.compile(model.policy.actor.latent_pi[0], backend="eager")
    model.learn(40, callback=OneShotPruningCallback("actor", 0.5))
    assert list(summarize(model).networks["actor"].layers) == [
        "actor.latent_pi.0", "actor.latent_pi.2", "actor.mu", "actor.log_std"
    ]  # fmt: skip
    seen = observations(model)
    expected = model.predict(seen, deterministic=True)[0]
    np.testing.assert_allclose(compress(model, bits=32, backend="numpy").predict(seen)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [(), ("actor", "critic")], ids=str)
def test_the_engine_trains_them(parts):
    def train(model):
        return model.learn(40, callback=[OneShotPruningCallback("actor", 0.9), EngineCallback(strict=True)])

    plain, compiled = train(make("sac")), train(wrap(make("sac"), parts))
    for own, other in zip(plain.policy.parameters(), compiled.policy.parameters(), strict=True):
        th.testing.assert_close(own, other, rtol=0, atol=0)


@pytest.mark.parametrize("continued", [False, True])
def test_saved_masks_of_layers_that_are_missing(continued, tmp_path):
    model = make("sac", policy_kwargs={"net_arch": [16, 16, 16]})
    model.learn(40, callback=[OneShotPruningCallback("actor", 0.5), QATCallback("actor", 0.5)])
    other = make("sac", policy_kwargs={"net_arch": [16]})
    state = {"masks": dict(model.sparsity_state["masks"]), "bits": dict(model.sparsity_state["bits"])}
    for part in state.values():
        del part["actor.mu"], part["actor.latent_pi.0"]
    other.sparsity_state = state
    message = (
        "SACPolicy does not have all layers with saved masks or quantizers as plain nn.Linear, nn.Conv1d, nn.Conv2d or "
        "nn.LSTM, and nothing is restored in actor.latent_pi.2, actor.latent_pi.4: load the model with the policy that it was "
        "saved with"
    )
    with pytest.warns(UserWarning) as caught:
        if continued:
            other.learn(1, callback=OneShotPruningCallback("critic", 0.5))
        else:
            restore(other)
    assert [str(warning.message) for warning in caught] == [message]
    assert {"actor.latent_pi.2", "actor.latent_pi.4"} <= set(other.sparsity_state["masks"])
    assert {"actor.latent_pi.2", "actor.latent_pi.4"} <= set(other.sparsity_state["bits"])


def test_names_in_the_zip_are_those_that_torch_gives(tmp_path):
    """If SB3 or torch changes this, ``load_agent`` need not rename."""
    model, agent = wrap(make("sac"), ("actor",)), tmp_path / "agent.zip"
    model.save(agent)
    with zipfile.ZipFile(agent) as archive, archive.open("policy.pth") as file:
        assert any(name.startswith("actor._orig_mod.") for name in th.load(file, weights_only=True))
    with pytest.raises(RuntimeError, match="Missing key"):
        SAC.load(agent)
