"""Distillation in a few bits: what a student computes with is what is exported, and it can be interrupted as any other."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import ConvertCallback

from sb3_sparse import compress, distill, restore
from sb3_sparse.distillation.learning.rounding import best_scale
from sb3_sparse.distillation.learning.states import States
from sb3_sparse.export.passes import to_minifloats
from tests.algorithms import CASES
from tests.test_distill import SHORT, Stop, act, equal_states, samples, teacher, weights_of


def integers(policy):
    return [layer.weight for layer in policy.network.layers]


@pytest.mark.filterwarnings("ignore:SB3 trains this model, because the engine cannot")
@pytest.mark.quick("sac", "dqn")
@pytest.mark.parametrize("name", ["sac", "dqn", "ppo", "crossq", "maskable_ppo"])
def test_the_exported_weights_are_those_of_training(name, tmp_path):
    """Whatever bits are asked for, also from a zip; the student acts by them itself. It goes on training, off the grid."""
    model = teacher(name)
    student = distill(model, model.get_env(), 0.5, bits=3, **SHORT)
    observations = samples(model)
    exported = compress(student, calibration=observations)
    assert all(layer.quantized and np.abs(layer.weight).max() <= 3 for layer in exported.network.layers)
    assert len(np.unique(np.concatenate([weight.ravel() for weight in integers(exported)]))) == 7
    if isinstance(model.action_space, gym.spaces.Box):
        np.testing.assert_allclose(exported.predict(observations)[0], act(student, observations), atol=1e-3)
    else:
        assert (exported.predict(observations)[0] == act(student, observations)).all()
    assert any("left on that grid" in note for note in exported.report().notes)
    student.save(tmp_path / "student.zip")
    loaded = CASES[name].algorithm.load(tmp_path / "student.zip", env=model.get_env(), device="cpu")
    assert (act(loaded, observations) == act(student, observations)).all()
    again = compress(loaded, bits=8)
    assert all((one == two).all() for one, two in zip(integers(again), integers(exported), strict=True))
    loaded.learn(60)
    assert (compress(loaded, bits=32).network.layers[-1].weight % 1 != 0).any()


@pytest.mark.parametrize("engine", [True, False])
def test_the_same_seed(engine):
    model = teacher("sac")
    one, two = (distill(model, "Pendulum-v1", 0.0, [6], bits=2, seed=3, engine=engine, **SHORT) for _ in range(2))
    equal_states(one, two)
    assert one.sparsity_state == two.sparsity_state and not one.sparsity_state["masks"]
    for weight in weights_of(one):
        largest = weight.detach().abs().amax(1, keepdim=True)
        assert weight.shape[1] == 3 or ((weight == 0) | (weight.abs() == largest)).all()


@pytest.mark.filterwarnings("ignore:SB3 trains this model, because the engine cannot")
@pytest.mark.parametrize("activation_bits", [None, 4])
def test_interrupted_and_resumed(activation_bits, tmp_path):
    """Before there is a grid, and while it changes."""
    model = teacher("sac")
    kwargs = {"bits": 3, "activation_bits": activation_bits, **SHORT}
    whole = distill(model, "Pendulum-v1", 0.8, **kwargs)
    for after in (1300, 4100):
        with pytest.raises(KeyboardInterrupt):
            distill(model, "Pendulum-v1", 0.8, checkpoint=tmp_path, callback=Stop(after), **kwargs)
    resumed = distill(model, "Pendulum-v1", 0.8, checkpoint=tmp_path, **kwargs)
    equal_states(resumed, whole)
    grids = {key: whole.sparsity_state.get(key) for key in ("grids", "inputs")}
    assert grids["grids"] and grids == {key: resumed.sparsity_state.get(key) for key in grids}
    with pytest.raises(ValueError, match="another distillation"):
        distill(model, "Pendulum-v1", 0.7, checkpoint=tmp_path, **kwargs)


def test_other_bits_go_on_from_where_they_part(tmp_path):
    """Each ends as one that was trained alone, after the last 35 % of the updates."""
    model = teacher("sac")
    for bits, trained in ((8, 5000), (3, 1750), (2, 1750), (8, 1750)):
        clock = []
        count = ConvertCallback(lambda variables, _, clock=clock: clock.append(variables["self"].num_timesteps) is None)
        student = distill(model, "Pendulum-v1", 0.8, bits=bits, checkpoint=tmp_path, callback=count, **SHORT)
        alone = distill(model, "Pendulum-v1", 0.8, bits=bits, **SHORT)
        assert 50 * len(clock) == trained
        equal_states(student, alone)
        assert student.sparsity_state == alone.sparsity_state
    # Without bits, inputs are normalized in another way.
    with pytest.raises(ValueError, match="another distillation"):
        distill(model, "Pendulum-v1", 0.8, checkpoint=tmp_path, **SHORT)


@pytest.mark.parametrize("after", [3600, 4400])
def test_stopped_early(after):
    """While steps are learnt, and in the first grid: what is left is on a grid that a file can hold."""
    model = teacher("sac")
    stop = ConvertCallback(lambda variables, _: variables["self"].num_timesteps < after)
    student = distill(model, "Pendulum-v1", 0.5, bits=2, callback=stop, **SHORT)
    exported = compress(student)
    assert all(np.abs(layer.weight).max() == 1 for layer in exported.network.layers)
    np.testing.assert_allclose(exported.predict(samples(model))[0], act(student, samples(model)), atol=1e-3)


@pytest.mark.filterwarnings("ignore:SB3 trains this model, because the engine cannot")
@pytest.mark.parametrize("bits", [None, 3])
def test_activations(bits, tmp_path):
    """A student in few bits is the exported policy; float weights are rounded afterwards, to the same grids."""
    model = teacher("sac")
    student = distill(model, "Pendulum-v1", 0.5, [12, 12], bits=bits, activation_bits=4, **SHORT)
    observations = samples(model)
    exported = compress(student, bits=32, calibration=observations)
    assert [layer.grid and (layer.grid.low, layer.grid.top) for layer in exported.network.layers] == [None, (0, 15), (0, 15)]
    # A sum between two integers may be rounded to either.
    off = np.abs(exported.predict(observations)[0] - act(student, observations)) > 1e-3
    assert off.mean() <= 0.05
    student.save(tmp_path / "student.zip")
    loaded = SAC.load(tmp_path / "student.zip", device="cpu")
    assert (act(loaded, observations) != act(student, observations)).any()
    restore(loaded)
    assert (act(loaded, observations) == act(student, observations)).all()


def test_fewer_bits_are_closer_when_trained():
    """Training with them beats rounding after it, by far."""
    model = teacher("sac")
    observations = samples(model, 3000)
    errors = []
    for bits in (None, 2):
        student = distill(model, observations, 0.0, [32, 32], bits=bits, steps=1000, updates=10_000)
        rounded = compress(student, bits=2, calibration=observations)
        errors.append(np.abs(rounded.predict(observations)[0] - act(model, observations)).mean())
    assert errors[1] < 0.6 * errors[0]


def test_the_first_steps():
    """No other step of a row has a smaller error."""
    th.manual_seed(0)
    weight, squares = th.randn(5, 40), th.rand(40)
    weight[4] = 0.0
    for top in (1, 3, 7):
        scale = best_scale(weight, squares, top)[:, None]

        def error(steps, top=top):
            return (squares * ((weight / steps).round().clamp(-top, top) * steps - weight) ** 2).sum(dim=1)

        least = error(scale)
        for share in np.linspace(0.2, 1.2, 50):
            assert (
                least <= error(weight.abs().amax(1, keepdim=True).clamp(min=1e-9) / top * float(share)) * 1.02 + 1e-9
            ).all()
        assert (scale[:4, 0] < weight[:4].abs().amax(1) / top).any()


def test_gains_in_one_byte():
    """The inputs are divided by what an exported layer can multiply with."""
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(500, 6)) * [1e-2, 0.3, 1, 2, 7, 90]).astype(np.float32)
    plain, coarse = (
        States(500, inputs, np.zeros((500, 1), np.float32), normalize=True, coarse=each) for each in (False, True)
    )
    assert np.abs(coarse.std / plain.std - 1).max() < 0.04
    gains = (1 / coarse.std).astype(np.float32)
    np.testing.assert_allclose(to_minifloats(gains, up=False).values, gains, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "kwargs", "sentence"),
    [
        ("sac", {"bits": 1}, "bits=1"),
        ("sac", {"activation_bits": 9}, "activation_bits=9"),
        ("qrdqn", {"bits": 4}, "mean of its estimates"),
    ],
)
def test_bad_input(name, kwargs, sentence):
    model = teacher(name)
    with pytest.raises(ValueError, match=sentence):
        distill(model, model.get_env(), 0.5, **SHORT, **kwargs)


def test_damaged_grids():
    model = teacher("sac")
    student = distill(model, "Pendulum-v1", 0.5, [4], bits=4, **SHORT)
    grids = student.sparsity_state["grids"]
    name, saved = next(iter(grids.items()))
    for damage in ({"bits": 9}, {"scale": []}, {"scale": [1.0, 300, 1]}, {"gain": [1.0]}, {"scale": [-1.0, 3]}):
        grids[name] = {**saved, **damage}
        with pytest.raises(ValueError, match="saved grid of layer"):
            compress(student)
    grids[name] = {**saved, "scale": [1.0, 3]}
    with pytest.raises(ValueError, match="does not fit"):
        compress(student)
