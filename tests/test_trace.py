"""Tracing: every module in the table computes what torch computes, and a policy may say its own path to an action."""

import re
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib.ars.policies import ARSPolicy
from sb3_contrib.common.torch_layers import BatchRenorm1d
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import Actor, SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn
from torch.nn.utils import prune

from sb3_sparse import QATCallback, compress
from sb3_sparse.export.trace import MODULES, PATHS
from sb3_sparse.nn import ActionPath, MaskedConv1d, MaskedConv2d, MaskedLinear, MaskedLSTM
from sb3_sparse.policies.extractors import ResidualBlock
from sb3_sparse.runtime.network.reference import layer_inputs
from tests.algorithms import CASES
from tests.chains import folded

#: One of each, for four units or channels.
EXAMPLES = {
    nn.Linear: lambda: nn.Linear(4, 4),
    MaskedLinear: lambda: MaskedLinear(4, 4),
    nn.Conv2d: lambda: nn.Conv2d(4, 4, (3, 2), stride=(2, 1), padding=(1, 0)),
    MaskedConv2d: lambda: MaskedConv2d(4, 4, 2),
    ResidualBlock: lambda: ResidualBlock(4),
    nn.BatchNorm1d: lambda: nn.BatchNorm1d(4),
    nn.BatchNorm2d: lambda: nn.BatchNorm2d(4),
    BatchRenorm1d: lambda: BatchRenorm1d(4),
    nn.Conv1d: lambda: nn.Conv1d(4, 4, 3, stride=2, padding=1),
    MaskedConv1d: lambda: MaskedConv1d(4, 4, 2),
    nn.MaxPool1d: lambda: nn.MaxPool1d(3, 2, 1),
    nn.MaxPool2d: lambda: nn.MaxPool2d(3, 2, 1),
    nn.AvgPool1d: lambda: nn.AvgPool1d(3, 2, 1),
    nn.AvgPool2d: lambda: nn.AvgPool2d((3, 2), (2, 1), (1, 0)),
    nn.AdaptiveMaxPool1d: lambda: nn.AdaptiveMaxPool1d(3),
    nn.AdaptiveMaxPool2d: lambda: nn.AdaptiveMaxPool2d((1, None)),
    nn.AdaptiveAvgPool1d: lambda: nn.AdaptiveAvgPool1d(1),
    nn.AdaptiveAvgPool2d: lambda: nn.AdaptiveAvgPool2d((3, 2)),
    nn.LayerNorm: lambda: nn.LayerNorm(4),
    nn.ReLU: nn.ReLU,
    nn.ReLU6: nn.ReLU6,
    nn.LeakyReLU: lambda: nn.LeakyReLU(0.3),
    nn.ELU: lambda: nn.ELU(1.7),
    nn.SiLU: nn.SiLU,
    nn.SELU: nn.SELU,
    nn.CELU: lambda: nn.CELU(0.6),
    nn.PReLU: lambda: nn.PReLU(init=0.2),
    nn.GELU: nn.GELU,
    nn.Mish: nn.Mish,
    nn.Softplus: lambda: nn.Softplus(1.7),
    nn.Softsign: nn.Softsign,
    nn.Hardswish: nn.Hardswish,
    nn.Tanh: nn.Tanh,
    nn.Sigmoid: nn.Sigmoid,
    nn.Hardtanh: lambda: nn.Hardtanh(-0.4, 0.6),
    nn.LSTM: lambda: nn.LSTM(4, 6, num_layers=2),
    MaskedLSTM: lambda: MaskedLSTM(4, 6, num_layers=2),
    nn.Flatten: nn.Flatten,
    nn.Unflatten: lambda: nn.Unflatten(1, (-1, 1)),
    nn.Identity: nn.Identity,
    nn.Dropout: nn.Dropout,
}
SIGNALS = (nn.Conv1d, MaskedConv1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d)
IMAGES = (nn.Conv2d, MaskedConv2d, ResidualBlock, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d)
IMAGES += (nn.AdaptiveAvgPool2d,)


def randomize(module):
    """The module with random parameters and running statistics, ready for evaluation."""
    generator = th.Generator().manual_seed(0)
    with th.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point() and tensor.ndim:
                tensor.copy_(th.rand(tensor.shape, generator=generator) + 0.2 if tensor.ndim == 1 else tensor * 2)
    return module.eval()


