"""The invariants again on a GPU, saving and loading across devices, and no wait for the host in a gradient step."""

from functools import partial

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.utils import polyak_update
from torch import nn

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, QATCallback, restore, summarize
from sb3_sparse.callbacks.pruning.losses import find_losses
from sb3_sparse.nn import fake_quantize, fuse_adam, input_grids, quantize, quantized_bits
from sb3_sparse.sparsity import DISTRIBUTIONS, MOMENTS, SALIENCIES, prune_to, rewire
from tests.algorithms import CASES
from tests.invariants import Watch, check, check_targets
from tests.offline import CASES as OFFLINE
from tests.rewirings import Rewirings, masks_of, rewiring

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU, and there is none")]


NEED_MOMENTS = [SALIENCIES[name] for name in MOMENTS]


def _cubes(weights):
    return sum(weight.pow(3).sum() for weight in weights.values())


@pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@pytest.mark.parametrize("saliency", SALIENCIES.values(), ids=SALIENCIES)
def test_same_masks_on_both_devices(distribution, saliency):
    weights = {"a": th.randn(64, 64).round(decimals=1), "b": th.randn(8, 4, 3, 3).round(decimals=1)}
    masks = {name: th.ones_like(weight, dtype=th.bool) for name, weight in weights.items()}
    results = []
    for device in ("cpu", "cuda"):
        there, masks_there = ({name: tensor.to(device) for name, tensor in named.items()} for named in (weights, masks))
        for weight in there.values():
            weight.requires_grad_()
        generator = th.Generator().manual_seed(0)
        # The scores are products alone: sums may be rounded differently on the two devices.
        given = {"second_moments": {name: w.detach() ** 4 for name, w in there.items()}} if saliency in NEED_MOMENTS else {}
        kwargs = {"loss": partial(_cubes, there), "distribution": distribution, "generator": generator}
        results.append(prune_to(there, masks_there, 0.9, saliency=partial(saliency, **given), **kwargs))
    assert all(th.equal(mask, results[1][name].cpu()) for name, mask in results[0].items())


def test_same_rewiring_on_both_devices():
    mask, weight, grow = th.rand(64, 64) < 0.5, th.randn(64, 64).round(decimals=1), th.rand(64, 64).round(decimals=2)
    on_cpu, on_gpu = (
        rewire({"a": mask.to(d)}, {"a": weight.to(d)}, {"a": grow.to(d)}, 0.3)["a"].cpu() for d in ("cpu", "cuda")
    )
    assert th.equal(on_cpu, on_gpu)


@pytest.mark.filterwarnings("ignore:pruning has")
@pytest.mark.parametrize("saliency", ["snip", "grasp"])
@pytest.mark.parametrize("name", ["sac", "td3", "dqn"])
def test_saliencies_that_see_data(name, saliency):
    """A loss has one value, draws its noise on the GPU, and leaves the random state there alone."""
    model = CASES[name].make(device="cuda")
    model.learn(40)
    state = th.cuda.get_rng_state()
    for loss in find_losses(model, 50, th.Generator().manual_seed(0)).values():
        assert th.equal(loss(), loss())
    assert th.equal(th.cuda.get_rng_state(), state)
    callback = OneShotPruningCallback("all", 0.8, saliency=saliency)
    model.learn(40, callback=[callback, Watch()], reset_num_timesteps=False)
    assert summarize(model).sparsity == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
@pytest.mark.parametrize("name", CASES)
def test_every_algorithm(name, sparse, tmp_path):
    model = CASES[name].make(sparse, device="cuda")
    model.learn(200, callback=[GradualPruningCallback("all", 0.8, update_freq=10), Watch()])
    assert summarize(model).sparsity == pytest.approx(0.8, abs=0.02)
    model.save(tmp_path / "agent.zip")
    for device in ("cpu", "cuda"):
        loaded = CASES[name].algorithm.load(tmp_path / "agent.zip", device=device, env=model.get_env())
        loaded.learn(50, callback=[GradualPruningCallback("all", 0.8, update_freq=10), Watch()], reset_num_timesteps=False)
        assert summarize(loaded).nonzero <= summarize(model).nonzero


