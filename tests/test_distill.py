"""Distillation: a student of every algorithm acts as its teacher does, is a plain SB3 model, and can be interrupted."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_sparse import compress, distill, fit, restore
from sb3_sparse.agents.returns import compare_with_training
from sb3_sparse.distillation.experience import rollouts
from sb3_sparse.distillation.learning.behavior import Clipped
from sb3_sparse.distillation.learning.network import read_network
from sb3_sparse.distillation.student import make_student
from sb3_sparse.offline import OfflineDataset
from tests.algorithms import CASES
from tests.invariants import check, check_targets

SHORT = {"steps": 1000, "updates": 5000}
#: One environment for each, whose actions the student copies.
NAMES = [name for name in CASES if name not in ("recurrent_ppo", "ars")]


def teacher(name, **kwargs):
    """Not trained, but with weights large enough that its action depends on the observation."""
    model = CASES[name].make(device="cpu", **kwargs)
    with th.no_grad():
        for parameter in read_network(model).parameters():
            parameter.mul_(1.5)
    return model


def equal_states(one, other):
    for mine, theirs in zip(one.policy.state_dict().items(), other.policy.state_dict().items(), strict=True):
        assert mine[0] == theirs[0] and th.equal(mine[1], theirs[1]), mine[0]


def weights_of(model):
    return [parameter for parameter in read_network(model).parameters() if parameter.dim() > 1]


def act(model, observations):
    return model.predict(observations, deterministic=True)[0]


def samples(model, count=64):
    model.observation_space.seed(0)
    return np.stack([model.observation_space.sample() for _ in range(count)])


@pytest.mark.filterwarnings("ignore:SB3 trains this model, because the engine cannot")
@pytest.mark.parametrize("name", NAMES)
def test_every_algorithm(name, tmp_path):
    """The exact number of weights, the teacher's actions, a plain zip, and training that goes on with the masks."""
    model = teacher(name)
    student = distill(model, model.get_env(), 0.5, **SHORT)
    assert type(student) is type(model) and student is not model
    total = sum(weight.numel() for weight in weights_of(student))
    assert sum(int((weight != 0).sum()) for weight in weights_of(student)) == round(0.5 * total)
    observations = samples(model)
    mine, theirs = act(student, observations), act(model, observations)
    if isinstance(model.action_space, gym.spaces.Box):
        assert np.abs(mine - theirs).mean() < 0.1 * (model.action_space.high - model.action_space.low).max()
    else:
        assert (mine == theirs).mean() > 0.7
    student.save(tmp_path / "student.zip")
    loaded = CASES[name].algorithm.load(tmp_path / "student.zip", env=model.get_env(), device="cpu")
    assert (act(loaded, observations) == mine).all()
    restore(loaded)
    loaded.learn(60)
    check(loaded)
    check_targets(loaded)
    assert compress(student).nbytes < compress(model).nbytes


@pytest.mark.parametrize("engine", [True, False])
def test_the_same_seed(engine):
    """The same student to the bit; nothing else is disturbed. In the engine and in torch, the same up to rounding."""
    model = teacher("sac")
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    state = th.get_rng_state(), np.random.get_state()[1].copy()
    one, two = (distill(model, "Pendulum-v1", 0.8, seed=3, engine=engine, **SHORT) for _ in range(2))
    equal_states(one, two)
    assert all(th.equal(tensor, before[name]) for name, tensor in model.policy.state_dict().items())
    assert th.equal(th.get_rng_state(), state[0]) and (np.random.get_state()[1] == state[1]).all()
    other = distill(model, "Pendulum-v1", 0.8, seed=4, engine=engine, **SHORT)
    assert not th.equal(weights_of(other)[0], weights_of(one)[0])


@pytest.mark.parametrize("name", ["sac", "ppo"])
def test_the_engine_trains_as_torch(name):
    """
    After hundreds of updates up to rounding; after thousands two runs drift apart, and act alike. The student begins with
    weights of its own: of one that equals its teacher all gradients are rounding, and Adam makes steps of them.
    """
    model = teacher(name)
    if name == "ppo":
        with th.no_grad():
            model.policy.action_net.weight.mul_(400)
        # Means beyond the bounds of the action, and within.
        assert 0.2 < np.isin(act(model, samples(model)), (-2.0, 2.0)).mean() < 0.8
    for after, difference, of_actions in ((300, 1e-4, 1e-3), (5000, np.inf, 0.1)):
        students = []
        for engine in (True, False):
            stop = ConvertCallback(lambda variables, _, after=after: variables["self"].num_timesteps < after)
            students.append(distill(model, "Pendulum-v1", 0.5, [12, 12], engine=engine, callback=stop, **SHORT))
        for mine, theirs in zip(*map(weights_of, students), strict=True):
            assert (mine - theirs).abs().max() < difference
        observations = samples(model)
        assert np.abs(act(students[0], observations) - act(students[1], observations)).max() < of_actions


