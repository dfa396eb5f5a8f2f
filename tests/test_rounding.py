"""The cost of rounding: integer arithmetic follows the floats, no input spoils the others, the file is small."""

import shutil
import tracemalloc
from dataclasses import replace

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC

from sb3_sparse import compress
from sb3_sparse.export.c.integer.simulation import simulate_integers
from sb3_sparse.export.calibration import calibration_inputs
from sb3_sparse.export.onnx import WEIGHT_FORMS, to_onnx
from sb3_sparse.export.passes import center, feedback, fold, round_weights
from sb3_sparse.export.report import sizes
from sb3_sparse.export.trace import trace
from sb3_sparse.nn import mask_layers, prunable_layers
from sb3_sparse.runtime import Policy
from sb3_sparse.runtime.backends.families import FAMILIES
from sb3_sparse.runtime.network.records import Activation, Head, Layer, Network
from sb3_sparse.runtime.network.reference import layer_inputs
from sb3_sparse.sparsity import erk
from tests.algorithms import CASES
from tests.test_export import image_model, observe, qat_model, trained


class Cheetah(gym.Env):
    """The spaces of HalfCheetah."""

    observation_space = spaces.Box(-np.inf, np.inf, (17,), np.float64)
    action_space = spaces.Box(-1, 1, (6,))


def expect_integers_near(model, obs, share=2e-3):
    """Check that 16-bit activations are near the float activations of the same 8-bit weights."""
    network = compress(model, calibration=obs, backend="numpy").network
    inputs = obs.astype(np.float32).reshape(len(obs), *network.shape)
    exact = layer_inputs(network, inputs)[-1]
    assert np.abs(simulate_integers(network, inputs) - exact).max() <= share * np.abs(exact).max()


@pytest.mark.parametrize("name", ["sac", "td3", "dqn", "ppo", "qrdqn"])
def test_integers_follow_floats(name):
    model = trained(name, False)
    expect_integers_near(model, observe(model))


@pytest.mark.parametrize("name", ["sac", "td3", "dqn", "conv"])
def test_integers_of_trained_grids_follow_floats(name):
    model = qat_model(name, 8)
    expect_integers_near(model, observe(model, 18))


@pytest.mark.parametrize("name", ["ppo, flat", "dqn", "sac"])
def test_integers_of_images_follow_floats(name):
    if name == "ppo, flat":
        model = trained("ppo", False)
        env = gym.make("Pendulum-v1")
        env.observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)
        model = type(model)("MlpPolicy", env, seed=0, device="cpu")
        with th.no_grad():
            model.policy.action_net.weight *= 50
        obs = np.random.default_rng(0).integers(0, 256, (40, 1, 36, 36)).astype(np.uint8)
    else:
        model = image_model(name)
        obs = observe(model, 18)
    expect_integers_near(model, obs)


def rounding_error(change, offset=0.0, factor=1.0, share=None):
    """Root mean square error of a random 17-64-4 network whose input 3 is changed, with weights that fit it."""
    rng = np.random.default_rng(0)
    shapes = [(64, 17), (64, 64), (4, 64)]
    layers = [
        Layer((rng.normal(size=s) / np.sqrt(s[1])).astype(np.float32), np.zeros(s[0], np.float32), Activation("relu"))
        for s in shapes
    ]
    layers[-1] = replace(layers[-1], activation=Activation())
    x = rng.normal(size=(4000, 17)).astype(np.float32)
    if change:
        x[:, 3] = x[:, 3] * factor + offset
        if share is not None:
            layers[0].weight[:, 3] *= share
    bound = np.ones(4, np.float32)
    network = Network((17,), False, None, tuple(layers), Head("clip", (4,), -bound, bound))
    exact = layer_inputs(network, x[2000:])[-1]
    return np.sqrt(np.mean((layer_inputs(round_weights(network, 8, x[:2000]), x[2000:])[-1] - exact) ** 2))


