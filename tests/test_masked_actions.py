"""MaskablePPO: an exported policy chooses among the actions that are allowed, in every form; without masks all are."""

import re
import shutil
import subprocess

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from sb3_contrib.common.envs import InvalidActionEnvDiscrete
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.envs import IdentityEnv

from sb3_sparse import OneShotPruningCallback, compress, summarize
from sb3_sparse.agents import compress_agent, load_agent
from sb3_sparse.cli import main
from sb3_sparse.export.onnx import WEIGHT_FORMS, to_onnx
from sb3_sparse.runtime import Policy, load
from tests.algorithms import CASES

SPACES = {
    "discrete": spaces.Discrete(5),
    "multi_discrete": spaces.MultiDiscrete([3, 2, 4]),
    "multi_binary": spaces.MultiBinary(4),
}


class Restricted(gym.Env):
    """An action that is not allowed ends the episode with a loss; which are follows from the observation."""

    observation_space = spaces.Box(-2, 2, (4,), np.float32)

    def __init__(self, action_space=SPACES["discrete"]):
        self.action_space = action_space
        self.sizes = {"Discrete": lambda s: [s.n], "MultiDiscrete": lambda s: s.nvec, "MultiBinary": lambda s: [2] * s.n}[
            type(action_space).__name__
        ](action_space)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def _observe(self):
        self.observation = self.np_random.uniform(-2, 2, 4).astype(np.float32)
        return self.observation

    def action_masks(self):
        return masks_of(self.observation[None], self.sizes)[0]

    def step(self, action):
        ends = np.cumsum(self.sizes)
        chosen = np.atleast_1d(action) + ends - self.sizes
        allowed = bool(self.action_masks()[chosen].all())
        self.steps += 1
        return self._observe(), 1.0 if allowed else -100.0, not allowed, self.steps == 20, {}


