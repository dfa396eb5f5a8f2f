"""Quantization-aware training: the grid, the layers, the callback, what is saved, and what does not change."""

import copy
import json
import pickle
import re

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_contrib import ARS
from stable_baselines3.common.callbacks import EveryNTimesteps
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.logger import configure
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, QATCallback, restore, summarize
from sb3_sparse.callbacks import saved_bits
from sb3_sparse.nn import (
    MaskedConv2d,
    MaskedLinear,
    fake_quantize,
    find_networks,
    find_optimizers,
    mask_layers,
    prunable_layers,
    quantize,
    quantized_bits,
    unmask_layers,
)
from tests.algorithms import CASES
from tests.invariants import Watch
from tests.test_identity import expect_equal, parameters_after
from tests.test_save_load import RESUMABLE, StopAt, masks_of, seed_everything

LAYERS = {
    "linear": (lambda: MaskedLinear(6, 4), (5, 6)),
    "conv": (lambda: MaskedConv2d(4, 6, (3, 2), groups=2, padding=1, padding_mode="reflect"), (2, 4, 8, 8)),
}
WIDTHS = range(2, 9)
SHAPES = st.one_of(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(*[st.integers(1, 4)] * 4))


def reference(weight, bits):
    """The formula, one scale at a time."""
    weight = weight.detach().numpy()
    largest = np.float32(2 ** (bits - 1) - 1)
    quantized = np.zeros_like(weight)
    for index in range(1) if weight.ndim == 2 else range(len(weight)):
        part = ... if weight.ndim == 2 else index
        scale = np.abs(weight[part]).max() / largest
        if scale > 0:
            quantized[part] = np.clip(np.round(weight[part] / scale), -largest, largest) * scale
    return th.from_numpy(quantized)


