"""Masked layers: equal to dense ones with zeros, through training, copying, pickling and conversion."""

import copy
import io
import pickle

import pytest
import torch as th
from torch import nn

from sb3_sparse.nn import (
    MaskedConv1d,
    MaskedConv2d,
    MaskedLayer,
    MaskedLinear,
    MaskedLSTM,
    apply_mask,
    find_networks,
    flush_moments,
    fuse_adam,
    mask_layers,
    select_networks,
    unmask_layers,
)

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (5, 6)),
    "linear without bias": (lambda: nn.Linear(6, 4, bias=False), (5, 6)),
    "conv": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 8, 8)),
    "conv in one dimension": (lambda: nn.Conv1d(3, 4, 5, stride=2, padding=2), (2, 3, 17)),
    "grouped conv": (
        lambda: nn.Conv2d(4, 4, (3, 2), groups=2, dilation=2, padding_mode="reflect", padding=1, bias=False),
        (2, 4, 8, 8),
    ),
}
MASKED = {nn.Linear: MaskedLinear, nn.Conv1d: MaskedConv1d, nn.Conv2d: MaskedConv2d}


@pytest.fixture(params=LAYERS)
def dense_and_batch(request):
    th.manual_seed(0)
    make, shape = LAYERS[request.param]
    return make(), th.randn(shape)


def random_mask(layer, density=0.4):
    return th.rand(layer.weight.shape) < density


def test_from_dense_and_back(dense_and_batch):
    dense, batch = dense_and_batch
    masked = MASKED[type(dense)].from_dense(dense)
    assert type(dense) in MASKED, "the plain layer stays as it is"
    assert "mask" in masked.state_dict() and "mask" not in dense.state_dict()
    assert masked.weight is dense.weight and masked.bias is dense.bias
    assert th.equal(masked(batch), dense(batch))
    masked.set_mask(mask := random_mask(masked))
    back = masked.to_dense()
    assert type(back) is type(dense) and isinstance(masked, MaskedLayer)
    assert back.weight is dense.weight
    assert not back.weight[~mask].any()
    assert th.equal(back(batch), masked(batch))
    assert list(back.state_dict()) == list(dense.state_dict())


def test_forward_is_that_of_the_masked_weight(dense_and_batch):
    dense, batch = dense_and_batch
    expected = copy.deepcopy(dense)
    masked = MASKED[type(dense)].from_dense(dense)
    mask = random_mask(masked)
    expected.weight.data *= mask
    masked.set_mask(mask)
    assert th.equal(masked(batch), expected(batch))


@pytest.mark.parametrize(
    "optimizer", [th.optim.Adam, th.optim.AdamW, th.optim.SGD, th.optim.RMSprop, th.optim.NAdam, th.optim.Adagrad]
)
def test_pruned_weights_stay_zero(dense_and_batch, optimizer):
    dense, batch = dense_and_batch
    masked = MASKED[type(dense)].from_dense(dense)
    optim = optimizer(masked.parameters(), lr=0.1, weight_decay=0.01)
    masked(batch).pow(2).sum().backward()
    optim.step()
    apply_mask(masked, mask := random_mask(masked), [optim])
    for _ in range(5):
        optim.zero_grad()
        masked(batch).pow(2).sum().backward()
        assert not masked.weight.grad[~mask].any()
        optim.step()
        assert not masked.weight[~mask].any() and masked.weight[mask].all()
        for value in optim.state[masked.weight].values():
            if value.shape == mask.shape:
                assert not value[~mask].any()


def test_regrown_weights_start_without_a_past():
    layer = MaskedLinear(4, 4)
    optim = th.optim.Adam(layer.parameters())
    old = th.eye(4, dtype=th.bool)
    apply_mask(layer, old, [optim])
    for _ in range(3):
        optim.zero_grad()
        layer(th.randn(5, 4)).pow(2).sum().backward()
        optim.step()
    new = old.roll(1, dims=1) | old
    moments = optim.state[layer.weight]["exp_avg_sq"].clone()
    apply_mask(layer, new, [optim])
    grown = new & ~old
    assert not layer.weight[grown].any()
    assert not optim.state[layer.weight]["exp_avg_sq"][grown].any()
    assert th.equal(optim.state[layer.weight]["exp_avg_sq"][old], moments[old])