@pytest.mark.parametrize(
    ("offset", "factor", "share"),
    [
        (0, 1e-4, None),
        (0, 1e-6, None),
        (0, 1e-30, None),
        (0, 0, None),
        (0, 1e6, 1e-6),
        (10, 1, None),
        (100, 1, None),
        (1000, 1, None),
    ],
)
def test_one_input_does_not_spoil_the_others(offset, factor, share):
    assert rounding_error(True, offset, factor, share) < 2 * rounding_error(False)


@pytest.mark.parametrize(("sparsity", "most"), [(0.95, 9_000), (0.99, 1_600)])
def test_the_file_of_a_sparse_actor(sparsity, most):
    """Real bytes of the file of a 17-256-256-6 network that keeps its largest weights in ERK shares."""
    model = SAC("MlpPolicy", Cheetah(), buffer_size=1, seed=0, device="cpu")
    actor = model.policy.actor
    weights = {"0": actor.latent_pi[0].weight, "2": actor.latent_pi[2].weight, "mu": actor.mu.weight}
    with th.no_grad():
        for name, keep in erk({name: weight.abs() for name, weight in weights.items()}, sparsity).items():
            flat = weights[name].view(-1)
            flat[flat.abs().argsort()[: flat.numel() - keep]] = 0
    policy = compress(model, backend="numpy")
    assert policy.nbytes <= most
    if sparsity == 0.95:
        original = fold(trace(model))
        assert policy.nbytes <= 1.35 * sizes(original.layers, policy.nbytes, 8)["entropy bound"]


def row_by_row(matrix, steps, top, inputs, mean):
    """Algorithm 1 of GPTQ for one row after the other, each with the covariance of its own inputs."""
    centered = inputs.astype(np.float64) - mean
    moments = centered.T @ centered / len(inputs)
    moments += np.eye(len(moments)) * 0.01 * np.trace(moments) / len(moments)
    energy = np.argsort(-np.diag(moments), kind="stable")
    integers = np.zeros_like(matrix)
    for row, rest in enumerate(matrix.copy()):
        present = energy[matrix[row, energy] != 0]
        for index, column in enumerate(present):
            integers[row, column] = np.clip(np.rint(rest[column] / steps[row, 0]), -top, top)
            later = np.linalg.inv(moments[np.ix_(present[index:], present[index:])])
            error = rest[column] - integers[row, column] * steps[row, 0]
            rest[present[index:]] -= error * later[0] / later[0, 0]
    return integers


@pytest.mark.parametrize(("quick", "sparsity"), [(1 << 25, 0.0), (1 << 25, 0.5), (1 << 25, 0.95), (0, 0.5), (0, 0.7)])
def test_feedback(quick, sparsity, monkeypatch):
    """Row by row as by the definition; with one covariance for all rows, which takes no longer than a dense layer, nearly."""
    monkeypatch.setattr(feedback, "_QUICK", quick)
    rng = np.random.default_rng(0)
    inputs = np.maximum(rng.normal(size=(1000, 8)) @ rng.normal(size=(8, 40)) + 0.3, 0).astype(np.float32)
    matrix = rng.normal(size=(24, 40))
    matrix *= rng.random(matrix.shape) >= sparsity
    matrix[3], matrix[:, 7] = 0, 0
    steps, mean = np.full((24, 1), np.abs(matrix).max() / 31), inputs.mean(axis=0, dtype=np.float64)
    integers = feedback.round_with_feedback(matrix, steps, 31, inputs, mean)
    expected = row_by_row(matrix, steps, 31, inputs, mean)
    plain = np.clip(np.rint(matrix / steps), -31, 31)
    ours, best, worst = (np.square((matrix - each * steps) @ (inputs - mean).T).mean() for each in (integers, expected, plain))
    assert not integers[matrix == 0].any()
    if quick or not sparsity:
        assert (integers != expected).mean() < 1e-2
    assert 0.5 * best < ours < min(1.8 * best, worst)


