"""``EngineCallback``: who looks at a model sees the truth, and nothing is lost, whatever happens."""

import copy
import gc
import threading
import weakref

import numpy as np
import pytest
import torch as th
from sb3_contrib import CrossQ
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import SimpleMultiObsEnv
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_sparse import (
    EngineCallback,
    GradualPruningCallback,
    OneShotPruningCallback,
    QATCallback,
    RewiringCallback,
    restore,
)
from sb3_sparse.engine import support
from sb3_sparse.nn import MaskedLayer
from sb3_sparse.runtime.backends.build import BuildError
from tests.test_engine import expect_equal, state

STATIC = {"saliency": "random", "targets": "mask"}
#: By name: callbacks that change layers while the engine trains.
METHODS = {
    "dense": lambda: [],
    "static": lambda: [OneShotPruningCallback("all", 0.8, **STATIC)],
    "gmp": lambda: [GradualPruningCallback("all", 0.9, start=0.2, end=0.9, update_freq=20)],
    "snip": lambda: [OneShotPruningCallback("all", 0.7, at=70, saliency="snip", n_samples=64)],
    "set": lambda: [OneShotPruningCallback("all", 0.7, **STATIC), RewiringCallback("all", 0.2, 20, targets="mask")],
    "rigl": lambda: [
        OneShotPruningCallback("all", 0.7, **STATIC),
        RewiringCallback("all", 0.2, 20, grow="gradient", targets="mask"),
    ],
    "topk": lambda: [
        OneShotPruningCallback("all", 0.7, saliency="random", targets="topk"),
        RewiringCallback("all", 0.2, 20, targets="topk"),
    ],
    "polyak": lambda: [
        OneShotPruningCallback("all", 0.7, saliency="random", targets="polyak"),
        RewiringCallback("all", 0.2, 20, targets="polyak"),
    ],
    "qat": lambda: [QATCallback("actor", 0.5)],
    "gmp_qat": lambda: [GradualPruningCallback("actor", 0.8, start=0.3, end=0.6, update_freq=10), QATCallback("actor", 0.7)],
}


def make(algorithm=SAC, **kwargs):
    settings = {"policy_kwargs": {"net_arch": [24, 24]}, "learning_starts": 40, "batch_size": 32, "buffer_size": 500, **kwargs}
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=3, device="cpu", **settings)
    model.set_logger(configure(None, []))
    return model


class Keeper(BaseCallback):
    """Holds layers of the model, and remembers what they look like at every step."""

    def _on_training_start(self):
        self.held = [layer for layer in self.model.policy.modules() if isinstance(layer, nn.Linear)]
        self.seen = []

    def _on_step(self):
        self.seen.append([layer.weight.detach().clone() for layer in self.held])
        return True


class Truth(BaseCallback):
    """Checks at every step that what the model shows is what a layer in hand shows, and that it is masked."""

    holds_layers = False

    def _on_step(self):
        for layer in self.model.policy.modules():
            if isinstance(layer, MaskedLayer):
                assert bool((layer.weight[~layer.mask] == 0).all())
        return True


@pytest.mark.quick("gmp", "rigl", "topk", "qat")
@pytest.mark.parametrize("method", METHODS)
def test_methods(method):
    """The same weights at every step as on SB3, in the end the same places and types."""
    models, keepers = [], []
    for last in ([], [EngineCallback(strict=True)]):
        # Making a model seeds the generators.
        model, keeper = make(), Keeper()
        models.append(model)
        model.learn(120, callback=[*METHODS[method](), Truth(), keeper, *last], log_interval=1000)
        keepers.append(keeper)
    stock, engine = models
    assert type(engine) is SAC
    assert len(keepers[0].seen) == len(keepers[1].seen) == 120
    for step, (a, b) in enumerate(zip(keepers[0].seen, keepers[1].seen, strict=True)):
        for x, y in zip(a, b, strict=True):
            assert (x - y).abs().max() < 1e-4, step
    assert state(stock).keys() == state(engine).keys()
    assert engine._n_updates == stock._n_updates


