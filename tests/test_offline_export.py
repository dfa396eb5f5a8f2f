"""Offline policies: exported ones act as their model does, and those that are not a single network are refused."""

import json
import shutil
import subprocess
from functools import cache

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_sparse import OneShotPruningCallback, QATCallback, compress, restore, summarize
from sb3_sparse.agents import load_agent, open_agent
from sb3_sparse.cli import main
from sb3_sparse.cost import Training
from sb3_sparse.nn import prunable_layers
from sb3_sparse.nn import quantize as training_grid
from sb3_sparse.offline import MLPPolicy, VAEPolicy
from sb3_sparse.offline.networks import VAE, Head
from sb3_sparse.runtime import Policy
from sb3_sparse.runtime.format.artifact import decode, encode
from tests.networks import AVAILABLE, EXACT, expect_close
from tests.offline import CASES, DISCRETE, OBSERVATIONS, make_data

EXPORTED = ("bc_vae", "bc_mlp", "discrete_bc")
REFUSED = {
    "bcq": "BCQ lets a critic choose among many actions .* cannot be exported: clone .* with BC",
    "discrete_bcq": "DiscreteBCQ takes the best action .* cannot be exported: clone .* DiscreteBC",
}
#: The layers that act, under ``model.policy``.
LAYERS = {
    "bc_vae": ["vae.decoder.0", "vae.decoder.2", "vae.decoder.4"],
    "bc_mlp": ["actor.mlp.0", "actor.mlp.2", "actor.mlp.4"],
    "discrete_bc": ["actor.mlp.0", "actor.mlp.2", "actor.mlp.4"],
}
METHODS = {
    "dense": lambda: [],
    "snip": lambda: [OneShotPruningCallback("all", 0.7, saliency="snip")],
    "magnitude": lambda: [OneShotPruningCallback("all", 0.5)],
    "qat": lambda: [QATCallback("all", start=0, bits=4)],
    "snip, qat": lambda: [OneShotPruningCallback("all", 0.5, saliency="snip"), QATCallback("all", start=0.5, bits=8)],
}


def disturb(model, seed=0):
    """Move weights and biases far from where a few updates leave them; pruned weights stay pruned."""
    generator = th.Generator().manual_seed(seed)
    with th.no_grad():
        for parameter in model.policy.parameters():
            size = 0.8 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1
            noise = th.randn(parameter.shape, generator=generator) * size
            parameter += noise * ((parameter != 0) | (parameter.ndim == 1))
    return model


@cache
def trained(name, method="dense"):
    model = CASES[name].make()
    model.learn(20, callback=METHODS[method]())
    return disturb(model)


def observe(space=OBSERVATIONS, count=40):
    rng = np.random.default_rng(1)
    if space.dtype == np.uint8:
        return rng.integers(256, size=(count, *space.shape), dtype=np.uint8)
    # Some from far away.
    return (rng.normal(size=(count, *space.shape)) * rng.choice([1, 3], (count, *[1] * len(space.shape)))).astype(np.float32)


def expect_parity(model, obs, *, seen=None, backends=AVAILABLE, **kwargs):
    """Check that the exported policy, read from its file, acts as the model: one observation or a batch, in every backend."""
    __tracebackhide__ = True
    seen = obs if seen is None else seen
    expected = model.predict(seen, deterministic=True)[0]
    network = decode(encode(compress(model, backend="numpy", **{"bits": 32, **kwargs}).network))
    for backend in backends:
        policy = Policy(network, backend)
        expect_close(policy.predict(obs)[0], expected, network, obs)
        action, one = policy.predict(obs[0])[0], model.predict(seen[0], deterministic=True)[0]
        assert type(action) is type(one) and action.dtype == one.dtype and action.shape == one.shape
        expect_close(action[None], one[None], network, obs[:1])
    return network


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", EXPORTED)
def test_parity(name, method):
    expect_parity(trained(name, method), observe(), backends=EXACT if "qat" in method else AVAILABLE)


