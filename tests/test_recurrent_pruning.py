"""LSTMs under masks and with quantized weights: each of their matrices is a layer like others."""

import copy
import io
import zipfile

import numpy as np
import pytest
import torch as th
from sb3_contrib import RecurrentPPO
from torch import nn

from sb3_sparse import (
    GradualPruningCallback,
    OneShotPruningCallback,
    QATCallback,
    RewiringCallback,
    compress,
    policies,
    restore,
    summarize,
)
from sb3_sparse.agents.archive import read_policy
from sb3_sparse.cost import summarize_parameters
from sb3_sparse.nn import (
    MaskedLSTM,
    fake_quantize,
    find_networks,
    find_optimizers,
    mask_layers,
    overlooked_layers,
    prunable_layers,
    quantize,
    unmask_layers,
)
from sb3_sparse.nn.lstm import _in_one_chunk

ACTOR = ["lstm_actor.ih_l0", "lstm_actor.hh_l0"]


def make(policy="MlpLstmPolicy", **kwargs):
    settings = {"lstm_hidden_size": 12, "net_arch": [16], **kwargs}
    arguments = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 0, "device": "cpu"}
    return RecurrentPPO(policy, "Pendulum-v1", policy_kwargs=settings, **arguments)


def actors(model):
    layers = prunable_layers(model.policy)
    return {name: layers[name] for name in ACTOR}


def check_zeros(model):
    """Pruned weights and their moments are exactly zero."""
    (optimizer,) = find_optimizers(model.policy)
    for layer in prunable_layers(model.policy).values():
        gone = ~layer.mask
        assert gone.any() and not layer.weight[gone].any()
        for moment in ("exp_avg", "exp_avg_sq"):
            assert not optimizer.state[layer.weight][moment][gone].any()
            assert optimizer.state[layer.weight][moment][layer.mask].any()


class Watch(GradualPruningCallback):
    """Looks at the zeros after every step of the optimizer."""

    def _on_rollout_end(self):
        super()._on_rollout_end()
        if self.num_timesteps > 100:
            check_zeros(self.model)


def test_it_is_pruned_like_other_layers():
    model = make()
    before = {name: parameter for name, parameter in model.policy.named_parameters()}
    keys = list(model.policy.state_dict())
    model.learn(192, callback=Watch("all", 0.9, start=0.2, end=0.5, update_freq=16))
    check_zeros(model)
    networks = summarize(model).networks
    for network in ("lstm_actor", "lstm_critic"):
        total = 48 * 3 + 48 * 12
        assert networks[network].total == total and networks[network].connections == round(0.1 * total)
        assert list(networks[network].layers) == [f"{network}.ih_l0", f"{network}.hh_l0"]
        assert networks[network].flops == 2 * networks[network].connections
    # Neither the parameters nor the names in a state dict are other ones.
    assert list(model.policy.state_dict()) == keys
    assert all(before[name] is parameter for name, parameter in model.policy.named_parameters())


def test_its_zip_is_a_plain_one(tmp_path):
    """It loads and acts without this package, and goes on with its masks in it."""
    model = make()
    model.learn(64, callback=OneShotPruningCallback("all", 0.8))
    model.save(tmp_path / "agent.zip")
    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        assert not any(b"sb3_sparse" in archive.read(name) for name in archive.namelist() if name != "data")
    loaded = RecurrentPPO.load(tmp_path / "agent.zip", device="cpu")
    assert type(loaded.policy.lstm_actor) is nn.LSTM
    x = np.ones((2, 3), np.float32)
    assert np.array_equal(loaded.predict(x, deterministic=True)[0], model.predict(x, deterministic=True)[0])
    assert summarize(loaded).nonzero == summarize(model).nonzero
    assert summarize_parameters(read_policy(tmp_path / "agent.zip")).nonzero == summarize(model).nonzero
    restore(loaded)
    assert type(loaded.policy.lstm_actor) is MaskedLSTM
    for mine, saved in zip(actors(loaded).values(), actors(model).values(), strict=True):
        assert th.equal(mine.mask, saved.mask) and mine.pruned and mine._hook is not None