@pytest.mark.parametrize("shape", [(64, 33), (8, 4, 3, 3)], ids=["linear", "conv"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_same_grid_on_both_devices(shape, bits):
    """A device may round the scale differently in its last bit, and a weight in the middle between two integers either way."""
    weight = th.randn(shape)
    on_gpu, on_cpu = quantize(weight.cuda(), bits), quantize(weight, bits)
    th.testing.assert_close(on_gpu[0].cpu(), on_cpu[0])
    assert int((on_gpu[1].cpu().int() - on_cpu[1]).abs().max()) <= 1
    assert (on_gpu[1].cpu() == on_cpu[1]).float().mean() > 0.99
    wide = on_gpu[0] if len(shape) == 2 else on_gpu[0].view(-1, 1, 1, 1)
    assert th.equal(fake_quantize(weight.cuda(), bits), wide * on_gpu[1])


@pytest.mark.parametrize("name", ["sac", "dqn", "ppo"])
def test_rounded_inputs(name, tmp_path):
    """Ranges are saved on one device and loaded on the other; a step of the actor does not wait for the host."""
    model = CASES[name].make(device="cuda")
    model.learn(100, callback=QATCallback("all", 0.3, activation_bits=4))
    model.save(tmp_path / "agent.zip")
    for device in ("cpu", "cuda"):
        loaded = CASES[name].algorithm.load(tmp_path / "agent.zip", device=device)
        restore(loaded)
        grids = input_grids(loaded.policy)
        assert {layer: grid.numbers() for layer, grid in grids.items()} == model.sparsity_state["inputs"]
        assert {grid.unit.device.type for grid in grids.values()} == {device}
    layer = next(layer for layer in model.policy.modules() if getattr(layer, "input_grid", None) is not None)
    layer.input_grid.follows = True
    x = th.randn(8, layer.in_features, device="cuda", requires_grad=True)
    layer(x).sum().backward()
    previous = th.cuda.get_sync_debug_mode()
    th.cuda.set_sync_debug_mode("error")
    try:
        layer(x).sum().backward()
    finally:
        th.cuda.set_sync_debug_mode(previous)


@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
@pytest.mark.parametrize("name", CASES)
def test_every_algorithm_quantized(name, sparse, tmp_path):
    model = CASES[name].make(sparse, device="cuda")
    callbacks = [GradualPruningCallback("all", 0.8, update_freq=10), QATCallback("all", 0.5), Watch()]
    model.learn(100, callback=callbacks)
    assert summarize(model).sparsity == pytest.approx(0.8, abs=0.02)
    model.save(tmp_path / "agent.zip")
    for device in ("cpu", "cuda"):
        loaded = CASES[name].algorithm.load(tmp_path / "agent.zip", device=device)
        restore(loaded)
        assert quantized_bits(loaded.policy) == quantized_bits(model.policy) != {}
        obs = model.observation_space.sample()
        actions = [m.predict(obs, deterministic=True)[0] for m in (model, loaded)]
        assert device == "cpu" or (actions[0] == actions[1]).all()


def test_fused_after_steps_on_the_gpu():
    """Adam keeps its step count on the host until it is fused."""
    layer = nn.Linear(8, 8, device="cuda")
    optimizer = th.optim.Adam(layer.parameters())
    for _ in range(2):
        layer(th.randn(4, 8, device="cuda")).sum().backward()
        optimizer.step()
        fuse_adam(optimizer)
    assert optimizer.state[layer.weight]["step"].device.type == "cuda"


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "quantized"])
def test_a_gradient_step_does_not_wait_for_the_host(quantized):
    """The critic's step of a pruned TD3, without SB3's own logging, which does wait."""
    model = CASES["td3"].make(device="cuda")
    quantization = [QATCallback("all", 0.5)] if quantized else []
    model.learn(60, callback=[GradualPruningCallback("all", 0.9, update_freq=5), *quantization])
    assert bool(quantized_bits(model.policy)) is quantized
    critic, optimizer = model.critic, model.critic.optimizer
    assert optimizer.param_groups[0]["fused"]
    obs, actions = th.randn(32, 3, device="cuda"), th.rand(32, 1, device="cuda")

    def step():
        loss = sum(values.pow(2).mean() for values in critic(obs, actions))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(critic.parameters(), 1.0)
        optimizer.step()
        polyak_update(critic.parameters(), model.critic_target.parameters(), model.tau)

    step()
    previous = th.cuda.get_sync_debug_mode()
    th.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step()
    finally:
        th.cuda.set_sync_debug_mode(previous)
    check(model)
    check_targets(model)


