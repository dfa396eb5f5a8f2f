"""Every algorithm for 120 steps, on its stock policy and on its sparse one: what is pruned is zero at any time."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, QATCallback, summarize
from sb3_sparse.nn import find_networks, prunable_layers, unmask_layers
from tests.algorithms import CASES
from tests.invariants import Watch, check, check_targets

STEPS = 120


def expect_sparsity(model, sparsity):
    """Each network keeps exactly the weights of its budget."""
    for name, network in summarize(model).networks.items():
        # A weight that exists may be zero by chance of training, so the masks are counted.
        kept = sum(int(layer.mask.sum()) for layer in find_networks(model.policy)[name].values())
        assert kept == round((1 - sparsity) * network.total), name
        assert network.nonzero <= kept


@pytest.mark.quick("sac-sparse", "td3-stock", "dqn-stock", "ppo-sparse")
@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
@pytest.mark.parametrize("name", CASES)
def test_every_algorithm(name, sparse):
    model = CASES[name].make(sparse)
    watch = Watch()
    model.learn(STEPS, callback=[GradualPruningCallback("all", 0.8, update_freq=10), watch])
    assert watch.looks > 0
    assert tuple(summarize(model).networks) == CASES[name].networks
    expect_sparsity(model, 0.8)


@pytest.mark.parametrize("name", CASES)
def test_sparse_from_the_start(name):
    model = CASES[name].make(True, policy_kwargs={"sparsity": 0.75})
    expect_sparsity(model, 0.75)
    watch = Watch()
    model.learn(STEPS, callback=watch)
    assert watch.looks > 0
    expect_sparsity(model, 0.75)


@pytest.mark.parametrize("name", CASES)
def test_static_from_the_first_step(name):
    """Pruned at random before the first step; the topology then stays as it is."""
    model = CASES[name].make()
    masks = {}

    class Look(Watch):
        def _on_step(self):
            masks.setdefault(
                "first", {k: m.mask.clone() for k, m in prunable_layers(self.model.policy).items() if hasattr(m, "mask")}
            )
            return super()._on_step()

    model.learn(64, callback=[OneShotPruningCallback("all", 0.5, saliency="random"), Look()])
    expect_sparsity(model, 0.5)
    for key, mask in masks["first"].items():
        assert th.equal(mask, prunable_layers(model.policy)[key].mask)


def test_zips_load_without_the_package(tmp_path):
    """
    A stock policy's zip needs nothing of ours: it loads and predicts where sb3_sparse cannot be imported, with float weights
    where they were quantized.
    """
    lines = [
        "import sys, warnings; sys.modules['sb3_sparse'] = None",
        "import numpy as np, sb3_contrib, stable_baselines3 as sb3",
    ]
    for name, case in CASES.items():
        model = case.make()
        model.learn(40, callback=[GradualPruningCallback("all", 0.9, update_freq=10), QATCallback("all", 0.5)])
        model.save(tmp_path / f"{name}.zip")
        unmask_layers(model.policy)
        obs = np.stack([model.observation_space.sample() for _ in range(4)])
        np.save(tmp_path / f"{name}.npy", obs)
        np.save(tmp_path / f"{name}_actions.npy", model.predict(obs, deterministic=True)[0])
        package = "sb3_contrib" if case.algorithm.__module__.startswith("sb3_contrib") else "sb3"
        lines += [
            f"model = {package}.{case.algorithm.__name__}.load({str(tmp_path / f'{name}.zip')!r}, device='cpu')",
            f"actions = model.predict(np.load({str(tmp_path / f'{name}.npy')!r}), deterministic=True)[0]",
            f"np.testing.assert_array_equal(actions, np.load({str(tmp_path / f'{name}_actions.npy')!r}), '{name}')",
        ]
    script = tmp_path / "load.py"
    script.write_text("\n".join([*lines, "print('loaded')"]))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "loaded", done.stderr


def test_clip_grad_norm_sees_masked_gradients():
    """Pruned weights do not count in the norm that PPO clips."""
    model = CASES["ppo"].make()
    model.learn(64, callback=OneShotPruningCallback("mlp_extractor", 0.9))
    seen = []
    for layer in find_networks(model.policy)["mlp_extractor"].values():
        seen.append(bool(layer.weight.grad[~layer.mask].any()))
    assert seen and not any(seen)


@pytest.mark.quick("0.0-Adam", "0.0-NAdam", "0.01-AdamW", "0.01-SGD", "0.01-RMSprop")
@pytest.mark.parametrize("optimizer", [th.optim.Adam, th.optim.AdamW, th.optim.SGD, th.optim.RMSprop, th.optim.NAdam])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_optimizers(optimizer, weight_decay):
    kwargs = {"weight_decay": weight_decay, **({"momentum": 0.9} if optimizer in (th.optim.SGD, th.optim.RMSprop) else {})}
    model = CASES["td3"].make(policy_kwargs={"optimizer_class": optimizer, "optimizer_kwargs": kwargs})
    model.learn(100, callback=[GradualPruningCallback("all", 0.9, update_freq=10), Watch()])
    expect_sparsity(model, 0.9)


@pytest.mark.parametrize(
    ("kwargs", "steps"),
    [
        ({"gradient_steps": 3}, 120),
        # Two episodes of 200 steps, and as many gradient steps after each.
        pytest.param({"train_freq": (1, "episode"), "gradient_steps": -1, "learning_starts": 5}, 400, marks=pytest.mark.slow),
        ({"train_freq": 7, "gradient_steps": 2}, 240),
    ],
)
def test_update_ratios(kwargs, steps):
    model = CASES["sac"].make(**kwargs)
    model.learn(steps, callback=[GradualPruningCallback("all", 0.9, update_freq=10), Watch()])
    expect_sparsity(model, 0.9)


def test_several_environments():
    """Three environments step over the multiples of update_freq; the schedule is met all the same."""
    case = CASES["sac"]
    env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=3, seed=0))
    model = case.algorithm("MlpPolicy", env, policy_kwargs={"net_arch": [16, 16]}, seed=0, device="cpu", **case.kwargs)
    model.learn(300, callback=[GradualPruningCallback("all", 0.9, start=50, end=250, update_freq=20), Watch()])
    expect_sparsity(model, 0.9)
    assert next(iter(model.sparsity_state["callbacks"].values()))["updates"] == 11


@pytest.mark.parametrize("targets", ["mask", "polyak"])
def test_targets(targets):
    model = CASES["td3"].make()
    model.learn(100, callback=OneShotPruningCallback("all", 0.9, at=50, targets=targets))
    twin = model.policy.critic_target.qf0[2]
    online = model.policy.critic.qf0[2]
    assert bool(twin.weight[~online.mask].any()) is (targets == "polyak")


def test_early_stop_leaves_the_last_step_masked():
    class Stop(Watch):
        def _on_step(self):
            return super()._on_step() and self.num_timesteps < 80

    model = CASES["sac"].make()
    model.learn(STEPS, callback=[GradualPruningCallback("all", 0.9, update_freq=10), Stop()])
    assert model.num_timesteps == 80
    check(model)
    check_targets(model)


def test_interrupt_and_learn_again():
    """Ctrl-C skips on_training_end; the next learn() starts clean, and hooks do not pile up."""

    class Interrupt(Watch):
        def _on_step(self):
            if self.num_timesteps == 60:
                raise KeyboardInterrupt
            return True

    model = CASES["sac"].make()
    callback = GradualPruningCallback("all", 0.9, start=0, end=100, update_freq=10)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            model.learn(STEPS, callback=[callback, Interrupt()])
    model.learn(STEPS, callback=[callback, Watch()])
    expect_sparsity(model, 0.9)
    assert all(len(layer.weight._backward_hooks) == 1 for layer in find_networks(model.policy)["actor"].values())


def test_called_twice():
    """rl-zoo3 calls on_training_end a second time."""
    model = CASES["dqn"].make()
    callback = GradualPruningCallback("q_net", 0.9, update_freq=10)
    model.learn(STEPS, callback=callback)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    callback.on_training_end()
    assert all(th.equal(before[name], value) for name, value in model.policy.state_dict().items())


def test_goes_on_sparse_without_the_callback():
    model = CASES["sac"].make()
    model.learn(100, callback=OneShotPruningCallback("all", 0.9))
    model.learn(100, callback=Watch(), reset_num_timesteps=False)
    expect_sparsity(model, 0.9)


def test_set_parameters_of_a_dense_model():
    """Weights and moments are masked as they are loaded; target networks when training begins."""
    model, dense = CASES["sac"].make(), CASES["sac"].make(seed=1)
    dense.learn(50)
    callback = OneShotPruningCallback("all", 0.9)
    model.learn(50, callback=callback)
    model.set_parameters(dense.get_parameters())
    expect_sparsity(model, 0.9)
    check(model)
    model.learn(50, callback=[callback, Watch()], reset_num_timesteps=False)


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
def test_line_search_without_an_optimizer_step():
    model = CASES["trpo"].make(n_critic_updates=0)
    model.learn(128, callback=OneShotPruningCallback("mlp_extractor", 0.7))
    check(model)


def test_optimizer_state_that_does_not_begin_at_zero():
    """SB3's RMSpropTFLike starts its averages at one, Adagrad wherever it is told."""
    for name, optimizer, kwargs in (("a2c", RMSpropTFLike, {}), ("td3", th.optim.Adagrad, {"initial_accumulator_value": 1.0})):
        model = CASES[name].make(policy_kwargs={"optimizer_class": optimizer, "optimizer_kwargs": kwargs})
        model.learn(64, callback=OneShotPruningCallback("all", 0.5))
        check(model)


