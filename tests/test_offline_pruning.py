"""
Pruning of offline algorithms: what always holds of masks, and that what single-shot pruning leaves still learns.
"""

import json
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, QATCallback, RewiringCallback, summarize
from sb3_sparse.callbacks import restore
from sb3_sparse.nn import find_networks, prunable_layers
from sb3_sparse.offline import BC, BCQ
from sb3_sparse.sparsity import MOMENTS, SALIENCIES
from sb3_sparse.state import SparsityState
from tests.double_integrator import DoubleIntegrator, record, returns, score
from tests.invariants import Watch
from tests.offline import CASES
from tests.rewirings import Rewirings, masks_of
from tests.test_offline import data_of, expect_same
from tests.test_run import expect_sparsity

#: Tiny networks have tiny layers.
SMALL = pytest.mark.filterwarnings("ignore:pruning has (left|cut) network")


@SMALL
@pytest.mark.parametrize("saliency", SALIENCIES)
@pytest.mark.parametrize("name", CASES)
def test_at_once(name, saliency):
    """From before the first update on, exactly; whatever an optimizer or the averaging does."""
    model = CASES[name].make()
    assert tuple(summarize(model).networks) == CASES[name].networks
    watch = Watch()
    # Adam has no second moments before its first step.
    at = 3 if saliency in MOMENTS else 0
    model.learn(15, callback=[OneShotPruningCallback("all", 0.8, at=at, saliency=saliency), watch])
    assert watch.looks == 15 * len(CASES[name].networks)
    expect_sparsity(model, 0.8)
    model.learn(15, callback=Watch(), reset_num_timesteps=False)
    expect_sparsity(model, 0.8)


@SMALL
@pytest.mark.parametrize("name", CASES)
def test_gradually(name):
    model = CASES[name].make()
    model.learn(20, callback=[GradualPruningCallback("all", 0.8, update_freq=3, saliency="grasp"), Watch()])
    expect_sparsity(model, 0.8)


@pytest.mark.quick("*-gradient-topk", "*-random-mask")
@pytest.mark.parametrize("targets", ["topk", "mask"])
@pytest.mark.parametrize("grow", ["random", "gradient"])
@pytest.mark.parametrize("name", ["bcq", "discrete_bcq"])
def test_rewiring(name, grow, targets):
    """Counts stay, new weights begin at nothing, target networks obey their rule; the gradient is there at once."""
    model = CASES[name].make()
    watch = Rewirings(targets)
    static = OneShotPruningCallback("all", 0.5, saliency="random", targets=targets)
    model.learn(35, callback=[static, RewiringCallback("all", 0.3, update_freq=10, grow=grow, targets=targets), watch])
    assert [step for step, *_ in model.sparsity_state["topology"][CASES[name].networks[0]]] == [10, 20, 30]
    assert len(watch.steps) == 3


@pytest.mark.parametrize("name", CASES)
def test_nothing_asked_for(name):
    """With a sparsity of 0 and no quantization yet, training is what it is without callbacks, bit for bit."""
    plain = CASES[name].make().learn(15)
    model = CASES[name].make()
    callbacks = [GradualPruningCallback("all", 0.0), OneShotPruningCallback("all", 0.9, at=100), QATCallback("all", start=100)]
    expect_same(plain, model.learn(15, callback=callbacks))


@SMALL
@pytest.mark.parametrize("name", CASES)
def test_every_zip_is_masked(name, tmp_path):
    """Checkpoints, the best model and the last one: weights, moments and target networks; nothing of it is pickled."""
    case = CASES[name]
    model = case.make(data_of(name))
    callbacks = [
        OneShotPruningCallback("all", 0.8, saliency="snip"),
        CheckpointCallback(5, str(tmp_path), name_prefix="step"),
        EvalCallback(
            Monitor(gym.make(case.env)),
            best_model_save_path=str(tmp_path),
            eval_freq=6,
            n_eval_episodes=1,
            verbose=0,
            warn=False,
        ),
    ]
    model.learn(10, callback=callbacks)
    model.save(tmp_path / "final.zip")
    zips = sorted(path.name for path in tmp_path.glob("*.zip"))
    assert zips == ["best_model.zip", "final.zip", "step_10_steps.zip", "step_5_steps.zip"]
    for path in zips:
        with zipfile.ZipFile(tmp_path / path) as archive:
            assert ":serialized:" not in json.loads(archive.read("data"))["sparsity_state"]
        loaded = case.algorithm.load(tmp_path / path, device="cpu")
        state = SparsityState(loaded)
        layers = prunable_layers(loaded.policy)
        for network, own in find_networks(loaded.policy).items():
            optimizer = loaded.policy.networks[network].optimizer
            for layer, module in own.items():
                pruned = ~state.load_mask(layer, module.weight.shape)
                twin = layers.get(layer.replace(network, f"{network}_target", 1))
                moments = [value for key, value in optimizer.state[module.weight].items() if key != "step"]
                assert len(moments) == 2 and (twin is not None) == (f"{network}_target" in case.targets)
                for values in (module.weight, *moments, *([] if twin is None else [twin.weight])):
                    assert not values[pruned].any(), (path, layer)
            kept = sum(int(state.load_mask(layer, module.weight.shape).sum()) for layer, module in own.items())
            assert kept == round(0.2 * sum(module.weight.numel() for module in own.values()))