@pytest.mark.quick("gmp")
@pytest.mark.parametrize("method", ["static", "gmp", "set"])
def test_the_log_and_the_evaluations_are_those_of_sb3(method):
    logs, evaluations = [], []
    for last in ([], [EngineCallback(strict=True)]):
        model = make()
        env = make_vec_env("Pendulum-v1", 1, seed=7)
        evaluation = EvalCallback(env, n_eval_episodes=1, eval_freq=30, verbose=0, warn=False)
        model.learn(100, callback=[*METHODS[method](), evaluation, *last], log_interval=1000)
        logs.append(set(model.logger.name_to_value))
        evaluations.append(evaluation.last_mean_reward)
    assert logs[0] == logs[1]
    assert evaluations[1] == pytest.approx(evaluations[0], rel=1e-2)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_a_run_goes_on_wherever_it_was_saved(first, second, tmp_path):
    """Two runs in the engine equal one, bit for bit; and the engine goes on with a run of SB3, and the reverse."""

    def run(model, steps, engine, **kwargs):
        last = [EngineCallback(strict=True)] if engine else []
        model.learn(steps, callback=[*METHODS["set"](), *last], log_interval=1000, **kwargs)
        return model

    whole, half = make(), run(make(), 80, first)
    half.save(tmp_path / "half")
    half.save_replay_buffer(tmp_path / "buffer")
    state_of_torch, state_of_numpy = th.get_rng_state(), np.random.get_state()
    loaded = SAC.load(tmp_path / "half", env=half.get_env(), device="cpu")
    restore(loaded)
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded._last_obs = half._last_obs
    loaded.set_logger(configure(None, []))
    for model in (half, loaded):
        env = copy.deepcopy(half.get_env())
        model.env = env
    results = []
    for model in (half, loaded):
        th.set_rng_state(state_of_torch)
        np.random.set_state(state_of_numpy)
        results.append(state(run(model, 40, second, reset_num_timesteps=False)))
    for name, value in results[0].items():
        assert th.equal(value, results[1][name]), name
    del whole


def test_a_checkpoint_holds_the_true_weights(tmp_path):
    model = make()
    checkpoint = CheckpointCallback(60, str(tmp_path))
    keeper = Keeper()
    model.learn(70, callback=[*METHODS["static"](), checkpoint, keeper, EngineCallback(strict=True)])
    loaded = SAC.load(tmp_path / "rl_model_60_steps.zip", device="cpu")
    layers = [layer for layer in loaded.policy.modules() if isinstance(layer, nn.Linear)]
    for layer, seen in zip(layers, keeper.seen[59], strict=True):
        assert th.equal(layer.weight, seen)


class Raises(BaseCallback):
    holds_layers = False

    def __init__(self, error):
        super().__init__()
        self.error = error

    def _on_step(self):
        if self.num_timesteps == 70:
            raise self.error
        return True


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("of a user")])
def test_nothing_is_lost_when_training_is_interrupted(error):
    stopped, whole = make(), make()
    with pytest.raises(type(error)):
        stopped.learn(100, callback=[Raises(error), EngineCallback(strict=True)])
    assert type(stopped) is SAC
    whole.learn(70, callback=EngineCallback(strict=True))
    # The step that was interrupted had not been stored yet.
    whole._n_updates -= 1
    assert stopped._n_updates == whole._n_updates
    stopped.learn(10, reset_num_timesteps=False)
    stopped.learn(10, reset_num_timesteps=False, callback=EngineCallback(strict=True))


class Meddles(BaseCallback):
    """Changes a layer that it holds, in a way that torch does not count."""

    def _on_training_start(self):
        self.layer = self.model.actor.mu

    def _on_step(self):
        if self.num_timesteps in (60, 80):
            self.layer.weight.data.mul_(0.5)
            self.layer.bias.data.fill_(1.0)
        return True


def test_changes_by_others_count():
    states = []
    for last in ([], [EngineCallback(strict=True)]):
        model = make()
        model.learn(82, callback=[Meddles(), *last])
        states.append(state(model))
    expect_equal(*states, bound=1e-2)


