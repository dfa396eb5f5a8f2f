"""BC, BCQ and their discrete forms as SB3 algorithms: environments, callbacks, logs, saving, spaces, and what is refused."""

import csv
import json
import zipfile
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_sparse import OneShotPruningCallback
from sb3_sparse.offline import BC, BCQ, MLPPolicy, OfflineDataset, VAEPolicy
from tests.invariants import check, check_targets
from tests.offline import BOX, CASES, DISCRETE, OBSERVATIONS, make_data, transitions


def data_of(name, **kwargs):
    """Transitions with the spaces of the algorithm's environment."""
    env = gym.make(CASES[name].env)
    return make_data(env.observation_space, env.action_space, **kwargs)


def weights_of(model):
    return {key: value.clone() for key, value in model.policy.state_dict().items()}


def expect_same(one, other):
    """Weights, target networks, and the optimizers' states, bit for bit."""
    theirs = other.policy.state_dict()
    assert one.policy.state_dict().keys() == theirs.keys()
    for key, value in one.policy.state_dict().items():
        assert th.equal(value, theirs[key]), key
    for name, network in one.policy.networks.items():
        states = (x.optimizer.state_dict()["state"] for x in (network, other.policy.networks[name]))
        mine, its = ({(p, key): value for p, state in whole.items() for key, value in state.items()} for whole in states)
        assert mine.keys() == its.keys()
        for key, value in mine.items():
            assert th.equal(value, its[key]), (name, key)


class Count(BaseCallback):
    """What a callback sees at each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def _on_step(self):
        self.seen.append((self.num_timesteps, self.model._n_updates, self.n_calls))
        assert {"dones", "infos", "rewards", "new_obs", "total_timesteps"} <= self.locals.keys()
        return True


@pytest.mark.parametrize("env", ["none", "name", "env", "vec_env"])
@pytest.mark.parametrize("name", CASES)
def test_with_and_without_an_environment(name, env):
    """The same training, bit for bit; an environment is there for callbacks in any case."""
    case, data = CASES[name], data_of(name)
    made = {"none": None, "name": case.env, "env": gym.make(case.env), "vec_env": make_vec_env(case.env)}[env]
    model, plain = case.make(data, env=made), case.make(data)
    before = weights_of(model)
    count = Count()
    assert model.learn(5, callback=count) is model
    assert count.seen == [(n, n, n) for n in range(1, 6)]
    assert model.get_env().num_envs == 1 and model.get_env().observation_space.shape == data.observation_space.shape
    expect_same(model, plain.learn(5))
    changed = {key.split(".")[0] for key, value in model.policy.state_dict().items() if not th.equal(value, before[key])}
    assert changed == {*case.networks, *case.targets}


@pytest.mark.parametrize("name", CASES)
def test_several_environments_are_refused(name):
    with pytest.raises(ValueError, match="single vectorized environment"):
        CASES[name].make(data_of(name), env=make_vec_env(CASES[name].env, n_envs=2))


@pytest.mark.parametrize("name", CASES)
def test_callbacks_count_updates(name, tmp_path):
    case = CASES[name]
    env = DummyVecEnv([lambda: Monitor(gym.make(case.env))])
    evaluation = EvalCallback(
        env, best_model_save_path=str(tmp_path), log_path=str(tmp_path), eval_freq=10, n_eval_episodes=1, verbose=0, warn=False
    )
    inner = Count()
    callbacks = [
        OneShotPruningCallback("all", 0.5),
        evaluation,
        CheckpointCallback(8, str(tmp_path), name_prefix="step"),
        EveryNTimesteps(7, inner),
        StopTrainingOnMaxEpisodes(1),
        LogEveryNTimesteps(9),
    ]
    model = case.make(data_of(name), env=case.env)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(20, callback=callbacks, log_interval=None)
    model.logger.close()
    assert evaluation.evaluations_timesteps == [10, 20]
    assert [step for step, *_ in inner.seen] == [7, 14]
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == ["best_model.zip", "step_16_steps.zip", "step_8_steps.zip"]
    logged = [row["train/n_updates"] for row in csv.DictReader((tmp_path / "progress.csv").open())]
    assert [int(updates) for updates in logged if updates] == [9, 18]


@pytest.mark.parametrize("env", [None, "Pendulum-v1"])
def test_progress_bar(env, monkeypatch):
    """SB3's own, with and without an environment: it counts the updates up to the last, and is closed."""
    seen = []

    class Bar:
        def __init__(self, total):
            seen.append(f"of {total}")

        def update(self, count):
            seen.append(count)

        def refresh(self):
            pass

        def close(self):
            seen.append("closed")

    monkeypatch.setattr("stable_baselines3.common.callbacks.tqdm", Bar)
    model = CASES["bc_mlp"].make(data_of("bc_mlp"), env=env)
    model.learn(3, progress_bar=True)
    model.learn(2, progress_bar=True, reset_num_timesteps=False)
    assert seen == ["of 3", 1, 1, 1, "closed", "of 2", 1, 1, "closed"]