@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_rewiring(grow):
    """The invariants of dynamic sparse training, with targets by count."""
    model, watch = CASES["td3"].make(device="cuda"), Rewirings("topk")
    model.learn(60, callback=[*rewiring(grow=grow), watch])
    assert len(watch.steps) >= 3


def test_same_growth_on_both_devices():
    """All weights move, so a new topology follows from the draws alone, which are those of the CPU."""
    grown = []
    for device in ("cpu", "cuda"):
        model = CASES["td3"].make(device=device)
        model.learn(60, callback=rewiring(fraction=1.0))
        grown.append({name: mask.cpu() for name, mask in masks_of(model).items()})
    assert all(th.equal(mask, grown[1][name]) for name, mask in grown[0].items())


@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_training_between_rewirings_does_not_wait_for_the_host(grow):
    """A critic's step and the use of its target, pruned by count, while no rewiring is due."""
    model = CASES["td3"].make(device="cuda")
    callbacks = rewiring(grow=grow)
    model.learn(60, callback=callbacks)
    model._setup_learn(60, None, reset_num_timesteps=False)
    for callback in callbacks:
        callback.init_callback(model)
        callback.on_training_start({}, {})
    critic, target = model.critic, model.critic_target
    obs, actions = th.randn(32, 3, device="cuda"), th.rand(32, 1, device="cuda")

    def step():
        with th.no_grad():
            goal = th.cat(target(obs, actions), dim=1).min(dim=1, keepdim=True).values
        loss = sum((values - goal).pow(2).mean() for values in critic(obs, actions))
        critic.optimizer.zero_grad()
        loss.backward()
        critic.optimizer.step()
        polyak_update(critic.parameters(), target.parameters(), model.tau)

    step()
    previous = th.cuda.get_sync_debug_mode()
    th.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step()
    finally:
        th.cuda.set_sync_debug_mode(previous)
    for callback in callbacks:
        callback.on_training_end()
    check(model)


@pytest.mark.filterwarnings("ignore:pruning has")
@pytest.mark.parametrize("name", OFFLINE)
def test_offline_algorithms(name, tmp_path):
    """The same minibatches, noise and losses on both devices; pruned, saved, and loaded on the other one."""
    models = [OFFLINE[name].make(device=device) for device in ("cpu", "cuda")]
    losses = [model.losses(generator=th.Generator().manual_seed(0)) for model in models]
    for network, loss in losses[0].items():
        th.testing.assert_close(losses[1][network]().cpu(), loss(), rtol=1e-4, atol=1e-5)
    model = models[1]
    model.learn(20, callback=[OneShotPruningCallback("all", 0.5, saliency="snip"), Watch()])
    check(model)
    check_targets(model)
    model.save(tmp_path / "agent")
    loaded = OFFLINE[name].algorithm.load(tmp_path / "agent", device="cpu")
    observations = model.sample(5).observations.cpu().numpy()
    np.testing.assert_allclose(
        loaded.predict(observations, deterministic=True)[0], model.predict(observations, deterministic=True)[0], atol=1e-4
    )


def test_offline_losses_do_not_wait_for_the_host():
    """Sampling copies a minibatch to the device, as SB3's replay buffer does; what comes then must not look back."""
    model = OFFLINE["bcq"].make(device="cuda")
    losses = model.losses()
    previous = th.cuda.get_sync_debug_mode()
    th.cuda.set_sync_debug_mode("error")
    try:
        for loss in losses.values():
            loss()
    finally:
        th.cuda.set_sync_debug_mode(previous)
