"""Distillation of all kinds of observations and actions: images, dicts, classes, masks of actions, several environments."""

import tracemalloc

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from sb3_contrib.common.envs import InvalidActionEnvMultiDiscrete
from stable_baselines3 import DQN, PPO, SAC, HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_sparse import distill, fit
from sb3_sparse.distillation import lesson, plan, recipe
from sb3_sparse.distillation.checkpoint import Checkpoint
from sb3_sparse.distillation.experience.rollouts import Rollouts
from sb3_sparse.distillation.experience.source import open_source
from sb3_sparse.distillation.learning import states
from sb3_sparse.distillation.learning.network import read_network
from sb3_sparse.distillation.student import _fit_log_std, make_student
from sb3_sparse.offline import OfflineDataset
from sb3_sparse.policies import MinAtarExtractor
from tests.algorithms import CASES

CPU = {"device": "cpu", "seed": 0}
pytestmark = pytest.mark.filterwarnings("ignore:SB3 trains this model, because the engine cannot")


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    """Four in place of a hundred."""
    for module in (lesson, plan, recipe):
        monkeypatch.setattr(module, "ROUNDS", 4)


def larger(model):
    """Weights so large that the actions of a model that has not been trained depend on what it sees."""
    with th.no_grad():
        for parameter in read_network(model).parameters():
            parameter.mul_(1.5)
        if hasattr(model.policy, "action_net"):
            # It is initialized so that all actions are about as good.
            model.policy.action_net.weight.mul_(100)
    return model


def played(model, env, count=200):
    """Observations of random episodes."""
    env.action_space.seed(0)
    found = [env.reset(seed=0)[0]]
    while len(found) < count:
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        found.append(env.reset()[0] if terminated or truncated else observation)
    if isinstance(found[0], dict):
        return {key: np.stack([each[key] for each in found]) for key in found[0]}
    return np.stack(found)


def agreement(model, student, observations):
    mine, theirs = (each.predict(observations, deterministic=True)[0] for each in (student, model))
    return (mine == theirs).mean()


class Square(gym.Env):
    """A bright square somewhere in a dark image."""

    observation_space, action_space = spaces.Box(0, 255, (1, 36, 36), np.uint8), spaces.Discrete(3)

    def _image(self):
        image = np.zeros((1, 36, 36), np.uint8)
        row, column = self.np_random.integers(24, size=2)
        image[:, row : row + 12, column : column + 12] = 255
        return image

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 20
        return self._image(), {}

    def step(self, action):
        self.left -= 1
        return self._image(), 0.0, False, self.left == 0, {}


def test_images():
    """Convolutions are pruned, and learn from the pixels; observations stay bytes."""
    arch = {"features_extractor_kwargs": {"features_dim": 16}, "net_arch": []}
    model = larger(PPO("CnnPolicy", Square(), n_steps=16, batch_size=16, policy_kwargs=arch, **CPU))
    observations = played(model, Square())
    with th.no_grad():
        # All actions are taken.
        model.policy.action_net.bias.sub_(read_network(model)(th.as_tensor(observations)).mean(dim=0))
    assert np.bincount(model.predict(observations, deterministic=True)[0]).max() < 150
    student = distill(model, Square(), 0.5, steps=400, updates=200)
    assert agreement(model, student, observations) > 0.8
    convolution = read_network(student).features_extractor.cnn[2].weight
    assert 0.2 < (convolution == 0).float().mean() < 0.8


class Plain(nn.Module):
    """A ``mlp_extractor`` of the user's own, whose actor is a chain and whose first layer has no bias."""

    def __init__(self):
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = 16, 5
        self.first, self.actor = nn.Linear(3, 16, bias=False), nn.Linear(16, 16)
        self.critic = nn.Linear(3, 5)

    def forward(self, features):
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features):
        return th.tanh(self.actor(th.relu(self.first(features))))

    def forward_critic(self, features):
        return self.critic(features)


class PlainPolicy(ActorCriticPolicy):
    def _build_mlp_extractor(self):
        self.mlp_extractor = Plain()