class Stop(BaseCallback):
    """Stops after some updates."""

    def __init__(self, updates):
        super().__init__()
        self.updates = updates

    def _on_step(self):
        return self.n_calls < self.updates


def test_stopped_by_a_callback():
    model = CASES["bcq"].make()
    model.learn(20, callback=Stop(7))
    assert (model.num_timesteps, model._n_updates) == (7, 7)
    model.learn(20, reset_num_timesteps=False)
    assert (model.num_timesteps, model._n_updates) == (27, 27)
    model.learn(3)
    assert (model.num_timesteps, model._n_updates) == (3, 30)


@pytest.mark.parametrize("name", CASES)
def test_log(name, tmp_path):
    """Means of the losses over the updates since the last entry, and SB3's keys."""
    model = CASES[name].make()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(12, log_interval=4, callback=OneShotPruningCallback("all", 0.5, at=6))
    model.logger.close()
    rows = list(csv.DictReader((tmp_path / "progress.csv").open()))
    assert [int(row["time/total_timesteps"]) for row in rows] == [4, 8, 12]
    assert [int(row["train/n_updates"]) for row in rows] == [4, 8, 12]
    networks = CASES[name].networks
    keys = {"time/fps", "time/time_elapsed", "train/learning_rate", *(f"train/{network}_loss" for network in networks)}
    assert keys <= rows[0].keys()
    assert [round(float(row[f"sparsity/{networks[0]}"]), 1) for row in rows] == [0.0, 0.5, 0.5]
    again = CASES[name].make()
    losses = {network: [] for network in networks}
    compute = again._losses

    def record(batch, generator):
        def noted(network, loss):
            value = loss()
            losses[network].append(value.item())
            return value

        return {network: partial(noted, network, loss) for network, loss in compute(batch, generator).items()}

    again._losses = record
    again.learn(6)
    again.learn(2, callback=OneShotPruningCallback("all", 0.5), reset_num_timesteps=False)
    for network in networks:
        means = np.reshape(losses[network], (2, 4)).mean(1)
        np.testing.assert_allclose([float(row[f"train/{network}_loss"]) for row in rows[:2]], means, rtol=1e-4)


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    CASES["bcq"].make(tensorboard_log=str(tmp_path)).learn(10, log_interval=5, tb_log_name="name")
    events = EventAccumulator(str(tmp_path / "name_1")).Reload()
    assert [event.step for event in events.Scalars("train/critic_loss")] == [5, 10]


def test_learning_rate_schedule():
    """Of all optimizers, by the remaining progress before each update."""
    model = CASES["bcq"].make(learning_rate=lambda remaining: 0.1 * remaining)
    rates = []

    class Look(BaseCallback):
        def _on_step(self):
            rates.append([network.optimizer.param_groups[0]["lr"] for network in self.model.policy.networks.values()])
            return True

    model.learn(4, callback=Look())
    np.testing.assert_allclose(rates, np.outer([0.1, 0.075, 0.05, 0.025], [1, 1, 1]))


@pytest.mark.parametrize("name", CASES)
def test_in_two_calls_or_in_one(name):
    """Nothing is drawn twice, also where the clock begins anew."""
    whole = CASES[name].make().learn(6)
    expect_same(whole, CASES[name].make().learn(3).learn(3))
    expect_same(whole, CASES[name].make().learn(3).learn(3, reset_num_timesteps=False))