def draw_weight(shape, seed):
    """Random weights over several orders of magnitude, some of them zero."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape) * 10.0 ** rng.integers(-6, 3) * (rng.random(shape) < 0.8)
    return th.from_numpy(values.astype(np.float32))


def quantized_model(name="sac", sparse=False, bits=3, steps=60):
    """A model that was pruned and then trained with so few bits that it shows."""
    model = CASES[name].make(sparse)
    callbacks = [OneShotPruningCallback("all", 0.5, at=10), QATCallback("all", start=0.5, bits=bits)]
    model.learn(steps, callback=callbacks)
    return model


def predict(model):
    model.observation_space.seed(0)
    obs = np.stack([model.observation_space.sample() for _ in range(16)])
    if obs.dtype.kind == "f":
        obs = obs.clip(-10, 10)
    return model.predict(obs, deterministic=True)[0]


@settings(max_examples=200, deadline=None)
@given(SHAPES, st.integers(0, 2**32), st.sampled_from(WIDTHS))
def test_properties_of_the_grid(shape, seed, bits):
    weight = draw_weight(shape, seed)
    scale, integers = quantize(weight, bits)
    quantized = fake_quantize(weight, bits)
    assert th.equal(quantized, reference(weight, bits))
    assert scale.shape == (() if len(shape) == 2 else shape[:1]) and bool((scale > 0).all())
    wide = scale if len(shape) == 2 else scale.view(-1, 1, 1, 1)
    assert th.equal(integers * wide, quantized), "what an exporter writes is what the layer computes with"
    assert integers.dtype == th.int8 and int(integers.abs().max()) <= 2 ** (bits - 1) - 1
    for part in (quantized,) if len(shape) == 2 else quantized:
        assert len(part.unique()) <= 2**bits - 1
    assert not quantized[weight == 0].any()
    assert th.equal(fake_quantize(-weight, bits), -quantized)
    assert bool(((quantized - weight).abs() <= 0.501 * wide).all())
    th.testing.assert_close(fake_quantize(quantized, bits), quantized)
    # The form with a gradient gives the same bits.
    assert th.equal(fake_quantize(nn.Parameter(weight), bits), quantized)


@given(st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=1, max_size=20), st.sampled_from(WIDTHS))
def test_no_float_breaks_it(values, bits):
    """Zeros, subnormal numbers and the largest: finite, and the same with a gradient."""
    weight = th.tensor([values])
    quantized = fake_quantize(weight, bits)
    assert quantized.isfinite().all()
    assert th.equal(fake_quantize(nn.Parameter(weight), bits), quantized)


@pytest.mark.parametrize("dtype", [th.float32, th.float16, th.bfloat16, th.float64])
def test_weights_of_zeros(dtype):
    """The smallest ordinary number divides them; fake quantization spells it out, because TorchScript does not know finfo."""
    scale, integers = quantize(th.zeros(3, 2, dtype=dtype), 8)
    assert scale >= th.finfo(dtype if dtype != th.float64 else th.float32).tiny and not integers.any()
    assert th.equal(fake_quantize(th.zeros(3, 2, dtype=dtype), 8), th.zeros(3, 2, dtype=dtype))


def test_channels_have_their_own_scale():
    weight = th.ones(3, 1, 2, 2) * th.tensor([1.0, 0.0, 1e-3]).view(-1, 1, 1, 1)
    scale, integers = quantize(weight, 8)
    th.testing.assert_close(scale[[0, 2]], th.tensor([1.0, 1e-3]) / 127)
    assert integers[0].unique().tolist() == [127] == integers[2].unique().tolist() and not integers[1].any()
    assert fake_quantize(weight, 8).isfinite().all()


@pytest.mark.parametrize("bits", [1, 9, 0, -8, 8.0, True, None, "8", th.tensor(8)])
def test_bits_that_are_none(bits):
    with pytest.raises(ValueError, match=re.escape("give an int from 2 to 8")):
        QATCallback("actor", 0.5, bits)
    with pytest.raises(ValueError, match=re.escape("give an int from 2 to 8")):
        quantize(th.ones(2, 2), bits)
    if bits is not None:
        with pytest.raises(ValueError, match=re.escape("give an int from 2 to 8")):
            MaskedLinear(2, 2).set_bits(bits)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("name", LAYERS)
def test_forward_and_gradient(name, bits):
    """The forward pass is that of the quantized weight, the gradient that of the weight."""
    th.manual_seed(0)
    make, shape = LAYERS[name]
    layer, batch = make(), th.randn(shape)
    layer.set_mask(mask := th.rand(layer.weight.shape) < 0.5)
    plain = layer.to_dense()
    plain.weight = nn.Parameter(reference(layer.weight, bits))
    layer.set_bits(bits)
    assert th.equal(layer(batch), plain(batch))
    for module in (layer, plain):
        module.zero_grad()
        module(batch).pow(2).sum().backward()
    assert th.equal(layer.weight.grad, plain.weight.grad * mask) and th.equal(layer.bias.grad, plain.bias.grad)
    assert layer.weight is dict(layer.named_parameters())["weight"] and not layer.weight[~mask].any()
    layer.set_bits(None)
    assert th.equal(layer(batch), layer.to_dense()(batch))


def test_can_be_differentiated_twice():
    """TRPO's conjugate gradients need it: the second derivative is that of a layer whose weights are those of the grid."""
    layer = MaskedLinear(3, 2)
    layer.set_bits(4)
    plain = nn.Linear(3, 2)
    scale, integers = quantize(layer.weight.detach(), 4)
    plain.load_state_dict({"weight": scale * integers, "bias": layer.bias.detach()})
    batch, vector = th.randn(5, 3), th.randn(2, 3)
    products = []
    for each in (layer, plain):
        (grad,) = th.autograd.grad(each(batch).pow(4).sum(), each.weight, create_graph=True)
        products += th.autograd.grad((grad * vector).sum(), each.weight)
    assert products[0].count_nonzero() == 6
    th.testing.assert_close(products[0], products[1])


@pytest.mark.filterwarnings("ignore")
def test_traced_and_exported_as_it_computes(tmp_path):
    """Tracers see operations and not values, so none may happen behind their back."""
    net, batch = nn.Sequential(LAYERS["conv"][0]()), th.randn(LAYERS["conv"][1])
    net[0].set_bits(3)
    expected = net(batch).detach()
    assert th.equal(th.jit.trace(net, batch)(batch), expected)
    assert th.equal(th.export.export(net, (batch,)).run_decompositions().module()(batch), expected)
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    reference_evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    net = nn.Sequential(LAYERS["linear"][0]())
    net[0].set_bits(3)
    batch = th.randn(LAYERS["linear"][1])
    th.onnx.export(net, (batch,), tmp_path / "net.onnx", dynamo=False, input_names=["batch"])
    (output,) = reference_evaluator(onnx.load(tmp_path / "net.onnx")).run(None, {"batch": batch.numpy()})
    th.testing.assert_close(th.from_numpy(output), net(batch).detach())