def test_networks_of_the_users_own():
    """What the exporter follows is what a student learns; the critic keeps its weights."""
    model = PPO(PlainPolicy, "Pendulum-v1", **CPU)
    with th.no_grad():
        model.policy.action_net.weight.mul_(100)
    observations = np.random.default_rng(0).uniform(-1, 1, (1000, 3)).astype(np.float32)
    student = distill(model, observations, 0.5, updates=2000)
    mine, theirs = (each.predict(observations, deterministic=True)[0] for each in (student, model))
    assert np.abs(mine - theirs).mean() < 0.2 * theirs.std()
    policy = student.policy
    assert th.equal(policy.mlp_extractor.critic.weight, model.policy.mlp_extractor.critic.weight)
    weights = [policy.mlp_extractor.first.weight, policy.mlp_extractor.actor.weight, policy.action_net.weight]
    assert sum(int((weight == 0).sum()) for weight in weights) == sum(weight.numel() for weight in weights) // 2


def test_recorded_images_with_channels_last():
    """They become what SB3 gives the policy, from an array and from a dataset."""
    model = PPO("CnnPolicy", Square(), n_steps=16, batch_size=16, **CPU)
    images = played(model, Square(), 21)
    last, space = np.moveaxis(images, 1, -1), spaces.Box(0, 255, (36, 36, 1), np.uint8)
    rest = {"rewards": np.zeros(20), "terminations": np.zeros(20, bool), "truncations": np.zeros(20, bool)}
    rest |= {"actions": np.zeros(20, np.int64), "observation_space": space, "action_space": model.action_space}
    data = OfflineDataset.from_arrays(observations=last[:-1], next_observations=last[1:], **rest)
    for given in (images, last, data):
        with open_source(model, given) as source:
            assert source.env is None and (source.recorded == images[: len(source.recorded)]).all()
    with pytest.raises(ValueError, match="recorded observations must be"), open_source(model, images[:, :, :, :-1]):
        pass


def test_recorded_classes_exist():
    model = PPO("MlpPolicy", "FrozenLake-v1", n_steps=16, batch_size=16, policy_kwargs={"net_arch": [4]}, **CPU)
    with open_source(model, np.arange(16)) as source:
        assert len(source.recorded) == 16
    for wrong in (np.arange(17), np.arange(-1, 3), np.array(["one", "two"])):
        with pytest.raises(ValueError, match="recorded observations must be"), open_source(model, wrong):
            pass