class Delayed(BCQ):
    """Its actor takes every second step."""

    policy_delay = 2


def test_policy_delay(tmp_path):
    """The actor waits, the other networks do not; the log has the mean of its own steps."""
    model = Delayed("MlpPolicy", make_data(), policy_kwargs={"net_arch": [8]}, batch_size=16, seed=0, device="cpu")
    model.set_logger(configure(str(tmp_path), ["csv"]))
    changed, losses = [], []

    class Look(BaseCallback):
        def _on_step(self):
            now = weights_of(self.model)
            names = {key.split(".")[0] for key, value in now.items() if not th.equal(value, self.model.before[key])}
            changed.append({name for name in names if not name.endswith("_target")})
            self.model.before = now
            return True

    compute = model._losses

    def record(batch, generator):
        computed = compute(batch, generator)

        def actor():
            losses.append(computed["actor"]())
            return losses[-1]

        return {**computed, "actor": actor}

    model.before, model._losses = weights_of(model), record
    model.learn(4, callback=Look(), log_interval=4)
    model.logger.close()
    always = {"vae", "critic"}
    assert changed == [always, always | {"actor"}, always, always | {"actor"}]
    assert len(losses) == 2
    row = next(csv.DictReader((tmp_path / "progress.csv").open()))
    assert float(row["train/actor_loss"]) == pytest.approx(sum(loss.item() for loss in losses) / 2, rel=1e-4)


class Modes(FlattenExtractor):
    """Notes whether it is in training mode; weights make it take part in the averaging."""

    def forward(self, observations):
        self.seen = [*getattr(self, "seen", []), self.training]
        return super().forward(observations)


@pytest.mark.parametrize("name", CASES)
def test_modes(name):
    """Networks that learn are in training mode whenever they do, target networks never, and nobody when it acts."""
    model = CASES[name].make(policy_kwargs={"features_extractor_class": Modes})
    observations = transitions()["observations"]

    def look(learning):
        for network in (*CASES[name].networks, *CASES[name].targets):
            seen = getattr(model.policy, network).features_extractor.__dict__.pop("seen", [])
            assert set(seen) <= {learning and not network.endswith("_target")}
            assert seen or network.endswith("_target") or not learning

    for _ in range(2):
        model.learn(1)
        look(True)
        model.predict(observations)
        look(False)


class Normed(FlattenExtractor):
    """With statistics that target networks do not average, and noise that SB3 leaves to torch."""

    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.norm = th.nn.Sequential(th.nn.BatchNorm1d(self.features_dim), th.nn.Dropout(0.5))

    def forward(self, observations):
        return self.norm(super().forward(observations))


@pytest.mark.parametrize("name", CASES)
def test_batch_norm_and_dropout(name):
    """Target networks have the statistics of the online ones, as in SB3; ranking weights leaves no trace."""
    kwargs = {"policy_kwargs": {"features_extractor_class": Normed}}
    model = CASES[name].make(**kwargs)
    model.learn(3)
    for target in CASES[name].targets:
        online = getattr(model.policy, target.removesuffix("_target"))
        norms = [network.features_extractor.norm[0] for network in (online, getattr(model.policy, target))]
        assert norms[0].running_mean.any() and th.equal(norms[0].running_mean, norms[1].running_mean)
        assert th.equal(norms[0].running_var, norms[1].running_var)
    models = []
    for callback in (None, OneShotPruningCallback("all", 0.0, saliency="grasp")):
        models.append(CASES[name].make(**kwargs))
        th.manual_seed(1)
        models[-1].learn(3, callback=callback)
    expect_same(*models)


def test_adam_is_fused():
    """From the first update on, for pruning makes it so: what it costs would change, and so would the rounding."""
    for case in CASES.values():
        model = case.make()
        assert all(network.optimizer.param_groups[0]["fused"] for network in model.policy.networks.values())
        kwargs = {"optimizer_class": th.optim.SGD, "optimizer_kwargs": {"momentum": 0.9}}
        model = case.make(policy_kwargs=kwargs).learn(2)
        assert all(isinstance(network.optimizer, th.optim.SGD) for network in model.policy.networks.values())