def test_autograd_grad_sees_the_mask_twice():
    """A Hessian-vector product moves nothing outside the mask: what TRPO's conjugate gradients need."""
    layer = MaskedLinear(3, 2)
    layer.set_mask(mask := th.tensor([[True, False, True], [False, True, True]]))
    (grad,) = th.autograd.grad(layer(th.randn(5, 3)).pow(4).sum(), layer.weight, create_graph=True)
    (product,) = th.autograd.grad((grad * th.randn(2, 3)).sum(), layer.weight)
    assert not grad[~mask].any() and not product[~mask].any() and product[mask].all()


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["deepcopy", "pickle"])
def test_copies_mask_their_own_gradients(dense_and_batch, clone):
    dense, batch = dense_and_batch
    masked = MASKED[type(dense)].from_dense(dense)
    masked.set_mask(mask := random_mask(masked))
    twin = clone(masked)
    assert twin.weight is not masked.weight
    twin(batch).pow(2).sum().backward()
    assert not twin.weight.grad[~mask].any() and twin.weight.grad[mask].any()
    assert masked.weight.grad is None


def test_state_dict_brings_the_mask():
    source, target = MaskedLinear(4, 4), MaskedLinear(4, 4)
    source.set_mask(mask := th.eye(4, dtype=th.bool))
    target.load_state_dict(source.state_dict())
    assert th.equal(target.mask, mask) and th.equal(target.multiplier, mask.float())
    target(th.ones(1, 4)).sum().backward()
    assert not target.weight.grad[~mask].any()


def test_in_place_conversion_keeps_everything():
    shared = nn.Linear(3, 3)
    net = nn.Sequential(shared, nn.ReLU(), shared, nn.Conv2d(1, 1, 1), nn.LayerNorm(3), nn.LSTM(3, 3))
    keys, parameters = list(net.state_dict()), list(net.parameters())
    mask_layers(net, persistent=False)
    mask_layers(net, persistent=False)
    assert [type(m) for m in net] == [MaskedLinear, nn.ReLU, MaskedLinear, MaskedConv2d, nn.LayerNorm, MaskedLSTM]
    assert list(net.state_dict()) == keys
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    net[0].set_mask(th.eye(3, dtype=th.bool))
    unmask_layers(net)
    assert type(net[0]) is nn.Linear and not net[0].weight[~th.eye(3, dtype=th.bool)].any()
    net[0](th.ones(1, 3)).sum().backward()
    assert net[0].weight.grad.all(), "the gradient is whole again"


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torch_script(dense_and_batch, bits):
    """A pruned network is compiled by torch.jit.script as it computes, and as it goes on computing in another process."""
    layer, batch = dense_and_batch
    mask_layers(layer, persistent=False)
    layer.set_mask(th.rand_like(layer.weight) < 0.5)
    layer.set_bits(bits)
    script = th.jit.script(nn.Sequential(layer, nn.Tanh()))
    file = io.BytesIO()
    th.jit.save(script, file)
    expected = layer(batch).tanh()
    file.seek(0)
    for each in (script, th.jit.load(file)):
        th.testing.assert_close(each(batch), expected, rtol=0, atol=0)


def test_subclasses_are_left_alone():
    class NoisyLinear(nn.Linear):
        pass

    net = nn.Sequential(NoisyLinear(2, 2))
    mask_layers(net)
    assert type(net[0]) is NoisyLinear
    with pytest.raises(TypeError, match="MaskedLinear cannot be made from NoisyLinear"):
        MaskedLinear.from_dense(net[0])


