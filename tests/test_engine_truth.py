"""What others do to a model while it trains in the engine has the effect that it has on SB3."""

import copy

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from torch.optim import Adam

from sb3_sparse import EngineCallback, OneShotPruningCallback
from sb3_sparse.engine.learner import Learner
from sb3_sparse.engine.support import find_update
from sb3_sparse.engine.updates.chain import Unsupported
from sb3_sparse.nn import MaskedLayer
from tests.test_engine import state

#: Digest of SB3 2.9.2's loop.
LOOP = "1a98a5c8c7831d66"


class Once(BaseCallback):
    """Calls a function with the model and itself after one environment step, or all from there on."""

    def __init__(self, function, at=60, *, always=False, holds_layers=True):
        super().__init__()
        self.function, self.at, self.always, self.holds_layers = function, at, always, holds_layers

    def _on_training_start(self):
        self.actor = self.model.actor
        self.mean = self.model.actor.mu

    def _on_step(self):
        if self.num_timesteps == self.at or (self.always and self.num_timesteps > self.at):
            self.function(self.model, self)
        return True


def make(algorithm=SAC, **kwargs):
    settings = {"policy_kwargs": {"net_arch": [24, 24]}, "learning_starts": 40, "batch_size": 32, "buffer_size": 500, **kwargs}
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=3, device="cpu", **settings)
    model.set_logger(configure(None, []))
    return model


def expect_same(function, *, steps=90, callbacks=lambda: [], bound=2e-3, **kwargs):
    """A run in the engine ends like one on SB3, although somebody does something in the middle."""
    states = []
    for last in ([], [EngineCallback(strict=True)]):
        model = make(**kwargs.get("model", {}))
        once = Once(function, **{k: v for k, v in kwargs.items() if k != "model"})
        model.learn(steps, callback=[*callbacks(), once, *last], log_interval=1000)
        states.append(state(model))
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert (value - states[1][name]).abs().max() < bound * value.abs().max().clamp(min=1.0), name


class Looks(ReplayBuffer):
    """A buffer that asks for the policy whenever it is sampled, as one with priorities does."""

    model = None

    def sample(self, *args, **kwargs):
        if Looks.model is not None:
            assert Looks.model.policy is not None
        return super().sample(*args, **kwargs)


def _watch(model, _):
    Looks.model = model


def test_a_buffer_that_looks_at_the_policy():
    expect_same(_watch, at=1, model={"replay_buffer_class": Looks})
    Looks.model = None


def _train(model, _):
    model.train(5)


def _ablate(model, once):
    """What a held layer is set to counts in the same call."""
    with th.no_grad():
        once.mean.weight.zero_()
        once.mean.bias.zero_()
    action, _ = model.predict(np.zeros((1, 3), np.float32), deterministic=True)
    assert abs(float(action[0, 0])) < 1e-6


def _freeze(model, once):
    for parameter in once.mean.parameters():
        parameter.requires_grad_(False)


def _hook_gradients(model, once):
    once.mean.weight.register_hook(lambda gradient: 0.5 * gradient)


def _hook_forward(model, once):
    once.mean.register_forward_hook(lambda module, inputs, output: 0.5 * output)


def _replace_optimizer(model, once):
    model.actor.optimizer = Adam(model.actor.parameters(), lr=1e-2)


def _replace_moments(model, once):
    moments = model.actor.optimizer.state[model.actor.mu.weight]
    moments["exp_avg"] = th.zeros_like(moments["exp_avg"])


def _relabel(model, once):
    model.replay_buffer.rewards = model.replay_buffer.rewards * 10


def _perturb(model, once):
    """Adds noise to all weights, pruned ones too."""
    generator = th.Generator().manual_seed(0)
    with th.no_grad():
        for parameter in once.actor.parameters():
            parameter.add_(1e-2 * th.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("at", [60])
@pytest.mark.parametrize(
    "function",
    [_train, _ablate, _freeze, _hook_gradients, _hook_forward, _replace_optimizer, _replace_moments, _relabel],
    ids=lambda function: getattr(function, "__name__", str(function)),
)
def test_it_counts(function, at):
    expect_same(function, at=at)


def test_noise_on_pruned_weights():
    """They are zero again before the next update."""
    model = make()
    pruning = OneShotPruningCallback("all", 0.7, saliency="random", targets="mask")
    model.learn(62, callback=[pruning, Once(_perturb), EngineCallback(strict=True)])
    layers = [layer for layer in model.policy.modules() if isinstance(layer, MaskedLayer)]
    assert any(layer.pruned for layer in layers)
    for layer in layers:
        assert bool((layer.weight[~layer.mask] == 0).all())


def test_an_entropy_coefficient_that_changes():
    def change(model, _):
        model.ent_coef_tensor = th.tensor(0.5)

    expect_same(change, model={"ent_coef": 0.1})


def test_constants_that_change_at_every_step():
    """They cost time, but no memory."""
    programs = []

    def anneal(model, _):
        model.tau = 0.01 / model.num_timesteps
        if isinstance(model, Learner):
            programs.append(len(model._session.update._programs))

    expect_same(anneal, always=True)
    assert max(programs) <= 2


def test_a_copy_is_a_model_of_its_own():
    copies = []

    def take(model, _):
        copies.append((copy.deepcopy(model), state(model)))

    model = make()
    model.learn(70, callback=[Once(take), EngineCallback(strict=True)])
    ((copied, before),) = copies
    assert type(copied) is SAC
    for name, value in state(copied).items():
        assert th.equal(value, before[name]), name
    ended = state(model)
    copied.learn(10, reset_num_timesteps=False)
    for name, value in state(model).items():
        assert th.equal(value, ended[name]), name


def test_actions_that_do_not_begin_at_zero():
    model = DQN("MlpPolicy", "CartPole-v1", device="cpu")
    model.action_space = spaces.Discrete(2, start=5)
    with pytest.raises(Unsupported, match="begin at 5"):
        find_update(model)


def test_training_that_diverges_stops_as_on_sb3():
    def poison(model, once):
        with th.no_grad():
            once.mean.weight.fill_(float("nan"))

    for last in ([], [EngineCallback(strict=True)]):
        with pytest.raises(ValueError):
            make().learn(80, callback=[Once(poison), *last])


def test_a_network_that_is_replaced_is_reported():
    model = make(TD3)

    def replace(model, _):
        model.actor = copy.deepcopy(model.actor)

    with pytest.warns(UserWarning, match=r"model\.actor was replaced"):
        model.learn(70, callback=[Once(replace), EngineCallback(strict=True)])
    assert type(model) is TD3


def test_sb3s_loop_is_the_one_that_was_copied():
    """The engine has a copy of SB3's loop over environment steps; if SB3 changes it, the copy has to follow."""
    import hashlib
    import inspect

    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

    source = inspect.getsource(OffPolicyAlgorithm.collect_rollouts)
    code = "\n".join(line for line in source.splitlines() if not line.strip().startswith("#"))
    assert hashlib.sha256(code.encode()).hexdigest()[:16] == LOOP
