"""RigL's gradients: those that autograd gives to a dense network at the same weights."""

import copy

import pytest
import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_sparse.nn import DenseGradients, MaskedConv2d, MaskedLinear, find_networks, find_optimizers, hold_masks
from tests.algorithms import CASES
from tests.invariants import masked
from tests.rewirings import Rewirings, rewiring, sparse_model

# ---------------------------------------------------------------- one network


def small_network(optimizer=th.optim.SGD):
    net = nn.Sequential(MaskedConv2d(1, 3, 2), nn.Tanh(), nn.Flatten(), MaskedLinear(27, 5), nn.Tanh(), MaskedLinear(5, 2))
    layers = [net[0], net[3]]
    for layer in layers:
        layer.set_mask(th.rand_like(layer.weight) < 0.5)
    net.optimizer = optimizer(net.parameters(), lr=0.1)
    hold_masks(net)
    return net, layers


def dense_gradients(net, layers, loss):
    """Autograd's, with masks of ones at the same weights."""
    dense = copy.deepcopy(net)
    positions = [list(net).index(layer) for layer in layers]
    for position in positions:
        dense[position].set_mask(th.ones_like(dense[position].mask))
    return th.autograd.grad(loss(dense), [dense[position].weight for position in positions])


def same(caught, layers, expected):
    assert caught.keys() == set(layers)
    for layer, gradient in zip(layers, expected, strict=True):
        th.testing.assert_close(caught[layer], gradient)
        assert gradient[~layer.mask].any(), "else nothing was hidden"


def test_of_one_loss():
    net, layers = small_network()
    x = th.rand(7, 1, 4, 4)
    expected = dense_gradients(net, layers, lambda n: n(x).pow(2).mean())
    gradients = DenseGradients(layers, [net.optimizer])
    gradients.start()
    net(x).pow(2).mean().backward()
    net.optimizer.step()
    same(gradients.stop(), layers, expected)
    assert all(not layer.weight.grad[~layer.mask].any() for layer in layers), "the mask hides it as ever"


def test_of_two_backward_passes_before_a_step():
    net, layers = small_network()
    one, other = th.rand(7, 1, 4, 4), th.rand(3, 1, 4, 4)
    expected = dense_gradients(net, layers, lambda n: n(one).pow(2).mean() + n(other).abs().sum())
    gradients = DenseGradients(layers, [net.optimizer])
    gradients.start()
    net(one).pow(2).mean().backward()
    net(other).abs().sum().backward()
    net.optimizer.step()
    same(gradients.stop(), layers, expected)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_the_last_step_counts(set_to_none):
    net, layers = small_network()
    gradients = DenseGradients(layers, [net.optimizer])
    gradients.start()
    for _ in range(3):
        x = th.rand(7, 1, 4, 4)
        expected = dense_gradients(net, layers, lambda n, x=x: n(x).pow(2).mean())
        net.optimizer.zero_grad(set_to_none=set_to_none)
        net(x).pow(2).mean().backward()
        net.optimizer.step()
    same(gradients.stop(), layers, expected)


def test_what_another_loss_leaves_behind_is_not_taken():
    """As with SB3's actor losses, which reach the critic's weights: before the critic's own step, and after it."""
    net, layers = small_network()
    gradients = DenseGradients(layers, [net.optimizer])
    gradients.start()
    x = th.rand(7, 1, 4, 4)
    net(x).sum().backward()
    net.optimizer.zero_grad()
    expected = dense_gradients(net, layers, lambda n: n(x).pow(2).mean())
    net(x).pow(2).mean().backward()
    net.optimizer.step()
    net(x).exp().sum().backward()
    same(gradients.stop(), layers, expected)


def test_only_layers_that_are_pruned_and_moved():
    net, layers = small_network()
    gradients = DenseGradients([*layers, net[5]], [net.optimizer])
    gradients.start()
    layers[0].weight.requires_grad_(False)
    net(th.rand(7, 1, 4, 4)).sum().backward()
    net.optimizer.step()
    assert gradients.stop().keys() == {layers[1]}


