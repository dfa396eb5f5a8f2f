"""Dynamic sparse training: the weights move, and their number does not."""

import math
import re

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, QATCallback, RewiringCallback
from sb3_sparse.callbacks import topology_history
from sb3_sparse.callbacks.rewiring import growth
from sb3_sparse.nn import quantized_bits
from sb3_sparse.sparsity import SALIENCIES, magnitude, magnitude_by_sign, random, rewire
from tests.algorithms import CASES
from tests.invariants import Watch, check, masked
from tests.rewirings import Rewirings, masks_of, rewiring, sparse_model


def steps_of(name):
    """Environment steps with three rewirings; on-policy algorithms collect 32 of them before they train."""
    return 130 if "mlp_extractor" in CASES[name].networks else 61


# ---------------------------------------------------------------- the mathematics


@settings(max_examples=50, deadline=None)
@given(
    shape=st.sampled_from([(1, 1), (1, 40), (5, 7), (16, 3), (4, 3, 3, 3), (2, 1, 5, 1)]),
    density=st.floats(0, 1),
    fraction=st.floats(0, 1),
    grow=st.sampled_from(["random", "gradient"]),
    drop=st.sampled_from([magnitude, magnitude_by_sign]),
    ties=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_ten_thousand_rewirings(shape, density, fraction, grow, drop, ties, seed):
    """Two hundred in a row for each of fifty layers: the count never moves, and no more than the fraction is replaced."""
    generator = th.Generator().manual_seed(seed)
    mask = th.rand(shape, generator=generator) < density
    weight = th.randn(shape, generator=generator) * mask
    count = int(mask.sum())
    for _ in range(200):
        step = th.randn(shape, generator=generator)
        weight = ((weight + 0.1 * step) * mask).round(decimals=1 if ties else 6)
        scores = random({"a": weight}, generator=generator) if grow == "random" else magnitude({"a": step})
        new = rewire({"a": mask}, drop({"a": weight}), scores, fraction)["a"]
        assert int(new.sum()) == count
        assert int((mask & ~new).sum()) <= math.floor(fraction * count + 1e-9)
        mask = new


def test_growth_excludes_survivors_alone():
    """A place that was just dropped may be grown again; a survivor is not grown a second time."""
    mask, weight = th.tensor([True, True, True, False]), th.tensor([0.1, 2.0, 3.0, 0.0])
    back = rewire({"a": mask}, {"a": weight.abs()}, {"a": th.tensor([5.0, 9.0, 9.0, 1.0])}, 0.34)["a"]
    assert th.equal(back, mask)


# ---------------------------------------------------------------- runs


@pytest.mark.quick("sac-gradient-stock", "sac-random-sparse", "td3-gradient-sparse", "td3-random-stock", "dqn-*", "ppo-*")
@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
@pytest.mark.parametrize("grow", ["random", "gradient"])
@pytest.mark.parametrize("name", CASES)
def test_every_algorithm(name, grow, sparse):
    """TRPO's actor is moved by no optimizer, so only its value network has a gradient to grow by."""
    networks = "value_net" if (name, grow) == ("trpo", "gradient") else "all"
    model = sparse_model(name, sparse)
    watch = Rewirings()
    model.learn(steps_of(name), callback=[*rewiring(sparse, networks, grow=grow), watch])
    assert watch.looks > 0
    assert len(watch.steps) >= 3
    moved = {layer.split(".")[0] for layer, mask in watch.masks[0].items() if not th.equal(mask, watch.masks[-1][layer])}
    assert moved == (set(CASES[name].networks) if networks == "all" else {networks})


def test_gradient_of_a_network_that_no_optimizer_moves():
    model = CASES["trpo"].make(n_steps=4, batch_size=4)
    message = r"no optimizer has updated mlp_extractor.policy_net.0, .*, action_net since a rewiring became due"
    with pytest.raises(ValueError, match=message):
        model.learn(200, callback=rewiring(grow="gradient"))
    assert model.num_timesteps <= 16


@pytest.mark.quick("SGD-topk", "AdamW-mask", "RMSprop-polyak")
@pytest.mark.parametrize("targets", ["topk", "mask", "polyak"])
@pytest.mark.parametrize("optimizer", [th.optim.SGD, th.optim.RMSprop, th.optim.AdamW])
def test_optimizers(optimizer, targets):
    kwargs = {"weight_decay": 1e-2, **({} if optimizer is th.optim.AdamW else {"momentum": 0.9})}
    model = CASES["td3"].make(policy_kwargs={"optimizer_class": optimizer, "optimizer_kwargs": kwargs})
    watch = Rewirings(targets)
    model.learn(80, callback=[*rewiring(targets=targets), watch])
    assert len(watch.steps) == 5


def test_convolutions():
    env = gym.make("CartPole-v1")

    class Image(gym.ObservationWrapper):
        observation_space = gym.spaces.Box(0, 255, (1, 36, 36), np.uint8)

        def observation(self, observation):
            return np.resize(np.abs(observation * 100).astype(np.uint8), (1, 36, 36))

    settings = {**CASES["dqn"].kwargs, "buffer_size": 60, "policy_kwargs": {"features_extractor_kwargs": {"features_dim": 64}}}
    model = CASES["dqn"].algorithm("CnnPolicy", Image(env), seed=0, device="cpu", **settings)
    for grow in ("random", "gradient"):
        watch = Rewirings()
        model.learn(60, callback=[*rewiring(network="q_net", grow=grow), watch])
        assert len(watch.steps) >= 2


# ---------------------------------------------------------------- when


def test_a_rewiring_follows_the_gradient_steps_of_its_moment():
    """Nothing is rewired before the first gradient step; the last one waits for the next call of learn()."""
    model, watch = CASES["sac"].make(), Rewirings()
    callbacks = rewiring()
    model.learn(60, callback=[*callbacks, watch])
    assert watch.steps == [30, 40, 50]
    again = Rewirings()
    again.masks.append(masks_of(model))
    model.learn(20, callback=[*callbacks, again], reset_num_timesteps=False)
    assert again.steps == [60, 70]


def test_gradients_wait_for_the_next_run():
    """Nothing grows that will never be trained, and nothing is lost."""
    model, callbacks, watch = CASES["sac"].make(), rewiring(grow="gradient"), Rewirings()
    model.learn(60, callback=[*callbacks, watch])
    assert watch.steps == [30, 40, 50]
    again = Rewirings()
    again.masks.append(masks_of(model))
    model.learn(20, callback=[*callbacks, again], reset_num_timesteps=False)
    assert again.steps == [60, 70]
    assert not model.sparsity_state["pending"] or model.num_timesteps == 80


def test_what_is_pending_is_forgotten_when_the_model_has_changed():
    model = CASES["sac"].make()
    model.learn(60, callback=rewiring(grow="gradient"))
    assert model.sparsity_state["pending"]
    model.learn(5, reset_num_timesteps=False)
    watch = Rewirings()
    watch.masks.append(masks_of(model))
    model.learn(10, callback=[*rewiring(grow="gradient"), watch], reset_num_timesteps=False)
    assert watch.steps == [66, 70] and not model.sparsity_state["pending"]


def test_delayed_actors_rewire_when_both_are_trained():
    """TD3 trains its actor every other time; the rewiring waits for it, and its number does not."""
    model, watch = CASES["td3"].make(learning_starts=21, policy_delay=3), Rewirings()
    model.learn(80, callback=[*rewiring(grow="gradient"), watch])
    assert watch.steps == [30, 42, 51, 60, 72]
    critic, watch = CASES["td3"].make(policy_delay=3), Rewirings()
    critic.learn(61, callback=[*rewiring(network="critic", grow="gradient"), watch])
    assert watch.steps == [30, 40, 50, 60]


@pytest.mark.quick("51-*", "0.5-*")
@pytest.mark.parametrize(
    ("stop", "steps"), [(50, [30, 40]), (51, [30, 40, 50]), (0.5, [30]), (0, []), (1.0, [30, 40, 50, 60, 70])]
)
@pytest.mark.filterwarnings("ignore:stop=0 is step 0")
def test_no_rewiring_from_stop_on(stop, steps):
    model, watch = CASES["sac"].make(), Rewirings()
    model.learn(80, callback=[*rewiring(stop=stop), watch])
    assert watch.steps == steps


def test_the_cosine_falls_to_zero_at_stop(monkeypatch):
    model, watch = CASES["sac"].make(), Rewirings()
    callbacks = rewiring(network="critic", fraction=1.0, fraction_schedule="cosine", stop=100)
    fractions = []
    monkeypatch.setattr(growth, "rewire", lambda *args: fractions.append(args[-1]) or rewire(*args))
    model.learn(120, callback=[*callbacks, watch])
    assert watch.steps == [30, 40, 50, 60, 70, 80, 90]
    assert callbacks[1]._fraction(100) == 0.0
    expected = [0.5 * (1 + math.cos(math.pi * step / 100)) for step in watch.steps]
    assert fractions == pytest.approx(expected)


@pytest.mark.parametrize("drop", ["magnitude", "magnitude_by_sign"])
def test_the_score_of_what_is_dropped(drop, monkeypatch):
    model, scores = CASES["sac"].make(), []

    def look(masks, drop_scores, places, fraction):
        weights = {name: layer.weight.detach() for name, layer in masked(model) if name in masks}
        scores.append((drop_scores, SALIENCIES[drop](weights)))
        return rewire(masks, drop_scores, places, fraction)

    monkeypatch.setattr(growth, "rewire", look)
    model.learn(60, callback=rewiring(drop=drop))
    assert len(scores) == 6
    assert all(th.equal(score, expected[name]) for given, expected in scores for name, score in given.items())


def test_two_callbacks_on_one_network():
    """Each has its own gradients."""
    model, watch = CASES["ppo"].make(), Rewirings()
    callbacks = rewiring(grow="gradient")
    model.learn(160, callback=[*callbacks, RewiringCallback("mlp_extractor", 0.1, 64, grow="gradient"), watch])
    check(model)


def test_late_actors():
    model = CASES["td3"].make(policy_delay=30)
    model.learn(100, callback=rewiring(grow="gradient"))
    assert topology_history(model)["actor"]["timestep"] == [50, 80]


def test_a_stop_that_leaves_nothing():
    with pytest.warns(UserWarning, match=r"stop=1 is step 1, and the first rewiring is due at step 10: there will be none"):
        CASES["sac"].make().learn(30, callback=rewiring(stop=1))


def test_a_fraction_that_moves_nothing():
    with pytest.warns(UserWarning, match=r"fraction=0.001 of the largest layer's .* weights is less than one"):
        CASES["sac"].make().learn(30, callback=rewiring(fraction=0.001))


def test_a_rollout_longer_than_the_period():
    """One rewiring per rollout, with the fraction of the last moment that it has passed."""
    model, watch = CASES["ppo"].make(), Rewirings()
    model.learn(128, callback=[*rewiring(), watch])
    assert watch.steps == [32, 64, 96]
    (clock,) = (clock for name, clock in model.sparsity_state["callbacks"].items() if name.startswith("Rewiring"))
    assert clock["updates"] == 9


@pytest.mark.parametrize(
    ("grow", "kwargs"),
    [("random", {"train_freq": (1, "episode"), "gradient_steps": 5}), ("gradient", {"train_freq": 7, "gradient_steps": 2})],
)
@pytest.mark.slow
def test_update_ratios(grow, kwargs):
    model, watch = CASES["sac"].make(**kwargs), Rewirings()
    model.learn(450, callback=[*rewiring(grow=grow, update_freq=50), watch])
    assert len(watch.steps) >= 2


def test_networks_that_are_not_trained_stay():
    model, watch = CASES["sac"].make(learning_starts=1000), Rewirings()
    model.learn(60, callback=[*rewiring(), watch])
    assert watch.steps == []


# ---------------------------------------------------------------- company


def parameters_after(model, callback):
    model.learn(80, callback=callback)
    return {name: value.clone() for name, value in model.policy.state_dict().items() if not name.endswith("mask")}


@pytest.mark.parametrize("grow", ["random", "gradient"])
@pytest.mark.parametrize("name", ["sac", "dqn", "ppo"])
def test_a_dense_network_is_left_as_it_is(name, grow):
    """With one warning, and bit for bit."""
    stock = parameters_after(CASES[name].make(), None)
    with pytest.warns(UserWarning, match="dense, so there is nothing to rewire") as warned:
        ours = parameters_after(CASES[name].make(), rewiring(sparse=True, network=CASES[name].networks[0], grow=grow))
    assert len(warned) == 1
    assert stock.keys() == ours.keys() and all(th.equal(value, ours[key]) for key, value in stock.items())


@pytest.mark.quick("gradient-1", "random-0")
@pytest.mark.parametrize("fraction", [0, 1])
@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_all_or_nothing(fraction, grow):
    model, watch = CASES["td3"].make(), Rewirings()
    model.learn(60, callback=[*rewiring(fraction=fraction, grow=grow), watch])
    assert len(watch.steps) == (0 if fraction == 0 else 3)


def test_a_fraction_of_nothing_trains_as_static():
    """Rewirings that move no weight leave no trace."""
    static = OneShotPruningCallback("all", 0.5, saliency="random")
    ours = [static, RewiringCallback("all", 0.0, update_freq=10, targets="mask")]
    one, other = parameters_after(CASES["sac"].make(), static), parameters_after(CASES["sac"].make(), ours)
    assert all(th.equal(value, other[key]) for key, value in one.items())


def test_order_in_the_list():
    """What prunes may come later in the list."""
    model, watch = CASES["sac"].make(), Rewirings()
    model.learn(60, callback=[*reversed(rewiring()), watch])
    assert watch.steps == [30, 40, 50]


@pytest.mark.filterwarnings("ignore:network .* is dense")
def test_with_gradual_pruning():
    """Pruning takes away from what rewiring has made, and its budgets stay exact."""
    model = CASES["sac"].make()
    gradual = GradualPruningCallback("all", 0.8, start=25, end=75, update_freq=10)
    model.learn(100, callback=[gradual, RewiringCallback("all", 0.3, 10, targets="mask"), Watch()])
    kept = {name: int(layer.mask.sum()) for name, layer in masked(model)}
    alone = CASES["sac"].make()
    alone.learn(100, callback=GradualPruningCallback("all", 0.8, start=25, end=75, update_freq=10))
    assert kept == {name: int(layer.mask.sum()) for name, layer in masked(alone)}
    assert any(not th.equal(mask, masks_of(alone)[name]) for name, mask in masks_of(model).items())


@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_with_quantization(grow):
    model, watch = CASES["sac"].make(), Rewirings()
    model.learn(80, callback=[*rewiring(grow=grow), QATCallback("all", start=40), watch])
    assert len(watch.steps) >= 5
    assert quantized_bits(model.policy)


def test_excluded_layers_stay():
    model, watch = sparse_model("sac", True), Rewirings()
    model.learn(60, callback=[*rewiring(True, exclude=["mu", "critic.qf*.2"]), watch])
    still = [name for name, mask in masks_of(model).items() if th.equal(mask, watch.masks[0][name])]
    assert {"actor.mu", "critic.qf0.2", "critic.qf1.2"} <= set(still)
    assert "actor.latent_pi.2" not in still


def test_networks_draw_for_themselves_and_seeds_differ():
    def grown(**kwargs):
        model, watch = sparse_model("td3", True), Rewirings()
        model.learn(31, callback=[*rewiring(True, **kwargs), watch])
        return {name: mask & ~watch.masks[0][name] for name, mask in masks_of(model).items()}

    one, same, other = grown(seed=1), grown(seed=1), grown(seed=2)
    assert all(th.equal(mask, same[name]) for name, mask in one.items())
    assert not th.equal(one["critic.qf0.2"], other["critic.qf0.2"])
    assert not th.equal(one["critic.qf0.2"], one["critic.qf1.2"])
    assert not th.equal(one["actor.mu.2"], one["critic.qf0.2"])


@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_torch_draws_nothing_more(grow):
    """The random numbers of the algorithm and of exploration are those of a run without rewiring."""
    states = []
    for callbacks in ([], rewiring(True, grow=grow, drop="random")):
        model = sparse_model("td3", True)
        model.learn(60, callback=callbacks)
        states.append(th.get_rng_state())
    assert th.equal(*states)


def test_interrupted_then_again():
    """Ctrl-C skips the end of training, also in the middle of catching gradients: nothing is left behind, nothing piles up."""

    class Interrupt(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            if self.num_timesteps == 40:
                raise KeyboardInterrupt

    model, callbacks = CASES["td3"].make(), rewiring(grow="gradient")
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            model.learn(80, callback=[*callbacks, Interrupt()])
    assert model.actor.optimizer._optimizer_step_pre_hooks
    RewiringCallback("all").init_callback(model)
    assert {len(layer._forward_pre_hooks) for layer in model.policy.modules()} == {0, 1}
    assert not any(optimizer._optimizer_step_pre_hooks for optimizer in (model.actor.optimizer, model.critic.optimizer))
    model.learn(60, callback=[*callbacks, Rewirings()])
    check(model)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"fraction": 1.1}, "must lie in [0, 1], got 1.1"),
        ({"fraction": -0.1}, "must lie in [0, 1], got -0.1"),
        ({"fraction": float("nan")}, "must lie in [0, 1], got nan"),
        ({"fraction": "0.1"}, "must lie in [0, 1], got '0.1'"),
        ({"fraction": True}, "must lie in [0, 1], got True"),
        ({"update_freq": 0}, "update_freq=0 must be a whole number"),
        ({"update_freq": 1.5}, "update_freq=1.5 must be a whole number"),
        ({"grow": "x"}, "unknown grow='x': use one of random, gradient"),
        ({"fraction_schedule": "x"}, "unknown fraction_schedule='x': use one of constant, linear, cubic, cosine"),
        ({"drop": "x"}, "unknown drop='x': use one of magnitude, random, magnitude_by_sign"),
        ({"drop": ["magnitude"]}, "unknown drop='['magnitude']'"),
        ({"targets": "x"}, "unknown targets='x': use one of mask, topk, polyak"),
        ({"stop": 1.5}, "a float lies in [0, 1], steps are given as an int"),
        ({"stop": -1}, "stop=-1 lies before the run"),
        ({"stop": "0.5"}, "stop='0.5' is not a moment of a run"),
        ({"seed": -1}, "seed=-1 must be a whole number, at least 0"),
    ],
)  # fmt: skip
def test_arguments(kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        RewiringCallback("actor", **kwargs)


@pytest.mark.parametrize(
    ("name", "network", "message"),
    [
        ("sac", "q_net", "SACPolicy has no network 'q_net' with linear or convolutional layers; it has: actor, critic"),
        ("sac", "critic_target", "it has: actor, critic"),
        ("dqn", ["q_net", "actor"], "it has: q_net"),
    ],
)
def test_unknown_networks(name, network, message):
    model = CASES[name].make()
    before = repr(model.policy)
    with pytest.raises(ValueError, match=re.escape(message)):
        model.learn(50, callback=RewiringCallback(network))
    assert model.num_timesteps == 0 and repr(model.policy) == before