def test_does_not_wait_for_the_host():
    """No operation of a training step hands a number to Python."""

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.add(str(func.overloadpacket))
            return func(*args, **(kwargs or {}))

    names = set()
    with Record():
        th.ones(1).item()
    assert "aten._local_scalar_dense" in names, "it would be seen"
    names.clear()
    for make, shape in LAYERS.values():
        layer = make()
        layer.set_mask(th.rand(layer.weight.shape) < 0.5)
        layer.set_bits(8)
        with Record():
            layer(th.randn(shape)).sum().backward()
    assert "aten.amax" in names
    assert not names & {"aten._local_scalar_dense", "aten.item", "aten.is_nonzero", "aten.nonzero", "aten.equal"}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["deepcopy", "pickle"])
def test_copies_compute_the_same(name, clone):
    make, shape = LAYERS[name]
    layer, batch = make(), th.randn(shape)
    layer.set_bits(2)
    twin = clone(layer)
    assert twin.bits == 2 and th.equal(twin(batch), layer(batch))
    layer.set_bits(None)
    assert not th.equal(twin(batch), layer(batch))


def test_state_dict_of_persistent_masks_holds_the_bits():
    net, plain = nn.Sequential(MaskedLinear(3, 3)), nn.Sequential(MaskedLinear(3, 3))
    keys = list(net.state_dict())
    net[0].set_bits(5)
    assert list(net.state_dict()) == [*keys, "0.bits"] and "bits=5" in repr(net)
    state = net.state_dict()
    for _ in range(2):
        plain.load_state_dict(state)
        assert quantized_bits(plain, "net") == {"net.0": 5}
    plain.load_state_dict({name: state[name] for name in keys})
    assert quantized_bits(plain) == {}
    with pytest.raises(ValueError, match="give an int from 2 to 8"):
        plain.load_state_dict({**state, "0.bits": th.tensor(99)})


def test_layers_of_a_stock_policy_keep_their_state_dict():
    net = nn.Sequential(nn.Linear(3, 3), nn.Conv2d(1, 1, 1))
    keys, parameters = list(net.state_dict()), list(net.parameters())
    mask_layers(net, persistent=False)
    for layer in prunable_layers(net).values():
        layer.set_bits(8)
    assert list(net.state_dict()) == keys
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    unmask_layers(net)
    assert [type(layer) for layer in net] == [nn.Linear, nn.Conv2d]
    assert net(th.ones(1, 3, 3)).isfinite().all() and not quantized_bits(net)


@pytest.mark.quick("sac-stock", "td3-sparse", "dqn-*", "ppo-*")
@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
@pytest.mark.parametrize("name", CASES)
def test_every_algorithm(name, sparse):
    """Pruning goes on while the weights are quantized already; stock policies have the callbacks in the other order."""
    model = CASES[name].make(sparse)
    watch = Watch()
    callbacks = [GradualPruningCallback("all", 0.8, update_freq=10), QATCallback("all", start=0.5)]
    model.learn(80, callback=[*callbacks[:: 1 if sparse else -1], watch])
    assert watch.looks > 0
    assert summarize(model).sparsity == pytest.approx(0.8, abs=0.01)
    layers = [layer for layers in find_networks(model.policy).values() for layer in layers]
    assert quantized_bits(model.policy) == dict.fromkeys(layers, 8) == saved_bits(model)
    held = {p for optimizer in find_optimizers(model.policy) for group in optimizer.param_groups for p in group["params"]}
    assert all(prunable_layers(model.policy)[layer].weight in held for layer in layers)