@pytest.mark.slow
def test_long_observations_need_little_memory():
    """84x84x3 numbers: with sixteen thousand of them in float64 it would be 2.7 GiB."""
    generator = np.random.default_rng(0)
    layers = [Layer(generator.normal(size=(8, 84 * 84 * 3)).astype(np.float32), np.zeros(8, np.float32), Activation("relu"))]
    layers.append(Layer(generator.normal(size=(4, 8)).astype(np.float32), np.zeros(4, np.float32)))
    network = Network((84 * 84 * 3,), False, None, tuple(layers), Head("argmax", (), groups=(4,)))
    drawn = generator.normal(size=(2000, 84 * 84 * 3)).astype(np.float32)
    for observations in (None, calibration_inputs(network, drawn)[""]):
        tracemalloc.start()
        round_weights(network, 8, observations)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 30


def with_large_values(name, observations):
    """
    Trained values have most of their size in common: here the common part of the last layer's rows is thirty times as large
    as the differences between actions, as in a trained QRDQN of MountainCar. QRDQN has the grids of QATCallback.
    """
    model = CASES[name].algorithm(
        "MlpPolicy", "Acrobot-v1", policy_kwargs={"net_arch": [64, 64]}, buffer_size=1, seed=0, device="cpu"
    )
    network = model.policy.quantile_net if name == "qrdqn" else model.policy.q_net
    *_, last = prunable_layers(network).values()
    with th.no_grad():
        rows = last.weight.view(-1, 3, 64)
        common, actions, estimates = (th.randn(*size) for size in ((1, 1, 64), (1, 3, 64), (len(rows), 1, 64)))
        rows.copy_(common + 0.03 * actions + 0.1 * estimates)
        # No action is better than the others everywhere.
        last.bias.view(-1, 3).sub_(network(th.as_tensor(observations)).view(len(observations), -1, 3).mean(dim=(0, 1)))
    if name == "qrdqn":
        mask_layers(network, persistent=False)
        for layer in prunable_layers(network).values():
            layer.set_bits(8)
    return model


def actions_by_backend(policy, observations):
    """Those of the numpy backend, of the kernels, of the C header's integers (to the bit) and of ONNX."""
    network = policy.network
    yield "numpy", Policy(network, "numpy").predict(observations)[0]
    yield "integers", network.head(simulate_integers(network, observations))
    for backend in ("compiled", *FAMILIES):
        try:
            yield backend, Policy(network, backend).predict(observations)[0]
        except RuntimeError:
            assert backend in FAMILIES or not shutil.which("gcc")
    for form in WEIGHT_FORMS:
        session = onnxruntime.InferenceSession(to_onnx(network, form=form))
        yield form, session.run(None, {session.get_inputs()[0].name: observations})[0]


@pytest.mark.parametrize("name", ["qrdqn", "dqn"])
def test_values_with_small_differences(name):
    """The mean over quantiles is rounded anew, and the choice between actions survives it in every backend."""
    calibration, observations = np.random.default_rng(0).normal(size=(2, 1000, 6)).astype(np.float32)
    model = with_large_values(name, observations)
    expected, _ = model.predict(observations, deterministic=True)
    assert np.bincount(expected).min() > 100
    guessed = compress(model, backend="numpy").predict(observations)[0]
    for backend, actions in (
        ("guessed", guessed),
        *actions_by_backend(compress(model, calibration=calibration), observations),
    ):
        assert (actions == expected).mean() >= 0.97, backend


@pytest.mark.parametrize("groups", [(3,), (2, 1, 4)])
def test_centered_outputs_choose_the_same_actions(groups):
    rng = np.random.default_rng(0)
    common = np.repeat(rng.normal(size=(len(groups), 32)), groups, axis=0)
    weight = (common + 0.01 * rng.normal(size=common.shape)).astype(np.float32)
    weight[0, :5] = 0  # Pruned.
    head = Head("argmax", (len(groups),), groups=groups)
    last = Layer(weight, 100 + rng.normal(size=len(weight)).astype(np.float32))
    network = Network((32,), False, None, (last,), head)
    centered = center(network)
    x = rng.normal(size=(1000, 32)).astype(np.float32)
    before, after = (layer_inputs(each, x)[-1] for each in (network, centered))
    np.testing.assert_array_equal(head(before), head(after))
    np.testing.assert_array_equal(centered.layers[0].weight == 0, (weight == 0) & (np.repeat(groups, groups) > 1)[:, None])
    start = 0
    for size in groups:
        part = slice(start, start + size)
        differences = np.diff(before[:, part].astype(np.float64), axis=1)
        np.testing.assert_allclose(np.diff(after[:, part].astype(np.float64), axis=1), differences, atol=1e-4)
        start += size


