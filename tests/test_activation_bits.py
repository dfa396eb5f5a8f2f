"""Activations that training rounds: the grid, which layers have one, the saved state, and exported policies doing the same."""

import copy
import ctypes
import json
import pickle
import re
import shutil
import subprocess
import zipfile
from itertools import pairwise

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_sparse import EngineCallback, GradualPruningCallback, QATCallback, compress, restore
from sb3_sparse.export import compress as compress_model
from sb3_sparse.export.c.integer.constants import integer_layers, without_integers
from sb3_sparse.export.c.integer.simulation import simulate_integers
from sb3_sparse.export.pipeline import read_model
from sb3_sparse.nn import InputGrid, MaskedConv2d, MaskedLinear, hidden_grid, input_grids, observation_grid, quantized_bits
from sb3_sparse.runtime import Policy, load
from sb3_sparse.runtime.backends.int8 import simulate_int8
from sb3_sparse.runtime.network.records import Grid
from sb3_sparse.runtime.network.reference import layer_inputs
from sb3_sparse.state import saved_inputs
from tests.algorithms import CASES
from tests.networks import AVAILABLE
from tests.test_identity import expect_equal, parameters_after
from tests.test_save_load import seed_everything

ACTIONS = ["mlp_extractor", "action_net"]


def rounding(grid, size=3.0, *, follows=False):
    """A grid with a range."""
    numbers = grid.numbers()
    return InputGrid.from_numbers([float(np.float32(size / grid.top)), *numbers[1:4], float(follows)])


def numbers_of(model):
    return {name: grid.numbers() for name, grid in input_grids(model.policy).items()}


def trained(name="sac", *, sparse=False, steps=120, network="all", **kwargs):
    model = CASES[name].make(sparse)
    model.learn(steps, callback=QATCallback(network, start=0.25, activation_bits=4, **kwargs))
    return model


def observe(model, count=400):
    model.observation_space.seed(0)
    obs = np.stack([model.observation_space.sample() for _ in range(count)])
    return obs.clip(-10, 10) if obs.dtype.kind == "f" else obs


# The grid


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), st.integers(2, 8), st.booleans())
def test_the_grid(values, bits, signed):
    """That of the exporter's records, to the last bit."""
    grid = rounding(hidden_grid(bits, signed=signed), 2.7)
    x = th.tensor(values)
    record = Grid(float(grid.unit), grid.low, grid.top)
    near = x.clamp(-1e6, 1e6)
    assert np.array_equal(grid(near).numpy(), record(near.numpy()))
    assert record.top - record.low == 2**bits - (2 if signed else 1)
    assert record.top * record.unit == pytest.approx(2.7)
    assert th.equal(grid(grid(near)), grid(near)) and set(np.unique(record.codes(near.numpy()))) <= set(range(-255, 256))


def test_gradient():
    """Straight through, and once more, as TRPO needs it."""
    grid = rounding(hidden_grid(3, signed=True), 3.0)
    x = th.tensor([-4.0, -2.9, 0.2, 1.4, 3.4, 9.0], requires_grad=True)
    y = grid(x)
    assert y.tolist() == [-3, -3, 0, 1, 3, 3]
    (first,) = th.autograd.grad((y**2).sum(), x, create_graph=True)
    assert first.tolist() == [-6, -6, 0, 2, 6, 6]
    assert th.autograd.grad(first.sum(), x)[0].tolist() == [2] * 6


def test_range():
    """The first batch, then an average; that of an observation only grows. Without gradients and once frozen it stays."""
    for grid, sizes in ((hidden_grid(8, signed=True), [2.0, 2.02, 2.01]), (observation_grid(3, 8), [3.0, 6.0, 6.0])):
        x = th.tensor([-2.0, 1.0])
        with th.no_grad():
            assert th.equal(grid(x), x) and not grid.known, "without a range nothing is rounded"
        for batch, size in zip((x, 2 * x, x / 2), sizes, strict=True):
            grid(batch)
            assert float(grid.unit) * grid.top == pytest.approx(size, rel=1e-2)
        before = float(grid.unit)
        with th.no_grad():
            grid(100 * x)
        grid.follows = False
        grid(100 * x)
        assert float(grid.unit) == before


def test_batches_of_zeros():
    grid = hidden_grid(8, signed=False)
    assert grid(th.zeros(3)).tolist() == [0, 0, 0] and grid.known and float(grid.unit) > 0