def run(modules, x):
    """The outputs of one step; an LSTM takes the time first, and gives its state as well."""
    for module in modules:
        x = module(x[None])[0][0] if isinstance(module, nn.LSTM) else module(x)
    return x


@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.__name__)
def test_every_module_in_the_table(kind):
    th.manual_seed(0)
    shape, before = ((5,), nn.Linear(5, 4))
    if kind in IMAGES:
        shape, before = (2, 9, 8), nn.Conv2d(2, 4, 3)
    elif kind in SIGNALS:
        shape, before = (2, 8), nn.Conv1d(2, 4, 3)
    elif kind is nn.Unflatten:
        before = nn.Identity()
    x = th.randn(7, *shape)
    front = nn.Sequential(before, EXAMPLES[kind](), nn.Flatten())
    model = randomize(nn.Sequential(*front, nn.Linear(run(randomize(front), x).shape[1], 3)))
    network = folded(model, shape, 3)
    expected = run(model, x).detach().numpy()
    np.testing.assert_allclose(layer_inputs(network, x.numpy())[-1], expected, rtol=1e-4, atol=1e-5)


def test_every_policy_in_the_table_is_tested():
    """The tests of the export iterate over these algorithms. ARS, which has no gradients, has one of its own."""
    covered = {base for case in CASES.values() for base in PATHS if issubclass(case.sparse_policy, base)}
    assert covered | {ARSPolicy} == set(PATHS)


class OwnPath(TD3Policy):
    """Acts without the actor's ``forward``, and says so to the exporter."""

    def _predict(self, observation, deterministic=False):
        return self.act(observation)

    def action_path(self):
        return ActionPath(self.actor.features_extractor, (self.actor.mu,), calls=("act",))

    def act(self, observation):
        return self.actor.mu(observation)


class OwnAct(OwnPath):
    def act(self, observation):
        return -super().act(observation)


class OwnPredict(OwnPath):
    def _predict(self, observation, deterministic=False):
        return -super()._predict(observation)


class OwnUnscaling(OwnPath):
    def unscale_action(self, scaled_action):
        return super().unscale_action(scaled_action) / 2


class WithPath(SACPolicy):
    """A policy of SB3's that states SB3's path; its subclasses change a method in the class that states it."""

    def action_path(self):
        return ActionPath(self.actor.features_extractor, (self.actor.latent_pi, self.actor.mu), tanh=True)


class Tripled(WithPath):
    def obs_to_tensor(self, observation):
        tensor, vectorized = super().obs_to_tensor(observation)
        return 3 * tensor, vectorized

    action_path = WithPath.action_path


class Negated(WithPath):
    def predict(self, *args, **kwargs):
        action, state = super().predict(*args, **kwargs)
        return -action, state

    action_path = WithPath.action_path


class Halved(WithPath):
    def unscale_action(self, scaled_action):
        return super().unscale_action(scaled_action) / 2

    action_path = WithPath.action_path


class Shifted(WithPath):
    def extract_features(self, obs, features_extractor):
        return super().extract_features(obs, features_extractor) + 1

    action_path = WithPath.action_path


class ShiftedActor(Actor):
    extract_features = Shifted.extract_features


class WithShiftedActor(WithPath):
    def make_actor(self, features_extractor=None):
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return ShiftedActor(**kwargs).to(self.device)


class SaysHowItExtracts(Shifted):
    """What it lists in ``calls`` is part of its path; here its features are as SB3's again."""

    def extract_features(self, obs, features_extractor):
        return super().extract_features(obs, features_extractor) - 1

    def action_path(self):
        return replace(super().action_path(), calls=("extract_features",))


class FreshModule(OwnPath):
    def _predict(self, observation, deterministic=False):
        return th.tanh(self.actor.mu(observation))

    def action_path(self):
        return ActionPath(self.actor.features_extractor, (self.actor.mu, nn.Tanh()))


class FreshContainer(OwnPath):
    """The modules are the policy's, in a container that is not."""

    def action_path(self):
        return ActionPath(self.actor.features_extractor, (nn.Sequential(*self.actor.mu),), calls=("act",))


class ForgetsTanh(WithPath):
    def action_path(self):
        return replace(super().action_path(), tanh=False)


class PredictsHalf(WithPath):
    """Changes the action inside ``_predict``, in the class that states the path."""

    def _predict(self, observation, deterministic=False):
        return super()._predict(observation, deterministic) / 2

    action_path = WithPath.action_path