def test_beyond_a_bound_there_is_no_error():
    """Bounds -1 and 3: a width of 2 halves. Where the teacher is at a bound, a student beyond it acts alike."""
    behavior = Clipped(np.array([-1.0], np.float32), np.array([3.0], np.float32))
    means = th.tensor([[9.0], [3.0], [-4.0], [1.0], [1.0], [1.0]])
    targets = behavior.targets(means)
    assert targets.flatten().tolist() == [1.5, 1.5, -0.5, 0.5, 0.5, 0.5]
    outputs = th.tensor([[5.0], [2.0], [-7.0], [1.0], [5.0], [-3.0]], requires_grad=True)
    losses = [behavior.loss(output, target) for output, target in zip(outputs[:, None], targets[:, None], strict=True)]
    assert [loss.item() for loss in losses] == [0.0, 0.25, 0.0, 0.0, 4.0, 4.0]
    sum(losses).backward()
    assert outputs.grad.flatten().tolist() == [0.0, -0.5, 0.0, 0.0, 2.0, -2.0]


def test_a_teacher_that_plays_worse_than_in_its_training():
    """As one whose VecNormalize is missing. The worst tenth of the training's episodes may be as bad as its play here."""
    model = teacher("dqn")
    for returns, doubt in (([500.0] * 20, True), ([500.0] * 17 + [5.0] * 3, False), ([12.0] * 20, False)):
        model.ep_info_buffer = [{"r": each, "l": int(each)} for each in returns]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            distill(model, "CartPole-v1", 0.5, **SHORT)
        found = [str(each.message) for each in caught if "its training" in str(each.message)]
        assert len(found) == doubt
    assert compare_with_training(model, []) is None
    model.ep_info_buffer = [{"r": -200.0}, {"r": -210.0}]
    assert "-1,500.0 here, and -205.0 in the last 2 episodes" in compare_with_training(model, [-1500.0])