def test_sums_of_an_observation_fit_into_32_bits():
    assert observation_grid(516, 8).top == 32767
    assert observation_grid(3000, 8).top * 3000 * 127 < 2**31


@pytest.mark.parametrize(
    "numbers",
    [None, 5, [1.0] * 4, ["1", 0, 255, 0, 0], [np.nan, 0, 255, 0, 0], [-1.0, 0, 255, 0, 0], [1.0, -3, 255, 0, 0],
     [1.0, 0, 0, 0, 0], [1.0, 0, 2.5, 0, 0], [1.0, 0, 1 << 20, 0, 0], [1.0, 0, 255, 2, 0], [1e300, 0, 255, 0, 0]],
)  # fmt: skip
def test_numbers_that_are_no_grid(numbers):
    with pytest.raises(ValueError, match="are not the five numbers of rounded inputs"):
        InputGrid.from_numbers(numbers)


@pytest.mark.parametrize("bits", [1, 9, 0, 8.0, True, "8", [8]])
def test_bits_that_are_none(bits):
    with pytest.raises(
        ValueError, match=re.escape(f"activation_bits={bits!r} is not a width of a rounded activation: give an int")
    ):
        QATCallback("actor", 0.5, activation_bits=bits)


def layers():
    th.manual_seed(0)
    for layer, shape in ((MaskedLinear(6, 4), (5, 6)), (MaskedConv2d(4, 6, 3, padding=1), (2, 4, 8, 8))):
        layer.set_bits(8)
        layer.input_grid = rounding(hidden_grid(4, signed=True))
        yield layer, th.randn(shape)


def test_layers_compute_with_rounded_inputs():
    for layer, x in layers():
        plain = layer.to_dense()
        plain.weight = nn.Parameter(layer._forward_weight().detach())
        assert th.equal(layer(x), plain(layer.input_grid(x))) and not th.equal(layer(x), plain(x))
        for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert th.equal(copied(x), layer(x)) and copied.input_grid is not layer.input_grid


@pytest.mark.filterwarnings("ignore")
def test_traced_and_scripted():
    for layer, x in layers():
        net = nn.Sequential(layer)
        with th.no_grad():
            for compiled in (th.jit.trace(net, x), th.jit.script(net), th.export.export(net, (x,)).module()):
                assert th.equal(compiled(x), net(x))


def test_does_not_wait_for_the_host():
    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.add(str(func.overloadpacket))
            return func(*args, **(kwargs or {}))

    names = set()
    for layer, x in layers():
        layer.input_grid.follows = True
        with Record():
            layer(x.requires_grad_()).sum().backward()
    assert "aten.aminmax" in names
    assert not names & {"aten._local_scalar_dense", "aten.item", "aten.is_nonzero", "aten.nonzero", "aten.equal"}


def test_state_dict_of_a_sparse_layer_holds_the_grid():
    net, plain = nn.Sequential(MaskedLinear(3, 3)), nn.Sequential(MaskedLinear(3, 3))
    keys = list(net.state_dict())
    net[0].input_grid = rounding(hidden_grid(8, signed=False), 1.7, follows=True)
    assert list(net.state_dict()) == [*keys, "0.input_grid"] and "(input_grid): InputGrid(0..255)" in repr(net)
    plain.load_state_dict(net.state_dict())
    assert plain[0].input_grid.numbers() == net[0].input_grid.numbers()
    plain.load_state_dict({key: net.state_dict()[key] for key in keys})
    assert plain[0].input_grid is None
    with pytest.raises(ValueError, match="are not the five numbers"):
        plain.load_state_dict({**net.state_dict(), "0.input_grid": th.tensor([1.0, 2.0])})


# Which layers


def widths(model, network="all", **kwargs):
    callback = QATCallback(network, 0, activation_bits=4, **kwargs)
    callback.init_callback(model)
    return {name: (grid.low, grid.top) for name, grid in callback._grids.items()}


OBSERVATION, RELU, TANH = (-32767, 32767), (0, 15), (-7, 7)


