"""The engine with products of bfloat16."""

import numpy as np
import pytest
import torch as th
from torch.nn import functional

from sb3_sparse import EngineCallback
from sb3_sparse.engine import callback as engine_callback
from sb3_sparse.engine.learner import engage, release
from sb3_sparse.engine.networks.structure import FEW_OUTPUTS
from sb3_sparse.engine.session import Session
from sb3_sparse.engine.support import find_update
from tests.test_engine import build


def rounded(x):
    return x.bfloat16().float()


class Product(th.autograd.Function):
    """A linear layer whose three products are of bfloat16."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return rounded(x) @ rounded(weight).T + bias

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        return rounded(dy) @ rounded(weight), rounded(dy).T @ rounded(x), dy.sum(0)


def linear(x, weight, bias):
    single = len(x) == 1 or len(weight) < FEW_OUTPUTS
    return th.addmm(bias, x, weight.T) if single else Product.apply(x, weight, bias)


def trained(name, *, half=False, product=None, **kwargs):
    """Parameters and targets after a few updates in the engine, or by torch with another product of its layers."""
    model = build(name, **kwargs)
    th.manual_seed(1)
    np.random.seed(1)
    if product is None:
        update = find_update(model)
        update.half = half
        engage(model, Session(model, update))
    with pytest.MonkeyPatch.context() as patch:
        if product is not None:
            patch.setattr(functional, "linear", product)
        for _ in range(4):
            model.num_timesteps += 50
            model.train(1, 64)
            model._on_step()
    release(model)
    return th.cat([tensor.double().flatten() for tensor in model.policy.state_dict().values()])


@pytest.mark.parametrize("name, sparsity", [("sac", 0.0), ("td3", 0.0), ("dqn", 0.0), ("sac", 0.3)])
def test_updates_equal_those_of_torch(name, sparsity):
    """Nearer than a tenth of what bfloat16 changes; targets that are copied at once show whether their pairs are fresh."""
    kwargs = {"sparsity": sparsity, "learning_rate": 0.01, "tau": 1.0}
    ours, single = (trained(name, half=half, **kwargs) for half in (True, False))
    expected = trained(name, product=linear, **kwargs)
    assert 0.0 < (ours - expected).norm() < 0.1 * (single - expected).norm()


def test_a_run(monkeypatch):
    """It is deterministic, and another one than in float32."""
    monkeypatch.setattr(engine_callback, "has_bfloat16", lambda: True)
    found = []
    for precision in ("bf16", "bf16", "float32"):
        model = build("sac")
        th.manual_seed(2)
        model.learn(30, callback=EngineCallback(precision, strict=True), reset_num_timesteps=False)
        found.append(th.cat([tensor.flatten() for tensor in model.policy.state_dict().values()]))
    assert th.equal(found[0], found[1])
    assert 0.0 < (found[0] - found[2]).norm() < 0.05 * found[2].norm()


def test_a_processor_without_bfloat16(monkeypatch):
    """It computes in float32, or stops."""
    monkeypatch.setattr(engine_callback, "has_bfloat16", lambda: False)
    with pytest.warns(UserWarning, match="AVX512_BF16.*float32"):
        build("sac").learn(5, callback=EngineCallback("bf16"), reset_num_timesteps=False)
    with pytest.raises(ValueError, match="AVX512_BF16"):
        build("sac").learn(5, callback=EngineCallback("bf16", strict=True), reset_num_timesteps=False)