def test_nothing_is_left_behind():
    net, layers = small_network()
    gradients = DenseGradients(layers, [net.optimizer])
    standing = dict(net.optimizer._optimizer_step_post_hooks), dict(net.optimizer._optimizer_step_pre_hooks)
    gradients.start()
    gradients.start()
    assert len(net.optimizer._optimizer_step_pre_hooks) == 1
    twin = copy.deepcopy(net)
    assert all(not layer.listeners for layer in (twin[0], twin[3])), "a copy has hooks of its own"
    assert gradients.stop() == {} and gradients.stop() == {}
    assert all(not layer.listeners and len(layer.weight._backward_hooks) == 1 for layer in layers)
    assert (dict(net.optimizer._optimizer_step_post_hooks), dict(net.optimizer._optimizer_step_pre_hooks)) == standing


# ---------------------------------------------------------------- real runs


def tensors_of(policy):
    return [*policy.parameters(), *policy.buffers()]


class FrozenTime:
    """
    The policy, the minibatch and the random state as they are when an algorithm samples. A loss that is written down here then
    says what a dense network of the same weights would have as gradient.
    """

    def __init__(self, model, network, loss):
        self.model, self.loss, self.network = model, loss, network
        self.expected = {}
        sample = model.replay_buffer.sample

        def remember(*args, **kwargs):
            self.batch = sample(*args, **kwargs)
            self.random = th.get_rng_state()
            self.keep()
            return self.batch

        model.replay_buffer.sample = remember
        if network == "actor":
            # Its loss is that of the critic after the critic's step.
            model.actor.optimizer.register_step_pre_hook(self.keep)

    def keep(self, *_):
        """Every tensor of the policy: a copy of the whole policy is made for the last minibatch alone."""
        self.tensors = [tensor.detach().clone() for tensor in tensors_of(self.model.policy)]

    def compute(self):
        """The dense gradients of the last minibatch, by layer name."""
        after = th.get_rng_state()
        th.set_rng_state(self.random)
        policy = copy.deepcopy(self.model.policy)
        with th.no_grad():
            for tensor, value in zip(tensors_of(policy), self.tensors, strict=True):
                tensor.copy_(value)
        layers = find_networks(policy)[self.network]
        for layer in layers.values():
            layer.set_mask(th.ones_like(layer.mask))
        loss = self.loss(self.model, policy, self.batch)
        gradients = th.autograd.grad(loss, [layer.weight for layer in layers.values()])
        th.set_rng_state(after)
        return dict(zip(layers, gradients, strict=True))


def td3_critic(model, policy, batch):
    with th.no_grad():
        noise = batch.actions.clone().normal_(0, model.target_policy_noise)
        noise = noise.clamp(-model.target_noise_clip, model.target_noise_clip)
        actions = (policy.actor_target(batch.next_observations) + noise).clamp(-1, 1)
        values = th.cat(policy.critic_target(batch.next_observations, actions), dim=1).min(dim=1, keepdim=True).values
        goal = batch.rewards + (1 - batch.dones) * model.gamma * values
    return sum(F.mse_loss(q, goal) for q in policy.critic(batch.observations, batch.actions))


def sac_critic(model, policy, batch):
    with th.no_grad():
        policy.actor.action_log_prob(batch.observations)
        actions, log_prob = policy.actor.action_log_prob(batch.next_observations)
        values = th.cat(policy.critic_target(batch.next_observations, actions), dim=1).min(dim=1, keepdim=True).values
        values = values - model.ent_coef * log_prob.reshape(-1, 1)
        goal = batch.rewards + (1 - batch.dones) * model.gamma * values
    return 0.5 * sum(F.mse_loss(q, goal) for q in policy.critic(batch.observations, batch.actions))