@pytest.mark.parametrize(
    ("name", "kwargs", "expected"),
    [
        ("sac", {}, {"latent_pi.0": OBSERVATION, "latent_pi.2": RELU, "mu": RELU}),
        ("sac", {"activation_fn": nn.ELU}, {"latent_pi.0": OBSERVATION, "latent_pi.2": TANH, "mu": TANH}),
        ("td3", {"activation_fn": nn.Sigmoid}, {"mu.0": OBSERVATION, "mu.2": RELU, "mu.4": RELU}),
        ("ppo", {}, {"mlp_extractor.policy_net.0": OBSERVATION, "mlp_extractor.policy_net.2": TANH, "action_net": TANH}),
        ("ppo", {"net_arch": []}, {"action_net": OBSERVATION}),
        ("qrdqn", {}, {"quantile_net.0": OBSERVATION, "quantile_net.2": RELU, "quantile_net.4": RELU}),
    ],
)
def test_the_layers_on_the_way_to_an_action(name, kwargs, expected):
    """Neither critics, targets, the value nor a standard deviation; behind a ReLU or a sigmoid from 0 on."""
    model = CASES[name].make(policy_kwargs=kwargs)
    before = repr(model.policy), model.policy.training, th.random.get_rng_state()
    first = next(iter(CASES[name].networks))
    names = {f"{first}.{key}" if name != "ppo" else key: width for key, width in expected.items()}
    assert widths(CASES[name].make(policy_kwargs=kwargs)) == names
    callback = QATCallback("all", 99, activation_bits=4)
    callback.init_callback(model)
    assert model.policy.training == before[1] and th.equal(th.random.get_rng_state(), before[2])


def test_pixels_stay_as_they_are():
    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=1)
    model = DQN(
        "CnnPolicy", env, buffer_size=10, policy_kwargs={"features_extractor_kwargs": {"features_dim": 16}}, device="cpu"
    )
    hidden = ("features_extractor.cnn.2", "features_extractor.cnn.4", "features_extractor.linear.0", "q_net.0")
    assert widths(model) == {f"q_net.{name}": RELU for name in hidden}


@pytest.mark.parametrize(
    ("make", "network", "message"),
    [
        (CASES["sac"].make, "critic", "SACPolicy computes its actions without critic.qf0.0, .* name the networks of the det"),
        (CASES["ppo"].make, "value_net", "computes its actions without value_net, so no exported policy rounds their inputs"),
        (CASES["recurrent_ppo"].make, "all", "does not support LSTM layers: leave it out"),
        (CASES["crossq"].make, "actor", r"the layer 'actor.latent_pi.4', which reads the outputs of a normalization, such as"),
        (lambda: PPO("MultiInputPolicy", SimpleMultiObsEnv(), device="cpu"), "all", "mlp_extractor.policy_net.0', which"),
    ],
)  # fmt: skip
def test_inputs_that_are_not_rounded(make, network, message):
    """Before anything changes."""
    model = make()
    before = repr(model.policy)
    with pytest.raises(ValueError, match=message):
        model.learn(10, callback=QATCallback(network, 0, activation_bits=8))
    assert repr(model.policy) == before and model.num_timesteps == 0


# The run


@pytest.mark.quick("sac", "dqn", "ppo")
@pytest.mark.parametrize("name", ["sac", "td3", "ddpg", "dqn", "ppo", "a2c", "tqc", "qrdqn", "trpo", "maskable_ppo"])
def test_every_algorithm(name):
    """Nothing changes before the start. Then ranges follow the batches until half way, and training goes on."""
    case = CASES[name]
    stock = parameters_after(case.make(), 50)
    expect_equal(stock, parameters_after(case.make(), 50, QATCallback("all", 99, activation_bits=4)))
    model = trained(name, steps=160)
    grids = input_grids(model.policy)
    assert grids and all(grid.known and not grid.follows and bool(grid.unit.isfinite()) for grid in grids.values())
    assert not any("target" in layer or "critic" in layer or "value" in layer for layer in grids)
    assert all(bool(parameter.isfinite().all()) for parameter in model.policy.parameters())
    assert numbers_of(model) == model.sparsity_state["inputs"]


def test_when_it_starts_and_freezes(capsys):
    model, seen = CASES["td3"].make(), []

    class Look(QATCallback):
        def _on_step(self):
            goes_on = super()._on_step()
            seen.append([float(grid.unit) for grid in input_grids(self.model.policy).values()])
            return goes_on

    model.learn(100, callback=Look("actor", 40, activation_bits=8, verbose=1))
    assert capsys.readouterr().out == "Look: step 40, 8 bits in actor, activations in 8\n"
    assert [bool(ranges) for ranges in seen].index(True) == 39
    changed = [a != b for a, b in pairwise(seen[40:])]
    assert any(changed[:29]) and not any(changed[30:])


