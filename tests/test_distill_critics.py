"""The last phase of a distillation: its loss, its gradient, the masks that hold, and the critics that stay as they are."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse import EngineCallback, OneShotPruningCallback, QATCallback, distill
from sb3_sparse.distillation.learning.behavior import Squashed
from sb3_sparse.distillation.learning.critics import Valued, find_critics, value_actions
from sb3_sparse.distillation.learning.network import read_network
from sb3_sparse.distillation.learning.states import States
from sb3_sparse.distillation.learning.training import BLOCK, Distillation
from sb3_sparse.distillation.student import make_student
from tests.algorithms import CASES

SHORT = {"steps": 1000, "updates": 5000, "critic_updates": 1000}


def teacher(name):
    model = CASES[name].make(device="cpu")
    with th.no_grad():
        for parameter in read_network(model).parameters():
            parameter.mul_(1.5)
    return model


def weights_of(model):
    return [parameter for parameter in read_network(model).parameters() if parameter.dim() > 1]


def equal_states(one, other):
    return all(
        th.equal(mine, theirs) for mine, theirs in zip(*(m.policy.state_dict().values() for m in (one, other)), strict=True)
    )


def test_the_gradient_of_the_loss():
    """By hand: of a linear critic, the loss is quadratic in the action, and linear in the value."""
    critic = th.nn.Linear(3, 2)
    with th.no_grad():
        critic.weight.copy_(th.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]]))
        critic.bias.zero_()
    behavior = Valued(Squashed(), 1, 4.0, 2.0, (critic,))
    outputs = th.tensor([[0.3]], requires_grad=True)
    behavior.loss(outputs, th.tensor([[0.5, 7.0, 8.0]])).backward()
    # The mean of the two quantiles has the slope (3 - 1) / 2 in the action.
    action = np.tanh(0.3)
    expected = (2 * (action - 0.5) - 4.0 / 2.0 * 1.0) * (1 - action**2)
    assert outputs.grad.item() == pytest.approx(expected, rel=1e-5)


def test_the_scale_is_the_mean_value():
    model = teacher("tqc")
    observations, actions = th.randn(50, 3), th.rand(50, 1) * 2 - 1
    behavior = value_actions(Squashed(), find_critics(model), observations, actions)
    values = model.critic(observations, actions).mean(dim=(1, 2))
    assert behavior.scale == pytest.approx(float(values.detach().abs().mean()), rel=1e-5)


@pytest.mark.filterwarnings("ignore:SB3 trains this model, because the engine cannot")
@pytest.mark.parametrize(
    "name", ["sac", *(pytest.param(name, marks=pytest.mark.slow) for name in ("td3", "ddpg", "tqc", "crossq"))]
)
def test_masks_hold_and_critics_stay(name):
    """The student has changed, in the weights alone that it had; its critics, and the teacher's, are the same bits."""
    model = teacher(name)
    before = [tensor.clone() for tensor in model.policy.state_dict().values()]
    plain = distill(model, "Pendulum-v1", 0.8, **{**SHORT, "critic_updates": 0})
    student = distill(model, "Pendulum-v1", 0.8, **SHORT)
    assert all(th.equal(old, new) for old, new in zip(before, model.policy.state_dict().values(), strict=True))
    for mine, theirs in zip(student.critic.state_dict().values(), model.critic.state_dict().values(), strict=True):
        assert th.equal(mine, theirs)
    for weight, first in zip(weights_of(student), weights_of(plain), strict=True):
        assert th.equal(weight != 0, first != 0)
    assert not th.equal(weights_of(student)[0], weights_of(plain)[0])


def test_the_critics_value_it_more():
    """The critics' values of a student's actions are higher than without the phase."""
    model = teacher("sac")
    observations = th.as_tensor(np.stack([model.observation_space.sample() for _ in range(500)]))

    def value(student):
        with th.no_grad():
            actions = student.actor(observations, deterministic=True)
            return float(sum(q.mean() for q in model.critic(observations, actions)))

    plain, refined = (distill(model, "Pendulum-v1", 0.8, **{**SHORT, "critic_updates": n}) for n in (0, 2000))
    assert value(refined) > value(plain)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sac", None),
        ("tqc", None),
        ("td3", OneShotPruningCallback("critic", 0.5)),
        ("sac", QATCallback("critic", 0, bits=3)),
    ],
    ids=["two", "quantiles", "pruned", "quantized"],
)
def test_the_engine_learns_from_critics_as_torch_does(name, change):
    """The same weights after the same updates, whatever the critics compute with; and other ones than by imitation alone."""
    model = CASES[name].make(device="cpu").learn(200, callback=change)
    inputs = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    actions = Squashed().targets(read_network(model).outputs(inputs))
    valued = value_actions(Squashed(), find_critics(model), th.as_tensor(inputs), actions)
    found = []
    for behavior, engine in ((valued, True), (valued, False), (Squashed(), False)):
        student = make_student(model, [12, 12])
        targets = actions.numpy() if behavior is not valued else np.hstack([actions.numpy(), inputs])
        states = States(len(inputs), inputs, targets, normalize=True)
        training = Distillation(student, behavior, states, lambda _: 1e-3, round_updates=BLOCK, begin_round=lambda _: True)
        training.learn(4 * BLOCK, EngineCallback(strict=True) if engine else None)
        found.append(th.cat([weight.detach().flatten() for weight in training.policy.student.parameters()]))
    in_engine, in_torch, imitating = found
    assert (in_engine - in_torch).abs().max() < 1e-4
    assert (imitating - in_torch).abs().max() > 1e-2


class Stop(BaseCallback):
    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def _on_step(self):
        self.calls -= 1
        if not self.calls:
            raise KeyboardInterrupt
        return True


def test_interrupted_and_resumed(tmp_path):
    """In the first training or in the phase: it ends as one that was not, bit for bit."""
    model = teacher("sac")
    whole = distill(model, "Pendulum-v1", 0.8, **SHORT)
    # There are 100 calls in the first training, which is saved after 55, and 20 in the phase, which is saved after 10.
    for calls in (60, 45 + 12):
        with pytest.raises(KeyboardInterrupt):
            distill(model, "Pendulum-v1", 0.8, checkpoint=tmp_path, callback=Stop(calls), **SHORT)
    assert list((tmp_path / "critics").glob("*.pt"))
    assert equal_states(distill(model, "Pendulum-v1", 0.8, checkpoint=tmp_path, **SHORT), whole)


@pytest.mark.parametrize(
    ("name", "kwargs", "sentence"),
    [
        ("ppo", {}, "PPO has no critics that judge actions"),
        ("dqn", {}, "DQN has no critics that judge actions"),
        ("sac", {"critic_updates": 10}, "too few"),
        ("sac", {"critic_updates": -1}, "critic_updates"),
        ("sac", {"bits": 4}, "off its grid"),
    ],
)
def test_bad_input(name, kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        distill(teacher(name), CASES[name].env, 0.5, **{**SHORT, **kwargs})