@pytest.mark.parametrize("name", CASES)
def test_seeds(name):
    """The same seed is the same training, whatever is drawn elsewhere; another seed is another one, as is none."""
    models = [CASES[name].make(seed=seed) for seed in (0, 0, 1, None, None)]
    starts = [weights_of(model) for model in models]
    for number, model in enumerate(models):
        th.manual_seed(number)
        model.learn(3)
    expect_same(*models[:2])
    for values in (starts, [weights_of(model) for model in models]):
        assert (
            len({value["actor.mlp.0.bias" if "actor.mlp.0.bias" in value else list(value)[-1]][0].item() for value in values})
            == 4
        )
    assert len({model.draw_seed for model in models}) == 4


@pytest.mark.parametrize("name", CASES)
def test_save_and_load(name, tmp_path):
    """Without the dataset, a model predicts as before; with one of the ways to give it back, it goes on as before."""
    case, data = CASES[name], data_of(name)
    model = case.make(data).learn(10)
    model.save(tmp_path / "agent.zip")
    observations = data.batch(np.arange(30)).observations.numpy()
    actions = model.predict(observations, deterministic=True)[0]
    loaded = case.algorithm.load(tmp_path / "agent.zip", device="cpu")
    expect_same(model, loaded)
    np.testing.assert_array_equal(loaded.predict(observations, deterministic=True)[0], actions)
    assert (loaded.num_timesteps, loaded._n_updates, loaded.get_env()) == (10, 10, None)
    with pytest.raises(ValueError, match=rf"needs a dataset .* {case.algorithm.__name__}.load\(path, dataset=dataset\)"):
        loaded.learn(5)
    with pytest.raises(ValueError, match="needs a dataset"):
        loaded.losses()
    model.learn(10, reset_num_timesteps=False)
    loaded.dataset = data
    given = case.algorithm.load(tmp_path / "agent.zip", dataset=data, device="cpu")
    in_env = case.algorithm.load(tmp_path / "agent.zip", env=gym.make(case.env), dataset=data, device="cpu")
    later = case.algorithm.load(tmp_path / "agent.zip", dataset=data, device="cpu")
    later.set_env(gym.make(case.env))
    for again in (loaded, given, in_env, later):
        expect_same(model, again.learn(10, reset_num_timesteps=False))
        assert (again.num_timesteps, again._n_updates) == (20, 20)


@pytest.mark.parametrize("name", CASES)
def test_parameters(name):
    """SB3's get_parameters and set_parameters, of weights and optimizers."""
    one, other = CASES[name].make().learn(5), CASES[name].make(seed=1).learn(3)
    parameters = one.get_parameters()
    assert list(parameters) == ["policy", *(f"policy.{network}.optimizer" for network in CASES[name].networks)]
    other.set_parameters(parameters)
    expect_same(one, other)
    with pytest.raises(ValueError, match="Names of parameters do not match"):
        other.set_parameters({"policy": parameters["policy"]})