def test_a_start_at_the_end_takes_the_range_of_one_batch():
    model = CASES["td3"].make()
    model.learn(50, callback=QATCallback("actor", 50, activation_bits=8))
    before = numbers_of(model)
    model.learn(20, callback=QATCallback("actor", 50, activation_bits=8), reset_num_timesteps=False)
    assert before == numbers_of(model) and all(grid.known and not grid.follows for grid in input_grids(model.policy).values())


@pytest.mark.quick("sac-False-85", "td3-True-85", "dqn-False-115")
@pytest.mark.parametrize("cut", [50, 85, 115])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ["sac", "td3", "dqn"])
def test_resumed_equals_uninterrupted(name, sparse, cut, tmp_path):
    """Interrupted before the phase, while ranges follow, or when they are frozen; the zip holds nothing of this package."""

    def callbacks():
        pruning = GradualPruningCallback("all", 0.8, start=40, end=100, update_freq=7)
        return [QATCallback("all", start=70, bits=4, activation_bits=3), pruning]

    through = CASES[name].make(sparse)
    through.learn(cut, callback=callbacks())
    through.save(tmp_path / "agent.zip")
    through.save_replay_buffer(tmp_path / "buffer.pkl")
    seed_everything(through, 1)
    through.learn(130 - cut, callback=callbacks(), reset_num_timesteps=False)

    resumed = CASES[name].algorithm.load(tmp_path / "agent.zip", env=CASES[name].make().get_env(), device="cpu")
    resumed.load_replay_buffer(tmp_path / "buffer.pkl")
    seed_everything(resumed, 1)
    resumed.learn(130 - cut, callback=callbacks()[::-1], reset_num_timesteps=False)

    assert resumed.sparsity_state == through.sparsity_state
    assert numbers_of(resumed) == numbers_of(through) != {}
    expect_equal(through.policy.state_dict(), resumed.policy.state_dict())
    assert np.array_equal(
        resumed.predict(observe(resumed), deterministic=True)[0], through.predict(observe(through), deterministic=True)[0]
    )
    data = json.loads(zipfile.ZipFile(tmp_path / "agent.zip").read("data"))
    assert ":serialized:" not in data["sparsity_state"] if cut > 40 else True


def test_saved_in_the_middle_of_a_phase(tmp_path):
    """A checkpoint of a stock policy holds the ranges of that moment, and restore puts them back."""
    model, saved = CASES["sac"].make(), {}

    class Save(QATCallback):
        def _on_rollout_start(self):
            if self.num_timesteps == 60:
                self.model.save(tmp_path / "agent.zip")
                saved.update(numbers_of(self.model))

    model.learn(100, callback=Save("actor", 40, activation_bits=8))
    assert saved != numbers_of(model)
    loaded = SAC.load(tmp_path / "agent.zip", device="cpu")
    assert {name: grid.numbers() for name, grid in saved_inputs(loaded).items()} == saved and not input_grids(loaded.policy)
    for _ in range(2):
        restore(loaded)
        assert numbers_of(loaded) == saved


@pytest.mark.parametrize("sparse", [False, True])
def test_loaded_as_saved(sparse, tmp_path):
    model = trained(sparse=sparse)
    model.save(tmp_path / "agent.zip")
    loaded = SAC.load(tmp_path / "agent.zip", device="cpu")
    assert bool(input_grids(loaded.policy)) is sparse
    exported = compress(loaded)
    restore(loaded)
    assert numbers_of(loaded) == numbers_of(model)
    obs = observe(model)
    actions = model.predict(obs, deterministic=True)[0]
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], actions)
    assert np.array_equal(exported.predict(obs)[0], compress(model).predict(obs)[0])
    if sparse:
        model.policy.save(tmp_path / "policy.pth")
        policy = type(model.policy).load(tmp_path / "policy.pth", device="cpu")
        assert np.array_equal(policy.predict(obs, deterministic=True)[0], actions)


def test_damaged_state():
    model = CASES["sac"].make()
    for inputs in ({"actor.mu": [1.0, 0, 255]}, {"actor.mu": "x"}, [3]):
        model.sparsity_state = {"masks": {}, "callbacks": {}, "inputs": inputs}
        for act in (restore, compress, lambda model: model.learn(20, callback=QATCallback("actor", 0))):
            with pytest.raises(ValueError, match="damaged"):
                act(model)


def test_saved_runs_without_activation_bits_go_on(tmp_path):
    """A run of an older version, whose key does not have the argument."""
    model = CASES["td3"].make()
    model.learn(40, callback=QATCallback("actor", 20))
    (key,) = model.sparsity_state["callbacks"]
    model.sparsity_state["callbacks"] = {key.replace(", activation_bits=None", ""): model.sparsity_state["callbacks"][key]}
    model.learn(20, callback=QATCallback("actor", 20), reset_num_timesteps=False)
    (clock,) = model.sparsity_state["callbacks"].values()
    assert clock["timestep"] == 60