@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_it_is_rewired(grow):
    model = make()
    sparse = OneShotPruningCallback("lstm_actor", 0.8, name="first")
    model.learn(32, callback=sparse)
    old = {name: layer.mask.clone() for name, layer in actors(model).items()}
    model.learn(
        128, callback=RewiringCallback("lstm_actor", 0.3, update_freq=32, grow=grow, seed=0), reset_num_timesteps=False
    )
    for name, layer in actors(model).items():
        assert layer.mask.sum() == old[name].sum() and not th.equal(layer.mask, old[name])
        assert not layer.weight[~layer.mask].any()


def test_one_matrix_alone():
    model = make()
    model.learn(64, callback=OneShotPruningCallback("lstm_actor", 0.8, exclude=["ih_l0"]))
    own = actors(model)
    assert own["lstm_actor.hh_l0"].mask.sum() == round(0.2 * 48 * 12)
    assert model.policy.lstm_actor.weight_ih_l0.all() and not hasattr(own["lstm_actor.ih_l0"], "mask")
    # The other one later, and both are still the layers of one LSTM.
    model.learn(64, callback=OneShotPruningCallback("lstm_actor", 0.5, exclude=["hh_l0"]), reset_num_timesteps=False)
    assert [int(layer.mask.sum()) for layer in actors(model).values()] == [72, round(0.2 * 48 * 12)]


def test_quantized_weights_are_those_of_the_file(tmp_path):
    """Both matrices of a layer have one scale, so the exported one has the integers of the training."""
    model = make()
    pruning, qat = OneShotPruningCallback("all", 0.5), QATCallback("all", start=0.5, bits=4)
    model.learn(96, callback=[pruning, qat])
    lstm = model.policy.lstm_actor
    assert {layer.bits for layer in actors(model).values()} == {4}
    both = th.cat([lstm.weight_ih_l0, lstm.weight_hh_l0], dim=1)
    plain = nn.LSTM(3, 12)
    with th.no_grad():
        plain.weight_ih_l0.copy_(fake_quantize(both, 4)[:, :3])
        plain.weight_hh_l0.copy_(fake_quantize(both, 4)[:, 3:])
        for name in ("bias_ih_l0", "bias_hh_l0"):
            getattr(plain, name).copy_(getattr(lstm, name))
    x = th.randn(7, 2, 3)
    assert th.equal(plain(x)[0], lstm(x)[0])
    policy = compress(model)
    layer = policy.network.layers[0]
    integers = quantize(both, 4)[1].numpy()
    assert sorted(layer.weight[layer.weight != 0]) == sorted(integers[integers != 0])
    assert policy.report().layers[0].bits == 4
    model.save(tmp_path / "agent.zip")
    loaded = RecurrentPPO.load(tmp_path / "agent.zip", device="cpu")
    assert compress(loaded).network.layers[0].weight.tobytes() == layer.weight.tobytes()
    start, state, expected = np.array([True, True]), None, None
    for _ in range(5):
        observations = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
        action, state = policy.predict(observations, state, start)
        target, expected = model.predict(observations, expected, start, deterministic=True)
        np.testing.assert_allclose(action, target, rtol=0, atol=1e-4)
        start = np.array([False, True])


def test_gradients_pass_quantized_weights():
    """Straight through to both matrices, and masked."""
    lstm = nn.LSTM(3, 4)
    mask_layers(lstm, persistent=False)
    layers = prunable_layers(lstm)
    layers["hh_l0"].set_mask(th.rand(16, 4) < 0.5)
    for layer in layers.values():
        layer.set_bits(8)
    lstm(th.randn(5, 2, 3))[0].sum().backward()
    gradients = [lstm.weight_ih_l0.grad, lstm.weight_hh_l0.grad]
    assert all(gradient.any() for gradient in gradients) and not gradients[1][~layers["hh_l0"].mask].any()
    layers["ih_l0"].set_bits(None)
    lstm(th.randn(5, 2, 3))  # One of them alone.


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_in_place_and_back():
    lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)
    x = th.randn(5, 2, 3)
    before, keys = lstm(x)[0], list(lstm.state_dict())
    mask_layers(lstm, persistent=False)
    assert type(lstm) is MaskedLSTM and list(lstm.state_dict()) == keys
    assert len(prunable_layers(lstm)) == 12 and "hr_l1_reverse" in prunable_layers(lstm)
    assert th.equal(lstm(x)[0], before)
    twin = copy.deepcopy(lstm)
    assert twin.ih_l0.weight is twin.weight_ih_l0 is not lstm.weight_ih_l0
    file = io.BytesIO()
    th.save(lstm, file)
    again = th.load(io.BytesIO(file.getvalue()), weights_only=False)
    assert again.ih_l0.weight is again.weight_ih_l0 and th.equal(again(x)[0], before)
    unmask_layers(lstm)
    assert type(lstm) is nn.LSTM and not list(lstm.children()) and th.equal(lstm(x)[0], before)
    for name in ("from_dense", "to_dense"):
        with pytest.raises(TypeError, match="in place"):
            getattr(twin.ih_l0, name)(*[lstm] * (name == "from_dense"))