@pytest.mark.parametrize("name", CASES)
def test_a_zip_holds_no_data(name, tmp_path):
    case = CASES[name]
    sizes = []
    for count in (100, 50_000):
        case.make(data_of(name, count=count)).learn(3).save(tmp_path / "agent.zip")
        sizes.append((tmp_path / "agent.zip").stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 200
    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        saved = json.loads(archive.read("data"))
        assert b"OfflineDataset" not in archive.read("data")
    assert not {"dataset", "_sampler", "_means", "env", "policy"} & saved.keys()
    # The first observation is SB3's, and is one row.
    arrays = {key for key, value in saved.items() if "ndarray" in str(value)}
    assert arrays <= {"_last_obs", "_last_episode_starts", "_last_original_obs", "observation_space", "action_space"}


@pytest.mark.parametrize("name", CASES)
def test_a_policy_alone(name, tmp_path):
    """``policy.save`` and ``load``, with arguments that are not the default ones."""
    kwargs = {"bcq": {"phi": 0.5}, "discrete_bcq": {"threshold": 0.9}}.get(name, {})
    policy_kwargs = {"net_arch": {network: [8] for network in CASES[name].networks}, "activation_fn": th.nn.Tanh}
    policy_kwargs |= {"optimizer_class": th.optim.AdamW, "optimizer_kwargs": {"weight_decay": 0.5}}
    policy_kwargs |= {"bcq": {"latent_dim": 3}, "bc_vae": {"latent_dim": 3, "latent_clip": 0.0}}.get(name, {})
    model = CASES[name].make(policy_kwargs=policy_kwargs, **kwargs)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.copy_(th.randn(parameter.shape, generator=th.Generator().manual_seed(1)))
    model.policy.save(tmp_path / "policy.pth")
    policy = type(model.policy).load(tmp_path / "policy.pth", device="cpu")
    observations = transitions()["observations"]
    np.testing.assert_array_equal(
        policy.predict(observations, deterministic=True)[0], model.predict(observations, deterministic=True)[0]
    )
    own = vars(model.policy).keys() & {
        "phi",
        "threshold",
        "latent_dim",
        "latent_clip",
        "n_eval_actions",
        "net_arch",
        "activation_fn",
    }
    optimizer = policy.networks[CASES[name].networks[0]].optimizer
    assert type(optimizer) is th.optim.AdamW and optimizer.defaults["weight_decay"] == 0.5
    assert {key: getattr(policy, key) for key in own} == {key: getattr(model.policy, key) for key in own}


def box(*shape, high=np.inf, dtype=np.float32):
    return spaces.Box(0 if dtype == np.uint8 else -high, high, shape, dtype)


#: Observation spaces, and the policy that takes them.
SEEN = {
    "flat": (box(3), "MlpPolicy"),
    "table": (box(2, 3), "MlpPolicy"),
    "discrete": (spaces.Discrete(5), "MlpPolicy"),
    "dict": (spaces.Dict({"place": box(3), "goal": box(2, 2), "mode": spaces.Discrete(3)}), "MultiInputPolicy"),
    "image": (box(36, 40, 3, high=255, dtype=np.uint8), "MlpPolicy"),
    "image_first": (box(3, 36, 40, high=255, dtype=np.uint8), "MlpPolicy"),
    "bytes": (box(4, high=255, dtype=np.uint8), "MlpPolicy"),
    "dict_image": (spaces.Dict({"place": box(3), "image": box(36, 40, 3, high=255, dtype=np.uint8)}), "MultiInputPolicy"),
}


@pytest.mark.filterwarnings("ignore:pruning has cut network 'actor' off")
@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("name", ["bcq", "bc_mlp", "discrete_bcq"])
def test_observation_spaces(name, seen, tmp_path):
    """Trains, is pruned, saved and loaded, and predicts; images lie channels last or first."""
    space, policy = SEEN[seen]
    case = CASES[name]
    data = make_data(space, case.action_space, count=20)
    model = case.make(data, policy)
    model.learn(3, callback=OneShotPruningCallback("all", 0.5, saliency="snip", distribution="uniform"))
    check(model)
    check_targets(model)
    batch = model.sample(10)
    assert model.policy.networks[case.networks[0]].features(batch.observations).shape[0] == 10
    model.save(tmp_path / "agent.zip")
    loaded = case.algorithm.load(tmp_path / "agent.zip", device="cpu")
    observation = model.get_env().reset()
    actions = model.predict(observation, deterministic=True)[0]
    np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], actions)
    assert actions.shape == (1, *case.action_space.shape) and case.action_space.contains(actions[0])


@pytest.mark.parametrize("policy_kwargs", [{}, {"normalize_images": False}])
def test_images_as_the_environment_gives_them(policy_kwargs):
    """The batch has the channels first and is not divided yet, as what SB3 hands to a policy; layers of the CNN are pruned."""
    space = SEEN["image"][0]
    arrays = transitions(space, BOX, count=20)
    model = CASES["bcq"].make(
        OfflineDataset.from_arrays(**arrays), policy_kwargs={"features_extractor_class": NatureCNN, **policy_kwargs}
    )
    batch = model.sample(20)
    rows = [int(np.flatnonzero(arrays["rewards"] == reward)[0]) for reward in batch.rewards.flatten().numpy()]
    for key in ("observations", "next_observations"):
        expected = arrays[key][rows].transpose(0, 3, 1, 2)
        assert getattr(batch, key).dtype == th.uint8
        np.testing.assert_array_equal(getattr(batch, key), expected)
    model.learn(2, callback=OneShotPruningCallback("vae", 0.9, saliency="snip", distribution="uniform"))
    assert 0.85 < (model.policy.vae.features_extractor.cnn[2].weight == 0).float().mean() < 0.95
    check(model)
    # Channels last, as the environment gives an observation.
    actions = model.predict(arrays["observations"], deterministic=True)[0]
    np.testing.assert_array_equal(model.predict(arrays["observations"].transpose(0, 3, 1, 2), deterministic=True)[0], actions)