def peak_of(work):
    """Most bytes that numpy has taken at a time."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_many_states_take_the_memory_of_their_table(tmp_path):
    """Normalized, saved and read, in blocks; a table that was filled again and again has its newest rows back."""
    inputs = np.random.default_rng(0).standard_normal((400_000, 10)).astype(np.float32)
    targets = np.zeros((400_000, 1), np.float32)
    made = []
    assert peak_of(lambda: made.append(states.States(400_000, inputs, targets, normalize=True))) < 2.2 * inputs.nbytes
    (table,) = made
    np.testing.assert_allclose(table.mean, inputs.astype(np.float64).mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(table.std, inputs.astype(np.float64).std(axis=0) + 1e-3, rtol=1e-12)
    ring = states.States(3000, inputs[:2000], targets[:2000], normalize=False)
    saver = Checkpoint(tmp_path, "")
    saver._append(ring)
    for begin in range(2000, 100_000, 2000):
        ring.add(inputs[begin : begin + 2000], targets[begin : begin + 2000])
    saver._append(ring)
    other = states.States(3000, inputs[:1], targets[:1], normalize=False)
    assert peak_of(lambda: Checkpoint(tmp_path, "").put_back(other, 100_000)) < 1_000_000
    assert (other.inputs == ring.inputs).all() and other.added == 100_000
    assert (np.sort(other.inputs[:, 0]) == np.sort(inputs[97_000:100_000, 0])).all()


def test_the_spread_is_fitted_in_chunks():
    """Of images, twenty thousand do not fit into one pass."""
    model = SAC("MlpPolicy", "Pendulum-v1", buffer_size=1, policy_kwargs={"net_arch": [8]}, **CPU)
    pupil, sizes = make_student(model, [6]), []
    model.policy.actor.log_std.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    inputs = np.random.default_rng(0).uniform(-1, 1, (10_000, 3)).astype(np.float32)
    with th.no_grad():
        _fit_log_std(model, pupil, inputs)
    assert max(sizes) < 5000 and sum(sizes) == 10_000


def test_minatar():
    pytest.importorskip("minatar")
    import sb3_sparse.pixels.minatar  # noqa: F401

    env = gym.make("MinAtarBreakout-v1")
    arch = {"features_extractor_class": MinAtarExtractor, "normalize_images": False, "net_arch": []}
    model = larger(DQN("CnnPolicy", env, buffer_size=10, policy_kwargs=arch, **CPU))
    student = distill(model, "MinAtarBreakout-v1", 0.5, steps=400, updates=200)
    assert agreement(model, student, played(model, env)) > 0.8


def test_images_fill_a_bounded_memory(monkeypatch):
    """The newest rows are kept."""
    monkeypatch.setattr(states, "MOST_BYTES", 10_000)
    images, targets = np.arange(100, dtype=np.uint8)[:, None].repeat(996, axis=1), np.arange(100, dtype=np.float32)[:, None]
    table = states.States(1000, images[:7], targets[:7], normalize=False)
    for index in range(7, 100, 3):
        table.add(images[index : index + 3], targets[index : index + 3])
    assert table.inputs.nbytes + table.targets.nbytes <= 10_000 and table.inputs.dtype == np.uint8
    assert len(table) == 10 and sorted(table.targets[:, 0]) == list(range(90, 100))
    assert (table.inputs[:, 0] == table.targets[:, 0]).all()


def test_goals_of_her():
    """A dict of vectors; the student keeps the replay buffer's class."""
    env = BitFlippingEnv(4, continuous=True, max_steps=5)
    kwargs = {"buffer_size": 100, "replay_buffer_class": HerReplayBuffer, "policy_kwargs": {"net_arch": [16, 16]}}
    model = larger(SAC("MultiInputPolicy", env, learning_starts=20, batch_size=8, **kwargs, **CPU))
    student = distill(model, env, 0.5, steps=600, updates=2000)
    observations = played(model, env)
    mine, theirs = (each.predict(observations, deterministic=True)[0] for each in (student, model))
    assert np.abs(mine - theirs).mean() < 0.1
    assert isinstance(student.replay_buffer, HerReplayBuffer)
    student.set_env(model.get_env())
    student.learn(30)
    settings = {"net_archs": [None], "sparsities": [0.5], "bits": [8], "updates": 5000, "minutes": None, "jobs": 1}
    front = fit(model, env, flash=1 << 20, episodes=2, **settings)
    loaded = SAC.load(front.best.file.with_suffix(".zip"), env=env, device="cpu")
    assert isinstance(loaded.replay_buffer, HerReplayBuffer) and loaded.replay_buffer.buffer_size * loaded.n_envs == 100


def test_a_dict_of_one_part():
    """A dataset is one of dicts by its space, and not by the number of their parts."""

    class OnePart(gym.Env):
        observation_space, action_space = spaces.Dict(only=spaces.Box(-1, 1, (3,))), spaces.Box(-1, 1, (1,))

    seen = {"only": np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)}
    dataset = OfflineDataset.from_arrays(
        observations=seen,
        actions=np.zeros((50, 1), np.float32),
        rewards=np.zeros(50),
        next_observations=seen,
        terminations=np.ones(50, bool),
        observation_space=OnePart.observation_space,
        action_space=OnePart.action_space,
    )
    model = SAC("MultiInputPolicy", OnePart(), policy_kwargs={"net_arch": [8]}, buffer_size=1, device="cpu")
    student = distill(model, dataset, 0.5, updates=5000, seed=0)
    assert student.predict({"only": seen["only"][0]})[0].shape == (1,)