@pytest.mark.parametrize("targets", ["mask", "polyak"])
def test_targets(targets):
    model = CASES["bcq"].make()
    model.learn(10, callback=OneShotPruningCallback("all", 0.9, at=5, targets=targets))
    for network in ("critic", "actor"):
        layers = prunable_layers(model.policy)
        for name, layer in find_networks(model.policy)[network].items():
            twin = layers[name.replace(network, f"{network}_target", 1)]
            assert bool(twin.weight[~layer.mask].any()) is (targets == "polyak")


def test_the_masks_of_snip_follow_from_a_batch():
    """The largest |w g| of each network's own loss, all on one batch; encoder and decoder are ranked for themselves."""
    model, dense = CASES["bcq"].make(), CASES["bcq"].make()
    drawn, sample = [], model.sample

    def record_batch(size, generator=None):
        batch = sample(size, generator)
        drawn.append((batch, generator.get_state()))
        return batch

    model.sample = record_batch
    callback = OneShotPruningCallback("all", 0.8, saliency="snip", n_samples=30)
    model._setup_learn(10, callback)
    callback.init_callback(model)
    callback.on_training_start({}, {})
    batch, state = drawn[-1]
    assert len(batch.rewards) == 30
    masks = masks_of(model)
    for network, loss in dense.losses(batch, generator=th.Generator().set_state(state)).items():
        weights = {name: layer.weight for name, layer in find_networks(dense.policy)[network].items()}
        gradients = th.autograd.grad(loss(), list(weights.values()))
        scores = {name: (w * g).abs() for (name, w), g in zip(weights.items(), gradients, strict=True)}
        parts = ("vae.encoder", "vae.decoder") if network == "vae" else (network,)
        for part in parts:
            own = [name for name in scores if name.startswith(part)]
            together, kept = (th.cat([values[name].flatten() for name in own]) for values in (scores, masks))
            assert abs(int(kept.sum()) - 0.2 * len(kept)) <= 1
            assert together[kept].min() >= together[~kept].max()


@pytest.mark.parametrize("name", ["bcq", "bc_mlp"])
def test_quantized(name, tmp_path):
    """A loaded model predicts as the quantized one once its quantizers are back."""
    case = CASES[name]
    model = case.make()
    model.learn(10, callback=[OneShotPruningCallback("all", 0.5), QATCallback("all", 0.5, bits=4), Watch()])
    model.save(tmp_path / "agent.zip")
    observations = model.dataset.batch(np.arange(20)).observations.numpy()
    loaded = case.algorithm.load(tmp_path / "agent.zip", device="cpu")
    actions = model.predict(observations, deterministic=True)[0]
    assert not np.array_equal(loaded.predict(observations, deterministic=True)[0], actions)
    restore(loaded)
    np.testing.assert_array_equal(loaded.predict(observations, deterministic=True)[0], actions)


@pytest.fixture(scope="module")
def data():
    return record(100)


# The double integrator, three seeds, networks of 64 and 64 units. Returns are shares of the expert's: 0 is to do nothing, 1 is
# the expert. All masks are ranked over a whole network, or encoder or decoder of a VAE, so they differ in the saliency alone;
# random ones leave next to nothing of a small layer, which "erk" would spare.


def train(algorithm, data, updates, sparsity, saliency, seed, **kwargs):
    model = algorithm("MlpPolicy", data, policy_kwargs={"net_arch": [64, 64]}, seed=seed, device="cpu", **kwargs)
    pruning = OneShotPruningCallback("all", sparsity, saliency=saliency, distribution="global_")
    model.learn(updates, callback=pruning)
    expect_sparsity(model, sparsity)
    return score(model)


# Random masks leave next to nothing of some layers, and say so.
@pytest.mark.quick("mlp-0", "vae-0")
@SMALL
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", ["mlp", "vae"])
def test_cloning_at_95_percent(mode, seed, data):
    snip, grasp, random = (train(BC, data, 600, 0.95, name, seed, mode=mode) for name in ("snip", "grasp", "random"))
    assert snip >= 0.97
    assert grasp >= 0.90
    assert random <= 0.60


@pytest.mark.quick("snip-0", "grasp-0")
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
