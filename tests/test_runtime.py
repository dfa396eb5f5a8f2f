"""The runtime: what it imports, how it answers, its kernels under sanitizers, its cache of compiled files."""

import copy
import gc
import inspect
import os
import pickle
import shutil
import stat
import struct
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import weakref
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_sparse import CompressedPolicy, compress
from sb3_sparse.runtime import Policy, load
from sb3_sparse.runtime.backends import build, native, numpy_backend, structs
from sb3_sparse.runtime.backends.build import BuildError
from sb3_sparse.runtime.backends.families import FAMILIES
from sb3_sparse.runtime.backends.plan import Plan
from sb3_sparse.runtime.format.artifact import decode, encode
from sb3_sparse.runtime.network.records import HEADS, Activation, Head, Layer, Minifloats, Network, Pool
from sb3_sparse.runtime.network.reference import layer_inputs
from tests.algorithms import CASES
from tests.networks import (
    ACTIVATIONS,
    AVAILABLE,
    EXACT,
    FAMILY_NAMES,
    draw_head,
    draw_network,
    draw_observations,
    draw_recurrent_network,
    draw_rounded_network,
    draw_signal_network,
    expect_close,
    int8_actions,
    tampered,
)
from tests.test_export import disturb

ROOT = Path(__file__).parent.parent