def difference_error(network, groups, seed):
    """Root mean square of what 8 bits change in the differences of each group's outputs."""
    x = np.random.default_rng(seed + 1000).normal(size=(2000, 32)).astype(np.float32)
    rounded = round_weights(network, 8, x[:1000])
    errors = layer_inputs(rounded, x[1000:])[-1] - layer_inputs(network, x[1000:])[-1]
    parts = np.split(errors, np.cumsum(groups)[:-1], axis=1)
    return np.sqrt(np.mean([np.var(part, axis=1).mean() for part in parts if part.shape[1] > 1])), rounded


@pytest.mark.parametrize(
    ("groups", "pruned", "most"),
    [((2,), 0, 0.4), ((2,), 0.1, 0.6), ((3,), 0, 0.6), ((2, 1, 4), 0.1, 0.65), ((18,), 0, 0.9), ((18,), 0.5, 1.001)],
)
def test_errors_that_all_actions_share_do_not_count(groups, pruned, most):
    """One action has larger weights than the others, and its errors do not change a difference; pruned weights stay zero."""
    ratios = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        weight = rng.normal(size=(sum(groups), 32)).astype(np.float32)
        weight[np.cumsum(groups) - 1] *= 3
        weight[rng.random(weight.shape) < pruned] = 0
        last = Layer(weight, rng.normal(size=len(weight)).astype(np.float32))
        shared = Network((32,), False, None, (last,), Head("argmax", (len(groups),), groups=groups))
        bound = np.full(len(weight), np.inf, np.float32)
        alone = replace(shared, head=Head("clip", (len(weight),), -bound, bound))
        error, rounded = difference_error(shared, groups, seed)
        assert not rounded.layers[0].weight[weight == 0].any()
        leaders = np.cumsum(groups) - 1
        error_alone, by_itself = difference_error(alone, groups, seed)
        np.testing.assert_array_equal(rounded.layers[0].weight[leaders], by_itself.layers[0].weight[leaders])
        ratios.append(error / error_alone)
    assert np.mean(ratios) < most


@pytest.mark.parametrize("change", ["continuous", "activation", "quantized", "different"])
def test_outputs_that_are_not_centered(change):
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=32) + 0.01 * rng.normal(size=(3, 32))).astype(np.float32)
    layer, head = Layer(weight, np.ones(3, np.float32)), Head("argmax", (), groups=(3,))
    network = Network((32,), False, None, (layer,), head)
    assert np.abs(center(network).layers[0].weight).max() < 0.1
    changed = {
        "continuous": {"head": Head("clip", (3,), -np.ones(3, np.float32), np.ones(3, np.float32))},
        "activation": {"layers": (replace(layer, activation=Activation("tanh")),)},
        "quantized": {"layers": (replace(layer, weight=layer.weight.astype(np.int8), scale=np.ones(3, np.float32)),)},
        # Nothing in common: two rows that mirror each other already.
        "different": {
            "layers": (Layer(np.stack([weight[0], -weight[0]]), np.ones(2, np.float32)),),
            "head": Head("argmax", (), groups=(2,)),
        },
    }[change]
    other = replace(network, **changed)
    np.testing.assert_array_equal(center(other).layers[0].weight, other.layers[0].weight)


def test_a_hook_is_refused():
    model = SAC("MlpPolicy", Cheetah(), buffer_size=1, device="cpu", policy_kwargs={"net_arch": [8]})
    handle = model.policy.actor.mu.register_forward_hook(lambda module, inputs, output: -output)
    with pytest.raises(ValueError, match=r"'actor.mu' \(Linear\) with a hook"):
        compress(model)
    handle.remove()
    compress(model, backend="numpy")


@pytest.mark.parametrize("wrong", ["agent.zip", None])
def test_arguments_that_are_not_a_model(wrong):
    with pytest.raises(ValueError, match="compress takes a model"):
        compress(wrong)