def test_two_models_in_two_threads():
    alone = [make(algorithm) for algorithm in (SAC, TD3)]
    together = [make(algorithm) for algorithm in (SAC, TD3)]

    def updates(model):
        # The batch is drawn from a generator that both threads use, so it is the same one in every step.
        model.learn(45, callback=EngineCallback(strict=True))
        model.replay_buffer.pos = 1
        for _ in range(20):
            model.learn(1, callback=EngineCallback(strict=True), reset_num_timesteps=False)

    threads = [threading.Thread(target=updates, args=(model,)) for model in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in alone:
        updates(model)
    for a, b in zip(alone, together, strict=True):
        assert type(b) is type(a)
        assert all(bool(th.isfinite(value).all()) for value in state(b).values())


def test_a_model_that_is_not_needed_is_garbage():
    model = make()
    model.learn(60, callback=EngineCallback(strict=True))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


class Doubled(FlattenExtractor):
    def forward(self, observations):
        return 2 * super().forward(observations)


REFUSED = {
    "none of": lambda: CrossQ("MlpPolicy", "Pendulum-v1", device="cpu", learning_starts=4),
    "gSDE": lambda: make(use_sde=True),
    "SGD": lambda: make(policy_kwargs={"optimizer_class": th.optim.SGD}),
    "amsgrad": lambda: make(policy_kwargs={"optimizer_kwargs": {"amsgrad": True}}),
    "Softplus": lambda: make(policy_kwargs={"activation_fn": nn.Softplus}),
    "features extractor": lambda: make(policy_kwargs={"features_extractor_class": Doubled}),
    "is none of SAC": lambda: _subclass(SAC),
    "observations in Dict": lambda: SAC("MultiInputPolicy", SimpleMultiObsEnv(discrete_actions=False), device="cpu"),
}


def _subclass(algorithm):
    class Mine(algorithm):
        pass

    return make(Mine)


@pytest.mark.parametrize("reason", REFUSED)
def test_what_it_cannot_train_sb3_trains(reason):
    model = REFUSED[reason]()
    with pytest.raises(ValueError, match=reason):
        model.learn(10, callback=EngineCallback(strict=True))
    callback = EngineCallback()
    with pytest.warns(UserWarning, match=reason):
        model.learn(10, callback=callback)
    assert reason in callback.reason


def test_without_a_compiler_sb3_trains(monkeypatch):
    def fail():
        raise BuildError("no C++ compiler")

    monkeypatch.setattr(support, "load", fail)
    with pytest.warns(UserWarning, match=r"no C\+\+ compiler"):
        make().learn(60, callback=EngineCallback())


@pytest.mark.parametrize("kwargs", [{"precision": "float16"}, {"threads": 3}, {"threads": 2.0}, {"threads": True}])
def test_bad_arguments(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        EngineCallback(**kwargs)


def test_inside_another_callback():
    env = make_vec_env("Pendulum-v1", 1)
    with pytest.raises(ValueError, match="put it into the list itself"):
        make().learn(10, callback=EvalCallback(env, callback_after_eval=EngineCallback()))


def test_memory_follows_the_weights_that_exist():
    """Vectors and indices of a network at 99 % take less than a tenth of a dense one's."""
    sizes = []
    for callbacks in ([], [OneShotPruningCallback("all", 0.99, **STATIC)]):
        model = make(policy_kwargs={"net_arch": [256, 256]})
        model.learn(1, callback=callbacks)
        update = support.find_update(model)
        update.layout()
        sizes.append(sum(parameters.nbytes for parameters in update.parameters))
    assert sizes[1] < sizes[0] / 10


def test_exploration_of_dqn():
    """Half of the actions are random, the others greedy, as on SB3."""
    actions = []
    for last in ([], [EngineCallback(strict=True)]):
        model = DQN(
            "MlpPolicy",
            "CartPole-v1",
            learning_starts=20,
            exploration_fraction=0.01,
            exploration_final_eps=0.5,
            buffer_size=200,
            seed=5,
            device="cpu",
        )
        model.learn(150, callback=last)
        actions.append(model.replay_buffer.actions[:150].copy())
    np.testing.assert_array_equal(*actions)
