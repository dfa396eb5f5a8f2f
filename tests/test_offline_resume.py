"""Offline training that was interrupted ends as training that was not, bit for bit: with any callback, cut anywhere."""

import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, QATCallback, RewiringCallback
from tests.invariants import check
from tests.offline import CASES
from tests.rewirings import masks_of
from tests.test_offline import expect_same

#: What happens happens in multiples of ten updates: a run is cut right there, twice, and in between.
CUTS = (10, 20, 25)
UPDATES = 34


def pruned_first(**kwargs):
    return OneShotPruningCallback("all", 0.5, saliency="random", targets=kwargs["targets"])


CALLBACKS = {
    "none": lambda: [],
    "magnitude": lambda: [OneShotPruningCallback("all", 0.7, at=20)],
    "snip": lambda: [OneShotPruningCallback("all", 0.7, saliency="snip")],
    "snip_later": lambda: [OneShotPruningCallback("all", 0.7, at=20, saliency="snip", n_samples=30)],
    "grasp": lambda: [OneShotPruningCallback("all", 0.7, at=20, saliency="grasp", targets="polyak")],
    "gradual": lambda: [GradualPruningCallback("all", 0.8, start=10, end=30, update_freq=5)],
    "gradual_snip": lambda: [GradualPruningCallback("all", 0.8, start=10, end=30, update_freq=10, saliency="snip")],
    "set": lambda: [pruned_first(targets="topk"), RewiringCallback("all", 0.3, update_freq=10)],
    "rigl": lambda: [
        pruned_first(targets="mask"),
        RewiringCallback("all", 0.3, update_freq=10, grow="gradient", targets="mask"),
    ],
    "qat": lambda: [OneShotPruningCallback("all", 0.7), QATCallback("all", start=20)],
}


class Look(BaseCallback):
    """What is pruned is zero after every update; target networks have rules of their own."""

    def _on_step(self):
        check(self.model)
        return True


class SaveAt(BaseCallback):
    """Saves at some updates, as CheckpointCallback does."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def _on_step(self):
        if self.num_timesteps in CUTS:
            self.model.save(self.path / f"step_{self.num_timesteps}.zip")
        return True


def expect_all_same(one, other):
    expect_same(one, other)
    assert getattr(one, "sparsity_state", None) == getattr(other, "sparsity_state", None)
    masks = masks_of(other)
    assert masks_of(one).keys() == masks.keys()
    assert all(th.equal(mask, masks[name]) for name, mask in masks_of(one).items())


@pytest.mark.quick("discrete_bcq-*", "bc_mlp-*", "bcq-rigl", "bcq-gradual_snip", "bcq-qat")
@pytest.mark.parametrize("callbacks", CALLBACKS)
@pytest.mark.parametrize("name", ["bcq", "discrete_bcq", "bc_mlp"])
def test_resumed_equals_uninterrupted(name, callbacks, tmp_path):
    case, make = CASES[name], CALLBACKS[callbacks]
    through = case.make()
    data = through.dataset
    through.learn(UPDATES, callback=[*make(), SaveAt(tmp_path)])
    for cut in CUTS:
        resumed = case.algorithm.load(tmp_path / f"step_{cut}.zip", dataset=data, device="cpu")
        th.manual_seed(cut)
        resumed.learn(UPDATES - cut, callback=[*make(), Look()], reset_num_timesteps=False)
        expect_all_same(through, resumed)


@pytest.mark.quick("bc_vae-rigl", "bc_vae-qat", "bc_vae-snip_later", "bcq-gradual_snip")
@pytest.mark.parametrize(
    ("name", "callbacks"), [*(("bc_vae", callbacks) for callbacks in CALLBACKS), ("bcq", "gradual_snip"), ("bcq", "rigl")]
)
def test_ended_and_resumed_equals_uninterrupted(name, callbacks, tmp_path):
    """The same, but the first run has come to its end before it was saved; on with the same model, too."""
    case, make = CASES[name], CALLBACKS[callbacks]
    through = case.make().learn(UPDATES, callback=make())
    for cut in CUTS[1:]:
        first = case.make().learn(cut, callback=make())
        first.save(tmp_path / "agent.zip")
        loaded = case.algorithm.load(tmp_path / "agent.zip", dataset=first.dataset, device="cpu")
        for resumed in (first, loaded):
            resumed.learn(UPDATES - cut, callback=[*make(), Look()], reset_num_timesteps=False)
            expect_all_same(through, resumed)
