"""The memory format for convolutions: what computes faster is the same model, in memory and in every file."""

import subprocess
import sys

import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import CheckpointCallback
from torch import nn

from sb3_sparse import ChannelsLastCallback, GradualPruningCallback, QATCallback, RewiringCallback
from sb3_sparse.nn import find_optimizers
from tests.algorithms import CASES
from tests.invariants import Watch
from tests.test_pixels import check_counts, make
from tests.test_rewiring_resume import expect_same
from tests.test_save_load import StopAt, seed_everything


def pruned_and_quantized():
    return [GradualPruningCallback("all", 0.9, start=24, end=44, update_freq=4), QATCallback("all", 48)]


def kernels(model):
    """Every tensor of a kernel's shape: weights, targets, masks, gradients, and what optimizers remember."""
    tensors = [*model.policy.parameters(), *model.policy.buffers()]
    tensors += [parameter.grad for parameter in model.policy.parameters() if parameter.grad is not None]
    for optimizer in find_optimizers(model.policy):
        tensors += [value for state in optimizer.state.values() for value in state.values()]
    return [tensor for tensor in tensors if tensor.dim() == 4]


class Formats(Watch):
    """Looks after every environment step where the kernels lie in memory."""

    seen = 0

    def _on_step(self):
        found = kernels(self.model)
        assert all(kernel.is_contiguous(memory_format=th.channels_last) for kernel in found)
        self.seen = max(self.seen, len(found))
        return super()._on_step()


@pytest.mark.quick("dqn-last", "ppo-first")
@pytest.mark.parametrize(("name", "place"), [("dqn", 2), ("ppo", 0), ("sac", 0)], ids=["dqn-last", "ppo-first", "sac-first"])
def test_everything_follows(name, place):
    """Masks and moments lie as the weights do while it trains; afterwards all is in the default format again."""
    model, watch = make(name, "resnet", extractor={"depth": 1}), Formats()
    parameters = list(model.policy.parameters())
    callbacks = pruned_and_quantized()
    callbacks.insert(place, ChannelsLastCallback())
    model.learn(56, callback=[*callbacks, watch])
    check_counts(model, 0.9)
    # Weight, gradient, mask, multiplier and two moments.
    trained = [parameter for parameter in parameters if parameter.dim() == 4 and parameter.grad is not None]
    assert watch.seen >= 6 * len(trained) > 0
    assert all(kernel.is_contiguous() for kernel in kernels(model))
    assert all(old is new for old, new in zip(parameters, model.policy.parameters(), strict=True))


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_it_trains_the_same_but_for_rounding(sparsity):
    """Also on a model that has trained before, whose moments are there already."""
    ends = []
    for extra in ([], [ChannelsLastCallback()]):
        model = make("dqn", "nature")
        model.policy.optimizer.param_groups[0]["fused"] = True
        model.learn(30)
        start = nn.utils.parameters_to_vector(model.policy.parameters())
        model.learn(60, callback=[GradualPruningCallback("all", sparsity, start=0, end=20, update_freq=10), *extra])
        ends.append(nn.utils.parameters_to_vector(model.policy.parameters()))
    assert (ends[0] - ends[1]).norm() < 0.01 * (ends[0] - start).norm()


@pytest.mark.quick("nature-*")
@pytest.mark.parametrize(("images", "cut"), [("nature", 30), ("nature", 50), ("resnet", 37)])
def test_resumed_equals_uninterrupted(images, cut, tmp_path):
    """From a checkpoint in the middle of training; its file is in the default format."""

    checkpoint = CheckpointCallback(cut, tmp_path, save_replay_buffer=True)
    through = make("dqn", images)
    through.learn(60, callback=[*pruned_and_quantized(), ChannelsLastCallback(), checkpoint, StopAt(cut)])
    resumed = DQN.load(tmp_path / f"rl_model_{cut}_steps.zip", env=make("dqn", images).get_env(), device="cpu")
    assert kernels(resumed) and all(kernel.is_contiguous() for kernel in kernels(resumed))
    resumed.load_replay_buffer(tmp_path / f"rl_model_replay_buffer_{cut}_steps.pkl")
    for model in (through, resumed):
        seed_everything(model, 1)
        model.learn(60 - cut, callback=[*pruned_and_quantized(), ChannelsLastCallback(), Watch()], reset_num_timesteps=False)
    check_counts(resumed, 0.9)
    expect_same(through, resumed)


def test_a_checkpoint_trains_on_without_the_callback(tmp_path):
    """Fused Adam would pair weights with the wrong moments if the file held another format than the model has."""
    model = make("dqn", "nature")
    model.policy.optimizer.param_groups[0]["fused"] = True
    checkpoint = CheckpointCallback(40, tmp_path, save_replay_buffer=True)
    model.learn(80, callback=[ChannelsLastCallback(), checkpoint, StopAt(40)])
    ends = []
    for fused in (True, False):
        loaded = DQN.load(tmp_path / "rl_model_40_steps.zip", env=make("dqn", "nature").get_env(), device="cpu")
        loaded.load_replay_buffer(tmp_path / "rl_model_replay_buffer_40_steps.pkl")
        loaded.policy.optimizer.param_groups[0]["fused"] = fused
        start = nn.utils.parameters_to_vector(loaded.policy.parameters())
        seed_everything(loaded, 1)
        loaded.learn(40, reset_num_timesteps=False)
        ends.append(nn.utils.parameters_to_vector(loaded.policy.parameters()))
    assert (ends[0] - ends[1]).norm() < 0.01 * (ends[0] - start).norm()


@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_rewired(grow):
    """Counts stay and kernels change in this format too."""
    model, watch = make("dqn", "resnet", extractor={"depth": 1}), Formats()
    pruning = GradualPruningCallback("all", 0.5, start=0, end=1, update_freq=1)
    rewiring = RewiringCallback("all", fraction=0.3, update_freq=10, grow=grow, targets="mask")
    model.learn(50, callback=[pruning, rewiring, ChannelsLastCallback(), watch])
    check_counts(model, 0.5)


def test_state_that_is_loaded_while_it_trains():
    """set_parameters brings the default format, and the optimizer's state lies as the weights do all the same."""
    model = make("dqn", "nature")
    callback = ChannelsLastCallback()
    model.learn(40, callback=callback)
    saved = model.get_parameters()
    callback.init_callback(model)
    model.set_parameters(saved)
    assert all(kernel.is_contiguous(memory_format=th.channels_last) for kernel in kernels(model))
    for state in model.policy.optimizer.state_dict()["state"].values():
        assert all(value.is_contiguous() for value in state.values())
    callback.on_training_end()


def test_without_convolutions():
    with pytest.raises(ValueError, match="DQNPolicy has no convolution, so ChannelsLastCallback cannot make it faster"):
        CASES["dqn"].make().learn(10, callback=ChannelsLastCallback())


@pytest.mark.slow
def test_checkpoints_load_without_the_package(tmp_path):
    model = make("dqn", "nature")
    model.learn(60, callback=[*pruned_and_quantized(), ChannelsLastCallback(), CheckpointCallback(60, tmp_path)])
    script = """
import sys; sys.modules["sb3_sparse"] = None
from stable_baselines3 import DQN
model = DQN.load("rl_model_60_steps.zip", device="cpu")
state = model.policy.optimizer.state
assert len(state) == 10
assert all(value.is_contiguous() for values in state.values() for value in values.values())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