def test_convolutions_of_a_policy():
    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=1)
    kwargs = {"buffer_size": 100, "learning_starts": 10, "batch_size": 8, "train_freq": 1, "seed": 0, "device": "cpu"}
    extractor = {"features_extractor_kwargs": {"features_dim": 16}}
    model = CASES["dqn"].algorithm("CnnPolicy", env, policy_kwargs=extractor, **kwargs)
    model.learn(24, callback=[QATCallback("q_net", start=0), OneShotPruningCallback("q_net", 0.9, at=12), Watch()])
    conv = model.q_net.features_extractor.cnn[0]
    weights = []
    handle = conv.register_forward_pre_hook(lambda layer, inputs: weights.append(layer._forward_weight()))
    model.predict(env.reset()[0])
    handle.remove()
    assert th.equal(weights[0], reference(conv.weight, 8))


@pytest.mark.parametrize("name", ["sac", "td3", "dqn"])
def test_targets_average_and_compute_with_float_weights(name):
    model = quantized_model(name)
    targets = {layer for layer in prunable_layers(model.policy) if "_target" in layer}
    assert targets and not targets & set(quantized_bits(model.policy))
    assert any(len(prunable_layers(model.policy)[layer].weight.unique()) > 7 for layer in targets)


@pytest.mark.parametrize("name", CASES)
def test_before_it_starts_nothing_changes(name):
    expect_equal(parameters_after(CASES[name].make(), 50), parameters_after(CASES[name].make(), 50, QATCallback("all", 99)))


@pytest.mark.parametrize(("start", "first"), [(0, 0), (0.0, 0), (30, 30), (0.25, 15), (1.0, 60)])
def test_when_it_starts(start, first, capsys):
    seen = []

    class Look(Watch):
        def _on_training_start(self):
            super()._on_training_start()
            seen.append(quantized_bits(self.model.policy))

        def _on_step(self):
            seen.append(quantized_bits(self.model.policy))
            return super()._on_step()

    model = CASES["td3"].make()
    model.learn(60, callback=[QATCallback("actor", start, bits=6, verbose=1), Look()])
    assert [bool(bits) for bits in seen].index(True) == first
    assert all(set(bits) == set(find_networks(model.policy)["actor"]) for bits in seen[first:])
    assert capsys.readouterr().out == f"QATCallback: step {first}, 6 bits in actor\n"


def test_a_run_that_ends_too_early_says_so(capsys):
    CASES["td3"].make().learn(30, callback=QATCallback("actor", 50, verbose=1))
    assert capsys.readouterr().out == "QATCallback: stopped at step 30, before it begins at 50\n"


def test_logs(tmp_path):
    model = CASES["td3"].make()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(410, log_interval=1, callback=QATCallback("actor", 300, bits=4))
    model.logger.close()
    header, *rows = (line.split(",") for line in (tmp_path / "progress.csv").read_text().splitlines())
    assert [row[header.index("quantization/actor_bits")] for row in rows] == ["32", "4"]


def callbacks_of(pruned):
    qat = QATCallback("all", start=70, bits=4)
    return [qat, GradualPruningCallback("all", 0.9, start=40, end=100, update_freq=7)] if pruned else [qat]


@pytest.mark.quick("sac-False-True-85", "td3-True-True-50", "dqn-True-*")
@pytest.mark.parametrize(
    ("name", "sparse", "pruned", "cut"),
    [(name, sparse, True, 85) for name in RESUMABLE for sparse in (False, True)]
    + [("sac", False, False, 85), ("dqn", True, False, 85), ("td3", False, True, 50), ("td3", True, True, 50)],
)
def test_resumed_equals_uninterrupted(name, sparse, pruned, cut, tmp_path):
    """Interrupted before (50) or in (85) the phase, saved, loaded and resumed: the same to the last bit."""
    through = CASES[name].make(sparse)
    through.learn(cut, callback=callbacks_of(pruned))
    through.save(tmp_path / "agent.zip")
    through.save_replay_buffer(tmp_path / "buffer.pkl")
    seed_everything(through, 1)
    through.learn(120 - cut, callback=callbacks_of(pruned), reset_num_timesteps=False)

    resumed = CASES[name].algorithm.load(tmp_path / "agent.zip", env=CASES[name].make().get_env(), device="cpu")
    resumed.load_replay_buffer(tmp_path / "buffer.pkl")
    seed_everything(resumed, 1)
    resumed.learn(120 - cut, callback=[*callbacks_of(pruned)[::-1], Watch()], reset_num_timesteps=False)

    assert resumed.sparsity_state == through.sparsity_state
    assert quantized_bits(resumed.policy) == quantized_bits(through.policy) != {}
    assert masks_of(resumed).keys() == masks_of(through).keys()
    expect_equal(through.policy.state_dict(), resumed.policy.state_dict())
    assert np.array_equal(predict(through), predict(resumed))