def test_mask_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"\(3, 2\) does not fit a weight of shape \(2, 3\)"):
        MaskedLinear(3, 2).set_mask(th.ones(3, 2, dtype=th.bool))


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, True),
        ({"fused": False}, False),
        ({"foreach": True}, None),
        ({"capturable": True}, None),
        ({"amsgrad": True}, True),
    ],
)
def test_fused_adam_unless_forbidden(kwargs, expected):
    layer = nn.Linear(2, 2)
    optim = th.optim.Adam(layer.parameters(), **kwargs)
    fuse_adam(optim)
    assert optim.param_groups[0]["fused"] is expected


def test_fused_in_the_middle_of_a_run_equals_unfused():
    """The step count and the moments carry over: results differ by rounding alone."""
    th.manual_seed(0)
    nets = [nn.Linear(8, 8)]
    nets.append(copy.deepcopy(nets[0]))
    optims = [th.optim.Adam(net.parameters(), lr=0.01) for net in nets]
    for step in range(20):
        batch = th.randn(16, 8)
        if step == 10:
            fuse_adam(optims[1])
        for net, optim in zip(nets, optims, strict=True):
            optim.zero_grad()
            net(batch).pow(2).mean().backward()
            optim.step()
    th.testing.assert_close(nets[0].weight, nets[1].weight)


class Policy(nn.Module):
    """A policy with a shared extractor."""

    def __init__(self):
        super().__init__()
        extractor = nn.Linear(2, 2)
        self.actor = nn.Sequential(extractor, nn.Linear(2, 1))
        self.critic = nn.Sequential(extractor, nn.Linear(2, 1))
        self.critic_target = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        self.norm = nn.LayerNorm(2)


def test_tied_weights_count_once():
    policy = Policy()
    policy.actor.append(nn.Linear(2, 2))
    policy.actor[2].weight = policy.actor[0].weight
    assert list(find_networks(policy)["actor"]) == ["actor.0", "actor.1"]


def test_shared_layers_belong_to_the_first_network():
    networks = find_networks(Policy())
    assert {name: list(layers) for name, layers in networks.items()} == {
        "actor": ["actor.0", "actor.1"],
        "critic": ["critic.1"],
    }


def test_select_networks():
    policy = Policy()
    assert list(select_networks(policy, "all")) == ["actor", "critic"]
    assert list(select_networks(policy, ["critic"])) == ["critic"]
    assert list(select_networks(policy, "all", ["critic.*"])) == ["actor"]
    assert list(select_networks(policy, "actor", ["1"])["actor"]) == ["actor.0"]
    assert list(select_networks(policy, ["all"])) == ["actor", "critic"]
    for wrong in ("critic_target", "norm", "q_net", []):
        with pytest.raises(ValueError, match="it has: actor, critic"):
            select_networks(policy, wrong)
    with pytest.raises(ValueError, match=r"matches none of the layers: actor.0, actor.1"):
        select_networks(policy, "actor", ["mu"])
    with pytest.raises(ValueError, match="leaves no layer of actor"):
        select_networks(policy, "actor", ["*"])


def test_flush_moments():
    """What is below the smallest normal number goes, whatever else stays; a moment that decays stays there for ever."""
    weight = th.nn.Parameter(th.zeros(4))
    optimizer = th.optim.Adam([weight], lr=0.1)
    weight.grad = th.tensor([1.0, 1e-3, 0.0, 0.0])
    optimizer.step()
    state = optimizer.state[weight]
    smallest = th.finfo(th.float32).smallest_normal
    state["exp_avg"].copy_(th.tensor([0.1, smallest, smallest / 2, -smallest / 2]))
    decayed = th.full((1,), smallest / 2)
    for _ in range(1000):
        decayed *= 0.9
    assert decayed.item() > 0.0
    kept = state["exp_avg_sq"].clone()
    flush_moments(optimizer)
    assert th.equal(state["exp_avg"], th.tensor([0.1, smallest, 0.0, 0.0]))
    assert th.equal(state["exp_avg_sq"], kept) and state["step"] == 1