class Images(gym.Env):
    """An environment of images with the channels last."""

    observation_space, action_space = SEEN["image"][0], DISCRETE

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.integers(256, size=(36, 40, 3), dtype=np.uint8), {}

    def step(self, action):
        return self.np_random.integers(256, size=(36, 40, 3), dtype=np.uint8), 0.0, False, False, {}


@pytest.mark.parametrize("policy", ["MlpPolicy", "MultiInputPolicy"])
def test_images_of_a_replay_buffer(policy):
    """A buffer holds images with the channels first; they fit the environment that they come from all the same."""
    if policy == "MlpPolicy":
        env = Images()
    else:
        env = gym.wrappers.TransformObservation(
            Images(), lambda image: {"image": image}, spaces.Dict({"image": Images.observation_space})
        )
    settings = {"learning_starts": 20, "buffer_size": 20, "policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    online = DQN(policy, env, **settings).learn(20)
    data = OfflineDataset.from_replay_buffer(online.replay_buffer)
    model = CASES["discrete_bc"].make(data, policy, env=env).learn(2)
    images = model.sample(4).observations
    assert (images if policy == "MlpPolicy" else images["image"]).shape == (4, 3, 36, 40)
    model.predict(model.get_env().reset())


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (-3.0, 0.5)])
@pytest.mark.parametrize("name", ["bc_vae", "bc_mlp", "bcq"])
def test_actions_of_rank_2(name, bounds):
    """They are flat in a batch, and have their shape in a prediction."""
    space = spaces.Box(*bounds, (2, 3), np.float32)
    arrays = transitions(OBSERVATIONS, space)
    model = CASES[name].make(OfflineDataset.from_arrays(**arrays)).learn(3)
    batch = model.sample(50)
    rows = [int(np.flatnonzero(arrays["rewards"] == reward)[0]) for reward in batch.rewards.flatten().numpy()]
    scaled = model.policy.scale_action(arrays["actions"][rows])
    np.testing.assert_allclose(batch.actions, scaled.reshape(50, 6), atol=1e-6)
    for deterministic in (True, False):
        actions = model.predict(arrays["observations"], deterministic=deterministic)[0]
        assert actions.shape == (150, 2, 3) and all(space.contains(action) for action in actions)
        assert model.predict(arrays["observations"][0])[0].shape == (2, 3)


def normalized(env="Pendulum-v1", **kwargs):
    return VecNormalize(DummyVecEnv([lambda: Monitor(gym.make(env))]), **{"norm_reward": False, **kwargs})


