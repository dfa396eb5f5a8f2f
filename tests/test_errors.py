"""Bad input fails at once, and the sentence says what to do."""

import ast
import re
import zipfile
from functools import partial

import pytest
import torch as th
from sb3_contrib import ARS
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.callbacks import EveryNTimesteps
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_sparse import (
    DelayedMultiStepCallback,
    GradualPruningCallback,
    OneShotPruningCallback,
    QATCallback,
    RewiringCallback,
    summarize,
)
from sb3_sparse.agents.archive import read_policy
from sb3_sparse.cli import main
from sb3_sparse.nn import MaskedConv1d, prunable_layers, select_networks
from sb3_sparse.sparsity import erdos_renyi
from sb3_sparse.zoo import find_recipe
from tests.algorithms import CASES


@pytest.mark.parametrize(
    ("callback", "kwargs", "message"),
    [
        (GradualPruningCallback, {"final_sparsity": 1.0}, "must lie in [0, 1), got 1.0"),
        (GradualPruningCallback, {"final_sparsity": -0.1}, "must lie in [0, 1), got -0.1"),
        (GradualPruningCallback, {"final_sparsity": float("nan")}, "must lie in [0, 1), got nan"),
        (OneShotPruningCallback, {"sparsity": 1.0}, "must lie in [0, 1), got 1.0"),
        (OneShotPruningCallback, {"sparsity": -1}, "must lie in [0, 1), got -1"),
        (GradualPruningCallback, {"final_sparsity": 0.9, "start": 0.8, "end": 0.2}, "before it starts: start=0.8, end=0.2"),
        (GradualPruningCallback, {"final_sparsity": 0.9, "start": 800, "end": 200}, "before it starts: start=800, end=200"),
        (GradualPruningCallback, {"final_sparsity": 0.9, "start": -0.1}, "start=-0.1 lies before the run"),
        (GradualPruningCallback, {"final_sparsity": 0.9, "update_freq": 0}, "update_freq=0 must be a whole number"),
        (GradualPruningCallback, {"final_sparsity": 0.5, "initial_sparsity": 0.9}, "initial_sparsity=0.9 is more than"),
        (GradualPruningCallback, {"final_sparsity": 0.9, "end": 1.5}, "a float lies in [0, 1], steps are given as an int"),
        (OneShotPruningCallback, {"sparsity": 0.9, "at": -5}, "at=-5 lies before the run"),
        (OneShotPruningCallback, {"sparsity": 0.9, "saliency": "magic"}, "unknown saliency 'magic': use one of magnitude"),
        (OneShotPruningCallback, {"sparsity": 0.9, "distribution": "x"}, "unknown distribution 'x': use one of uniform"),
        (OneShotPruningCallback, {"sparsity": 0.9, "targets": "x"}, "unknown targets='x': use one of mask, topk, polyak"),
        (GradualPruningCallback, {"final_sparsity": "0.9"}, "must lie in [0, 1), got '0.9'"),
        (GradualPruningCallback, {"final_sparsity": 0.9, "start": "0.2"}, "start='0.2' is not a moment of a run"),
        (GradualPruningCallback, {"final_sparsity": 0.9, "update_freq": float("inf")}, "update_freq=inf must be a whole"),
        (GradualPruningCallback, {"final_sparsity": 0.9, "update_freq": 1.5}, "update_freq=1.5 must be a whole number"),
        (GradualPruningCallback, {"final_sparsity": 0.9, "update_freq": "1e3"}, "update_freq='1e3' must be a whole number"),
        (OneShotPruningCallback, {"sparsity": 0.9, "seed": -1}, "seed=-1 must be a whole number, at least 0"),
        (OneShotPruningCallback, {"sparsity": 0.9, "n_samples": 100}, "saliency 'magnitude' needs no data"),
    ],
)  # fmt: skip
def test_arguments(callback, kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        callback("actor", **kwargs)


def start(name, callback, **kwargs):
    """The error comes before the first step, and nothing is changed."""
    model = CASES[name].make(**kwargs)
    before = repr(model.policy)
    with pytest.raises(ValueError) as error:
        model.learn(50, callback=callback)
    assert model.num_timesteps == 0
    assert repr(model.policy) == before
    return str(error.value)


def test_unknown_network():
    message = "SACPolicy has no network 'q_net' with linear or convolutional layers; it has: actor, critic"
    assert start("sac", GradualPruningCallback("q_net", 0.9)) == message
    assert start("sac", GradualPruningCallback("critic_target", 0.9)).endswith("it has: actor, critic")


@pytest.mark.parametrize(
    "callback",
    [
        GradualPruningCallback("actr", 0.9),
        OneShotPruningCallback("actr", 0.9),
        RewiringCallback("actr"),
        QATCallback("actr", 0.5),
        DelayedMultiStepCallback(0.5),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_the_error_is_not_hidden_by_the_end_of_training(callback):
    """rl-zoo3 calls ``on_training_end`` in any case, also when training has failed to start."""
    model = CASES["sac"].make()
    with pytest.raises(ValueError, match=r"has no network 'actr'|has no multi-step targets"):
        try:
            model.learn(5, callback=callback)
        finally:
            callback.on_training_end()


@pytest.mark.parametrize(
    ("saliency", "message"),
    [
        (None, "a saliency is a name or a function, got None"),
        ({"magnitude": {}}, "a saliency is a name or a function"),
        (lambda weights, loss=None, *, generator=None: 3, "a saliency returns a dict with one tensor of scores for each of"),
    ],
)
def test_what_is_not_a_saliency(saliency, message):
    with pytest.raises(ValueError, match=message):
        CASES["sac"].make().learn(5, callback=OneShotPruningCallback("actor", 0.9, saliency=saliency))


def test_network_that_the_algorithm_does_not_have():
    assert start("dqn", GradualPruningCallback(["q_net", "actor"], 0.9)).endswith("it has: q_net")
    assert start("ppo", OneShotPruningCallback("actor", 0.9)).endswith("it has: mlp_extractor, action_net, value_net")


@pytest.mark.parametrize("network", [["all"], ["all", "actor"], ("critic", "all")])
def test_all_in_a_list_is_all(network):
    policy = CASES["sac"].make().policy
    assert list(select_networks(policy, network)) == ["actor", "critic"]
    assert list(select_networks(policy, network, ["qf*"])) == ["actor"]
    with pytest.raises(ValueError, match="has no network 'q_net'"):
        select_networks(policy, [*network, "q_net"])


@pytest.mark.parametrize("wrong", [None, 3, [3], ["actor", None]])
def test_what_is_no_name(wrong):
    policy = CASES["sac"].make().policy
    for argument in ("network", "exclude"):
        message = re.escape(f"{argument} is a name or a list of names, got {wrong!r}")
        with pytest.raises(ValueError, match=message):
            OneShotPruningCallback(**{"network": "actor", "sparsity": 0.5, argument: wrong})
        with pytest.raises(ValueError, match=message):
            select_networks(policy, **{"network": "actor", argument: wrong})


def test_no_network_at_all():
    assert start("sac", OneShotPruningCallback([], 0.5)) == "network=[] names no network of SACPolicy; it has: actor, critic"


def test_infeasible_sparsity_names_the_largest():
    message = start("sac", GradualPruningCallback("actor", 0.999))
    assert message.startswith("network 'actor': sparsity 0.999 leaves 0 of 336 weights for 4 layers")
    largest = float(message.rsplit(" ", 1)[1])
    CASES["sac"].make().learn(20, callback=OneShotPruningCallback("actor", largest))


def test_end_before_start_in_mixed_units():
    assert "would end before it starts: start=40, end=25" in start(
        "sac", GradualPruningCallback("actor", 0.9, start=40, end=0.5)
    )


def test_fixed_counts_cannot_be_reached_gradually():
    fixed = partial(erdos_renyi, lambdas=(1, 2))
    kwargs = {"exclude": ["mu", "log_std"], "distribution": fixed}
    assert "has fixed counts" in start("sac", GradualPruningCallback("actor", 0.9, **kwargs))
    model = CASES["sac"].make()
    model.learn(20, callback=OneShotPruningCallback("actor", None, **kwargs))
    assert [int(layer.mask.sum()) for layer in (model.actor.latent_pi[0], model.actor.latent_pi[2])] == [19, 64]


def test_inside_another_callback():
    model = CASES["sac"].make()
    with pytest.raises(ValueError, match="GradualPruningCallback cannot be inside another callback such as EveryNTimesteps"):
        model.learn(20, callback=EveryNTimesteps(10, GradualPruningCallback("actor", 0.9)))


def test_layers_that_cannot_be_pruned_are_named():
    """A subclass of nn.Linear and a computed weight stay dense, and the budget and the summary leave them out alike."""

    class Mine(th.nn.Linear):
        pass

    model = CASES["sac"].make()
    model.actor.latent_pi[0].__class__ = Mine
    th.nn.utils.parametrizations.weight_norm(model.actor.mu)
    with pytest.warns(
        UserWarning, match=r"not plain nn.Linear, nn.Conv1d, nn.Conv2d or nn.LSTM: \['actor.latent_pi.0', 'actor.mu'\]"
    ):
        model.learn(10, callback=OneShotPruningCallback("actor", 0.75))
    actor = summarize(model).networks["actor"]
    assert list(actor.layers) == ["actor.latent_pi.2", "actor.log_std"]
    assert actor.nonzero == round(0.25 * actor.total)


def test_excluded_layer_that_does_not_exist():
    assert "matches none of the layers: actor.latent_pi.0" in start(
        "sac", GradualPruningCallback("actor", 0.9, exclude=["mean"])
    )


def test_algorithm_without_gradients():
    model = ARS("MlpPolicy", "Pendulum-v1", n_delta=1, device="cpu")
    with pytest.raises(ValueError, match="ARS trains without gradients"):
        model.learn(1000, callback=OneShotPruningCallback("all", 0.9))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sparsity": 1.0}, "must lie in [0, 1), got 1.0"),
        ({"sparsity": -0.5}, "must lie in [0, 1), got -0.5"),
        ({"sparsity": 0.9999}, "largest feasible sparsity"),
        ({"sparsity": {"q_net": 0.5}}, "it has: actor, critic"),
        ({"sparsity": {"all": 0.5}}, "for all networks give one number"),
        ({"sparsity": "0.9"}, "must lie in [0, 1), got '0.9'"),
        ({"sparsity": 0.5, "distribution": "x"}, "unknown name 'x': use one of uniform"),
        ({"sparsity": 0.5, "saliency": "x"}, "unknown name 'x': use one of magnitude, random"),
        ({"sparsity": 0.5, "exclude": ["x"]}, "matches none of the layers"),
    ],
)
def test_sparse_policy(kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CASES["sac"].make(True, policy_kwargs=kwargs)


def expect_cli_error(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_command_line(capsys, tmp_path):
    recipe = ["train", "--algo", "sac", "--env", "Pendulum-v1"]
    expect_cli_error(
        capsys,
        [*recipe, "--recipe", "nope"],
        "for algorithm 'sac'; it has: gmp, gmp_both, gmp_both_98, gmp_both_fisher, gmp_qat,",
    )
    expect_cli_error(capsys, ["train", "--algo", "a2c", "--recipe", "set"], "the recipes are: bc_dense, bc_grasp,")
    expect_cli_error(capsys, [*recipe, "--sparsity", "0.5"], "give --recipe or --conf-file")
    expect_cli_error(capsys, [*recipe, "--recipe", "gmp", "--sparsity", "1.0"], "must lie in [0, 1), got 1.0")
    expect_cli_error(capsys, [*recipe, "--recipe", "gmp", "--conf-file", "x.yml"], "give one of them")
    expect_cli_error(capsys, ["summary", str(tmp_path / "missing.zip")], "there is no agent at")
    expect_cli_error(
        capsys, ["summary", "x.zip", "--sparsity", "0.5"], "sb3-sparse summary: error: unknown arguments: --sparsity 0.5"
    )
    expect_cli_error(capsys, ["compress", str(tmp_path / "none.zip"), "-o", str(tmp_path)], "usage: sb3-sparse compress ")
    expect_cli_error(capsys, [*recipe, "--recipe", "gmp", "-i", str(tmp_path / "missing.zip")], "No such file")
    dense = tmp_path / "dense.yml"
    dense.write_text("Pendulum-v1: {policy: MlpPolicy}\n")
    expect_cli_error(capsys, [*recipe, "--conf-file", str(dense), "--sparsity", "0.5"], "no callback with a sparsity to set")
    hopper = ["train", "--algo", "sac", "--env", "CartPole-v1", "--recipe", "gmp", "--sparsity", "0.5"]
    for options in (hopper, hopper[:-2]):
        expect_cli_error(capsys, options, "no hyperparameters for 'CartPole-v1'; it has: HalfCheetah-v4")
    for name in ("missing.yml", "missing.py"):
        expect_cli_error(capsys, [*recipe, "--conf-file", name], f"there is no hyperparameter file {name}")
    for name, text in (("conf.py", "hyperparams = {}"), ("empty.yml", ""), ("broken.yml", "a: [")):
        (tmp_path / name).write_text(text)
        expect_cli_error(capsys, [*recipe, "--conf-file", str(tmp_path / name), "--sparsity", "0.5"], name)


def test_damaged_zip(capsys, tmp_path):
    agent = tmp_path / "agent.zip"
    SAC("MlpPolicy", "Pendulum-v1", buffer_size=10).save(agent)
    whole = agent.read_bytes()
    assert read_policy(agent)
    with zipfile.ZipFile(agent) as archive:
        middle = archive.getinfo("policy.pth").header_offset + 5000
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("policy.pth", b"no tensors")
    for damaged in (
        (tmp_path / "other.zip").read_bytes(),
        whole[: len(whole) // 2],
        whole[:middle] + b"damage" + whole[middle + 6 :],
        b"",
        b"no zip",
    ):
        agent.write_bytes(damaged)
        expect_cli_error(capsys, ["summary", str(agent)], "damaged")
        resume = ["train", "--algo", "sac", "--env", "Pendulum-v1", "--recipe", "gmp", "-i", str(agent)]
        expect_cli_error(capsys, resume, "damaged")


def test_what_rl_zoo3_reads_is_left_to_it(tmp_path, monkeypatch):
    """Modules, Python files, Atari's and default entries."""
    pytest.importorskip("ale_py")
    calls = []
    monkeypatch.setattr("sb3_sparse.zoo.train", calls.append)
    for name, env, text in (
        ("a.py", "X-v0", ""),
        ("b.yml", "PongNoFrameskip-v4", "{_shared: [1], atari: {}}"),
        ("c.yaml", "X-v0", "{_shared: [1], default: {}}"),
    ):
        (tmp_path / name).write_text(text)
        main(["train", "--env", env, "--conf-file", str(tmp_path / name)])
    main(["train", "--env", "X-v0", "--conf-file", "hyperparams.python.ppo"])
    assert [call[-1] for call in calls] == [
        *(str(tmp_path / name) for name in ("a.py", "b.yml", "c.yaml")),
        "hyperparams.python.ppo",
    ]


def test_recipes_by_the_names_of_their_files():
    assert find_recipe("td3", "set") == find_recipe("td3", "td3_set") == find_recipe("td3", "set.yml")
    assert find_recipe("td3", "set") == find_recipe("td3", "td3_set.yml")


def test_recipe_names_are_no_paths():
    with pytest.raises(ValueError, match="there is no recipe"):
        find_recipe("sac", "../gmp")


class Sequences(BaseFeaturesExtractor):
    """An extractor with a convolution in one dimension, and with layers that cannot be pruned."""

    def __init__(self, space):
        super().__init__(space, features_dim=8)
        self.convolution, self.memory, self.scale = nn.Conv1d(1, 6, 2), nn.GRU(6, 8, batch_first=True), nn.LayerNorm(8)
        self.table = nn.Embedding(5, 8)

    def forward(self, observations):
        seen = self.convolution(observations[:, None]).relu()
        return self.scale(self.memory(seen.transpose(1, 2))[1][0]) + self.table.weight[0]


class Attention(BaseFeaturesExtractor):
    def __init__(self, space):
        super().__init__(space, features_dim=4)
        self.embed, self.attention = nn.Linear(1, 4), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, observations):
        tokens = self.embed(observations[:, :, None])
        return self.attention(tokens, tokens, tokens)[0].mean(dim=1)


def overlooked_by(model, network):
    """What the warning of a callback names."""
    with pytest.warns(UserWarning, match="these layers stay as they are") as caught:
        model.learn(1, callback=OneShotPruningCallback(network, 0.5))
    (message,) = {str(warning.message) for warning in caught}
    return ast.literal_eval(message.rsplit(": ", 1)[1])


@pytest.mark.parametrize("network", ["all", "mlp_extractor", ["action_net", "value_net"]])
def test_layers_outside_the_chosen_networks_are_named(network):
    """No name of a network selects a GRU, so its user would not learn of it."""
    kwargs = {"features_extractor_class": Sequences, "net_arch": [8]}
    model = PPO("MlpPolicy", "Pendulum-v1", policy_kwargs=kwargs, n_steps=8, batch_size=8, device="cpu")
    assert overlooked_by(model, network) == ["features_extractor.memory", "features_extractor.table"]


@pytest.mark.parametrize("network", ["all", "critic"])
def test_attention_is_named_once(network):
    kwargs = {"features_extractor_class": Attention, "net_arch": [8]}
    model = TD3("MlpPolicy", "Pendulum-v1", policy_kwargs=kwargs, buffer_size=10, device="cpu")
    assert overlooked_by(model, network) == [f"{name}.features_extractor.attention" for name in ("actor", "critic")]


def test_the_noise_of_gsde_is_not_a_layer():
    for algorithm, settings in ((SAC, {"buffer_size": 10}), (PPO, {"n_steps": 8, "batch_size": 8})):
        model = algorithm("MlpPolicy", "Pendulum-v1", use_sde=True, device="cpu", **settings)
        model.learn(8, callback=OneShotPruningCallback("all", 0.5))


@pytest.mark.parametrize("network", ["all", "actor", ["actor", "critic"]])
def test_layers_that_stay_dense_are_named(network):
    model = SAC(
        "MlpPolicy", "Pendulum-v1", policy_kwargs={"features_extractor_class": Sequences, "net_arch": [16]}, device="cpu"
    )
    with pytest.warns(UserWarning, match=r"stay as they are .*'actor.features_extractor.memory'.*extractor.table'"):
        model.learn(1, callback=OneShotPruningCallback(network, 0.9, saliency="random"))
    convolution = model.actor.features_extractor.convolution
    assert type(convolution) is MaskedConv1d and 0 < int(convolution.mask.sum()) < convolution.mask.numel()
    pruned = [layer for layer in prunable_layers(model.actor).values() if layer.pruned]
    kept, total = (sum(int(count(layer.mask)) for layer in pruned) for count in (th.sum, th.numel))
    assert kept == round(0.1 * total)
    model.predict(model.observation_space.sample())
    # The summary counts what it can: the matrices that stay dense are not among it.
    assert "actor.features_extractor.convolution" in str(summarize(model))