def masks_of(observations, sizes):
    """At least one action of each group is allowed."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4, int(np.sum(sizes))))
    masks = observations @ draws > 0.3
    starts = np.cumsum(sizes) - sizes
    masks[:, starts] |= ~np.stack([part.any(axis=1) for part in np.split(masks, starts[1:], axis=1)], axis=1)
    return masks


def make(kind="discrete", **kwargs):
    model = MaskablePPO(
        "MlpPolicy", Restricted(SPACES[kind]), n_steps=32, batch_size=16, seed=0, device="cpu",
        policy_kwargs={"net_arch": [16]}, **kwargs
    )  # fmt: skip
    with th.no_grad():
        # Actions that depend on the observation.
        model.policy.action_net.weight.mul_(100)
    return model


def observe(count=200):
    return np.random.default_rng(1).uniform(-2, 2, (count, 4)).astype(np.float32)


@pytest.mark.parametrize("backend", ["numpy", "ctypes", "compiled"])
@pytest.mark.parametrize("kind", SPACES)
def test_actions_are_those_of_the_model(kind, backend):
    model, seen = make(kind), observe()
    sizes = Restricted(SPACES[kind]).sizes
    masks = masks_of(seen, sizes)
    policy = compress(model, bits=32, backend=backend)
    free, among = (model.predict(seen, deterministic=True, action_masks=given)[0] for given in (None, masks))
    assert (free != among).reshape(len(seen), -1).any(axis=1).mean() > 0.2
    np.testing.assert_array_equal(policy.predict(seen)[0], free)
    np.testing.assert_array_equal(policy.predict(seen, action_masks=masks)[0], among)
    assert policy.predict(seen, action_masks=masks)[0].dtype == among.dtype
    # One observation, and few.
    np.testing.assert_array_equal(policy.predict(seen[:3], action_masks=masks[:3])[0], among[:3])
    for index in range(5):
        single = policy.predict(seen[index], action_masks=masks[index])[0]
        assert single.shape == model.predict(seen[index], deterministic=True)[0].shape
        np.testing.assert_array_equal(single, among[index])
    # Nothing is allowed.
    nothing = np.zeros_like(masks)
    expected = model.predict(seen, deterministic=True, action_masks=nothing)[0]
    np.testing.assert_array_equal(policy.predict(seen, action_masks=nothing)[0], expected)


def test_the_int8_backend_rounds_its_activations():
    model, seen = make(), observe()
    masks = masks_of(seen, [5])
    try:
        policy = compress(model, calibration=seen, backend="int8")
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    among = model.predict(seen, deterministic=True, action_masks=masks)[0]
    actions = policy.predict(seen, action_masks=masks)[0]
    assert masks[np.arange(len(seen)), actions].all() and (actions == among).mean() > 0.95


def test_masks_are_kept_by_the_file(tmp_path):
    model, seen = make(), observe()
    policy = compress(model, calibration=seen)
    policy.save(tmp_path / "policy.sb3s")
    masks = masks_of(seen, [5])
    for each in (load(tmp_path / "policy.sb3s"), Policy(policy.network, "numpy")):
        np.testing.assert_array_equal(each.predict(seen, action_masks=masks)[0], policy.predict(seen, action_masks=masks)[0])
    assert evaluate_policy(policy, model.get_env(), n_eval_episodes=3)[0] == 20


@pytest.mark.parametrize("masks", [np.ones(5), np.ones((2, 5)), "all", np.ones((200, 6))])
def test_masks_that_do_not_fit(masks):
    policy = compress(make(), backend="numpy")
    with pytest.raises(ValueError, match=r"action_masks of shape .* do not fit: they have to be of shape \(200, 5\)"):
        policy.predict(observe(), action_masks=masks)


@pytest.mark.parametrize("form", ["predict", "c", "onnx"])
def test_actions_that_are_not_discrete(form, tmp_path):
    policy = compress(PPO("MlpPolicy", "Pendulum-v1", device="cpu"), backend="numpy")
    act = {
        "predict": lambda: policy.predict(np.zeros(3), action_masks=np.ones(1)),
        "c": lambda: policy.to_c(tmp_path / "policy.h", masks=True),
        "onnx": lambda: policy.to_onnx(tmp_path / "policy.onnx", masks=True),
    }[form]
    with pytest.raises(
        ValueError, match="masks of actions are for Discrete and MultiDiscrete actions, which this policy does not have"
    ):
        act()


def test_any_discrete_policy_takes_masks():
    """A DQN never takes an action that is not allowed, which SB3 itself cannot say to it."""
    model, seen = DQN("MlpPolicy", Restricted(), seed=0, device="cpu", buffer_size=1), observe()
    masks = masks_of(seen, [5])
    with th.no_grad():
        values = model.q_net(th.as_tensor(seen)).numpy()
    expected = np.where(masks, values, -np.inf).argmax(axis=1)
    np.testing.assert_array_equal(compress(model, bits=32).predict(seen, action_masks=masks)[0], expected)


@pytest.mark.parametrize("kind", SPACES)
def test_onnx(kind):
    model, seen = make(kind), observe()
    policy = compress(model, calibration=seen, backend="numpy")
    masks = masks_of(seen, Restricted(SPACES[kind]).sizes)
    expected = policy.predict(seen, action_masks=masks)[0]
    for form in WEIGHT_FORMS:
        session = onnxruntime.InferenceSession(to_onnx(policy.network, form=form, masks=True))
        assert [given.name for given in session.get_inputs()] == ["observation", "action_masks"]
        np.testing.assert_array_equal(session.run(None, {"observation": seen, "action_masks": masks})[0], expected)


MAIN = """
#include "policy.h"
#include <stdio.h>
int main(void) {
    policy_observation observation[4];
    policy_action values[@VALUES@];
    uint8_t allowed[@VALUES@];
    int32_t choice[@GROUPS@];
    if (policy_self_test()) return 1;
    while (fread(observation, sizeof observation, 1, stdin) == 1 && fread(allowed, sizeof allowed, 1, stdin) == 1) {
        policy_act(observation, values);
        policy_choose(values, allowed, choice);
        fwrite(choice, sizeof choice, 1, stdout);
    }
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler (gcc)")
@pytest.mark.parametrize("macro", ["", "POLICY_INTEGER"])
@pytest.mark.parametrize("kind", SPACES)
def test_c(kind, macro, tmp_path):
    model, seen = make(kind), observe()
    policy = compress(model, calibration=seen, backend="numpy")
    sizes = Restricted(SPACES[kind]).sizes
    masks = masks_of(seen, sizes)
    policy.to_c(tmp_path / "policy.h", masks=True)
    main_c, program = tmp_path / "main.c", tmp_path / "main"
    main_c.write_text(MAIN.replace("@VALUES@", str(sum(sizes))).replace("@GROUPS@", str(len(sizes))))
    macros = ["-DPOLICY_SELF_TEST", *([f"-D{macro}"] if macro else [])]
    command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", *macros, main_c, "-o", program]
    subprocess.run(command, check=True)
    data = b"".join(row.tobytes() + mask.astype(np.uint8).tobytes() for row, mask in zip(seen, masks, strict=True))
    result = subprocess.run([program], input=data, capture_output=True, check=True).stdout
    actions = np.frombuffer(result, np.int32).reshape(len(seen), -1)
    expected = policy.predict(seen, action_masks=masks)[0].reshape(len(seen), -1)
    if macro:
        assert (actions == expected).mean() > 0.99
    else:
        np.testing.assert_array_equal(actions, expected)
    starts = np.cumsum(sizes) - sizes
    assert masks[np.arange(len(seen))[:, None], actions + starts].all()


@pytest.mark.parametrize("sparse", [False, True])
def test_a_zip_says_what_it_is(sparse, tmp_path):
    model = CASES["maskable_ppo"].make(sparse=sparse)
    model.save(tmp_path / "agent.zip")
    for name in (None, "ppo_mask"):
        loaded = load_agent(tmp_path / "agent.zip", name)
        assert type(loaded) is MaskablePPO
        for observation in range(5):
            assert loaded.predict(observation, deterministic=True)[0] == model.predict(observation, deterministic=True)[0]


def test_an_environment_without_masks(tmp_path):
    """Not one action is chosen among all, in calibration or in episodes."""
    model = MaskablePPO("MlpPolicy", InvalidActionEnvDiscrete(dim=4, n_invalid_actions=2), n_steps=32, device="cpu", seed=0)
    gym.register("Unmasked-v0", lambda: IdentityEnv(dim=4))
    try:
        model.save(tmp_path / "agent.zip")
        with pytest.raises(ValueError, match=r"Unmasked-v0 has no action_masks\(\).*give the wrapper .* with --env-wrapper"):
            compress_agent(tmp_path / "agent.zip", tmp_path / "out", env="Unmasked-v0", latency=False)
        assert not (tmp_path / "out").exists()
    finally:
        del gym.registry["Unmasked-v0"]


class Hopeful(MaskablePPO.policy_aliases["MlpPolicy"]):
    """Prefers what is forbidden."""

    def get_distribution(self, obs, action_masks=None):
        return super().get_distribution(obs, None if action_masks is None else ~np.asarray(action_masks, bool))


def test_a_policy_that_does_something_else_with_masks_is_refused():
    model = MaskablePPO(Hopeful, Restricted(), n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(ValueError, match=r"the policy Hopeful with a get_distribution\(\) of its own"):
        compress(model)


def test_its_zips(tmp_path, capsys):
    """Pruned, loaded, counted and compared: both play with the masks of the environment, and never take a forbidden action."""
    gym.register("Restricted-v0", Restricted, disable_env_checker=True)
    try:
        model = make()
        model.learn(64, callback=OneShotPruningCallback("all", 0.5))
        model.save(tmp_path / "agent.zip")
        assert type(load_agent(tmp_path / "agent.zip")) is MaskablePPO
        main(["summary", "--load", str(tmp_path / "agent.zip")])
        connections = sum(network.connections for network in summarize(model).networks.values())
        assert f"connections: {connections:,} of" in capsys.readouterr().out
        out = tmp_path / "out"
        main(["compress", str(tmp_path / "agent.zip"), "--env", "Restricted-v0", "-o", str(out), "--episodes", "3",
              "--calibration-steps", "200", "--no-latency"])  # fmt: skip
        printed = capsys.readouterr().out
        assert "agent.zip: MaskablePPO" in printed
        assert re.search(r"SB3 model +20\.00 .*\nexported file +20\.00 ", printed)
        assert "agent_choose(" in (out / "agent.h").read_text()
    finally:
        del gym.registry["Restricted-v0"]
