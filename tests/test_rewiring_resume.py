"""Dynamic sparse training that was interrupted ends as training that was not."""

import zlib

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import TD3

from sb3_sparse import OneShotPruningCallback, RewiringCallback
from sb3_sparse.nn import find_optimizers
from sb3_sparse.zoo import find_recipe, read_recipe
from tests.algorithms import CASES
from tests.rewirings import Rewirings, masks_of, rewiring, sparse_model
from tests.test_save_load import RESUMABLE, StopAt, seed_everything

#: Where a run is cut: on a rewiring that is due, between two, and where a TD3 actor still waits for its gradient.
CUTS = (40, 45, 41)


def expect_same(one, other):
    """Masks, clock, what has been explored, history; weights and targets; the optimizers' states, bit for bit."""
    assert one.sparsity_state == other.sparsity_state
    for name, mask in masks_of(one).items():
        assert th.equal(mask, masks_of(other)[name]), name
    theirs = other.policy.state_dict()
    for name, value in one.policy.state_dict().items():
        assert th.equal(value, theirs[name]), name
    for mine, its in zip(find_optimizers(one.policy), find_optimizers(other.policy), strict=True):
        for key, state in mine.state_dict()["state"].items():
            for name, value in state.items():
                assert th.equal(value, its.state_dict()["state"][key][name]), (key, name)


def reload(model, name, path):
    """Through a zip and a saved buffer, with the same random state as the model goes on with."""
    model.save(path / "agent.zip")
    model.save_replay_buffer(path / "buffer.pkl")
    loaded = CASES[name].algorithm.load(path / "agent.zip", env=CASES[name].make().get_env(), device="cpu")
    loaded.load_replay_buffer(path / "buffer.pkl")
    return loaded


def compare(name, sparse, cut, path, make=None, **kwargs):
    """Train, interrupt, and go on both with the same model and with a loaded one."""
    through = make() if make else sparse_model(name, sparse)
    through.learn(cut, callback=[*rewiring(sparse, **kwargs), Rewirings(kwargs["targets"])])
    resumed, masks = reload(through, name, path), masks_of(through)
    for model in (through, resumed):
        seed_everything(model, 1)
        watch = Rewirings(kwargs["targets"])
        watch.masks.append(masks)
        model.learn(71 - cut, callback=[*rewiring(sparse, **kwargs), watch], reset_num_timesteps=False)
        assert len(watch.steps) >= 2
    expect_same(through, resumed)
    return through


@pytest.mark.quick("td3-topk", "sac-mask", "dqn-polyak", "dqn-topk")
@pytest.mark.parametrize("targets", ["topk", "mask", "polyak"])
@pytest.mark.parametrize("name", RESUMABLE)
def test_resumed_equals_uninterrupted(name, targets, tmp_path):
    rng = np.random.default_rng(zlib.crc32(f"{name}{targets}".encode()))
    sparse, grow, cut = bool(rng.integers(2)), str(rng.choice(["random", "gradient"])), int(rng.choice(CUTS))
    compare(name, sparse, cut, tmp_path, targets=targets, grow=grow)


@pytest.mark.quick("gradient-41", "random-45")
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_wherever_it_is_cut(grow, cut, tmp_path):
    """An actor that is trained every third step waits from step 40 to 42 for its gradient."""
    kwargs = {"fraction_schedule": "cosine", "stop": 75, "targets": "topk", "grow": grow}
    model = compare(
        "td3", True, cut, tmp_path, make=lambda: sparse_model("td3", True, policy_delay=3, learning_starts=21), **kwargs
    )
    steps = [step for step, *_ in model.sparsity_state["topology"]["actor"]]
    assert steps == [30, 42, 51, 60] if grow == "gradient" else [30, 40, 50, 60, 70]


@pytest.mark.quick("td3-gradient", "sac-random")
@pytest.mark.parametrize("grow", ["random", "gradient"])
@pytest.mark.parametrize("name", ["td3", "sac"])
def test_in_two_calls_or_in_one(name, grow):
    """The same without any break: two calls of learn() are one."""
    models = []
    for parts in ([80], [40, 40], [45, 35]):
        model = CASES[name].make()
        for steps in parts:
            model.learn(steps, callback=rewiring(grow=grow, stop=75), reset_num_timesteps=model.num_timesteps == 0)
        models.append(model)
    expect_same(models[0], models[1])
    expect_same(models[0], models[2])


def clock_of(model):
    (clock,) = (clock for name, clock in model.sparsity_state["callbacks"].items() if name.startswith("Rewiring"))
    return clock


def test_a_share_is_resolved_in_the_first_run():
    model = CASES["sac"].make()
    kwargs = {"stop": 0.5, "fraction_schedule": "cosine"}
    model.learn(160, callback=[*rewiring(**kwargs), StopAtTopk(50)])
    assert model.num_timesteps == 50
    model.learn(60, callback=rewiring(**kwargs), reset_num_timesteps=False)
    assert clock_of(model)["stop"] == 80
    assert [step for step, *_ in model.sparsity_state["topology"]["critic"]] == [30, 40, 50, 60, 70]


class StopAtTopk(StopAt):
    """Targets have places of their own."""

    def _on_step(self):
        return self.num_timesteps < self.step

    def _on_training_end(self):
        pass