@pytest.mark.parametrize("name", CASES)
def test_restore(name, tmp_path):
    """A stock policy is what it was when it was saved; a second time changes nothing."""
    model = quantized_model(name, steps=64)
    model.save(tmp_path / "agent.zip")
    loaded = CASES[name].algorithm.load(tmp_path / "agent.zip", device="cpu")
    assert quantized_bits(loaded.policy) == {} and saved_bits(loaded) == quantized_bits(model.policy)
    for _ in range(2):
        restore(loaded)
        assert quantized_bits(loaded.policy) == quantized_bits(model.policy)
        assert all(th.equal(mask, masks_of(loaded)[layer]) for layer, mask in masks_of(model).items())
        assert np.array_equal(predict(loaded), predict(model))


def test_restored_models_stay_sparse(tmp_path):
    model = quantized_model()
    model.save(tmp_path / "agent.zip")
    loaded = CASES["sac"].algorithm.load(tmp_path / "agent.zip", env=model.get_env(), device="cpu")
    assert not np.array_equal(predict(loaded), predict(model)), "float weights"
    restore(loaded)
    loaded.learn(60, callback=Watch())
    assert summarize(loaded).sparsity == pytest.approx(0.5, abs=0.01)


def test_restore_leaves_other_models_alone():
    model = CASES["sac"].make()
    before = repr(model.policy)
    restore(model)
    assert repr(model.policy) == before and not hasattr(model, "sparsity_state") and saved_bits(model) == {}


@pytest.mark.parametrize("name", ["sac", "dqn", "ppo"])
def test_sparse_policies_load_quantized(name, tmp_path):
    model = quantized_model(name, sparse=True)
    model.save(tmp_path / "agent.zip")
    loaded = CASES[name].algorithm.load(tmp_path / "agent.zip", device="cpu")
    assert quantized_bits(loaded.policy) == quantized_bits(model.policy) != {}
    assert np.array_equal(predict(loaded), predict(model))
    model.policy.save(tmp_path / "policy.pth")
    policy = type(model.policy).load(tmp_path / "policy.pth", device="cpu")
    assert quantized_bits(policy) == quantized_bits(model.policy)
    before = summarize(loaded)
    for layer in prunable_layers(loaded.policy).values():
        layer.set_bits(None)
    assert before == summarize(loaded), "the number of bits is no parameter"


def test_any_callback_brings_the_quantizers_back(tmp_path):
    """Also one that prunes, and on networks that it does not govern."""
    model = quantized_model()
    model.save(tmp_path / "agent.zip")
    loaded = CASES["sac"].algorithm.load(tmp_path / "agent.zip", env=model.get_env(), device="cpu")
    loaded.learn(20, callback=[GradualPruningCallback("actor", 0.9, start=0, end=10, update_freq=5), Watch()])
    assert quantized_bits(loaded.policy) == quantized_bits(model.policy)
    assert saved_bits(loaded) == quantized_bits(model.policy)


@pytest.mark.parametrize("first", [0, 1], ids=["quantization first", "pruning first"])
def test_trained_dense_in_between_prunes_anew(first, tmp_path):
    """Masks that no longer fit are dropped by whichever callback comes first, and pruning starts again; the phase stays."""
    case = CASES["sac"]

    def callbacks():
        both = [QATCallback("all", 30), GradualPruningCallback("all", 0.9, start=10, end=50, update_freq=5)]
        return both[:: 1 if first == 0 else -1]

    model = case.make()
    model.learn(60, callback=callbacks())
    model.save(tmp_path / "agent.zip")
    dense = case.algorithm.load(tmp_path / "agent.zip", env=model.get_env(), device="cpu")
    dense.learn(60)
    dense.save(tmp_path / "dense.zip")
    again = case.algorithm.load(tmp_path / "dense.zip", env=model.get_env(), device="cpu")
    with pytest.warns(UserWarning, match="pruned weights have come back"):
        again.learn(60, callback=[*callbacks(), Watch()])
    assert summarize(again).sparsity == pytest.approx(0.9, abs=0.01)
    clocks = {name.split("(")[0]: clock["timestep"] for name, clock in again.sparsity_state["callbacks"].items()}
    assert clocks == {"QATCallback": 120, "GradualPruningCallback": 60}
    restored = case.algorithm.load(tmp_path / "dense.zip", device="cpu")
    with pytest.warns(UserWarning, match="pruned weights have come back"):
        restore(restored)
    assert quantized_bits(restored.policy) and not restored.sparsity_state["masks"]


