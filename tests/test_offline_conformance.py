"""Every row of the table of offline algorithms learns, is saved, resumed, pruned, exported, counted and known to rl-zoo3."""

import pickle

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse import OneShotPruningCallback, compress, summarize
from sb3_sparse.agents.archive import read_settings
from sb3_sparse.agents.load import load_agent
from sb3_sparse.cost import read_training
from sb3_sparse.offline import ALGORITHMS, DiscreteBCPolicy, DiscreteBCQPolicy
from tests.invariants import check, check_targets
from tests.offline import BOX, DISCRETE, make_data, transitions
from tests.test_offline import expect_same, weights_of

#: Tiny networks have tiny layers.
SMALL = pytest.mark.filterwarnings("ignore:pruning has (left|cut) network")
EVERY = pytest.mark.parametrize("name", ALGORITHMS)
OBSERVATIONS = transitions()["observations"]


def make(name):
    algorithm = ALGORITHMS[name]
    data = make_data(action_space=BOX if spaces.Box in algorithm.action_spaces else DISCRETE)
    arch = {"net_arch": [16, 16]}
    return algorithm("MlpPolicy", data, batch_size=16, policy_kwargs=arch, seed=0, device="cpu")


def test_zips_of_earlier_versions_find_their_policies():
    """The discrete algorithms shared a module, which their zips name."""
    for policy in (DiscreteBCPolicy, DiscreteBCQPolicy):
        assert pickle.loads(f"csb3_sparse.offline.discrete\n{policy.__name__}\n.".encode()) is policy


class SaveAt(BaseCallback):
    def __init__(self, path, updates):
        super().__init__()
        self.path, self.updates = path, updates

    def _on_step(self):
        if self.num_timesteps in self.updates:
            self.model.save(self.path / f"{self.num_timesteps}.zip")
        return True


@EVERY
def test_it_learns_and_comes_back(name, tmp_path):
    """Every network and every target network changes; a loaded model predicts the same."""
    model = make(name)
    before = weights_of(model)
    model.learn(6).save(tmp_path / "agent.zip")
    changed = {key.split(".")[0] for key, value in weights_of(model).items() if not th.equal(value, before[key])}
    assert changed == {child for child, module in model.policy.named_children() if list(module.parameters())}
    loaded = ALGORITHMS[name].load(tmp_path / "agent.zip", device="cpu")
    expect_same(model, loaded)
    actions, expected = (agent.predict(OBSERVATIONS, deterministic=True)[0] for agent in (loaded, model))
    np.testing.assert_array_equal(actions, expected)
    assert all(model.action_space.contains(action) for action in actions)
    assert type(load_agent(tmp_path / "agent.zip")) is type(load_agent(tmp_path / "agent.zip", name)) is ALGORITHMS[name]


@SMALL
@pytest.mark.parametrize("saliency", ["snip", "grasp"])
@EVERY
def test_it_is_pruned_and_resumed(name, saliency, tmp_path):
    """Exactly; cut before, at and after the pruning, it ends as if it had never stopped."""
    cuts = (5, 10, 15)
    through = make(name)
    through.learn(20, callback=[OneShotPruningCallback("all", 0.6, at=10, saliency=saliency), SaveAt(tmp_path, cuts)])
    check(through)
    check_targets(through)
    for network in summarize(through).networks.values():
        assert network.connections == round(0.4 * network.total)
    for cut in cuts:
        resumed = ALGORITHMS[name].load(tmp_path / f"{cut}.zip", dataset=through.dataset, device="cpu")
        th.manual_seed(cut)
        callback = OneShotPruningCallback("all", 0.6, at=10, saliency=saliency)
        resumed.learn(20 - cut, callback=callback, reset_num_timesteps=False)
        expect_same(through, resumed)
        assert resumed.sparsity_state == through.sparsity_state


@EVERY
def test_it_is_exported_or_refused_by_name(name):
    model = make(name).learn(3)
    try:
        policy = compress(model, bits=32)
    except ValueError as error:
        assert ALGORITHMS[name].__name__ in str(error) and "cannot be exported" in str(error)
        return
    expected, _ = model.predict(OBSERVATIONS, deterministic=True)
    np.testing.assert_allclose(policy.predict(OBSERVATIONS, deterministic=True)[0], expected, atol=1e-5)


@EVERY
def test_its_updates_are_counted(name, tmp_path):
    """The same from the model and from its zip."""
    model = make(name)
    model.save(tmp_path / "agent.zip")
    training = summarize(model).training
    assert training == read_training(read_settings(tmp_path / "agent.zip"))
    assert (training.batch_size, training.updates_per_step, training.clock) == (16, 1.0, "gradient updates")
    assert set(training.delays) <= set(model.policy.networks)
    # Each named part exists, or a model without it would fail here.
    assert summarize(model).training_flops(10) >= 10 * 16 * 3 * summarize(model).flops / max(
        training.delays.values(), default=1
    )


@EVERY
def test_rl_zoo3_knows_it(name):
    rl_zoo3 = pytest.importorskip("rl_zoo3")
    from sb3_sparse.zoo import register

    register()
    assert rl_zoo3.ALGOS[name] is ALGORITHMS[name]


@EVERY
def test_other_actions_are_refused(name):
    """With the algorithms that take them."""
    algorithm = ALGORITHMS[name]
    other = DISCRETE if spaces.Box in algorithm.action_spaces else BOX
    fitting = [cls.__name__ for cls in ALGORITHMS.values() if isinstance(other, cls.action_spaces)]
    message = rf"{algorithm.__name__} takes .* actions, and the dataset has {type(other).__name__}.*: use .*{fitting[-1]}"
    with pytest.raises(ValueError, match=message):
        algorithm("MlpPolicy", make_data(action_space=other), device="cpu")