class LeavesOutAModule(OwnPath):
    def action_path(self):
        first, _, last, tanh = self.actor.mu
        return ActionPath(self.actor.features_extractor, (first, last, tanh), calls=("act",))


class ActsByTheTarget(OwnPath):
    """States the wrong network; the two differ as soon as the model has trained."""

    def act(self, observation):
        return self.actor_target.mu(observation)

    action_path = OwnPath.action_path


class Stated(OwnPath):
    """Its path is what a test says."""

    path = None

    def action_path(self):
        return self.path(self.actor)


class WorstAction(DQNPolicy):
    def _predict(self, obs, deterministic=True):
        return self.q_net(obs).argmin(dim=1)

    def action_path(self):
        return ActionPath(self.q_net.features_extractor, (self.q_net.q_net,))


class BestAction(WorstAction):
    def _predict(self, obs, deterministic=True):
        return self.q_net(obs).argmax(dim=1)

    action_path = WorstAction.action_path


def make(policy):
    if issubclass(policy, DQNPolicy):
        return DQN(policy, "CartPole-v1", policy_kwargs={"net_arch": [8]}, buffer_size=1, seed=0, device="cpu")
    if issubclass(policy, SACPolicy):
        return SAC(policy, "Pendulum-v1", policy_kwargs={"net_arch": [8]}, buffer_size=1, seed=0, device="cpu")
    return TD3(policy, "Pendulum-v1", policy_kwargs={"net_arch": [8]}, buffer_size=1, seed=0, device="cpu")


@pytest.mark.parametrize("policy", [OwnPath, WithPath, SaysHowItExtracts, FreshContainer])
def test_a_policy_says_its_own_path(policy):
    model = make(policy)
    obs = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    policy = compress(model, bits=32, backend="numpy")
    np.testing.assert_allclose(policy.predict(obs)[0], model.predict(obs, deterministic=True)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (OwnAct, r"the policy OwnAct with a act\(\) of its own"),
        (OwnPredict, "the policy OwnPredict cannot be exported"),
        (OwnUnscaling, r"the policy OwnUnscaling with a unscale_action\(\) of its own"),
    ],
)
def test_a_subclass_that_changes_the_path_is_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        compress(make(policy))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Tripled, r"the policy Tripled with a obs_to_tensor\(\) of its own"),
        (Negated, r"the policy Negated with a predict\(\) of its own"),
        (Halved, r"the policy Halved with a unscale_action\(\) of its own"),
        (Shifted, r"the policy Shifted with a extract_features\(\) of its own"),
        (WithShiftedActor, r"the actor ShiftedActor with a extract_features\(\) of its own"),
    ],
)
def test_the_class_that_states_the_path_may_not_change_what_no_path_says(policy, message):
    with pytest.raises(ValueError, match=message):
        compress(make(policy))


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("policy", [ForgetsTanh, PredictsHalf, LeavesOutAModule, ActsByTheTarget])
def test_a_wrong_path_is_refused(policy, normalized):
    model = make(policy)
    if policy is ActsByTheTarget:
        with th.no_grad():
            model.actor.mu[0].weight *= 1.1
    statistics = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    statistics.obs_rms.mean, statistics.obs_rms.var = np.array([30.0, -0.4, 2.0]), np.array([4.0, 0.3, 9.0])
    message = rf"action_path\(\) of {policy.__name__} states .*: actions differ by up to (\S+), on 16 .* `modules`.* `tanh`"
    with pytest.raises(ValueError, match=message) as error:
        compress(model, normalization=statistics if normalized else None)
    # Pendulum's actions go from -2 to 2.
    assert 0.01 < float(re.search(r"up to (\S+),", str(error.value)).group(1)) < 10


def test_a_wrong_path_to_discrete_actions_is_refused():
    compress(make(BestAction), backend="numpy")
    with pytest.raises(
        ValueError, match=r"WorstAction states .*: \d+ actions differ, where the largest output leads by up to"
    ):
        compress(make(WorstAction))


