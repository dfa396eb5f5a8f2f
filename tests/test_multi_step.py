"""Delayed multi-step targets: SB3's own, switched on in the middle of a run."""

import numpy as np
import pytest
import torch as th

from sb3_sparse import DelayedMultiStepCallback
from tests.algorithms import CASES


def difference(a, b):
    """Largest difference between two models' weights."""
    theirs = b.policy.state_dict()
    return max(float((value - theirs[name]).abs().max()) for name, value in a.policy.state_dict().items())


@pytest.mark.parametrize("name", ["td3", "sac", "tqc", "dqn", "qrdqn", "crossq"])
def test_one_step_until_the_start(name):
    """Until then the batches are those of a model with n_steps=1, and so are the weights, but for rounding."""
    stock = CASES[name].make().learn(40)
    delayed = CASES[name].make(n_steps=3).learn(40, callback=DelayedMultiStepCallback(start=50))
    switched = CASES[name].make(n_steps=3).learn(40, callback=DelayedMultiStepCallback(start=20))
    ours, later = difference(stock, delayed), difference(stock, switched)
    assert ours < 1e-4 and later > 10 * ours
    delayed.replay_buffer.n_steps = 1
    for model in (stock, delayed):
        np.random.seed(1)
        model.batch = model.replay_buffer.sample(32)
    for field in ("observations", "actions", "next_observations", "dones", "rewards"):
        assert th.equal(getattr(stock.batch, field), getattr(delayed.batch, field))
    assert th.allclose(delayed.batch.discounts, th.tensor(delayed.gamma))


def test_from_the_start_it_is_a_multi_step_model():
    stock = CASES["td3"].make(n_steps=3)
    stock.learn(60)
    model = CASES["td3"].make(n_steps=3)
    model.learn(60, callback=DelayedMultiStepCallback(start=0))
    assert difference(stock, model) == 0.0


def test_a_share_of_the_run():
    model = CASES["td3"].make(n_steps=3)
    model.learn(80, callback=DelayedMultiStepCallback(start=0.5))
    (clock,) = model.sparsity_state["callbacks"].values()
    assert clock == {"start": 40, "timestep": 80}
    assert model.replay_buffer.n_steps == 3


@pytest.mark.filterwarnings("ignore:`n_steps=3` is ignored")  # SB3 warns of the buffer class that it has saved itself.
def test_the_clock_survives_a_reset_counter(tmp_path, capsys):
    """rl-zoo3's `-i` sets num_timesteps back to zero, and a new buffer has all its steps."""
    model = CASES["td3"].make(n_steps=3)
    model.learn(50, callback=DelayedMultiStepCallback(start=70, verbose=1))
    assert model.replay_buffer.n_steps == 3, "without the callback the model trains as it was built"
    model.save(tmp_path / "agent.zip")
    resumed = CASES["td3"].algorithm.load(tmp_path / "agent.zip", env=model.get_env())
    callback = DelayedMultiStepCallback(start=70, verbose=1)
    resumed.learn(15, callback=callback)
    assert callback.timestep == 65
    resumed.learn(10, callback=callback, reset_num_timesteps=False)
    assert resumed.replay_buffer.n_steps == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix("DelayedMultiStepCallback: ") for line in lines] == [
        "stopped at step 50, before it begins at 70",
        "stopped at step 65, before it begins at 70",
        "step 70, targets of 3 steps",
    ]


@pytest.mark.parametrize("name", ["td3", "ppo"])
def test_a_model_without_steps(name):
    with pytest.raises(ValueError, match=r"has no multi-step targets to delay: build it with n_steps=3"):
        CASES[name].make().learn(10, callback=DelayedMultiStepCallback(start=0))


def test_a_start_that_is_none():
    with pytest.raises(ValueError, match=r"start=1\.5 is not a share of a run"):
        DelayedMultiStepCallback(start=1.5)