class Stop(BaseCallback):
    """Ctrl-C after some updates."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def _on_step(self):
        if self.num_timesteps >= self.after:
            raise KeyboardInterrupt
        return True


@pytest.mark.parametrize("name", ["sac", "dqn"])
def test_interrupted_and_resumed(name, tmp_path):
    """It ends as one that was not, bit for bit, wherever it stopped."""
    model = teacher(name)
    kwargs = {"seed": 1, "steps": 1000, "updates": 5000, "net_arch": {"sac": None, "dqn": [12]}[name]}
    whole = distill(model, CASES[name].env, 0.8, **kwargs)
    for after in (1300, 3300):
        with pytest.raises(KeyboardInterrupt):
            distill(model, CASES[name].env, 0.8, checkpoint=tmp_path, callback=Stop(after), **kwargs)
    # A tuple says the same as a list.
    again = kwargs | {"net_arch": {"sac": None, "dqn": (12,)}[name]}
    equal_states(distill(model, CASES[name].env, 0.8, checkpoint=tmp_path, **again), whole)
    with pytest.raises(ValueError, match="another distillation"):
        distill(model, CASES[name].env, 0.9, checkpoint=tmp_path, **kwargs)


def test_another_width():
    """The critics keep theirs, and their weights; the student is a model whose zip says its own width."""
    model = teacher("sac")
    student = distill(model, "Pendulum-v1", 0.0, [8, 4], **SHORT)
    assert [tuple(weight.shape) for weight in weights_of(student)] == [(8, 3), (4, 8), (1, 4)]
    for mine, theirs in zip(student.critic.parameters(), model.critic.parameters(), strict=True):
        assert th.equal(mine, theirs)
    student.set_env(gym.make("Pendulum-v1"))
    student.learn(100)
    ppo = make_student(teacher("ppo"), [8])
    assert [tuple(p.shape) for p in ppo.policy.value_net.parameters()] == [(1, 16), (1,)]
    assert tuple(make_student(teacher("dqn"), [8]).q_net_target.q_net[0].weight.shape) == (8, 4)


def test_exploration_goes_on_as_the_teachers():
    """The standard deviation of a squashed Gaussian follows from the new features."""
    model = teacher("sac", policy_kwargs={"log_std_init": -1.0})
    student = distill(model, "Pendulum-v1", 0.8, steps=2000, updates=5000)
    observations = th.as_tensor(samples(model))
    with th.no_grad():
        mine, theirs = (each.actor.get_action_dist_params(observations)[1] for each in (student, model))
    assert (mine - theirs).abs().mean() < 0.3 * theirs.std() + 0.05


def test_normalized_observations():
    """The student sees what the teacher sees, and has the statistics folded in when it is exported."""
    venv = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), norm_reward=False)
    model = PPO("MlpPolicy", venv, n_steps=64, batch_size=32, seed=0, device="cpu").learn(500)
    statistics = venv.obs_rms.mean.copy()
    student = distill(model, venv, 0.5, **SHORT)
    assert (venv.obs_rms.mean == statistics).all()
    raw = samples(model)
    normalized = venv.normalize_obs(raw)
    assert np.abs(act(student, normalized) - act(model, normalized)).mean() < 0.2
    exported = compress(student, bits=32, normalization=venv)
    np.testing.assert_allclose(exported.predict(raw)[0], act(student, normalized), atol=1e-4)


def test_recorded_observations():
    """Without an environment."""
    model = teacher("td3")
    observations = samples(model, 3000)
    student = distill(model, observations, 0.5, **SHORT)
    assert np.abs(act(student, observations) - act(model, observations)).mean() < 0.2
    data = OfflineDataset.from_arrays(
        observations=observations[:-1],
        actions=np.zeros((2999, 1), np.float32),
        rewards=np.zeros(2999),
        next_observations=observations[1:],
        terminations=np.zeros(2999, bool),
        truncations=np.zeros(2999, bool),
        observation_space=model.observation_space,
        action_space=model.action_space,
    )
    again = distill(model, data, 0.5, **SHORT)
    assert np.abs(act(again, observations) - act(model, observations)).mean() < 0.2


def test_early_stop():
    """Once the student has its sparsity, and plays like the teacher."""
    model = teacher("dqn")
    seen = []
    last = ConvertCallback(lambda variables, _: not seen.append(variables["self"].num_timesteps))
    student = distill(model, "CartPole-v1", 0.5, steps=2000, updates=10_000, stop_at=0.2, callback=last)
    assert 5500 <= seen[-1] < 10_000
    assert sum(int((weight != 0).sum()) for weight in weights_of(student)) == round(
        0.5 * sum(map(th.numel, weights_of(student)))
    )


class Unlike(gym.Env):
    observation_space, action_space = gym.make("Pendulum-v1").observation_space, gym.spaces.Discrete(2)


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"sparsity": 1.0}, "sparsity"),
        ({"bits": 9}, "bits=9"),
        ({"updates": 100}, "too few"),
        ({"steps": 3}, "too few"),
        ({"net_arch": [0]}, "list of widths"),
        ({"net_arch": 5}, "net_arch=5 must be a list of widths"),
        ({"steps": 1000.5}, "steps=1000.5 must be a whole number"),
        ({"updates": "many"}, "updates='many' must be a whole number"),
        ({"seed": -1}, "seed=-1 must be a whole number of at least 0"),
        ({"stop_at": "soon"}, "stop_at='soon' must be more than 0"),
        ({"rewire": "often"}, "rewire=often is no share"),
        ({"saliency": "foo"}, "unknown saliency 'foo'"),
        ({"callback": [3]}, "callback=3 is no callback"),
        ({"checkpoint": __file__}, "is a file"),
        ({"model": "agent.zip"}, "distill takes a model"),
        ({"normalization": 3}, "must be a VecNormalize"),
        ({"env": Unlike()}, "the actions of the environment are Discrete"),
        ({"env": "CartPole-v1"}, "observations"),
        ({"env": 7}, "no environment"),
        ({"env": np.zeros((0, 3), np.float32)}, "at least 1"),
        ({"env": np.zeros((5, 4), np.float32)}, "finite numbers of"),
        ({"env": np.full((5, 3), np.nan, np.float32)}, "finite"),
    ],
)
def test_bad_input(kwargs, sentence):
    model = teacher("sac")
    with pytest.raises(ValueError, match=sentence):
        distill(**{"model": model, "env": "Pendulum-v1", **SHORT, **kwargs})


def test_a_function_is_a_callback():
    """As in SB3; it ends the training."""
    seen = []

    def stop(variables, _):
        seen.append(variables["self"].num_timesteps)
        return len(seen) < 2

    distill(teacher("sac"), "Pendulum-v1", 0.5, callback=stop, **SHORT)
    assert seen == [50, 100]


def test_early_stop_needs_returns():
    model = teacher("sac")
    with pytest.raises(ValueError, match="stop_at compares returns"):
        distill(model, samples(model), 0.5, stop_at=0.9, **SHORT)


def test_teachers_that_cannot_act_alone():
    model = CASES["recurrent_ppo"].make()
    with pytest.raises(ValueError, match="reads more than the observation"):
        distill(model, "Pendulum-v1")


def test_another_teacher_does_not_go_on(tmp_path):
    kwargs = {"steps": 1000, "updates": 5000, "checkpoint": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        distill(teacher("sac"), "Pendulum-v1", 0.5, callback=Stop(600), **kwargs)
    with pytest.raises(ValueError, match="another distillation"):
        distill(teacher("sac", seed=1), "Pendulum-v1", 0.5, **kwargs)


def test_callbacks_see_and_save_the_student(tmp_path):
    """Also from recorded observations: what plays and what is saved is the student, as it is then."""
    model = teacher("ppo")
    seen = []

    def look(variables, _):
        training = variables["self"]
        if training.num_timesteps == 4000:
            training.save(tmp_path / "student.zip")
            seen.append(training.predict(samples(model), deterministic=True)[0])
        return True

    distill(model, samples(model, 500), 0.5, callback=ConvertCallback(look), **SHORT)
    loaded = PPO.load(tmp_path / "student.zip", device="cpu")
    zeros = sum(int((weight == 0).sum()) for weight in weights_of(loaded))
    assert zeros >= 0.45 * sum(map(th.numel, weights_of(loaded)))
    (actions,) = seen
    assert (actions == act(loaded, samples(model))).all() and not (actions == act(model, samples(model))).all()


def test_values_keep_their_level():
    """What is learnt are differences of values; training goes on from the teacher's level."""
    model = teacher("dqn")
    with th.no_grad():
        read_network(model).layers[-1].bias += 5.0
    student = distill(model, "CartPole-v1", 0.5, [8], **SHORT)
    observations = th.as_tensor(samples(model)).clamp(-0.1, 0.1)
    with th.no_grad():
        mine, theirs = student.q_net(observations), model.q_net(observations)
    assert abs(float((mine - theirs).mean())) < 1.0
    assert all(th.equal(a, b) for a, b in zip(student.q_net.parameters(), student.q_net_target.parameters(), strict=True))