def test_the_comparison_leaves_no_trace():
    model = make(WithPath)

    def states():
        return (
            th.get_rng_state().tolist(),
            str(np.random.get_state()),
            str(model.observation_space.np_random.bit_generator.state),
        )

    before = states(), {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    compress(model, backend="numpy")
    assert states() == before[0]
    assert all(th.equal(tensor, before[1][name]) for name, tensor in model.policy.state_dict().items())


def test_quantized_weights_agree_before_they_are_restored(tmp_path):
    """Loaded as a stock policy, a model computes with float weights, which two bits are far from."""
    model = make(WithPath)
    model.learn(5, callback=QATCallback("actor", start=0, bits=2))
    quantized = compress(model, bits=32, backend="numpy")
    model.save(tmp_path / "agent")
    loaded = SAC.load(tmp_path / "agent", device="cpu")
    obs = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    assert np.abs(quantized.predict(obs)[0] - loaded.predict(obs, deterministic=True)[0]).max() > 0.01
    exported = compress(loaded, bits=32, backend="numpy")
    np.testing.assert_array_equal(exported.predict(obs)[0], quantized.predict(obs)[0])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (lambda actor: None, r"of Stated returned None, which is not an ActionPath: return ActionPath\("),
        (lambda actor: "actor.mu", "returned 'actor.mu', which is not an ActionPath"),
        (lambda actor: list(actor.mu), r"(?s)returned \[Linear.*which is not an ActionPath"),
        (lambda actor: ActionPath(actor.features_extractor, (actor.mu, th.tanh)), "tanh.*, which is not an nn.Module: give"),
        (lambda actor: ActionPath(actor.features_extractor, (lambda x: x, actor.mu)), "<lambda>.*, which is not an nn.Module"),
        (lambda actor: ActionPath(None, (actor.mu,)), "has None, which is not an nn.Module"),
        (lambda actor: ActionPath(actor.features_extractor, actor.mu[0]), r"has modules=Linear.*: give a tuple of modules"),
    ],
)
def test_a_path_of_the_wrong_type(path, message, monkeypatch):
    monkeypatch.setattr(Stated, "path", staticmethod(path))
    with pytest.raises(ValueError, match=message):
        compress(make(Stated))


def test_a_module_that_the_policy_does_not_hold_is_refused():
    with pytest.raises(ValueError, match=r"FreshModule has the module Tanh\(\), .* make it an attribute of the policy"):
        compress(make(FreshModule))


@pytest.mark.parametrize("name", ["", "actor", "actor.mu", "actor.mu.0", "actor.features_extractor"])
def test_a_hook_on_the_path_is_refused(name):
    model = make(TD3Policy)
    model.policy.get_submodule(name).register_forward_pre_hook(lambda module, inputs: None)
    with pytest.raises(ValueError, match=rf"the module '{name}' \(\w+\) with a hook"):
        compress(model)


def test_a_hook_elsewhere_is_not_refused():
    model = make(TD3Policy)
    for name in ("actor_target", "actor_target.mu.0", "critic", "critic_target.qf0.0"):
        model.policy.get_submodule(name).register_forward_pre_hook(lambda module, inputs: None)
    compress(model, backend="numpy")


def test_errors_name_the_modules_that_are_known():
    model = make(TD3Policy)
    model.policy.actor.mu.insert(1, nn.GroupNorm(2, 8))
    with pytest.raises(ValueError, match=r"'actor.mu.1' \(GroupNorm.*made of the modules Linear, .*, Hardtanh"):
        compress(model)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_the_mean_over_quantiles_comes_after_an_activation(activation):
    """The mean of tanh is not the tanh of the mean."""
    model = CASES["qrdqn"].make()
    quantiles = model.policy.quantile_net.quantile_net
    assert isinstance(quantiles[-1], nn.Linear)
    with th.no_grad():
        quantiles[-1].weight *= 10
    quantiles.append(activation())
    observations = np.random.default_rng(0).normal(size=(200, *model.observation_space.shape)).astype(np.float32)
    expected, _ = model.predict(observations, deterministic=True)
    assert len(set(expected.tolist())) > 1
    actions, _ = compress(model, bits=32, backend="numpy").predict(observations)
    assert (actions == expected).all()


def test_layers_pruned_by_torch_are_named():
    model = SAC("MlpPolicy", "Pendulum-v1", device="cpu")
    prune.l1_unstructured(model.actor.mu, "weight", 0.5)
    with pytest.raises(ValueError, match=r"'actor.mu' is pruned by torch.nn.utils.prune.*prune.remove"):
        compress(model)
    prune.remove(model.actor.mu, "weight")
    compress(model)