def test_the_engine_leaves_these_steps_to_sb3():
    model = CASES["sac"].make()
    model.learn(100, callback=[QATCallback("actor", 60, activation_bits=8), EngineCallback()])
    assert all(grid.known for grid in input_grids(model.policy).values())
    with pytest.raises(Exception, match=r"layers round their inputs \(activation_bits\)"):
        model.learn(20, callback=[QATCallback("actor", 60, activation_bits=8), EngineCallback(strict=True)])


# The exported policy


def codes_in_torch(model, obs):
    """The integers that the layers of a model compute with, by name, and their inputs as multiples of the unit."""
    found, handles = {}, []
    for name, grid in input_grids(model.policy).items():

        def keep(grid, inputs, output, name=name):
            unit = grid.unit
            found[name] = (output / unit).round().numpy(), (inputs[0] / unit).numpy()

        handles.append(grid.register_forward_hook(keep))
    actions = model.predict(obs, deterministic=True)[0]
    for handle in handles:
        handle.remove()
    return actions, found


EXPORTED = {
    "sac": lambda bits: trained("sac", network="actor", steps=200, bits=8),
    "ppo": lambda bits: trained("ppo", network=ACTIONS, steps=128, bits=4),
    "dqn": lambda bits: trained("dqn", network="q_net", steps=200, bits=8),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_the_same_integers_as_in_training(name):
    """Layer by layer, but for sums that lie between two integers to the last bits of a float."""
    model = EXPORTED[name](8)
    obs = observe(model)
    _, found = codes_in_torch(model, obs)
    original = read_model(model)
    network = original.network
    inputs = layer_inputs(network, obs)
    compared = 0
    for layer, x, layer_name in zip(network.layers, inputs, original.graph.names, strict=False):
        codes, exact = found[layer_name]
        ours = layer.grid.codes(x)
        if layer.grid.top < 256:
            assert set(np.unique(ours)) - {0}, "there is something to compare"
        off = ours != codes
        assert np.abs(ours - codes).max() <= 1 and off.mean() < 1e-3
        assert np.abs(np.abs(exact[off] - np.floor(exact[off])) - 0.5).max(initial=0) < 2e-3
        compared += codes.size
    assert compared > 10_000 and len(found) >= len(network.layers)


@pytest.mark.parametrize("name", EXPORTED)
def test_every_backend_computes_what_was_trained(name, tmp_path):
    """Biases have 16 bits, so a sum between two steps may go to the other one: few actions, by a step of one activation."""
    model = EXPORTED[name](4)
    obs = observe(model)
    actions = model.predict(obs, deterministic=True)[0]
    policy = compress(model)
    assert without_integers(policy.network) is None and policy.network.ranges is None, "without calibration"
    policy.save(tmp_path / "policy.sb3s")
    answers = {backend: load(tmp_path / "policy.sb3s", backend).predict(obs)[0] for backend in AVAILABLE}
    answers["integer"] = policy.network.head(simulate_integers(policy.network, obs))
    answers["vbmi in numpy"] = policy.network.head(simulate_int8(policy.network, obs))
    answers["C"] = run_c(policy, obs, tmp_path, "")
    answers["integer C"] = run_c(policy, obs, tmp_path, "-DPOLICY_INTEGER")
    for backend, others in answers.items():
        off = np.abs(others.reshape(actions.shape).astype(np.float64) - actions).reshape(len(obs), -1).max(axis=1)
        assert (off > 1e-4).mean() <= 0.05, backend
        assert off.max() <= (1 if actions.dtype.kind == "i" else 0.25), backend
    assert np.allclose(answers["integer C"].reshape(-1), answers["integer"].reshape(-1), rtol=0, atol=1e-5), "to the bit"
    notes = policy.report().notes
    assert "Trained with rounded activations, whose ranges are those of training: 4, 16 bits." in notes
    assert not any("no integer-only" in note for note in notes)


def run_c(policy, obs, folder, *options):
    if shutil.which("gcc") is None:
        pytest.skip("there is no C compiler (gcc)")
    policy.to_c(folder / "policy.h")
    kind = "int32_t" if policy.network.head.kind == "argmax" else "float"
    size = int(np.prod(policy.network.head.shape))
    code = '#include "policy.h"\nvoid run(const float *x, %s *y, int n) { for (; n; n--, x += %d, y += %d) policy_act(x, y); }'
    (folder / "run.c").write_text(code % (kind, obs[0].size, size))
    library = folder / f"run{abs(hash(options))}.so"
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-fPIC", "-shared"]
    subprocess.run(["gcc", *flags, *filter(None, options), folder / "run.c", "-o", library], check=True)
    actions = np.zeros((len(obs), size), np.int32 if kind == "int32_t" else np.float32)
    x = np.ascontiguousarray(obs, np.float32)
    ctypes.CDLL(str(library)).run(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(actions.ctypes.data), len(obs))
    return actions


def test_integers_alone_between_the_observation_and_the_last_layer():
    """Units are those of training, and a ReLU's layer is rescaled by one multiplier."""
    network = compress(trained("sac", network="actor", steps=200)).network
    constants = integer_layers(network)
    assert [constant.unit for constant in constants] == [np.float32(layer.grid.unit) for layer in network.layers]
    assert [bool(constant.factor) for constant in constants] == [True, True, False]
    assert [constant.limit for constant in constants[:2]] == [15, 15] and all(
        constant.factor > 1 for constant in constants[:2]
    )


def test_images(tmp_path):
    """Pixels are read as bytes; convolutions round their inputs."""
    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=True)
    kwargs = {"buffer_size": 100, "learning_starts": 10, "batch_size": 8, "train_freq": 1, "seed": 0, "device": "cpu"}
    extractor = {"features_extractor_kwargs": {"features_dim": 16}}
    model = DQN("CnnPolicy", env, policy_kwargs=extractor, **kwargs)
    model.learn(40, callback=QATCallback("q_net", 0.25, activation_bits=4))
    policy = compress(model)
    obs = np.random.default_rng(0).integers(0, 256, (30, 1, 36, 36), dtype=np.uint8)
    outputs = layer_inputs(policy.network, obs.astype(np.float32))[-1]
    with th.no_grad():
        theirs = model.q_net(th.from_numpy(obs)).numpy()
    scale = np.abs(theirs).max()
    assert (
        np.median(np.abs((outputs - outputs.mean(axis=1, keepdims=True)) - (theirs - theirs.mean(axis=1, keepdims=True))))
        < 0.02 * scale
    )
    assert without_integers(policy.network) is None
    integers = simulate_integers(policy.network, obs.astype(np.float32))
    assert np.median(np.abs(integers - outputs)) < 1e-3 * scale
    for backend in AVAILABLE:
        assert (Policy(policy.network, backend).predict(obs)[0] == outputs.argmax(axis=1)).mean() > 0.9, backend