def test_dicts_with_images_are_refused():
    space = spaces.Dict(image=spaces.Box(0, 255, (36, 36, 1), np.uint8), vector=spaces.Box(-1, 1, (2,)))

    class Both(gym.Env):
        observation_space, action_space = space, spaces.Discrete(2)

        def reset(self, seed=None, options=None):
            return space.sample(), {}

        def step(self, action):
            return space.sample(), 0.0, False, True, {}

    model = PPO("MultiInputPolicy", Both(), n_steps=8, batch_size=8, **CPU)
    with pytest.raises(ValueError, match="a dict of observations with images"):
        distill(model, Both())


def test_classes():
    """A Discrete observation is one-hot for the network."""
    model = larger(PPO("MlpPolicy", "FrozenLake-v1", n_steps=16, batch_size=16, policy_kwargs={"net_arch": [16]}, **CPU))
    student = distill(model, "FrozenLake-v1", 0.5, steps=600, updates=1000)
    assert agreement(model, student, played(model, gym.make("FrozenLake-v1"))) > 0.9


def test_random_actions_are_allowed_ones():
    """Of MaskablePPO, one at a time and in several environments; the environment fails on others."""

    class Strict(InvalidActionEnvMultiDiscrete):
        def step(self, action):
            row, mask = 0, self.action_masks()
            for choice, count in zip(action, self.action_space.nvec, strict=True):
                assert mask[row + choice]
                row += count
            return super().step(action)

    env = make_vec_env(lambda: Strict(dims=[4, 5], n_invalid_actions=4, ep_length=20), n_envs=2, seed=0)
    model = MaskablePPO("MlpPolicy", env, n_steps=16, batch_size=16, policy_kwargs={"net_arch": [16]}, **CPU)
    student = distill(model, env, 0.5, steps=600, updates=1000)
    assert type(student) is MaskablePPO
    env.close()


def test_masks_that_fail():
    """The environment is to blame, in one sentence."""

    class Broken(InvalidActionEnvMultiDiscrete):
        def action_masks(self):
            return super().action_masks()[: 1 / 0]

    model = MaskablePPO("MlpPolicy", Broken(dims=[4, 5], n_invalid_actions=4), n_steps=16, batch_size=16, **CPU)
    with pytest.raises(ValueError, match=r"failed while an episode was played \(ZeroDivisionError"):
        distill(model, model.get_env(), 0.5, steps=600, updates=1000)


def test_several_environments():
    """Every state of every environment that has not come to its end is kept, with its own teacher's action."""
    env = make_vec_env("CartPole-v1", n_envs=3, seed=0)
    model = larger(PPO("MlpPolicy", env, n_steps=16, batch_size=16, policy_kwargs={"net_arch": [16]}, **CPU))
    observations, returns = Rollouts(env, lambda rows: model.predict(rows, deterministic=True)[0]).play(300, seed=0)
    assert len(observations) >= 300 and returns
    student = distill(model, env, 0.5, steps=600, updates=1000)
    assert agreement(model, student, observations) > 0.9
    env.close()


def choosing(groups):
    env = InvalidActionEnvMultiDiscrete(dims=list(groups), n_invalid_actions=1)
    return MaskablePPO("MlpPolicy", env, n_steps=16, **CPU)


@pytest.mark.filterwarnings("error:SB3 trains this model")
@pytest.mark.parametrize(
    "make", [lambda: choosing((4,)), lambda: choosing((3, 2, 4)), lambda: CASES["qrdqn"].make()], ids=["one", "three", "qrdqn"]
)
def test_choices_in_the_engine(make):
    """The engine trains as torch does: one and several discrete actions, and the means of quantiles."""
    model, space = larger(make()), make().observation_space
    space.seed(0)
    observations = np.stack([space.sample() for _ in range(300)])
    students = [distill(model, observations, 0.0, [8], updates=500, engine=engine) for engine in (True, False)]
    mine, theirs = (each.outputs(each.inputs(observations)) for each in map(read_network, students))
    assert (mine - theirs).abs().mean() < 0.02 * theirs.std()
    assert agreement(model, students[0], observations) > 0.6