def test_a_teacher_that_is_sparser():
    model = CASES["ppo"].make(sparse=True, policy_kwargs={"sparsity": 0.9})
    with pytest.raises(ValueError, match="sparse already"):
        distill(model, "Pendulum-v1", 0.5, **SHORT)


class Game(gym.Env):
    """Ends after some steps, or never."""

    observation_space = gym.spaces.Box(-1, 1, (3,))
    action_space = gym.spaces.Box(-2, 2, (1,))

    def __init__(self, steps):
        self.steps, self.count = steps, 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.zeros(3, np.float32), 1.0, self.count % self.steps == 0, False, {}


def test_an_environment_without_an_end(monkeypatch):
    monkeypatch.setattr(rollouts, "_LONGEST", 1000)
    with pytest.raises(ValueError, match="do not end"):
        distill(teacher("sac"), Game(10**9), 0.5, **SHORT)


class Counted(Game):
    """Counts those that are open."""

    open = 0

    def __init__(self):
        super().__init__(10)
        Counted.open += 1

    def close(self):
        Counted.open -= 1


def test_what_was_made_is_closed():
    """Also after an error; an environment of the user stays open."""
    gym.register("Counted-v0", Counted)
    try:
        for make, left in ((lambda: "Counted-v0", 0), (Counted, 1)):
            with pytest.raises(KeyboardInterrupt):
                distill(teacher("sac"), make(), 0.5, callback=Stop(0), **SHORT)
            assert Counted.open == left
    finally:
        del gym.registry["Counted-v0"]


class LostLife(gym.Wrapper):
    """Ends an episode every ten steps, and a reset goes on with the game, as SB3's EpisodicLifeEnv does."""

    def step(self, action):
        observation, reward, done, truncated, info = self.env.step(action)
        self.over = done
        return observation, reward, done or self.unwrapped.count % 10 == 0, truncated, info

    def reset(self, **kwargs):
        return self.env.reset(**kwargs) if getattr(self, "over", True) else (np.zeros(3, np.float32), {})


def test_a_life_is_no_game():
    """The return is that of a game, as Monitor counts it."""
    env = DummyVecEnv([lambda: LostLife(Monitor(Game(30)))])
    played = rollouts.Rollouts(env, lambda observations: np.zeros((len(observations), 1), np.float32)).play(300, 0)[1]
    assert played and set(played) == {30.0}


def test_what_is_around_the_normalization():
    """Statistics inside of another wrapper are not those of the observations: `distill` and `fit` refuse."""
    venv = VecFrameStack(VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), norm_reward=False), 2)
    model = PPO("MlpPolicy", venv, device="cpu")
    for work in (lambda: distill(model, venv, 0.5, **SHORT), lambda: fit(model, venv, flash=4096)):
        with pytest.raises(ValueError, match="inside another wrapper"):
            work()