def test_vec_normalize(tmp_path):
    """Its statistics are those of the dataset, and stay; batches are what the environment would give."""
    arrays = transitions(*(getattr(gym.make("Pendulum-v1"), f"{kind}_space") for kind in ("observation", "action")))
    env = normalized(clip_obs=1.5)
    model = CASES["bcq"].make(OfflineDataset.from_arrays(**arrays), env=env)
    seen = arrays["observations"]
    np.testing.assert_allclose(env.obs_rms.mean, seen.mean(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(env.obs_rms.var, seen.var(0), rtol=1e-3)
    assert not env.training
    batch = model.sample(50)
    rows = [int(np.flatnonzero(arrays["rewards"] == reward)[0]) for reward in batch.rewards.flatten().numpy()]
    for key in ("observations", "next_observations"):
        assert getattr(batch, key).dtype == th.float32
        np.testing.assert_array_equal(getattr(batch, key), env.normalize_obs(arrays[key][rows]))
    assert batch.observations.abs().max() == 1.5
    before = env.obs_rms.mean.copy()
    other = normalized(clip_obs=1.5, training=False)
    model.learn(20, callback=EvalCallback(other, eval_freq=10, n_eval_episodes=1, verbose=0))
    evaluate_policy(model, env, 1)
    np.testing.assert_array_equal(env.obs_rms.mean, before)
    np.testing.assert_array_equal(other.obs_rms.mean, before)
    # As rl-zoo3 saves and loads them: they stay what they were, whatever the dataset.
    model.save(tmp_path / "agent.zip")
    env.save(tmp_path / "vecnormalize.pkl")
    loaded = VecNormalize.load(tmp_path / "vecnormalize.pkl", DummyVecEnv([lambda: Monitor(gym.make("Pendulum-v1"))]))
    data = data_of("bcq", seed=1)
    again = BCQ.load(tmp_path / "agent.zip", env=loaded, dataset=data, device="cpu").learn(3)
    np.testing.assert_array_equal(again.get_vec_normalize_env().obs_rms.mean, before)


def test_vec_normalize_of_dict_observations():
    space, policy = SEEN["dict_image"]

    class Both(Images):
        observation_space, action_space = space, BOX

    env = VecNormalize(DummyVecEnv([Both]), norm_reward=False, norm_obs_keys=["place"])
    arrays = transitions(space, BOX, count=20)
    model = CASES["bcq"].make(OfflineDataset.from_arrays(**arrays), policy, env=env)
    np.testing.assert_allclose(env.obs_rms["place"].var, arrays["observations"]["place"].var(0), rtol=1e-2)
    observations = model.sample(10).observations
    assert observations["image"].shape == (10, 3, 36, 40) and observations["image"].dtype == th.uint8
    assert observations["place"].dtype == th.float32


def test_normalized_rewards_are_refused():
    with pytest.raises(ValueError, match="norm_reward=False"):
        CASES["bcq"].make(data_of("bcq"), env=normalized(norm_reward=True))


def shifted(kind):
    """A dataset with a discrete space that begins at 2."""
    arrays = transitions(DISCRETE, DISCRETE) if kind == "observation" else transitions(action_space=DISCRETE)
    for key in arrays:
        if key.endswith(f"{kind}s"):
            arrays[key] = arrays[key] + 2
    arrays[f"{kind}_space"] = spaces.Discrete(4, start=2)
    if kind == "observation":
        arrays["actions"], arrays["action_space"] = transitions()["actions"], BOX
    return OfflineDataset.from_arrays(**arrays)


#: The second component has no range.
FLAT = spaces.Box(np.float32([-1, 1]), np.float32([1, 1]))


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("bcq", {"dataset": make_data(action_space=DISCRETE)}, "Discrete"),
        ("bc_vae", {"dataset": make_data(action_space=DISCRETE)}, "Discrete"),
        ("discrete_bc", {"dataset": make_data()}, "Box"),
        ("discrete_bcq", {"dataset": make_data()}, "Box"),
        ("bcq", {"env": "CartPole-v1"}, "Discrete"),
        ("bcq", {"env": "MountainCarContinuous-v0"}, "the dataset has actions .* the environment takes"),
        (
            "bcq",
            {"dataset": make_data(box(4), gym.make("Pendulum-v1").action_space), "env": "Pendulum-v1"},
            "the dataset has obs",
        ),
        (
            "bcq",
            {"dataset": make_data(action_space=box(1, high=1.0)), "env": "Pendulum-v1"},
            "the dataset has actions .* takes",
        ),
        ("discrete_bc", {"dataset": shifted("action")}, "begin at 0"),
        ("bc_mlp", {"dataset": shifted("observation")}, "begin at 0"),
        ("bcq", {"dataset": make_data(action_space=FLAT)}, "lower bound of each action must be less than the upper one"),
        ("bcq", {"n_target_actions": 0}, "must be at least 1, got 0 and 20"),
        ("bc_vae", {"mode": "VAE"}, "unknown mode='VAE': use one of vae, mlp"),
        ("bcq", {"policy_kwargs": {"net_arch": {"q_net": [8]}}}, "net_arch names 'q_net'; BCQPolicy has vae, critic, actor"),
        ("bcq", {"policy": "CnnPolicy"}, "Policy CnnPolicy unknown"),
        ("bc_mlp", {"policy": "CnnPolicy"}, "Policy CnnPolicy unknown"),
    ],
)
def test_refused(name, kwargs, message):
    with pytest.raises((ValueError, AssertionError), match=message):
        CASES[name].make(**kwargs)


