"""
What is left after single-shot pruning still learns: the double integrator, three seeds, networks of 64 and 64 units.

Returns are shares of the expert's: 0 is to do nothing, 1 is the expert. All masks are ranked over whole networks (those of a
VAE over encoder and decoder), so they differ in the saliency alone; the random ones leave a layer of few weights next to
none. ("erk" would spare it.)
"""

import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_sparse import OneShotPruningCallback
from sb3_sparse.offline import BC, BCQ
from tests.double_integrator import DoubleIntegrator, record, returns, score
from tests.test_run import expect_sparsity


@pytest.fixture(scope="module")
def data():
    return record(100)


def train(algorithm, data, updates, sparsity, saliency, seed, **kwargs):
    model = algorithm("MlpPolicy", data, policy_kwargs={"net_arch": [64, 64]}, seed=seed, device="cpu", **kwargs)
    pruning = OneShotPruningCallback("all", sparsity, saliency=saliency, distribution="global_")
    model.learn(updates, callback=pruning)
    expect_sparsity(model, sparsity)
    return score(model)


# Random masks leave next to nothing of some layers, and say so.
@pytest.mark.filterwarnings("ignore:pruning has left network")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", ["mlp", "vae"])
def test_cloning_at_95_percent(mode, seed, data):
    snip, grasp, random = (train(BC, data, 600, 0.95, name, seed, mode=mode) for name in ("snip", "grasp", "random"))
    assert snip >= 0.97
    assert grasp >= 0.90
    assert random <= 0.60


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("saliency", ["snip", "grasp"])
def test_bcq_at_90_percent(saliency, seed, data):
    assert train(BCQ, data, 300, 0.9, saliency, seed) >= 0.90


def test_in_the_environment(data):
    """What these tests compute for many episodes at once is what SB3 finds in the environment, one episode after the other."""
    model = BC("MlpPolicy", data, Monitor(DoubleIntegrator()), policy_kwargs={"net_arch": [8]}, mode="mlp", device="cpu")
    env = model.get_env()
    env.seed(0)
    found, lengths = evaluate_policy(model, env, n_eval_episodes=3, return_episode_rewards=True)
    env.seed(0)
    first = np.concatenate([env.reset() for _ in range(3)])
    expected = returns(lambda states: model.predict(states.astype(np.float32))[0], first)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert lengths == [60, 60, 60]
