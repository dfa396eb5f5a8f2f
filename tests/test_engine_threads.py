"""The engine with a second thread."""

import multiprocessing

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO

from sb3_sparse import EngineCallback
from sb3_sparse.engine.kernels.library import Team
from sb3_sparse.engine.learner import engage, release
from sb3_sparse.engine.session import Session
from sb3_sparse.engine.support import find_update
from tests.test_engine import build, expect_equal, state


def trained(name, sparsity, *, two, half=False, start=lambda model: None, done=lambda update: None):
    """State after three updates with batches of nine panels."""
    model = build(name, sparsity=sparsity)
    th.manual_seed(1)
    np.random.seed(1)
    update = find_update(model)
    update.half, update.team = half, Team() if two else None
    engage(model, Session(model, update))
    start(model)
    for _ in range(3):
        model.train(1, 280)
    done(update)
    release(model)
    return state(model)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name, sparsity", [("sac", 0.0), ("sac", 0.8), ("td3", 0.4), ("dqn", 0.8), ("tqc", 0.0)])
def test_two_threads_compute_what_one_does(name, sparsity, half):
    """Up to the order of a sum; and twice the same."""
    one = trained(name, sparsity, two=False, half=half)
    two, again = (trained(name, sparsity, two=True, half=half) for _ in range(2))
    expect_equal(one, two, 1e-3 if half else 1e-4)
    assert all(th.equal(two[key], again[key]) for key in two)


def test_the_second_thread_computes_gradients():
    """Those of every other block, in memory of its own."""

    def expect_gradients(update):
        for parameters in update.parameters[:2]:
            gradient = parameters.arrays["gradient"]
            assert len(gradient) == 2 * parameters.size
            assert np.count_nonzero(gradient[parameters.size :]) > 0.5 * np.count_nonzero(gradient[: parameters.size]) > 0

    trained("sac", 0.0, two=True, done=expect_gradients)


def test_a_system_without_another_thread(monkeypatch):
    def fail():
        raise RuntimeError("the system gives the engine no second thread")

    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr("sb3_sparse.engine.callback.Team", fail)
    with pytest.warns(UserWarning, match="threads=2.*no second thread"):
        build("sac").learn(2, callback=EngineCallback(threads=2), reset_num_timesteps=False)


def test_a_child_process_has_no_second_thread():
    """It computes the same by one."""
    expected = trained("sac", 0.8, two=True)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def child(model):
        for _ in range(3):
            model.train(1, 280)
        release(model)
        queue.put({key: value.numpy() for key, value in state(model).items()})

    def fork(model):
        model.train(0, 280)
        process = context.Process(target=child, args=(model,))
        process.start()
        found = queue.get(timeout=60)
        process.join()
        assert process.exitcode == 0
        assert all(np.array_equal(found[key], expected[key].numpy()) for key in expected)

    trained("sac", 0.8, two=True, start=fork)


def test_runs(monkeypatch):
    """Off-policy and on-policy, from the callback."""
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1}, raising=False)
    found = []
    for threads in (1, 2):
        model = build("sac")
        model.batch_size = 256
        th.manual_seed(2)
        model.learn(20, callback=EngineCallback(threads=threads, strict=True), reset_num_timesteps=False)
        other = PPO("MlpPolicy", "Pendulum-v1", n_steps=256, batch_size=256, n_epochs=2, seed=0, device="cpu")
        other.learn(256, callback=EngineCallback(threads=threads, strict=True))
        found.append([state(each) for each in (model, other)])
    for one, two in zip(*found, strict=True):
        expect_equal(one, two, 1e-3)


def test_a_process_with_one_processor(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0}, raising=False)
    with pytest.warns(UserWarning, match="threads=2.*one processor"):
        build("sac").learn(2, callback=EngineCallback(threads=2), reset_num_timesteps=False)
    with pytest.raises(ValueError, match="one processor"):
        build("sac").learn(2, callback=EngineCallback(threads=2, strict=True), reset_num_timesteps=False)
