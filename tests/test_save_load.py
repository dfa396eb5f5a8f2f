"""Saving and resuming: a run that was interrupted ends as one that never was."""

import json
import random
import re
import warnings
import zlib

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, QATCallback, restore, summarize
from sb3_sparse.nn import MaskedLayer, find_networks
from sb3_sparse.state import SparsityState
from tests.algorithms import CASES
from tests.invariants import Watch, check, check_targets

#: The algorithms whose whole training state SB3 can save: the others lose the rollout that is being collected.
RESUMABLE = ("sac", "td3", "ddpg", "dqn", "tqc", "qrdqn", "crossq")


def seed_everything(model, seed):
    """As if both runs came to this point with the same random numbers and a new episode."""
    random.seed(seed)
    np.random.seed(seed)
    th.manual_seed(seed)
    model.action_space.seed(seed)
    model.get_env().seed(seed)
    model._last_obs = None


def masks_of(model):
    return {
        name: layer.mask.clone()
        for layers in find_networks(model.policy).values()
        for name, layer in layers.items()
        if isinstance(layer, MaskedLayer)
    }


@pytest.mark.quick("sac-stock-magnitude", "td3-sparse-random", "dqn-stock-random", "dqn-sparse-magnitude")
@pytest.mark.parametrize("saliency", ["magnitude", "random"])
@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
@pytest.mark.parametrize("name", RESUMABLE)
def test_resumed_equals_uninterrupted(name, sparse, saliency, tmp_path):
    """Interrupted anywhere, saved, loaded and resumed: the same masks, clock and weights, bit for bit."""
    cut = int(np.random.default_rng(zlib.crc32(f"{name}{sparse}{saliency}".encode())).integers(25, 115))

    def callback():
        return GradualPruningCallback("all", 0.9, start=30, end=100, update_freq=7, saliency=saliency)

    # The random masks that a sparse policy is built with give way to the saved ones when it is loaded.
    through = CASES[name].make(sparse, policy_kwargs={"sparsity": 0.3} if sparse else None)
    through.learn(cut, callback=callback())
    through.save(tmp_path / "agent.zip")
    through.save_replay_buffer(tmp_path / "buffer.pkl")
    seed_everything(through, 1)
    through.learn(120 - cut, callback=callback(), reset_num_timesteps=False)

    resumed = CASES[name].algorithm.load(tmp_path / "agent.zip", env=CASES[name].make().get_env(), device="cpu")
    resumed.load_replay_buffer(tmp_path / "buffer.pkl")
    seed_everything(resumed, 1)
    resumed.learn(120 - cut, callback=[callback(), Watch()], reset_num_timesteps=False)

    assert resumed.sparsity_state == through.sparsity_state
    for layer, mask in masks_of(through).items():
        assert th.equal(mask, masks_of(resumed)[layer]), layer
    theirs = resumed.policy.state_dict()
    for key, value in through.policy.state_dict().items():
        assert th.equal(value, theirs[key]), key


@pytest.mark.parametrize("name", sorted(set(CASES) - set(RESUMABLE)))
def test_on_policy_resumes_masks_and_clock(name, tmp_path):
    """The schedule goes on; the weights cannot be compared, since SB3 does not save a rollout."""
    case = CASES[name]
    model = case.make()
    model.learn(96, callback=GradualPruningCallback("mlp_extractor", 0.9, start=40, end=160, update_freq=7))
    model.save(tmp_path / "agent.zip")
    resumed = case.algorithm.load(tmp_path / "agent.zip", env=model.get_env(), device="cpu")
    callback = GradualPruningCallback("mlp_extractor", 0.9, start=40, end=160, update_freq=7)
    before = masks_of(model)
    resumed.learn(96, callback=[callback, Watch()], reset_num_timesteps=False)
    assert callback.timestep == resumed.num_timesteps
    assert summarize(resumed).networks["mlp_extractor"].sparsity == pytest.approx(0.9, abs=0.01)
    assert all(not (mask & ~before[layer]).any() for layer, mask in masks_of(resumed).items())


def test_the_clock_survives_a_reset_counter(tmp_path):
    """rl-zoo3's `-i` sets num_timesteps back to zero; the schedule goes on all the same."""
    model = CASES["sac"].make()
    model.learn(100, callback=GradualPruningCallback("actor", 0.9, start=0.2, end=0.8, update_freq=10))
    model.save(tmp_path / "agent.zip")
    resumed = CASES["sac"].algorithm.load(tmp_path / "agent.zip", env=model.get_env())
    callback = GradualPruningCallback("actor", 0.9, start=0.2, end=0.8, update_freq=10)
    resumed.learn(50, callback=callback)
    assert resumed.num_timesteps == 50 and callback.timestep == 150
    (clock,) = resumed.sparsity_state["callbacks"].values()
    assert (clock["start"], clock["end"]) == (20, 80)