def test_backends_that_this_machine_can_have_are_tested():
    """Kernels of ours that no longer compile must not pass for a machine without a compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    assert {"numpy", "ctypes", "compiled"} <= set(AVAILABLE)
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    needs = {"vbmi": "avx512f avx512vl avx512bw avx512vbmi avx512_vnni", "avx2": "avx2 fma", "neon": "asimd"}
    assert set(needs) == set(FAMILIES)
    for family, names in needs.items():
        assert family in AVAILABLE or not all(name in flags for name in names.split())


needs_compiler = pytest.mark.skipif("compiled" not in AVAILABLE, reason="there is no C compiler")


def run_python(code, **env):
    """Run code in a fresh interpreter; what it prints."""
    settings = {**os.environ, **{name: str(value) for name, value in env.items()}}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def continuous(shape=(5,), actions=(2,), *, hidden=8, seed=0):
    """A small network with sparse layers and a squashed action."""
    rng = np.random.default_rng(seed)
    sizes = [int(np.prod(shape)), hidden, hidden, int(np.prod(actions))]
    layers = []
    for index, (before, after) in enumerate(pairwise(sizes)):
        weight = rng.normal(size=(after, before)).astype(np.float32)
        weight[rng.random(weight.shape) < 0.6] = 0
        layers.append(Layer(weight, rng.normal(size=after).astype(np.float32), Activation("relu" if index < 2 else "tanh")))
    size = int(np.prod(actions))
    return Network(
        shape, False, None, tuple(layers), Head("unscale", actions, -np.ones(size, np.float32), np.ones(size, np.float32))
    )


def discrete(actions=3, **kwargs):
    network = continuous(actions=(actions,), **kwargs)
    return replace(network, head=Head("argmax", (), groups=(actions,)))


def test_imports_numpy_alone():
    modules = run_python("""
        import sys
        import sb3_sparse.runtime
        print(*sys.modules)
    """)
    roots = {name.split(".")[0] for name in modules.split()}
    assert not roots & {"torch", "stable_baselines3", "sb3_contrib", "gymnasium", "onnx", "pandas"}
    assert "numpy" in roots


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("image", [False, True], ids=["vector", "image"])
def test_backends_agree(image, head):
    for seed in range(15):
        rng = np.random.default_rng([seed, image])
        network = draw_network(rng, image=image, head=head)
        x = draw_observations(rng, network, 40)
        expected = network.head(layer_inputs(network, x)[-1])
        for backend in EXACT:
            policy = Policy(network, backend)
            for part in (x, x[:3]):
                expect_close(policy.predict(part)[0], expected[: len(part)], network, part)
            singles = np.stack([policy.predict(row)[0] for row in x[:5]])
            expect_close(singles, expected[:5], network, x[:5])


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda activation: activation.name)
def test_every_activation(activation):
    """Each over a wide range, one input for each output; none leaves the range of its formula."""
    layer = Layer(np.eye(64, dtype=np.float32), np.zeros(64, np.float32), activation)
    infinite = np.full(64, np.inf, np.float32)
    network = Network((64,), False, None, (layer,), Head("clip", (64,), -infinite, infinite))
    x = np.concatenate([np.linspace(-10, 10, 64 * 99), np.linspace(-300, 300, 63), [0]]).astype(np.float32).reshape(-1, 64)
    exact = activation(x.astype(np.float64))
    for backend in EXACT:
        actions = np.stack([Policy(network, backend).predict(row)[0] for row in x[:: len(x) // 50]])
        np.testing.assert_allclose(actions, exact[:: len(x) // 50], rtol=5e-7, atol=3e-6)
        assert actions.min() >= exact.min() - 1e-7 * abs(exact.min()) and actions.max() <= exact.max() * (1 + 1e-7)


@pytest.mark.parametrize("backend", EXACT)
def test_actions_stay_within_their_bounds(backend):
    """A saturated tanh is an action at its bound."""
    layer = Layer(np.ones((1, 1), np.float32), np.zeros(1, np.float32), Activation("tanh"))
    bounds = np.full(1, 2, np.float32)
    policy = Policy(Network((1,), False, None, (layer,), Head("unscale", (1,), -bounds, bounds)), backend)
    x = np.concatenate([np.linspace(-20, 20, 2001), np.linspace(6, 8, 2001)]).astype(np.float32)
    actions = np.array([policy.predict(np.array([value]))[0] for value in x])
    assert np.abs(actions).max() <= 2


def draw_int8_network(rng, *, image):
    """A network of integers whose outputs are the actions."""
    network = draw_network(rng, image=image, quantized=True, head="clip", width=300)
    infinite = np.full(network.head.inputs, np.inf, np.float32)
    return replace(network, head=replace(network.head, low=-infinite, high=infinite))


@pytest.mark.skipif("int8" not in AVAILABLE, reason="this processor has none of the families")
@pytest.mark.parametrize("image", [False, True], ids=["vector", "image"])
def test_int8_is_its_model_in_numpy(image):
    near = total = 0
    for seed in range(30):
        rng = np.random.default_rng([seed, image])
        network = draw_int8_network(rng, image=image)
        x = draw_observations(rng, network, 20)
        expected, slack = int8_actions(network, x)
        actions = Policy(network, "int8").predict(x)[0].reshape(expected.shape)
        error = np.abs(actions - expected)
        scale = np.abs(expected).max() + 1
        assert (error <= slack + 1e-5 * scale).all()
        near += int((error <= 2e-5 * scale).sum())
        total += error.size
    assert near > 0.9 * total, "but for numbers between two steps it is the same"


@pytest.mark.skipif(len(FAMILY_NAMES) < 2, reason="this processor has one family at most")
@pytest.mark.parametrize("image", [False, True], ids=["vector", "image"])
def test_families_compute_the_same_to_the_bit(image):
    assert len({native.family_module(FAMILIES[name]) for name in FAMILY_NAMES}) == len(FAMILY_NAMES)
    for seed in range(30):
        rng = np.random.default_rng([seed, image])
        network = draw_int8_network(rng, image=image)
        x = draw_observations(rng, network, 20)
        first, *others = (Policy(network, name).predict(x)[0] for name in FAMILY_NAMES)
        for other in others:
            np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_sparse_layers_of_floats(name):
    """Each family picks the inputs of a layer with few weights; float rounding is all that differs from numpy."""
    rng = np.random.default_rng(0)
    for inputs, outputs, density in ((300, 37, 0.05), (17, 40, 0.1), (7, 30, 0.1), (64, 64, 0.0)):
        weight = rng.normal(size=(outputs, inputs)) * (rng.random((outputs, inputs)) < density)
        layer = Layer(weight.astype(np.float32), rng.normal(size=outputs).astype(np.float32), Activation("relu"))
        head = Head("clip", (outputs,), np.zeros(outputs, np.float32), np.full(outputs, 99, np.float32))
        network = Network((inputs,), False, None, (layer,), head)
        plan = Plan(network, floats=FAMILIES[name])
        with pytest.raises(ValueError, match="not for both"):
            Plan(network, FAMILIES[name], floats=FAMILIES[name])
        assert np.frombuffer(plan.data, structs.LAYER, 1, structs.PLAN.itemsize)["kind"] == structs.Kernel.PICKS
        module = native.family_module(FAMILIES[name])
        kernel = module.Kernel(plan.data, plan.scratch, ((None, (inputs,), ()),), (outputs,), False, print)
        for x in rng.normal(size=(5, inputs)).astype(np.float32):
            np.testing.assert_allclose(kernel.predict(x)[0], Policy(network, "numpy").predict(x)[0], rtol=1e-5, atol=1e-5)


def test_a_family_is_refused_without_its_instructions(monkeypatch):
    """Neither if the processor has none of them, nor if the compiler has compiled something else."""
    for family in FAMILIES.values():
        for changed in (replace(family, macros=("__MMIX__",)), replace(family, options=("-mno-such-option",))):
            monkeypatch.setitem(FAMILIES, family.name, changed)
            with pytest.raises(RuntimeError, match=f"backend '{family.name}' is not available: .{{10,}}") as error:
                Policy(continuous(), family.name)
            assert isinstance(error.value.__cause__, BuildError)
    with pytest.raises(RuntimeError, match="backend 'int8' is not available: "):
        Policy(continuous(), "int8")


def test_numbers_of_inputs_and_outputs():
    """Where the kernels change their ways: 16 lanes, 32 registers, blocks of 256."""
    rng = np.random.default_rng(0)
    for inputs in (1, 15, 16, 17, 31, 32, 33, 255, 256, 257, 300):
        for outputs in (1, 15, 16, 17, 33):
            for density in (0.0, 0.1, 1.0):
                weight = (rng.normal(size=(outputs, inputs)) * (rng.random((outputs, inputs)) < density)).astype(np.float32)
                layer = Layer(weight, rng.normal(size=outputs).astype(np.float32))
                infinite = np.full(outputs, np.inf, np.float32)
                network = Network((inputs,), False, None, (layer,), Head("clip", (outputs,), -infinite, infinite))
                x = rng.normal(size=inputs).astype(np.float32)
                for backend in AVAILABLE:
                    action = Policy(network, backend).predict(x)[0]
                    np.testing.assert_allclose(action, weight @ x + layer.bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
def test_copies(clone, backend):
    policy = Policy(continuous(), backend)
    x = np.ones(5, np.float32)
    twin = clone(policy)
    expected, kept = policy.predict(x)[0], policy.backend
    del policy
    gc.collect()
    assert twin.backend == kept
    np.testing.assert_array_equal(twin.predict(x)[0], expected)


def test_copies_take_the_backend_that_they_can_have(monkeypatch):
    """A policy with backend "auto" that was pickled where there is a compiler works where there is none."""
    data = pickle.dumps(Policy(continuous()))
    monkeypatch.setattr(native, "build", lambda *_, **__: (_ for _ in ()).throw(BuildError("none here")))
    for cached in (native._module, native._library):
        monkeypatch.setattr(native, cached.__name__, cached.__wrapped__)
    assert pickle.loads(data).backend == "numpy"
    with pytest.raises(RuntimeError, match="backend 'compiled' is not available: none here"):
        Policy(continuous(), "compiled")


def test_compressed_policies_stay_what_they_are(tmp_path):
    policy = compress(CASES["sac"].make(), backend="numpy")
    for twin in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert type(twin) is CompressedPolicy and str(twin.report()) == str(policy.report()) and twin.backend == "numpy"
        twin.save(tmp_path / "a.sb3s")
        assert (tmp_path / "a.sb3s").read_bytes() == encode(policy.network)


def test_signature_is_that_of_sb3():
    ours, theirs = inspect.signature(Policy.predict), inspect.signature(SAC.predict)
    assert list(ours.parameters) == [*theirs.parameters, "action_masks"]
    # As sb3-contrib names it; given by position it might be anything.
    assert list(ours.parameters) == list(inspect.signature(MaskablePPO.predict).parameters)
    assert ours.parameters["action_masks"].kind is inspect.Parameter.KEYWORD_ONLY
    assert ours.parameters["deterministic"].default is True


@pytest.mark.parametrize("backend", AVAILABLE)
def test_ways_to_call(backend):
    policy = Policy(continuous(), backend)
    x, start = np.linspace(-1, 1, 5).astype(np.float32), np.ones(1, bool)
    expected, state = policy.predict(x)
    assert state is None and expected.dtype == np.float32 and expected.shape == (2,)
    calls = (
        lambda: policy.predict(observation=x),
        lambda: policy.predict(x, None),
        lambda: policy.predict(x, None, None),
        lambda: policy.predict(x, (x,), start, True),
        lambda: policy.predict(x, state=None, episode_start=start, deterministic=True),
        lambda: policy.predict(x, deterministic=np.True_),
        lambda: policy.predict(x, deterministic=1),
    )
    for call in calls:
        assert np.array_equal(call()[0], expected)
    for call in (
        lambda: policy.predict(x, deterministic=False),
        lambda: policy.predict(x, None, None, False),
        lambda: policy.predict(x[None], deterministic=False),
    ):
        with pytest.raises(ValueError, match="only its deterministic action"):
            call()
    for call in (
        lambda: policy.predict(),
        lambda: policy.predict(x, observation=x),
        lambda: policy.predict(x, None, None, True, True),
        lambda: policy.predict(x, None, None, True, deterministic=True),
        lambda: policy.predict(x, mask=None),
    ):
        with pytest.raises(TypeError, match="predict"):
            call()


@pytest.mark.parametrize("backend", AVAILABLE)
def test_kinds_of_observations(backend):
    policy = Policy(continuous(), backend)
    x = np.array([-1, 0, 1, 2, 3])
    expected = policy.predict(x.astype(np.float32))[0]
    strided = np.zeros((5, 3), np.float32)
    strided[:, 1] = x
    readonly = x.astype(np.float32)
    readonly.flags.writeable = False
    for other in (
        *(x.astype(kind) for kind in (np.float16, np.float64, np.int8, np.int64, ">f4", np.longdouble)),
        strided[:, 1],
        x[::-1].astype(np.float32)[::-1],
        readonly,
        x.tolist(),
        tuple(x.tolist()),
        memoryview(x.astype(np.float32)),
        x.astype(np.float32).view(np.ma.MaskedArray),
    ):
        action, _ = policy.predict(other)
        assert np.array_equal(action, expected) and action.dtype == np.float32 and type(action) is np.ndarray
        assert np.array_equal(policy.predict([other, other])[0], [expected, expected])
    assert np.array_equal(policy.predict(np.abs(x).astype(bool))[0], policy.predict(np.abs(x).astype(bool).astype(float))[0])
    assert np.array_equal(policy.predict(np.abs(x).astype(np.uint8))[0], policy.predict(np.abs(x))[0])
    action, again = policy.predict(x)[0], policy.predict(x + 1)[0]
    assert np.array_equal(action, expected) and not np.array_equal(again, expected), "an action is not overwritten"


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("make", [continuous, discrete, lambda: draw_network(np.random.default_rng(1), image=True)])
def test_batches(make, backend):
    network = make()
    policy = Policy(network, backend)
    x = draw_observations(np.random.default_rng(0), network, 70)
    for size in (0, 1, 2, 15, 16, 70):
        actions = policy.predict(x[:size])[0]
        assert actions.shape == (size, *network.head.shape) and type(actions) is np.ndarray
        if backend not in EXACT:
            # test_int8_is_its_model_in_numpy says which values these are.
            assert [action.tolist() for action in actions] == [policy.predict(row)[0].tolist() for row in x[:size]]
        else:
            expect_close(actions, network.head(layer_inputs(network, x[:size])[-1]), network, x[:size])


@pytest.mark.skipif("compiled" not in AVAILABLE, reason="no compiler")
@pytest.mark.parametrize("seed", range(40))
def test_panels(seed):
    """Batches of linear networks, with all that a layer may have, in panels: the last one is not full."""
    rng = np.random.default_rng(seed)
    network = (draw_network if seed % 4 else draw_rounded_network)(rng, image=False)
    policy = Policy(network, "compiled")
    assert policy._large is policy._small, "in panels"
    x = draw_observations(rng, network, 53)
    actions = policy.predict(x)[0]
    expect_close(actions, network.head(layer_inputs(network, x)[-1]), network, x)
    broken = x.copy()
    broken[11].flat[0] = np.nan
    others = np.arange(len(x)) != 11
    assert np.array_equal(policy.predict(broken)[0][others], actions[others])
    assert np.array_equal(policy.predict(broken)[0][11], policy.predict(broken[11])[0], equal_nan=True)
    bytes_ = np.clip(np.nan_to_num(x) * 50, 0, 255).astype(np.uint8)
    assert np.array_equal(policy.predict(bytes_)[0], policy.predict(bytes_.astype(np.float32))[0])


@pytest.mark.skipif("compiled" not in AVAILABLE, reason="no compiler")
@pytest.mark.parametrize("density", [0.05, 0.15])
def test_panels_sum_in_the_order_of_single_observations(density):
    """So the actions of portable kernels do not depend on the size of the batch, to the bit, where all layers are sparse."""
    rng = np.random.default_rng(0)
    network = draw_network(rng, image=False, quantized=False, head="unscale", width=100, density=density, shape=(40,))
    policy = Policy(network, "portable")
    x = draw_observations(rng, network, 53)
    assert np.array_equal(policy.predict(x)[0], [policy.predict(row)[0] for row in x])


@pytest.mark.parametrize("backend", AVAILABLE)
def test_a_discrete_action_is_an_array_without_dimensions(backend):
    action, _ = Policy(discrete(), backend).predict(np.ones(5))
    assert type(action) is np.ndarray and action.shape == () and action.dtype == np.int64
    assert type(CASES["dqn"].make().predict(np.ones(4))[0]) is np.ndarray, "as of SB3"


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize(
    "observation",
    [
        np.float32(1),
        1.0,
        np.ones(4),
        np.ones(6),
        np.ones((5, 1)),
        np.ones((2, 6)),
        np.ones((1, 1, 5)),
        [],
        [[1, 2], [3]],
        None,
        "12345",
        {"obs": np.ones(5)},
        np.array(["a"] * 5),
        np.ones(5, complex),
        np.array([None] * 5),
        np.zeros(5, "datetime64[s]"),
    ],
    ids=str,
)
def test_observations_that_do_not_fit(observation, backend):
    with pytest.raises(ValueError, match=r"observation .*\(5,\)"):
        Policy(continuous(), backend).predict(observation)


@pytest.mark.parametrize("backend", AVAILABLE)
def test_reset_returns_a_tuple(backend):
    with pytest.raises(ValueError, match="pass the first alone"):
        Policy(continuous(), backend).predict((np.ones(5), {}))


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("name", ["td3", "dqn", "ppo"])
def test_nan_is_not_hidden(name, backend):
    """As in torch, where a weight of zero times no number is no number; stochastic policies of SB3 raise an error there."""
    model = CASES[name].make(sparse=True, policy_kwargs={"sparsity": 0.9})
    policy = compress(model, backend=backend)
    obs = np.zeros((3, *model.observation_space.shape), np.float32)
    for column in range(obs.shape[1]):
        broken = obs.copy()
        broken[1, column] = np.nan
        if name == "ppo":
            with pytest.raises(ValueError, match="nan"):
                model.predict(broken, deterministic=True)
            expected = np.where(np.isnan(broken).any(axis=1, keepdims=True), np.nan, model.predict(obs, deterministic=True)[0])
        else:
            expected = model.predict(broken, deterministic=True)[0]
        for actions in (policy.predict(broken)[0], np.stack([policy.predict(row)[0] for row in broken])):
            assert np.array_equal(np.isnan(actions), np.isnan(expected))
            if name == "dqn":
                assert actions[1] == expected[1] == 0
    assert np.isfinite(policy.predict(obs)[0]).all()


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda activation: activation.name)
@pytest.mark.parametrize("head", ["clip", "unscale", "positive"])
def test_nan_goes_through_everything(head, activation, backend):
    network = draw_network(np.random.default_rng(3), image=False, head=head, activation=activation, density=0.3)
    x = draw_observations(np.random.default_rng(0), network, 2)
    x[0].flat[-1] = np.nan
    actions = Policy(network, backend).predict(x)[0]
    assert np.isnan(actions[0]).all() and np.isfinite(actions[1]).all()


def test_images_with_channels_last():
    network = replace(draw_network(np.random.default_rng(5), image=True), shape=(3, 8, 9), image=True, normalize=None)
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    convolution = Layer(weight, np.zeros(4, np.float32))
    linear = Layer(np.ones((2, 4 * 6 * 7), np.float32), np.zeros(2, np.float32))
    network = replace(network, layers=(convolution, linear), head=Head("argmax", (), groups=(2,)), ranges=None)
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 9)).astype(np.uint8)
    for backend in AVAILABLE:
        policy = Policy(network, backend)
        expected = policy.predict(x)[0]
        assert np.array_equal(policy.predict(x.transpose(0, 2, 3, 1))[0], expected)
        assert policy.predict(x[0].transpose(1, 2, 0))[0] == expected[0] == policy.predict(x[0])[0]


@pytest.mark.parametrize("backend", AVAILABLE)
def test_evaluate_policy(backend):
    """SB3 takes it as a model, and it plays the episodes that its model plays."""
    model = disturb(CASES["sac"].make())
    returns = []
    for player in (model, compress(model, bits=32, backend=backend)):
        env = Monitor(gym.make("Pendulum-v1"))
        env.reset(seed=3)
        returns.append(evaluate_policy(player, env, n_eval_episodes=2, return_episode_rewards=True))
    (expected, lengths), (found, ours) = returns
    assert lengths == ours == [200, 200] and expected[0] != pytest.approx(expected[1], rel=0.05)
    assert found == pytest.approx(expected, rel=1e-2)


@needs_compiler
@pytest.mark.parametrize("backend", [name for name in AVAILABLE if name != "auto"])
def test_threads(backend):
    network = continuous((40,), (6,), hidden=64)
    policy = Policy(network, backend)
    x = draw_observations(np.random.default_rng(0), network, 64)
    expected = np.stack([policy.predict(row)[0] for row in x])
    failures = []

    def work(seed):
        for index in np.random.default_rng(seed).integers(0, 64, 400):
            if not np.array_equal(policy.predict(x[index])[0], expected[index]):
                failures.append(index)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures


@pytest.mark.parametrize("backend", [name for name in AVAILABLE if name != "auto"])
def test_no_leaks(backend):
    """Neither memory nor references, answered by the kernel or not."""
    policy = Policy(continuous(), backend)
    x = np.ones(5, np.float32)
    wrong = np.ones(4, np.float32)

    def work(count):
        for _ in range(count):
            policy.predict(x)
            policy.predict(x, None, None, deterministic=True)
        for _ in range(count // 50):
            policy.predict(x[None])
            with pytest.raises(ValueError, match="does not fit this policy"):
                policy.predict(wrong)

    work(200)
    gc.collect()
    held = [sys.getrefcount(value) for value in (None, x, wrong, policy)]
    tracemalloc.start()
    try:
        work(200)
        before = tracemalloc.get_traced_memory()[0]
        work(50_000 if backend not in ("numpy", "ctypes") else 3000)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()
    after = [sys.getrefcount(value) for value in (None, x, wrong, policy)]
    assert all(abs(new - old) < 500 for new, old in zip(after[:1], held[:1], strict=True)) and after[1:] == held[1:]


@pytest.mark.parametrize("backend", AVAILABLE)
def test_policies_are_collected(backend):
    policy = Policy(continuous(), backend)
    policy.predict(np.ones(5))
    alive = weakref.ref(policy)
    del policy
    gc.collect()
    assert alive() is None


@needs_compiler
@pytest.mark.parametrize("backend", ["ctypes", "compiled"])
def test_small_floats_stay_what_they_are(backend, tmp_path):
    """-ffast-math would set the processor to flush them to zero, for everybody in the process."""
    (tmp_path / "a.sb3s").write_bytes(encode(continuous()))
    output = run_python(f"""
        import numpy as np
        from sb3_sparse.runtime import load
        load({str(tmp_path / "a.sb3s")!r}, {backend!r}).predict(np.ones(5, np.float32))
        print((np.full(4, 1e-40, np.float32) * np.float32(1)).tolist())
    """)
    assert output == f"{[float(np.float32(1e-40))] * 4}\n"


# The cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a build that does not remember."""
    monkeypatch.setenv("SB3_SPARSE_CACHE", str(tmp_path / "cache"))
    clear = (build.build, build._compiler, build._directory)
    for function in clear:
        function.cache_clear()
    yield tmp_path / "cache"
    for function in clear:
        function.cache_clear()


