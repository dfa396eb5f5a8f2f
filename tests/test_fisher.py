"""The saliency that reads Adam's second moments: right scores from the weights' own optimizer, clear errors without one."""

import pytest
import torch as th

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, RewiringCallback
from sb3_sparse.nn import find_optimizers, second_moments
from sb3_sparse.sparsity import erk, fisher, prune
from tests.algorithms import CASES
from tests.invariants import Watch, masked

#: RMSprop has no second moments of Adam, and TRPO trains its actor without an optimizer.
ADAM = sorted(set(CASES) - {"a2c", "trpo"})


class Before(Watch):
    """Takes weights and second moments just before a step's callbacks prune."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def _on_step(self):
        if self.num_timesteps == self.step:
            self.weights = {name: layer.weight.detach().clone() for name, layer in linear_layers(self.model)}
            optimizer = self.model.policy.actor.optimizer
            self.moments = {name: optimizer.state[w]["exp_avg_sq"].clone() for name, w in weights_of(self.model).items()}
        return True


def linear_layers(model):
    return [
        (name, module) for name, module in model.policy.actor.named_modules(prefix="actor") if isinstance(module, th.nn.Linear)
    ]


def weights_of(model):
    return {name: layer.weight for name, layer in linear_layers(model)}


def test_masks_follow_from_the_second_moments():
    """Of the actor's own Adam: the mask is that of a direct computation, and not the one by magnitude."""
    model = CASES["sac"].make()
    before = Before(60)
    model.learn(60, callback=[before, OneShotPruningCallback("actor", 0.7, at=60, saliency="fisher")])
    scores = {name: weight.abs() * before.moments[name].sqrt() for name, weight in before.weights.items()}
    every = {name: th.ones_like(score, dtype=th.bool) for name, score in scores.items()}
    expected = prune(every, scores, erk(scores, 0.7))
    by_magnitude = prune(every, {name: weight.abs() for name, weight in before.weights.items()}, erk(scores, 0.7))
    masks = {name: layer.mask for name, layer in masked(model)}
    assert masks.keys() == expected.keys() and all(th.equal(mask, expected[name]) for name, mask in masks.items())
    assert any(not th.equal(mask, by_magnitude[name]) for name, mask in masks.items())


@pytest.mark.filterwarnings("ignore:pruning has left network")
@pytest.mark.parametrize("name", ADAM)
def test_gradually(name):
    case = CASES[name]
    model = case.make()
    networks = [network for network in case.networks if network != "value_net"]
    steps = 2 * model.n_steps + 60 if hasattr(model, "n_steps") and hasattr(model, "rollout_buffer") else 120
    model.learn(steps, callback=[GradualPruningCallback(networks, 0.8, 0.7, 0.95, 5, saliency="fisher"), Watch()])
    for network in networks:
        masks = [layer.mask for name, layer in masked(model) if name.startswith(network)]
        assert sum(int(mask.sum()) for mask in masks) == round(0.2 * sum(mask.numel() for mask in masks)), network


def test_waits_for_the_first_step_of_adam():
    """As SNIP waits for data: dense until training begins, and pruned right after."""
    model = CASES["sac"].make()
    model.learn(40, callback=OneShotPruningCallback("actor", 0.5, saliency="fisher"))
    masks = [layer.mask for _, layer in masked(model)]
    assert sum(int(mask.sum()) for mask in masks) == round(0.5 * sum(mask.numel() for mask in masks))
    with pytest.warns(UserWarning, match="training has ended before Adam had updated all weights .*, so nothing was pruned"):
        CASES["sac"].make().learn(5, callback=OneShotPruningCallback("actor", 0.5, saliency="fisher"))


@pytest.mark.parametrize(
    ("name", "optimizer", "reason"),
    [
        ("a2c", None, "layer 'mlp_extractor.policy_net.0' has no second moments of Adam, because its optimizer is RMSprop"),
        ("sac", th.optim.Adamax, "layer 'actor.latent_pi.0' has no second moments of Adam, because its optimizer is Adamax"),
        ("trpo", None, "saliency 'fisher' reads Adam, and TRPO updates its actor without it"),
    ],
)
def test_without_adam(name, optimizer, reason):
    """Before the first step, whenever the pruning would be due."""
    model = CASES[name].make(policy_kwargs={} if optimizer is None else {"optimizer_class": optimizer})
    with pytest.raises(ValueError, match=reason):
        model.learn(5, callback=OneShotPruningCallback("all", 0.5, at=1000, saliency="fisher"))


def test_where_there_is_no_optimizer():
    with pytest.raises(ValueError, match="saliency 'fisher' needs the second moments of the weights' Adam, and got none"):
        fisher({"a": th.ones(2, 2)})
    with pytest.raises(ValueError, match="layer 'x' has no second moments of Adam, because no optimizer updates it"):
        second_moments({"x": th.ones(2, 2, requires_grad=True)}, find_optimizers(CASES["sac"].make().policy))
    with pytest.raises(ValueError, match="saliency 'fisher' needs a trained optimizer"):
        CASES["sac"].make(sparse=True, policy_kwargs={"sparsity": 0.5, "saliency": "fisher"})
    with pytest.raises(ValueError, match="drop='fisher' would drop the weights that have just been grown"):
        RewiringCallback("actor", drop="fisher")