@pytest.mark.parametrize("method", ["dense", "snip", "snip, qat"])
@pytest.mark.parametrize("name", EXPORTED)
def test_parity_of_the_other_forms(name, method, tmp_path):
    """ONNX and the C header."""
    model, obs = trained(name, method), observe()
    policy = compress(model, bits=32, backend="numpy")
    expected = model.predict(obs, deterministic=True)[0]
    if (compiler := shutil.which("gcc")) is not None:
        policy.to_c(tmp_path / "agent.h", name="agent")
        source = '#define AGENT_SELF_TEST\n#include "agent.h"\nint main(void) { return agent_self_test(); }\n'
        (tmp_path / "main.c").write_text(source)
        subprocess.run([compiler, tmp_path / "main.c", "-o", tmp_path / "main"], check=True)
        subprocess.run([tmp_path / "main"], check=True)
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    policy.to_onnx(tmp_path / "agent.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "agent.onnx", providers=["CPUExecutionProvider"])
    expect_close(session.run(["action"], {"observation": obs})[0], expected, policy.network, obs)


@pytest.mark.parametrize("name", EXPORTED)
def test_eight_bits_are_near(name):
    model, obs = trained(name, "snip"), observe()
    network = compress(model, calibration=obs, backend="numpy").network
    assert network.ranges is not None and all(layer.quantized for layer in network.layers)
    exact, action = model.predict(obs, deterministic=True)[0], Policy(network, "numpy").predict(obs)[0]
    if name == "discrete_bc":
        assert np.mean(exact == action) >= 0.95
    else:
        # Of ranges of 3 and 4; the largest that was measured is 0.008.
        assert np.abs(exact - action).max() < 0.02


@pytest.mark.parametrize("name", EXPORTED)
def test_training_grid(name, tmp_path):
    """The integers and steps are those of training; the steps of the decoder's first layer are those of all its columns."""
    model = trained(name, "qat")
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", device="cpu")
    for one in (model, loaded):
        network = expect_parity(one, observe(), backends=EXACT, bits=8) if one is model else compress(one).network
        layers = prunable_layers(one.policy)
        for ours, layer in zip(network.layers, [layers[layer] for layer in LAYERS[name]], strict=True):
            assert ours.quantized and (ours.scales == training_grid(layer.weight, 4)[0].numpy()).all()
    restore(loaded)
    expect_parity(loaded, observe(), backends=EXACT, bits=8)


def test_the_latent_variable_is_cut_off():
    model = trained("bc_vae")
    policy = compress(model, bits=32, backend="numpy")
    assert [layer.name for layer in policy.report().layers] == LAYERS["bc_vae"]
    assert policy.report().layers[0].shape == (16, 3) and model.policy.vae.decoder[0].weight.shape == (16, 7)
    assert policy.report().notes[0] == (
        "The VAE's latent variable is 0, its mean, so 4 columns of 'vae.decoder.0' are left out."
    )
    # The weights of the latent variable do not matter, even if they are the largest of all.
    with th.no_grad():
        model = disturb(CASES["bc_vae"].make())
        model.policy.vae.decoder[0].weight[:, 3:] = 100.0
    expect_parity(model, observe())


VECTORS = spaces.Box(-np.inf, np.inf, (2, 3))
MATRIX = spaces.Box(np.full((2, 2), -1.0, np.float32), np.array([[0.5, 1], [2, 30]], np.float32))
PIXELS = spaces.Box(0, 255, (2, 36, 37), np.uint8)
BYTES = spaces.Box(0, 255, (4,), np.uint8)
VARIANTS = {
    "no hidden layer": {"policy_kwargs": {"net_arch": []}},
    "tanh": {"policy_kwargs": {"activation_fn": nn.Tanh}},
    "matrices": {"observation_space": VECTORS, "action_space": MATRIX},
    "bytes": {"observation_space": BYTES},
    "images": {
        "observation_space": PIXELS,
        "policy_kwargs": {"features_extractor_class": NatureCNN, "features_extractor_kwargs": {"features_dim": 12}},
    },
    "images, flat": {"observation_space": spaces.Box(0, 255, (1, 8, 9), np.uint8)},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", EXPORTED)
def test_variants(name, variant):
    settings = {"observation_space": OBSERVATIONS, "action_space": CASES[name].action_space, **VARIANTS[variant]}
    if name == "discrete_bc":
        settings["action_space"] = DISCRETE
    data = make_data(settings.pop("observation_space"), settings.pop("action_space"))
    expect_parity(disturb(CASES[name].make(data, **settings)), observe(data.observation_space, 12))


@pytest.mark.parametrize("latent_dim", [1, 9])
def test_another_latent_dimension(latent_dim):
    expect_parity(disturb(CASES["bc_vae"].make(policy_kwargs={"latent_dim": latent_dim})), observe())


class Still(gym.Env):
    """An environment whose observations are those of the datasets."""

    def __init__(self, action_space):
        self.observation_space, self.action_space = OBSERVATIONS, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return (self.np_random.normal(size=3) * [1, 30, 0.1] + 5).astype(np.float32), {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}


@pytest.mark.parametrize("name", EXPORTED)
def test_vec_normalize(name):
    env = VecNormalize(DummyVecEnv([lambda: Still(CASES[name].action_space)]), norm_reward=False, clip_obs=1.5)
    env.reset()
    for _ in range(30):
        env.step(np.stack([env.action_space.sample()]))
    env.training = False
    model = CASES[name].make(env=env)
    model.learn(5)
    obs = (observe() * [1, 30, 0.1] + 5).astype(np.float32)
    network = expect_parity(disturb(model), obs, seen=env.normalize_obs(obs))
    assert network.normalize.limit == 1.5


@pytest.mark.parametrize("name", REFUSED)
def test_what_chooses_among_candidates_is_refused(name, tmp_path, capsys):
    model = CASES[name].make()
    with pytest.raises(ValueError, match=REFUSED[name]):
        compress(model)
    model.save(tmp_path / "agent.zip")
    with pytest.raises(SystemExit):
        main(["compress", str(tmp_path / "agent.zip"), "-o", str(tmp_path / "out")])
    assert "cannot be exported: clone the actions" in capsys.readouterr().err and not (tmp_path / "out").exists()
    # It is opened and played all the same.
    opened = open_agent(tmp_path / "agent.zip")
    observation = observe()[0]
    assert np.array_equal(opened.act(observation, True), model.predict(observation, deterministic=True)[0])


class OwnDecoder(VAE):
    def decode(self, features, latents):
        return -super().decode(features, latents)


class OwnHead(Head):
    def forward(self, features, *actions):
        return -super().forward(features, *actions)


class OwnFeatures(Head):
    def features(self, observations):
        return -super().features(observations)


class OwnPolicy(MLPPolicy):
    def _predict(self, observation, deterministic=False):
        return -super()._predict(observation, deterministic)


class OwnShape(VAEPolicy):
    def _shaped(self, actions):
        return -super()._shaped(actions)


def of_class(name, network, cls):
    model = CASES[name].make()
    getattr(model.policy, network).__class__ = cls
    return model


OWN = {
    "decode": (lambda: of_class("bc_vae", "vae", OwnDecoder), r"the vae OwnDecoder with a decode\(\) of its own"),
    "forward": (lambda: of_class("bc_mlp", "actor", OwnHead), r"the actor OwnHead with a forward\(\) of its own"),
    "features": (lambda: of_class("discrete_bc", "actor", OwnFeatures), r"OwnFeatures with a features\(\) of its own"),
    "predict": (lambda: CASES["bc_mlp"].make(policy=OwnPolicy), "the policy OwnPolicy cannot be exported"),
    "shape": (lambda: CASES["bc_vae"].make(policy=OwnShape), r"the policy OwnShape with a _shaped\(\) of its own"),
}


@pytest.mark.parametrize("name", OWN)
def test_own_code_is_refused(name):
    make, message = OWN[name]
    with pytest.raises(ValueError, match=message):
        compress(make())


@pytest.mark.parametrize(
    ("name", "space", "policy"),
    [("bc_mlp", spaces.Dict({"a": OBSERVATIONS}), "MultiInputPolicy"), ("bc_vae", spaces.Discrete(5), "MlpPolicy")],
    ids=["dict", "discrete"],
)
def test_observations_that_are_not_boxes(name, space, policy):
    model = CASES[name].make(make_data(space), policy)
    exported = compress(model, bits=32, backend="numpy")
    for observation in (space.sample() for _ in range(20)):
        expected, _ = model.predict(observation, deterministic=True)
        np.testing.assert_allclose(exported.predict(observation)[0], expected, rtol=1e-5, atol=1e-5)


# From files


@pytest.mark.parametrize("name", CASES)
def test_a_zip_says_what_it_is_and_needs_no_dataset(name, tmp_path):
    model = trained(name, "magnitude")
    model.save(tmp_path / "agent.zip")
    algorithm = name.removesuffix("_vae").removesuffix("_mlp")
    for loaded in (load_agent(tmp_path / "agent.zip"), load_agent(tmp_path / "agent.zip", algorithm)):
        assert type(loaded) is type(model) and type(loaded.policy) is type(model.policy) and loaded.dataset is None
        np.testing.assert_array_equal(*(one.predict(observe(), deterministic=True)[0] for one in (model, loaded)))
    with pytest.raises(ValueError, match=f"holds a policy of {algorithm}, not of sac"):
        load_agent(tmp_path / "agent.zip", "sac")


@pytest.mark.parametrize("name", EXPORTED)
def test_compress_command(name, tmp_path, capsys):
    model = trained(name, "snip")
    model.save(tmp_path / "agent.zip")
    main(["compress", str(tmp_path / "agent.zip"), "-o", str(tmp_path / "out"), "--no-latency", "--bits", "32"])
    assert f"agent.zip: {type(model).__name__}" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [layer["name"] for layer in report["layers"]] == LAYERS[name]
    assert report["bytes"]["compact file"] == (tmp_path / "out" / "agent.sb3s").stat().st_size


@pytest.mark.parametrize("name", ["bc_mlp", "discrete_bc"])
def test_compress_command_in_an_environment(name, tmp_path, capsys):
    """The cloned agent plays the same episodes, before and after."""
    env = gym.make(CASES[name].env)
    model = disturb(CASES[name].make(make_data(env.observation_space, env.action_space)))
    model.save(tmp_path / "agent.zip")
    out = tmp_path / "out"
    arguments = ["--env", CASES[name].env, "--episodes", "2", "--calibration-steps", "50", "--no-latency", "--bits", "32"]
    main(["compress", str(tmp_path / "agent.zip"), "-o", str(out), *arguments])
    returns = json.loads((out / "report.json").read_text())["returns"]
    assert returns["exported file"] == pytest.approx(returns["SB3 model"], rel=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_summary_command(name, tmp_path, capsys):
    model = trained(name, "magnitude")
    model.save(tmp_path / "agent.zip")
    main(["summary", str(tmp_path / "agent.zip"), "--load"])
    assert capsys.readouterr().out == f"{summarize(model)}\n"
    main(["summary", str(tmp_path / "agent.zip")])
    assert "FLOPs per 1,000,000 gradient updates" in capsys.readouterr().out


# What training costs


@pytest.mark.parametrize("name", CASES)
def test_networks_of_a_summary(name):
    summary = summarize(trained(name, "magnitude"))
    assert list(summary.networks) == list(CASES[name].networks)
    assert all(network.sparsity == pytest.approx(0.5, abs=0.01) for network in summary.networks.values())


@pytest.mark.parametrize("name", ["bc_vae", "bc_mlp", "discrete_bc"])
def test_an_update_of_cloning(name):
    summary = summarize(CASES[name].make())
    assert summary.training == Training(16, 1.0, clock="gradient updates")
    assert summary.training_flops(1000) == 1000 * 16 * 3 * summary.flops


def test_an_update_of_bcq():
    """By hand, for its own default networks on HalfCheetah's sizes."""
    data = make_data(spaces.Box(-np.inf, np.inf, (17,)), spaces.Box(-1, 1, (6,)))
    model = CASES["bcq"].make(data, batch_size=100, policy_kwargs={"net_arch": None})
    summary = summarize(model)
    vae, critic, actor = 2 * 1_186_500, 2 * 259_000, 2 * 131_000
    decoder = 2 * (29 * 750 + 750 * 750 + 750 * 6)
    # Ten samples of the targets and one of the actor; all that the actor's loss passes forward and backward is one Q-network.
    passes = 3 * (vae + critic + actor) + 10 * (decoder + actor + critic) + decoder + critic
    assert summary.training_flops(7) == 7 * 100 * passes
    assert summary.training_flops(7, extra_forward={}) == 7 * 100 * 3 * (vae + critic + actor), "as the papers count"
    half = summarize(CASES["bcq"].make(data, n_target_actions=5, policy_kwargs={"net_arch": None}))
    assert half.training_flops(1) == 16 * (passes - 5 * (decoder + actor + critic))
    # Half as much at half the density, along a schedule or as it is.
    assert summary.training_flops(7, schedule=lambda progress: 0.5) == pytest.approx(7 * 100 * passes / 2)
    model.learn(0, callback=OneShotPruningCallback("all", 0.5, distribution="uniform"))
    assert summarize(model).training_flops(7) == pytest.approx(7 * 100 * passes / 2, rel=1e-4)


def test_an_update_of_discrete_bcq():
    summary = summarize(CASES["discrete_bcq"].make())
    q_net, imitation = summary.networks["q_net"].flops, summary.networks["imitation"].flops
    # The next actions are found by both networks, and valued by the target network.
    assert summary.training_flops(3) == 3 * 16 * (3 * (q_net + imitation) + 2 * q_net + imitation)


def test_passes_of_a_part():
    summary = summarize(CASES["bcq"].make())
    encoder = sum(layer.flops for name, layer in summary.networks["vae"].layers.items() if ".encoder." in name)
    plain = summary.training_flops(1, extra_forward={})
    assert summary.training_flops(1, extra_forward={"vae.encoder": 2}) == plain + 2 * 16 * encoder
    with pytest.raises(ValueError, match=r"extra_forward names 'vae\.enc', but the networks are: vae, critic, actor"):
        summary.training_flops(1, extra_forward={"vae.enc": 2})