def again():
    build.build.cache_clear()
    build._directory.cache_clear()
    return build.build("library.c")


@needs_compiler
def test_cache(cache):
    path = build.build("library.c")
    assert path.parent == cache and [*cache.iterdir()] == [path]
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700 == stat.S_IMODE(path.stat().st_mode)
    before = path.stat().st_mtime_ns
    assert again() == path and path.stat().st_mtime_ns == before, "it is compiled once"

    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    for damaged in (bytes(flipped), data[: len(data) // 2]):
        path.write_bytes(damaged)
        assert again() == path and path.read_bytes() == data, "damaged files are built anew"
    path.chmod(0o722)
    assert again() == path and stat.S_IMODE(path.stat().st_mode) == 0o700, "and what others can write to"
    other = cache / "elsewhere"
    path.rename(other)
    path.symlink_to(other)
    assert again() == path and not path.is_symlink() and path.read_bytes() == data, "and links"


@needs_compiler
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_cache_that_others_can_write_to(cache, mode):
    cache.mkdir()
    cache.chmod(mode)
    directory = build._directory()
    assert directory != cache and stat.S_IMODE(directory.stat().st_mode) == 0o700 and not [*cache.iterdir()]


@needs_compiler
def test_cache_that_is_a_link(cache, tmp_path):
    (tmp_path / "other").mkdir(mode=0o700)
    cache.symlink_to(tmp_path / "other")
    assert build._directory().resolve() not in (cache, tmp_path / "other")


def test_cache_of_somebody_else(cache, monkeypatch):
    cache.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert build._directory() != cache


def test_cache_that_cannot_be(cache):
    cache.write_text("a file")
    assert build._directory().is_dir()


def test_cache_in_the_home(tmp_path, monkeypatch):
    build._directory.cache_clear()
    monkeypatch.delenv("SB3_SPARSE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build._directory() == tmp_path / "sb3_sparse"
    build._directory.cache_clear()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert build._directory() == tmp_path / ".cache" / "sb3_sparse"
    build._directory.cache_clear()


@needs_compiler
def test_builds_at_the_same_time(cache):
    """Several processes and one empty cache: all work, and only whole files are left."""
    code = """
        import numpy as np
        from sb3_sparse.runtime import load
        print(load("tiny.sb3s", "ctypes").predict(np.ones(5))[0])
    """
    cache.mkdir(mode=0o700)
    tiny = cache.parent / "tiny.sb3s"
    tiny.write_bytes(encode(continuous()))
    command = [sys.executable, "-c", textwrap.dedent(code.replace("tiny.sb3s", str(tiny)))]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(4)]
    outputs = {process.communicate(timeout=120)[0] for process in processes}
    assert {process.returncode for process in processes} == {0} and len(outputs) == 1
    files = [*cache.iterdir()]
    assert files and all(path.name.endswith(f"-{build._digest(path)}.so") for path in files)


@pytest.mark.parametrize("env", [{"CC": "/nonexistent"}, {"CC": "", "PATH": ""}, {"CC": "false"}, {"CC": '"'}], ids=str)
def test_no_compiler(env, cache, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    for function in (native._module, native._library):
        monkeypatch.setattr(native, function.__name__, function.__wrapped__)
    assert Policy(continuous()).backend == "numpy"
    for backend in ("ctypes", "portable", "compiled", "int8", *FAMILIES):
        with pytest.raises(RuntimeError, match=f"backend '{backend}' is not available: .{{10,}}") as error:
            Policy(continuous(), backend)
        assert isinstance(error.value.__cause__, BuildError | ValueError)


def test_unknown_backend(tmp_path):
    (tmp_path / "a.sb3s").write_bytes(encode(continuous()))
    with pytest.raises(ValueError, match="unknown backend 'cuda': use one of auto, numpy"):
        load(tmp_path / "a.sb3s", "cuda")


def misfits():
    """Networks with a part that their layer cannot have."""
    network = continuous()
    first, *rest = network.layers
    for part in ({"rectify": True}, {"residual": True}, {"pool": Pool((1, 1), (1, 1))}):
        yield replace(network, layers=(replace(first, **part), *rest))
    yield replace(network, layers=(first, *(replace(layer, residual=True) for layer in rest)))
    image = draw_network(np.random.default_rng(1), image=True)
    channels = image.layers[0].weight.shape[1]
    gain = Minifloats(np.full(channels, 240, np.uint8), 1.0)
    yield replace(image, layers=(replace(image.layers[0], gain=gain), *image.layers[1:]))
    yield replace(network, head=Head("argmax", (), groups=(network.head.inputs + 1,)))


@pytest.mark.parametrize("backend", AVAILABLE)
def test_a_network_whose_parts_do_not_fit_is_refused(backend):
    reasons = "does not rectify its input|does not have a gain|residual layer|the action needs"
    for network in misfits():
        with pytest.raises(ValueError, match=reasons):
            Policy(network, backend)
        with pytest.raises(ValueError, match=reasons):
            numpy_backend.functions(network)


def test_a_network_that_no_backend_computes():
    """The network is at fault with "auto", the choice otherwise."""
    network = continuous()
    network = replace(network, head=replace(network.head, kind="sample"))
    with pytest.raises(ValueError, match="the head of the network is 'sample', which the numpy backend does not support"):
        Policy(network)
    for backend in [name for name in AVAILABLE if name != "auto"]:
        with pytest.raises(RuntimeError, match=f"backend '{backend}' is not available: the head of the network is 'sample'"):
            Policy(network, backend)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("unscale", {"low": None}, "a head of kind 'unscale' takes low and high, but low is missing"),
        ("clip", {"high": None}, "a head of kind 'clip' takes low and high, but high is missing"),
        ("clip", {"groups": (2,)}, "a head of kind 'clip' takes low and high, but groups is given"),
        ("argmax", {"groups": ()}, "a head of kind 'argmax' takes groups, but groups is missing"),
        ("argmax", {"low": np.zeros(2)}, "a head of kind 'argmax' takes groups, but low is given"),
        ("positive", {"high": np.zeros(2)}, "a head of kind 'positive' takes only a shape, but high is given"),
    ],
)
def test_a_head_that_contradicts_its_kind(kind, change, message):
    head = draw_head(np.random.default_rng(0), kind)
    with pytest.raises(ValueError, match=message):
        replace(head, **change)


# Under sanitizers

SANITIZE = ["-O1", "-g", "-std=c99", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined,float-cast-overflow"]


def cases():
    """Networks of every kind, with what no float should break, and what comes of files that somebody has tampered with."""
    rng = np.random.default_rng(0)
    for index in range(120):
        head, activation = HEADS[index % 4], ACTIVATIONS[index // 4 % len(ACTIVATIONS)]
        yield draw_network(rng, image=index % 3 == 0, head=head, activation=activation, width=70)
        if index % 4 == 0:
            yield draw_recurrent_network(rng)
            yield draw_signal_network(rng)
    works = 0
    for data in tampered(99, 4000):
        try:
            network = decode(data)
        except ValueError:
            continue
        works += 1
        if works % 12 == 0:
            # The kernels take the vector or the stack that Python puts together.
            yield replace(network, parts=(), stack=None)


@needs_compiler
@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
@pytest.mark.parametrize("backend", ["portable", *FAMILIES, *(f"{name}, floats" for name in FAMILIES)])
def test_kernels_under_sanitizers(backend, tmp_path):
    """No access outside of what was allocated, to the byte, no undefined behaviour, and the right actions."""
    name, _, floats = backend.partition(", ")
    family = FAMILIES.get(name)
    if name not in AVAILABLE:
        pytest.skip(f"this processor has no {family.needs}")
    backend = "compiled" if floats else name
    program = tmp_path / "sanitized"
    flags = [
        *SANITIZE,
        "-fno-sanitize-recover=all",
        "-I",
        str(ROOT / "sb3_sparse/runtime/backends/c"),
        *(family.options if family else []),
    ]
    command = ["gcc", *flags, str(ROOT / "tests/sanitized.c"), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr:
        pytest.skip("gcc has no sanitizers here")
    assert done.returncode == 0, done.stderr

    rng, expected, parts = np.random.default_rng(1), [], []
    extremes = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, 0, 1], np.float32)
    for network in cases():
        try:
            plan = Plan(
                network, None if floats else family, floats=family if floats else None, panels=bool(floats) or family is None
            )
        except ValueError:  # A norm in bytes, or a layer that is too wide.
            continue
        x = draw_observations(rng, network, 5)
        x[3:] = rng.choice(extremes, x[3:].shape)
        actions = Policy(network, backend).predict(x[:3])[0]
        parts += [struct.pack("<5i", len(plan.data), plan.scratch, len(x), actions[0].nbytes, 4), plan.data, x.tobytes()]
        expected += [actions] * (2 if plan.panels else 1)
        if network.image:
            x = rng.integers(0, 256, x.shape, dtype=np.uint8)
            actions = Policy(network, backend).predict(x[:3])[0]
            parts += [struct.pack("<5i", len(plan.data), plan.scratch, len(x), actions[0].nbytes, 1), plan.data, x.tobytes()]
            expected.append(actions)
    (tmp_path / "plans").write_bytes(b"".join(parts))
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    command = [str(program), str(tmp_path / "plans"), str(tmp_path / "actions")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr[:3000]
    data = (tmp_path / "actions").read_bytes()
    ends = np.cumsum([5 * actions[0].nbytes for actions in expected])
    assert len(data) == ends[-1]
    got = [
        np.frombuffer(data[end - 5 * actions[0].nbytes : end], actions.dtype).reshape(5, *actions.shape[1:])[:3]
        for end, actions in zip(ends, expected, strict=True)
    ]
    # Other options of the compiler round otherwise, and a number between two steps of 8 bits may go either way.
    near = [np.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True) for a, b in zip(got, expected, strict=True)]
    assert np.mean(near) > (0.9 if backend in FAMILIES else 0.98)