def test_a_constant_fraction_goes_on_for_ever():
    model = CASES["sac"].make()
    for _ in range(2):
        model.learn(55, callback=rewiring(), reset_num_timesteps=model.num_timesteps == 0)
    assert "stop" not in clock_of(model)
    assert [step for step, *_ in model.sparsity_state["topology"]["critic"]] == [30, 40, 50, 60, 70, 80, 90, 100]


@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_the_clock_survives_a_reset_counter(grow, tmp_path):
    """
    rl-zoo3's `-i` sets num_timesteps back to zero: the clock goes on. SB3 then collects before it trains again, and RigL has
    no gradients for longer than it would wait for an actor.
    """
    model = CASES["sac"].make(learning_starts=30)
    model.learn(55, callback=rewiring(grow=grow))
    model.save(tmp_path / "agent.zip")
    resumed = CASES["sac"].algorithm.load(tmp_path / "agent.zip", env=model.get_env(), device="cpu")
    callbacks = rewiring(grow=grow)
    resumed.learn(56, callback=callbacks)
    assert resumed.num_timesteps == 56 and callbacks[1].timestep == 111
    steps = [step for step, *_ in resumed.sparsity_state["topology"]["critic"]]
    assert steps == ([40, 50, 60, 90, 100, 110] if grow == "random" else [40, 50, 86, 90, 100, 110])


def test_what_had_been_explored_before_the_first_rewiring_is_kept():
    """Pruned in the middle of a run that is cut before anything moves."""
    states = []
    for parts in ([80], [30, 50]):
        model = CASES["sac"].make()
        for steps in parts:
            callbacks = [
                OneShotPruningCallback("critic", 0.5, at=20, targets="topk"),
                RewiringCallback("critic", 0.3, update_freq=40, stop=79),
            ]
            model.learn(steps, callback=callbacks, reset_num_timesteps=model.num_timesteps == 0)
        states.append(model.sparsity_state)
    assert states[0] == states[1]
    ((_, _, existing, explored, total, _),) = states[0]["topology"]["critic"]
    assert existing < explored == total


def test_other_arguments_start_anew_on_the_same_topology(tmp_path):
    model = CASES["sac"].make()
    model.learn(55, callback=rewiring())
    model.save(tmp_path / "agent.zip")
    loaded = CASES["sac"].algorithm.load(tmp_path / "agent.zip", env=model.get_env(), device="cpu")
    watch = Rewirings("mask")
    watch.masks.append(masks_of(model))
    loaded.learn(25, callback=[RewiringCallback("all", 0.5, 10, "gradient", targets="mask"), watch], reset_num_timesteps=False)
    assert watch.steps == [65, 75]
    assert [row[0] for row in loaded.sparsity_state["topology"]["actor"]] == [30, 40, 50, 65, 75]


# ---------------------------------------------------------------- DS-TD3


@pytest.mark.filterwarnings("ignore")
def test_ds_td3_loses_no_weight(tmp_path):
    """
    The published code of DS-TD3 draws new masks for the network that it loads into, and so kills the weights outside them: of
    a layer with density d about 1 - d. Here the weights, masks and targets are those that were saved, and training goes on.
    """
    pruning, rewiring = (
        next(iter(callback.values())) for callback in read_recipe(find_recipe("td3", "set"))["HalfCheetah-v4"]["callback"]
    )
    rewiring = {**rewiring, "update_freq": 10, "stop": 100}

    def callbacks():
        return [OneShotPruningCallback(**pruning), RewiringCallback(**rewiring)]

    kwargs = {"net_arch": [256, 256], "optimizer_kwargs": {"weight_decay": 2e-4}}
    settings = {"policy_kwargs": kwargs, "buffer_size": 100, "learning_starts": 20, "batch_size": 16, "device": "cpu"}
    model, fresh = (TD3("MlpPolicy", gym.make("HalfCheetah-v4"), seed=seed, **settings) for seed in (0, 1))
    model.learn(55, callback=callbacks())
    model.save(tmp_path / "agent.zip")
    saved = {name: mask for name, mask in masks_of(model).items() if not mask.all()}
    assert sum(int(mask.sum()) for mask in saved.values()) == 106_169 - 256 * 8

    fresh.learn(5, callback=callbacks())
    drawn, killed = masks_of(fresh), 0
    for name, mask in saved.items():
        lost = int((mask & ~drawn[name]).sum())
        assert lost / int(mask.sum()) == pytest.approx(1 - float(mask.float().mean()), abs=0.05)
        killed += lost
    assert 0.4 < killed / sum(int(mask.sum()) for mask in saved.values()) < 0.6

    loaded = TD3.load(tmp_path / "agent.zip", env=fresh.get_env(), device="cpu")
    loaded._setup_learn(30, None, reset_num_timesteps=False)
    for callback in (begun := callbacks()):
        callback.init_callback(loaded)
        callback.on_training_start({}, {})
    weights = loaded.policy.state_dict()
    assert all(th.equal(value, weights[name]) for name, value in model.policy.state_dict().items()), "targets included"
    assert all(th.equal(mask, masks_of(loaded)[name]) for name, mask in saved.items())
    begun[-1].on_training_end()
    loaded.learn(30, callback=[*callbacks(), Rewirings()], reset_num_timesteps=False)
    assert [row[0] for row in loaded.sparsity_state["topology"]["actor"]] == [30, 40, 50, 60, 70, 80]