def dqn(model, policy, batch):
    with th.no_grad():
        values = policy.q_net_target(batch.next_observations).max(dim=1, keepdim=True).values
        goal = batch.rewards + (1 - batch.dones) * model.gamma * values
    return F.smooth_l1_loss(policy.q_net(batch.observations).gather(1, batch.actions.long()), goal)


def td3_actor(model, policy, batch):
    return -policy.critic.q1_forward(batch.observations, policy.actor(batch.observations)).mean()


RUNS = {
    "td3": ("critic", td3_critic, {}),
    "td3_actor": ("actor", td3_actor, {"policy_delay": 1}),
    "sac": ("critic", sac_critic, {"ent_coef": 0.2}),
    "dqn": ("q_net", dqn, {}),
}


@pytest.mark.quick("td3-stock-1", "td3_actor-sparse-3", "sac-sparse-3", "dqn-stock-3", "dqn-sparse-1")
@pytest.mark.parametrize("gradient_steps", [1, 3])
@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
@pytest.mark.parametrize("name", RUNS)
def test_of_a_run(name, sparse, gradient_steps):
    """
    Caught is the dense gradient of the last minibatch, and weights grow where it is largest. What the actor's loss adds to the
    critic's weights is no part of it.
    """
    network, loss, kwargs = RUNS[name]
    model = sparse_model(name.split("_")[0], sparse, gradient_steps=gradient_steps, **kwargs)
    callbacks, watch = rewiring(sparse, network, grow="gradient", targets="mask"), Rewirings("mask")
    dynamic, seen = callbacks[-1], []
    rewire = dynamic._rewire
    time = FrozenTime(model, network, loss)

    def compare(masks):
        gradients = dynamic._growth._recorded
        weights = {layer: layer.weight.detach().clone() for layer in gradients}
        old = {layer: layer.mask.clone() for layer in gradients}
        rewire(masks)
        for layer, expected in time.compute().items():
            layer = dynamic.layers[network][layer]
            if layer.pruned:
                th.testing.assert_close(gradients[layer], expected)
                check_largest(weights[layer], old[layer], layer.mask, expected)
        seen.append(dynamic._clock.saved["updates"])

    dynamic._rewire = compare
    model.learn(61, callback=[*callbacks, watch])
    assert seen == [3, 4, 5, 6]


def check_largest(weight, old, new, gradient):
    """Dropped are the smallest weights, and grown the largest gradients of all places but the survivors'."""
    count = int(old.sum())
    moved = int(0.3 * count + 1e-9)
    magnitude = weight.abs().masked_fill(~old, th.inf).flatten()
    survivors = old.clone().flatten()
    survivors[magnitude.argsort(stable=True)[:moved]] = False
    free = gradient.abs().masked_fill(survivors.view_as(old), -1.0).flatten()
    grown = new.flatten() & ~survivors
    assert int(grown.sum()) == moved
    assert (survivors <= new.flatten()).all()
    assert moved == 0 or free[grown].min() >= free[~grown & ~survivors].max() * (1 - 1e-5)


@pytest.mark.parametrize("name", ["td3", "ppo", "a2c"])
def test_nothing_is_paid_in_between(name):
    """Between two rewirings no layer reports its gradient, and no optimizer has a hook but the standing ones."""
    model = CASES[name].make()
    network = "critic" if name == "td3" else "mlp_extractor"
    on = set()

    class Look(Rewirings):
        def _remember(self, *args):
            super()._remember()
            reporting = any(layer.listeners for _, layer in masked(self.model))
            optimizers = find_optimizers(self.model.policy)
            assert reporting == any(optimizer._optimizer_step_pre_hooks for optimizer in optimizers)
            if reporting:
                on.add(self.num_timesteps)

    model.learn(192, callback=[*rewiring(network=network, grow="gradient", update_freq=64), Look()])
    assert on == {64, 128, 192}