def test_share_is_resolved_once(tmp_path):
    model = CASES["td3"].make()
    model.learn(100, callback=[QATCallback("actor", 0.9), StopAt(50)])
    model.save(tmp_path / "agent.zip")
    resumed = CASES["td3"].algorithm.load(tmp_path / "agent.zip", env=model.get_env())
    resumed.learn(50, callback=QATCallback("actor", 0.9))
    (clock,) = resumed.sparsity_state["callbacks"].values()
    assert clock == {"start": 90, "updates": 1, "timestep": 100}
    assert quantized_bits(resumed.policy)


def test_fewer_bits_by_another_callback():
    model = CASES["td3"].make()
    model.learn(40, callback=[QATCallback("actor", 10), QATCallback(["actor"], 20, bits=np.int64(4)), Watch()])
    assert set(quantized_bits(model.policy).values()) == {4} == set(saved_bits(model).values())
    assert json.loads(json.dumps(model.sparsity_state)) == model.sparsity_state


@pytest.mark.parametrize("bits", [{"actor.mu": 9}, {"actor.mu": "8"}, {"actor.mu": True}, {"x": None}, [8]])
def test_damaged_bits(bits):
    model = CASES["sac"].make()
    model.sparsity_state = {"masks": {}, "callbacks": {}, "bits": bits}
    before = repr(model.policy)
    for act in (restore, saved_bits, lambda model: model.learn(20, callback=QATCallback("actor", 0))):
        with pytest.raises(ValueError, match="damaged"):
            act(model)
    assert repr(model.policy) == before


@pytest.mark.parametrize(
    ("start", "message"),
    [(-1, "lies before the run"), (1.2, "steps are given as an int"), ("0.5", "is not a moment"), (True, "is not a moment")],
)
def test_start_that_is_none(start, message):
    with pytest.raises(ValueError, match=f"start={start!r} {message}" if message != "steps are given as an int" else message):
        QATCallback("actor", start)


def test_errors_come_before_the_first_step():
    model = CASES["sac"].make()
    before = repr(model.policy)
    for callback, message in (
        (QATCallback("q_net", 0), "SACPolicy has no network 'q_net' .* it has: actor, critic"),
        (QATCallback("critic_target", 0), "it has: actor, critic"),
        (QATCallback([], 0), "it has: actor, critic"),
        (
            EveryNTimesteps(10, QATCallback("actor", 0)),
            "QATCallback cannot be inside another callback such as EveryNTimesteps",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            model.learn(20, callback=callback)
        assert model.num_timesteps == 0 and repr(model.policy) == before
    with pytest.raises(ValueError, match="ARS trains without gradients, so QATCallback cannot work on it"):
        ARS("MlpPolicy", "Pendulum-v1", n_delta=1, device="cpu").learn(100, callback=QATCallback("all", 0))


def test_quantized_weights_are_those_of_the_forward_pass():
    """The actor of a trained SAC, computed by hand from the float weights in its state dict."""
    model = quantized_model(bits=8)
    obs = th.from_numpy(np.stack([model.observation_space.sample() for _ in range(8)]))
    state, hidden = model.policy.state_dict(), obs
    for layer in ("latent_pi.0", "latent_pi.2", "mu"):
        scale, integers = quantize(state[f"actor.{layer}.weight"], 8)
        hidden = F.linear(hidden, integers * scale, state[f"actor.{layer}.bias"])
        hidden = hidden.tanh() if layer == "mu" else hidden.relu()
    with th.no_grad():
        assert th.equal(hidden, model.actor(obs, deterministic=True))
