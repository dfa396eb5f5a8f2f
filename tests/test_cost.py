"""What is counted is what is there, by hand on a small network."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_sparse import summarize
from sb3_sparse.cost import summarize_parameters
from tests.algorithms import CASES


def small():
    """2-3-1, one hidden unit without inputs; a target twin that does not count."""
    net = nn.Module()
    net.actor = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    net.actor_target = nn.Sequential(nn.Linear(2, 3))
    with th.no_grad():
        net.actor[0].weight.copy_(th.tensor([[1.0, 0.0], [0.0, 0.0], [2.0, 3.0]]))
        net.actor[2].weight.copy_(th.tensor([[0.0, 5.0, 0.0]]))
    return net


def test_counts_by_hand():
    summary = summarize_parameters(small().state_dict())
    assert list(summary.networks) == ["actor"]
    first, last = summary.networks["actor"].layers.values()
    assert (first.shape, first.nonzero, first.total, first.active_neurons, first.neurons) == ((3, 2), 3, 6, 2, 3)
    assert (last.shape, last.nonzero, last.total, last.active_neurons, last.neurons) == ((1, 3), 1, 3, 1, 1)
    assert first.sparsity == 0.5 and first.value_bytes == 12
    for sums in (summary, summary.networks["actor"]):
        assert (sums.nonzero, sums.total, sums.active_neurons, sums.neurons) == (4, 9, 3, 4)
        assert sums.sparsity == pytest.approx(5 / 9)


def test_bytes_are_those_of_a_file(tmp_path):
    net = small()
    np.savez_compressed(tmp_path / "actor.npz", **{name: value.numpy() for name, value in net.actor.state_dict().items()})
    assert summarize_parameters(net.state_dict()).networks["actor"].nbytes == (tmp_path / "actor.npz").stat().st_size


@pytest.mark.parametrize("name", CASES)
def test_every_policy_is_counted(name):
    model = CASES[name].make()
    summary = summarize(model)
    assert tuple(summary.networks) == CASES[name].networks
    assert summary.sparsity == 0.0
    weights = sum(parameter.nbytes for key, parameter in model.policy.named_parameters() if "_target" not in key)
    assert summary.nbytes > 0.8 * weights, "all parameters count in the bytes, those of an LSTM too"
    assert (
        str(summary).splitlines()[0].split()
        == "layer shape nonzero total sparsity active neurons FLOPs value bytes npz bytes".split()
    )


def test_a_summary_from_the_file_equals_one_of_the_model(tmp_path):
    model = CASES["ppo"].make()
    file = io.BytesIO()
    th.save(model.policy.state_dict(), file)
    file.seek(0)
    assert summarize_parameters(th.load(file, weights_only=True)) == replace(summarize(model), training=None)


def test_nothing_to_count():
    with pytest.raises(ValueError, match="no linear or convolutional layer"):
        summarize_parameters({"log_std": th.zeros(3)})