def test_stopped_early_then_resumed_keeps_the_window_of_the_first_run(tmp_path):
    """Shares are resolved once: the resumed run has fewer steps left, and the window does not move."""
    model = CASES["td3"].make()
    model.learn(200, callback=[GradualPruningCallback("actor", 0.9), StopAt(90)])
    model.save(tmp_path / "agent.zip")
    resumed = CASES["td3"].algorithm.load(tmp_path / "agent.zip", env=model.get_env())
    resumed.learn(110, callback=GradualPruningCallback("actor", 0.9), reset_num_timesteps=False)
    (clock,) = resumed.sparsity_state["callbacks"].values()
    assert (clock["start"], clock["end"], clock["timestep"]) == (40, 160, 200)
    assert summarize(resumed).networks["actor"].sparsity == pytest.approx(0.9, abs=0.01)


class StopAt(Watch):
    """Stops the training at a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def _on_step(self):
        return super()._on_step() and self.num_timesteps < self.step


@pytest.mark.quick("sac-sparse", "td3-stock")
@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
@pytest.mark.parametrize("name", ["sac", "td3", "qrdqn", "trpo"])
def test_every_zip_is_masked(name, sparse, tmp_path):
    """Checkpoints, the best model and the final save: in each, what is pruned is zero."""
    case = CASES[name]
    model = case.make(sparse)
    env = DummyVecEnv([lambda: Monitor(gym.make(case.env))])
    callbacks = [
        GradualPruningCallback("all", 0.9, start=30, end=90, update_freq=1),
        CheckpointCallback(10, str(tmp_path), name_prefix="step"),
        EvalCallback(env, best_model_save_path=str(tmp_path), eval_freq=60, n_eval_episodes=1, verbose=0, warn=False),
    ]
    model.learn(120, callback=callbacks)
    model.save(tmp_path / "final.zip")
    zips = sorted(tmp_path.glob("*.zip"))
    assert len(zips) == 14
    for path in zips:
        loaded = case.algorithm.load(path, device="cpu")
        state = SparsityState(loaded)
        seen = 0
        for layers in find_networks(loaded.policy).values():
            for name, layer in layers.items():
                mask = state.load_mask(name, layer.weight.shape)
                assert not layer.weight[~mask].any(), (path.name, name)
                seen += int((~mask).sum())
        assert (seen > 0) == (not path.name.startswith(("step_10_", "step_20_", "step_30_"))), path.name


def test_sparse_policy_round_trip(tmp_path):
    model = CASES["dqn"].make(True, policy_kwargs={"sparsity": {"q_net": 0.75}, "distribution": "uniform"})
    model.learn(60)
    model.save(tmp_path / "agent.zip")
    loaded = CASES["dqn"].algorithm.load(tmp_path / "agent.zip", device="cpu")
    assert masks_of(loaded).keys() == masks_of(model).keys()
    assert all(th.equal(mask, masks_of(loaded)[name]) for name, mask in masks_of(model).items())
    check(loaded)
    check_targets(loaded)
    loaded.policy.save(tmp_path / "policy.pth")
    policy = type(loaded.policy).load(tmp_path / "policy.pth")
    obs = model.observation_space.sample()
    assert policy.predict(obs, deterministic=True)[0] == model.predict(obs, deterministic=True)[0]


def test_nothing_of_ours_is_pickled(tmp_path):
    """The zip of a stock policy names this package nowhere, quantized or not, and its state is JSON."""
    import zipfile

    model = CASES["sac"].make()
    model.learn(60, callback=[GradualPruningCallback("all", 0.9, update_freq=10), QATCallback("actor", 0.5)])
    model.save(tmp_path / "agent.zip")
    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        for name in archive.namelist():
            assert b"sb3_sparse" not in archive.read(name), name
        assert b'"sparsity_state": {' in archive.read("data"), "plain JSON, not a pickle"


def test_trained_dense_in_between_starts_anew(tmp_path):
    """Masks that no longer fit the weights are not used to kill them."""
    case = CASES["sac"]
    model = case.make()
    model.learn(60, callback=OneShotPruningCallback("all", 0.9))
    model.save(tmp_path / "agent.zip")
    dense = case.algorithm.load(tmp_path / "agent.zip", env=model.get_env(), device="cpu")
    dense.learn(60)
    dense.save(tmp_path / "dense.zip")
    again = case.algorithm.load(tmp_path / "dense.zip", env=model.get_env(), device="cpu")
    callback = OneShotPruningCallback("all", 0.9, at=30)
    with pytest.warns(UserWarning, match="pruned weights have come back"):
        again._setup_learn(60, callback)
        callback.init_callback(again)
    assert masks_of(again) and all(mask.all() for mask in masks_of(again).values())


def test_resumed_with_some_of_the_callbacks(tmp_path):
    """A network whose callback is left out stays sparse all the same, and goes on when it is there again."""
    case = CASES["sac"]
    callbacks = {
        name: lambda name=name: GradualPruningCallback(name, 0.9, start=10, end=50, update_freq=5) for name in case.networks
    }
    model = case.make()
    model.learn(60, callback=[callback() for callback in callbacks.values()])
    model.save(tmp_path / "agent.zip")
    model = case.algorithm.load(tmp_path / "agent.zip", env=model.get_env(), device="cpu")
    model.learn(60, callback=callbacks["actor"]())
    model.save(tmp_path / "agent.zip")
    model = case.algorithm.load(tmp_path / "agent.zip", env=model.get_env(), device="cpu")
    both = [callback() for callback in callbacks.values()]
    model.learn(60, callback=both)
    assert [callback.timestep for callback in both] == [180, 120]
    assert [clock["timestep"] for clock in model.sparsity_state["callbacks"].values()] == [180, 120]
    assert all(network.sparsity == pytest.approx(0.9, abs=0.01) for network in summarize(model).networks.values())


def test_another_callback_prunes_what_is_left(tmp_path):
    """A callback with other arguments starts on the present masks, and only takes away."""
    case = CASES["sac"]
    model = case.make()
    model.learn(60, callback=OneShotPruningCallback("all", 0.5))
    before = masks_of(model)
    model.save(tmp_path / "agent.zip")
    loaded = case.algorithm.load(tmp_path / "agent.zip", env=model.get_env(), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.learn(60, callback=[OneShotPruningCallback("all", 0.9, saliency="random"), Watch()])
    after = masks_of(loaded)
    assert all(not (mask & ~before[name]).any() for name, mask in after.items())
    assert summarize(loaded).sparsity == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-3], "does not fit"),
        (lambda text: "!" + text[1:], "is damaged"),
        (lambda text: 7, "is damaged"),
        (lambda text: SparsityStateText.of(th.ones(5, dtype=th.bool)), "does not fit"),
        (lambda text: SparsityStateText.of(th.ones(10**6, dtype=th.bool)), "does not fit"),
    ],
)
def test_damaged_state(damage, message):
    model = CASES["dqn"].make()
    model.learn(40, callback=OneShotPruningCallback("q_net", 0.9))
    fresh = CASES["dqn"].make()
    fresh.sparsity_state = model.sparsity_state
    masks = fresh.sparsity_state["masks"]
    masks["q_net.q_net.2"] = damage(masks["q_net.q_net.2"])
    saved, policy = dict(masks), repr(fresh.policy)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"the saved mask of layer 'q_net.q_net.2' {message}"):
            fresh.learn(40, callback=OneShotPruningCallback("q_net", 0.9))
    assert masks == saved and repr(fresh.policy) == policy, "nothing is lost"


@pytest.mark.parametrize("act", [restore, lambda model: model.learn(40, callback=OneShotPruningCallback("q_net", 0.9))])
def test_layers_of_another_shape(act):
    model = CASES["dqn"].make()
    model.learn(40, callback=OneShotPruningCallback("q_net", 0.9))
    wider = CASES["dqn"].make(policy_kwargs={"net_arch": [32, 16]})
    wider.sparsity_state = model.sparsity_state
    message = (
        "the saved mask of layer 'q_net.q_net.0' does not fit its weight of shape (32, 4): load the model with the layers "
        "that it was saved with, or `del model.sparsity_state`, so that the callbacks start anew on the present layers"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        act(wider)
    del wider.sparsity_state
    act(wider)


@pytest.mark.parametrize(
    "state",
    [None, 7, [], {"masks": None}, {"callbacks": [1]}, {"callbacks": {"x": None}}, {"callbacks": {"x": {"start": "1"}}}],
)
def test_state_that_is_none(state):
    model = CASES["dqn"].make()
    model.sparsity_state = state
    with pytest.raises(ValueError, match="saved sparsity_state of this model is damaged"):
        model.learn(40, callback=OneShotPruningCallback("q_net", 0.9))


def test_mixed_units_resume(tmp_path):
    """A share that was resolved in the first run is not resolved again in a shorter one."""
    case = CASES["sac"]
    model = case.make()
    model.learn(200, callback=[GradualPruningCallback("actor", 0.9, start=40, end=0.5), StopAt(60)])
    model.save(tmp_path / "agent.zip")
    resumed = case.algorithm.load(tmp_path / "agent.zip", env=model.get_env(), device="cpu")
    resumed.learn(50, callback=GradualPruningCallback("actor", 0.9, start=40, end=0.5))
    assert summarize(resumed).networks["actor"].sparsity == pytest.approx(0.9, abs=0.01)


def test_numpy_arguments_are_saved_as_json_and_resumed():
    model = CASES["sac"].make()
    model.learn(
        40, callback=GradualPruningCallback("actor", np.float32(0.5), start=np.int64(10), end=np.int32(30), update_freq=5.0)
    )
    assert json.loads(json.dumps(model.sparsity_state)) == model.sparsity_state
    model.learn(10, callback=GradualPruningCallback(["actor"], 0.5, start=10, end=30, update_freq=5))
    assert len(model.sparsity_state["callbacks"]) == 1


class SparsityStateText:
    """How a mask is written."""

    @staticmethod
    def of(mask):
        model = CASES["dqn"].make()
        SparsityState(model).save_mask("layer", mask)
        return model.sparsity_state["masks"]["layer"]