def test_random_topologies_of_two_callbacks_differ():
    model = CASES["td3"].make()
    kwargs = {"saliency": "random", "distribution": "uniform"}
    callbacks = [OneShotPruningCallback(network, 0.5, **kwargs) for network in ("actor", "critic")]
    model.learn(10, callback=callbacks)
    actor, critic = model.actor.mu[2].mask, model.critic.qf0[2].mask
    assert 0.3 < (actor == critic).float().mean() < 0.7


def test_two_callbacks_on_two_networks():
    model = CASES["sac"].make()
    model.learn(
        STEPS, callback=[OneShotPruningCallback("critic", 0.5), GradualPruningCallback("actor", 0.9, update_freq=10), Watch()]
    )
    networks = summarize(model).networks
    assert networks["critic"].sparsity == pytest.approx(0.5, abs=0.01)
    assert networks["actor"].sparsity == pytest.approx(0.9, abs=0.01)


def test_logs(tmp_path):
    from stable_baselines3.common.logger import configure

    model = CASES["sac"].make(train_freq=5)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(450, log_interval=1, callback=GradualPruningCallback("actor", 0.9, update_freq=10))
    model.logger.close()
    header = Path(tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert {"sparsity/actor", "sparsity/actor_active_neurons", "sparsity/actor_schedule"} <= set(header)


def test_excluded_layers_stay_dense():
    model = CASES["sac"].make()
    model.learn(50, callback=OneShotPruningCallback(["actor", "critic"], 0.9, exclude=["mu", "log_std", "critic.qf*.4"]))
    layers = summarize(model).networks
    assert layers["actor"].layers["actor.mu"].sparsity == 0.0
    assert layers["critic"].layers["critic.qf1.4"].sparsity == 0.0
    pruned = [layers["actor"].layers[f"actor.latent_pi.{i}"] for i in (0, 2)]
    assert sum(p.nonzero for p in pruned) == round(0.1 * sum(p.total for p in pruned))