def test_a_copy_keeps_its_masks():
    lstm = nn.LSTM(3, 4)
    mask_layers(lstm)
    prunable_layers(lstm)["hh_l0"].set_mask(th.rand(16, 4) < 0.3)
    twin = copy.deepcopy(lstm)
    twin(th.randn(5, 2, 3))[0].sum().backward()
    layer = prunable_layers(twin)["hh_l0"]
    assert layer.weight is twin.weight_hh_l0 and not twin.weight_hh_l0.grad[~layer.mask].any()


def test_lstms_that_cannot_be_pruned_are_named():
    class Own(nn.LSTM):
        pass

    net = nn.ModuleDict({"plain": nn.LSTM(3, 4), "own": Own(3, 4), "gru": nn.GRU(3, 4), "normed": nn.LSTM(3, 4)})
    nn.utils.parametrizations.weight_norm(net["normed"], "weight_hh_l0")
    assert list(prunable_layers(net)) == ["plain.ih_l0", "plain.hh_l0"]
    assert overlooked_layers(net) == ["own", "gru", "normed"]
    mask_layers(net)
    assert overlooked_layers(net) == ["own", "gru", "normed"]


def test_quantized_weights_in_one_chunk():
    """On a GPU: as cuDNN stores the parameters, whatever the order of their names."""
    flat = th.zeros(7)
    like = [flat[3:].view(2, 2), flat[:3]]
    weights = [th.arange(4.0).view(2, 2).requires_grad_(), th.arange(3.0)]
    chunk = _in_one_chunk(weights, like)
    assert all(th.equal(new, old) for new, old in zip(chunk, weights, strict=True))
    assert all(new.is_contiguous() for new in chunk)
    assert [new.storage_offset() for new in chunk] == [3, 0]
    chunk[0].sum().backward()
    assert th.equal(weights[0].grad, th.ones(2, 2))


def test_sparse_policies(tmp_path):
    model = make(policies.SparseRecurrentPPOPolicy, sparsity=0.8)
    model.learn(64)
    check_zeros(model)
    model.save(tmp_path / "agent.zip")
    loaded = RecurrentPPO.load(tmp_path / "agent.zip", device="cpu")
    for mine, saved in zip(actors(loaded).values(), actors(model).values(), strict=True):
        assert th.equal(mine.mask, saved.mask) and th.equal(mine.weight, saved.weight)


def test_sparse_policies_of_before():
    """Their LSTMs were dense, and have no masks in the file."""
    model = make(policies.SparseRecurrentPPOPolicy, sparsity=0.8)
    old = {name: tensor for name, tensor in model.policy.state_dict().items() if "lstm" not in name or "mask" not in name}
    old = {name: th.ones_like(tensor) if "lstm" in name else tensor for name, tensor in old.items()}
    model.policy.load_state_dict(old)
    for layer in actors(model).values():
        assert layer.mask.all() and layer.weight.all() and not layer.pruned
    assert find_networks(model.policy)["action_net"]["action_net"].pruned


def test_other_recurrent_networks_do_not_count():
    """A GRU has the same names in a state dict, and three gates."""
    net = nn.ModuleDict({"a": nn.LSTM(3, 4), "b": nn.GRU(3, 4), "c": nn.LSTM(3, 4, proj_size=2)})
    networks = summarize_parameters(net.state_dict()).networks
    assert {name: list(network.layers) for name, network in networks.items()} == {
        "a": ["a.ih_l0", "a.hh_l0"],
        "c": ["c.ih_l0", "c.hh_l0", "c.hr_l0"],
    }