def test_without_a_dataset():
    with pytest.raises(ValueError, match=r"BCQ needs a dataset to train on"):
        BCQ("MlpPolicy")
    with pytest.raises(ValueError, match=r"BCQ takes an OfflineDataset or the id of a Minari dataset, got a int"):
        BCQ("MlpPolicy", 7)
    with pytest.raises(ValueError, match=r"'Pendulum-v1' is an environment, and BCQ takes a dataset in this place"):
        BCQ("MlpPolicy", "Pendulum-v1")


def test_normalization_that_has_seen_nothing():
    """It would normalize nothing, for it is not to see anything either."""
    env = VecNormalize(make_vec_env("Pendulum-v1"), norm_reward=False, training=False)
    with pytest.warns(UserWarning, match="VecNormalize has seen no observations"):
        BC("MlpPolicy", data_of("bc_mlp"), env, mode="mlp", device="cpu")


@pytest.mark.filterwarnings("ignore:pruning has left network")
def test_critics_that_are_cut_off_from_the_actions():
    """One input of another order of magnitude takes the budget; what the actor does makes no difference then."""
    arrays = transitions()
    for name in ("observations", "next_observations"):
        arrays[name] = arrays[name] * np.float32([1e4, 1.0, 1.0])
    model = BCQ("MlpPolicy", OfflineDataset.from_arrays(**arrays), policy_kwargs={"net_arch": [16, 16]}, seed=0, device="cpu")
    with pytest.warns(UserWarning, match="pruning has cut network 'actor' off from its loss"):
        model.learn(1, callback=OneShotPruningCallback("all", 0.95, saliency="snip"))


def test_the_name_of_a_dataset(monkeypatch, tmp_path):
    """It is looked up when it is needed: rl-zoo3 gives it to a model that it loads."""
    asked, data = [], make_data()

    def from_minari(name, download=False):
        asked.append((name, download))
        return data

    monkeypatch.setattr(OfflineDataset, "from_minari", from_minari)
    model = BC("MlpPolicy", "some/data-v0", policy_kwargs={"net_arch": [8]}, device="cpu").learn(2)
    assert asked == [("some/data-v0", True)]
    model.save(tmp_path / "agent.zip")
    loaded = BC.load(tmp_path / "agent.zip", dataset="some/data-v0", device="cpu")
    assert len(asked) == 1
    loaded.learn(2)
    assert len(asked) == 2 and loaded.dataset is data


def test_another_environment():
    """``set_env`` is checked against the dataset when training goes on."""
    model = CASES["bc_mlp"].make(data_of("bc_mlp"))
    raw = model.sample(4, th.Generator().manual_seed(0)).observations.numpy()
    model.set_env(gym.make("Pendulum-v1"))
    model.learn(2)
    assert np.array_equal(model.sample(4, th.Generator().manual_seed(0)).observations, raw)
    env = normalized()
    model.set_env(env)
    model.learn(2)
    batch = model.sample(4, th.Generator().manual_seed(0))
    np.testing.assert_array_equal(batch.observations, env.normalize_obs(raw))
    model.set_env(gym.make("Pendulum-v1"))
    with pytest.raises(ValueError, match="trained on normalized observations"):
        model.learn(2)
    model.set_env(env)
    with pytest.raises(ValueError, match="spaces do not match"):
        model.set_env(gym.make("CartPole-v1"))
    model.dataset = make_data()
    with pytest.raises(ValueError, match="the dataset has actions"):
        model.learn(2)


@pytest.mark.parametrize("mode", ["vae", "mlp"])
def test_a_policy_as_a_class(mode, tmp_path):
    kind = {"vae": VAEPolicy, "mlp": MLPPolicy}[mode]
    model = CASES["bc_vae"].make(policy=kind, mode=mode).learn(2)
    named = CASES["bc_vae"].make(mode=mode).learn(2)
    expect_same(model, named)
    model.save(tmp_path / "agent.zip")
    loaded = BC.load(tmp_path / "agent.zip", dataset=make_data(), device="cpu")
    assert type(loaded.policy) is kind and loaded.mode == mode
    loaded.learn(2)