def test_dead_neurons_keep_their_rounded_constant():
    model = trained("sac", network="actor", steps=200)
    with th.no_grad():
        model.actor.latent_pi[0].weight[:8] = 0
        model.actor.latent_pi[0].bias[:8] = th.linspace(0.1, 0.9, 8)
    policy, obs = compress(model), observe(model)
    assert policy.report().layers[0].dead_neurons >= 8
    off = np.abs(policy.predict(obs)[0] - model.predict(obs, deterministic=True)[0])
    assert (off > 1e-4).mean() < 0.05


def test_a_part_of_the_layers():
    """The others are rounded after training as before: their ranges come from calibration."""
    model = trained("ppo", network="mlp_extractor", steps=128)
    network = compress(model).network
    assert [layer.grid is not None for layer in network.layers] == [True, True, False]
    assert "calibration" in without_integers(network)
    obs = observe(model)
    policy = compress_model(model, calibration=obs)
    outputs = layer_inputs(policy.network, obs)[-1]
    assert np.median(np.abs(simulate_integers(policy.network, obs) - outputs)) < 1e-3 * np.abs(outputs).max()


def test_spaces_of_classes():
    """One-hot observations are rounded like others."""
    case = CASES["ppo"]
    model = PPO("MlpPolicy", "FrozenLake-v1", n_steps=32, batch_size=16, seed=0, device="cpu")
    assert isinstance(model.observation_space, spaces.Discrete) and case.algorithm is PPO
    model.learn(96, callback=QATCallback(ACTIONS, 0.3, activation_bits=8))
    policy = compress(model)
    obs = np.arange(16)
    assert np.array_equal(policy.predict(obs)[0], model.predict(obs, deterministic=True)[0])
    assert quantized_bits(model.policy) and without_integers(policy.network) is None
