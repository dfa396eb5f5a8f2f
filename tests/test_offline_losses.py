"""
The offline losses against the papers' equations, in double precision and on nothing but the weights of a state dict.

BCQ: Fujimoto et al. 2019 and its published code; BC of a VAE: the code of BEAR (Kumar et al. 2019); BCQ of discrete actions:
Fujimoto et al. 2019b. Actions are scaled to [-1, 1], component by component.
"""

import numpy as np
import pytest
import torch as th

from sb3_sparse.nn import select_networks
from sb3_sparse.offline.update import update_generator
from sb3_sparse.sparsity import SALIENCIES
from tests.offline import BOX, CASES, make_data, transitions

LOW, HIGH = th.tensor(BOX.low).double(), th.tensor(BOX.high).double()
#: Settings under which each part of a loss counts: none is at a value that makes another one vanish.
SETTINGS = {
    "bc_vae": {"kl_weight": 0.3},
    "bcq": {"gamma": 0.9, "lmbda": 0.6, "phi": 0.7, "n_target_actions": 3, "kl_weight": 0.3, "tau": 0.1},
    "discrete_bcq": {"gamma": 0.9, "threshold": 0.5, "tau": 0.1},
}


def make(name, **kwargs):
    """A model of random weights, also in its target networks; no two networks are the same."""
    model = CASES[name].make(**{**SETTINGS.get(name, {}), **kwargs})
    generator = th.Generator().manual_seed(1)
    with th.no_grad():
        for parameter in model.policy.parameters():
            size = 0.3 if parameter.ndim == 1 else 1.5 / parameter.shape[1] ** 0.5
            parameter.copy_(size * th.randn(parameter.shape, generator=generator))
    return model


def weights_of(model):
    """Its state dict in double precision."""
    return {name: value.double().requires_grad_() for name, value in model.policy.state_dict().items() if name != "candidates"}


def take(arrays, batch):
    """What a batch should be: the same transitions, out of the arrays that the dataset was made of."""
    rows = [int(np.flatnonzero(arrays["rewards"] == reward)[0]) for reward in batch.rewards.flatten().numpy()]
    keys = ("observations", "actions", "rewards", "next_observations", "terminations")
    s, a, r, after, ended = (th.as_tensor(arrays[key][rows]) for key in keys)
    if a.is_floating_point():
        a = 2 * (a.double() - LOW) / (HIGH - LOW) - 1
    return s.double(), a, r.double(), after.double(), ended.double()


def draw_noise(name, model, generator):
    """The noise of one minibatch, in the order in which it has to be drawn: of the VAE, of the actor and of the targets."""
    size, width = model.batch_size, 4
    shapes = {"bc_vae": [(size, width)]}
    if name == "bcq":
        shapes["bcq"] = [(size, 1, width), (size, 1, width), (size, model.n_target_actions, width)]
    return [th.randn(*shape, generator=generator).double() for shape in shapes.get(name, ())]


def mlp(w, name, x):
    """Linear layers with ReLUs in between; they have the even numbers."""
    for index in (0, 2, 4):
        x = x @ w[f"{name}.{index}.weight"].T + w[f"{name}.{index}.bias"]
        x = x * (x > 0) if index < 4 else x
    return x


def decode(w, s, z):
    return mlp(w, "vae.decoder", th.cat([s, z], 1)).tanh()


def perturb(w, actor, s, a, phi):
    return (a + phi * mlp(w, f"{actor}.mlp", th.cat([s, a], 1)).tanh()).clamp(-1, 1)


def vae_loss(w, batch, eps, kl_weight):
    s, a, *_ = batch
    h = th.cat([s, a], 1)
    for index in (0, 2):
        h = (h @ w[f"vae.encoder.trunk.{index}.weight"].T + w[f"vae.encoder.trunk.{index}.bias"]).relu()
    mean, log_std = (h @ w[f"vae.encoder.{x}.weight"].T + w[f"vae.encoder.{x}.bias"] for x in ("mean", "log_std"))
    log_std = log_std.clamp(-4, 15)
    kl = -0.5 * (1 + 2 * log_std - mean**2 - (2 * log_std).exp()).mean()
    return ((decode(w, s, mean + log_std.exp() * eps) - a) ** 2).mean() + kl_weight * kl


def critic_loss(w, batch, eps, model):
    s, a, r, after, ended = batch
    candidates = []
    for j in range(eps.shape[1]):
        b = perturb(w, "actor_target", after, decode(w, after, eps[:, j].clamp(-0.5, 0.5)), model.phi)
        q = th.cat([mlp(w, f"critic_target.qf{i}", th.cat([after, b], 1)) for i in (0, 1)], 1)
        candidates.append(model.lmbda * q.min(1).values + (1 - model.lmbda) * q.max(1).values)
    y = (r + model.gamma * (1 - ended) * th.stack(candidates).max(0).values).detach()
    return sum(((mlp(w, f"critic.qf{i}", th.cat([s, a], 1))[:, 0] - y) ** 2).mean() for i in (0, 1))


def actor_loss(w, batch, eps, model):
    s, *_ = batch
    proposed = decode(w, s, eps[:, 0].clamp(-0.5, 0.5)).detach()
    return -mlp(w, "critic.qf0", th.cat([s, perturb(w, "actor", s, proposed, model.phi)], 1)).mean()


def q_loss(w, batch, model):
    s, a, r, after, ended = batch
    p = mlp(w, "imitation.mlp", after).softmax(1)
    allowed = p / p.max(1, keepdim=True).values >= model.threshold
    best = th.where(allowed, mlp(w, "q_net.mlp", after), -1e8).argmax(1)
    rows = th.arange(len(r))
    y = (r + model.gamma * (1 - ended) * mlp(w, "q_net_target.mlp", after)[rows, best]).detach()
    error = (mlp(w, "q_net.mlp", s)[rows, a.flatten()] - y).abs()
    return th.where(error < 1, 0.5 * error**2, error - 0.5).mean()


def nll(w, name, batch):
    s, a, *_ = batch
    logits = mlp(w, name, s)
    return (logits.logsumexp(1) - logits[th.arange(len(s)), a.flatten()]).mean(), logits


def reference(name, model, w, batch, noise):
    """The losses by the name of the network, in the order of the optimizer steps."""
    if name == "bcq":
        return {
            "vae": lambda: vae_loss(w, batch, noise[0][:, 0], model.kl_weight),
            "critic": lambda: critic_loss(w, batch, noise[2], model),
            "actor": lambda: actor_loss(w, batch, noise[1], model),
        }
    if name == "discrete_bcq":

        def imitation():
            loss, logits = nll(w, "imitation.mlp", batch)
            return loss + 0.01 * (logits**2).mean()

        return {"q_net": lambda: q_loss(w, batch, model), "imitation": imitation}
    if name == "discrete_bc":
        return {"actor": lambda: nll(w, "actor.mlp", batch)[0]}
    if name == "bc_mlp":
        return {"actor": lambda: ((mlp(w, "actor.mlp", batch[0]).tanh() - batch[1]) ** 2).mean()}
    return {"vae": lambda: vae_loss(w, batch, noise[0], model.kl_weight)}


def both(name, **kwargs):
    """A model, its losses, the reference's weights and its losses, all on the same minibatch and noise."""
    model = make(name, **kwargs)
    generator = th.Generator().manual_seed(3)
    batch = model.sample(model.batch_size, generator)
    noise = draw_noise(name, model, th.Generator().set_state(generator.get_state()))
    w = weights_of(model)
    expected = reference(name, model, w, take(transitions(action_space=CASES[name].action_space), batch), noise)
    return model, model.losses(batch, generator=generator), w, expected


def own(w, network):
    return {name: value for name, value in w.items() if name.startswith(f"{network}.")}


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients(name):
    model, losses, w, expected = both(name, batch_size=100)
    assert list(losses) == list(expected) == list(CASES[name].networks)
    assert 0 < model.sample(100).terminations.sum() < 100
    for network, loss in losses.items():
        value, theirs = loss(), expected[network]()
        assert value.item() == pytest.approx(theirs.item(), rel=1e-6, abs=1e-6), network
        parameters = dict(getattr(model.policy, network).named_parameters())
        gradients = th.autograd.grad(value, list(parameters.values()))
        for key, gradient in zip(parameters, gradients, strict=True):
            (should_be,) = th.autograd.grad(theirs, w[f"{network}.{key}"], retain_graph=True)
            size = should_be.abs().max().item()
            assert size > 1e-5, key
            np.testing.assert_allclose(gradient, should_be, rtol=1e-5, atol=1e-6 * max(1.0, size), err_msg=key)


@pytest.mark.parametrize("bias", [-30.0, 30.0])
def test_the_standard_deviation_is_clipped(bias):
    model = make("bc_vae")
    with th.no_grad():
        model.policy.vae.encoder.log_std.bias.fill_(bias)
    generator = th.Generator().manual_seed(3)
    batch = model.sample(16, generator)
    noise = draw_noise("bc_vae", model, th.Generator().set_state(generator.get_state()))
    expected = reference("bc_vae", model, weights_of(model), take(transitions(), batch), noise)["vae"]()
    value = model.losses(batch, generator=generator)["vae"]()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    value.backward()
    assert not model.policy.vae.encoder.log_std.bias.grad.any()


@pytest.mark.parametrize("name", CASES)
def test_updates(name, monkeypatch):
    """Three updates: the order of the networks, Adam, and the averaging of the target networks."""
    # A large epsilon, so that rounding in a tiny gradient stays tiny in the step.
    model = make(name, learning_rate=1e-2, policy_kwargs={"optimizer_kwargs": {"eps": 1e-3}})
    drawn, losses, w = [], model._losses, weights_of(model)

    def record(batch, generator):
        drawn.append((batch, generator.get_state()))
        return losses(batch, generator)

    monkeypatch.setattr(model, "_losses", record)
    model.learn(3)
    arrays = transitions(action_space=CASES[name].action_space)
    optimizers = {network: th.optim.Adam(own(w, network).values(), lr=1e-2, eps=1e-3) for network in CASES[name].networks}
    for batch, state in drawn:
        noise = draw_noise(name, model, th.Generator().set_state(state))
        for network, loss in reference(name, model, w, take(arrays, batch), noise).items():
            for value in w.values():
                value.grad = None
            loss().backward()
            optimizers[network].step()
        with th.no_grad():
            for target in CASES[name].targets:
                for key, value in own(w, target).items():
                    online = w[key.replace("_target", "")]
                    value.copy_((1 - model.tau) * value + model.tau * online)
    assert len(drawn) == 3
    for key, value in model.policy.state_dict().items():
        if key != "candidates":
            np.testing.assert_allclose(value, w[key].detach(), rtol=0, atol=1e-5, err_msg=key)


def test_published_settings():
    """The learning rates, batches and constants of the published code."""
    bcq, bc, discrete = (
        CASES[name].algorithm("MlpPolicy", make_data(action_space=CASES[name].action_space))
        for name in ("bcq", "bc_vae", "discrete_bcq")
    )
    assert (bcq.gamma, bcq.tau, bcq.lmbda, bcq.phi, bcq.n_target_actions, bcq.n_eval_actions) == (
        0.99,
        0.005,
        0.75,
        0.05,
        10,
        100,
    )
    assert (bcq.batch_size, bcq.kl_weight, bcq.policy.vae.latent_dim) == (100, 0.5, 4)
    assert (bc.batch_size, bc.kl_weight, bc.mode, bc.policy.latent_clip) == (100, 0.5, "vae", 0.25)
    assert (discrete.batch_size, discrete.gamma, discrete.tau, discrete.threshold) == (64, 0.99, 0.005, 0.3)
    shapes = {name: tuple(value.shape) for name, value in bcq.policy.named_parameters() if name.endswith("weight")}
    assert [shapes[f"actor.mlp.{i}.weight"] for i in (0, 2, 4)] == [(400, 5), (300, 400), (2, 300)]
    assert [shapes[f"critic.qf1.{i}.weight"] for i in (0, 2, 4)] == [(400, 5), (300, 400), (1, 300)]
    assert [shapes[f"vae.decoder.{i}.weight"] for i in (0, 2, 4)] == [(750, 7), (750, 750), (2, 750)]
    assert shapes["vae.encoder.mean.weight"] == shapes["vae.encoder.log_std.weight"] == (4, 750)
    for model, rate in ((bcq, 1e-3), (bc, 1e-3), (discrete, 3e-4)):
        for network in model.policy.networks.values():
            defaults = network.optimizer.defaults
            assert (defaults["lr"], defaults["betas"], defaults["eps"], defaults["weight_decay"]) == (
                rate,
                (0.9, 0.999),
                1e-8,
                0,
            )


@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_a_function(name):
    """It has the same value whenever it is called, whatever else is drawn, and draws nothing itself."""
    model = make(name)
    losses = model.losses()
    first = {network: loss().item() for network, loss in losses.items()}
    th.manual_seed(5)
    state = th.get_rng_state()
    for network, loss in reversed(losses.items()):
        assert loss().item() == first[network]
    assert th.equal(state, th.get_rng_state())
    assert any(loss().item() != first[network] for network, loss in model.losses().items())


@pytest.mark.parametrize("name", CASES)
def test_a_step_sees_its_own_gradient_alone(name):
    """Whatever a loss passes through: at the step of a network nothing has reached those whose turn has not come."""
    model = make(name)
    policy, order = model.policy, CASES[name].networks
    seen = []

    def look(optimizer, *_):
        parameters = {id(p) for group in optimizer.param_groups for p in group["params"]}
        touched = {key.split(".")[0] for key, p in policy.named_parameters() if p.grad is not None}
        seen.append((touched, {key.split(".")[0] for key, p in policy.named_parameters() if id(p) in parameters}))
        gradients.append({key: p.grad.clone() for key, p in policy.named_parameters() if p.grad is not None})

    gradients = []
    for network in policy.networks.values():
        network.optimizer.register_step_pre_hook(look)
    model.learn(1)
    assert seen == [(set(order[: number + 1]), {network}) for number, network in enumerate(order)]
    for key, gradient in (pair for step in gradients for pair in step.items()):
        assert th.equal(dict(policy.named_parameters())[key].grad, gradient), key


@pytest.mark.parametrize("name", ["bc_vae", "bcq"])
def test_every_update_has_its_own_noise(name):
    """One transition alone, and weights that stand still: what differs is the noise."""
    model = CASES[name].make(make_data(count=1), learning_rate=0.0)
    model.learn(3, log_interval=None)
    values = [
        {key: loss().item() for key, loss in model.losses(generator=update_generator(model.draw_seed, number)).items()}
        for number in range(5)
    ]
    assert len({value["vae"] for value in values}) == 5
    model._means.record(model.logger)
    assert model.logger.name_to_value["train/vae_loss"] == pytest.approx(sum(value["vae"] for value in values[:3]) / 3)


@pytest.mark.parametrize("saliency", ["snip", "grasp"])
@pytest.mark.parametrize("name", CASES)
def test_saliencies_of_the_losses(name, saliency):
    """|w g| and w (H g), with the gradient and the Hessian in one network's own weights, by central differences."""
    model, losses, w, expected = both(name)
    for network, loss in losses.items():
        layers = select_networks(model.policy, network)[network]
        scores = SALIENCIES[saliency]({key: layer.weight for key, layer in layers.items()}, loss)
        weights = {key: w[f"{key}.weight"] for key in layers}
        g = th.autograd.grad(expected[network](), list(weights.values()))
        step = g
        if saliency == "grasp":
            step, h = [], 1e-7
            for sign in (1, -1):
                with th.no_grad():
                    for weight, direction in zip(weights.values(), g, strict=True):
                        weight += sign * h * direction
                step.append(th.autograd.grad(expected[network](), list(weights.values())))
                with th.no_grad():
                    for weight, direction in zip(weights.values(), g, strict=True):
                        weight -= sign * h * direction
            step = [(ahead - behind) / (2 * h) for ahead, behind in zip(*step, strict=True)]
        for (key, weight), factor in zip(weights.items(), step, strict=True):
            should_be = (weight * factor).detach()
            should_be = should_be.abs() if saliency == "snip" else should_be
            size = should_be.abs().max()
            assert size > 0
            np.testing.assert_allclose(scores[key], should_be, rtol=0, atol=1e-5 * size, err_msg=key)
        assert all(p.grad is None for p in model.policy.parameters())


def unscaled(actions):
    return (LOW + 0.5 * (actions.detach() + 1) * (HIGH - LOW)).numpy()


def best_candidate(model, w, s, latents):
    """The action of the highest value in one state, and its number; one latent variable after the other."""
    best, highest = None, -np.inf
    for number, z in enumerate(latents):
        a = perturb(w, "actor", s[None], decode(w, s[None], z[None]), model.phi)
        q = mlp(w, "critic.qf0", th.cat([s[None], a], 1)).item()
        if q > highest:
            best, highest = (number, a), q
    return best


@pytest.mark.parametrize("deterministic", [True, False])
def test_bcq_takes_the_best_candidate(deterministic):
    """Deterministic predictions have fixed candidates, others draw them; both lie within the bound."""
    model = make("bcq")
    w, observations = weights_of(model), transitions()["observations"]
    th.manual_seed(0)
    actions, _ = model.predict(observations, deterministic=deterministic)
    th.manual_seed(0)
    latents = th.randn(len(observations), 20, 4).double().clamp(-0.5, 0.5)
    if deterministic:
        latents = model.policy.candidates.double().expand(len(observations), -1, -1)
        assert latents.shape[1:] == (20, 4) and latents.abs().max() == 0.5
    chosen = set()
    for s, z, action in zip(th.as_tensor(observations).double(), latents, actions, strict=True):
        number, best = best_candidate(model, w, s, z)
        np.testing.assert_allclose(action, unscaled(best)[0], atol=1e-4)
        chosen.add(number)
    assert len(chosen) > 5


@pytest.mark.parametrize("deterministic", [True, False])
def test_bc_decodes(deterministic):
    """The mean of the latent variable, or a draw within the bound."""
    model = make("bc_vae")
    observations = transitions()["observations"]
    th.manual_seed(0)
    actions, _ = model.predict(observations, deterministic=deterministic)
    th.manual_seed(0)
    z = th.zeros(len(observations), 4) if deterministic else th.randn(len(observations), 4).clamp(-0.25, 0.25)
    expected = decode(weights_of(model), th.as_tensor(observations).double(), z.double())
    np.testing.assert_allclose(actions, unscaled(expected), atol=1e-4)


def test_discrete_bcq_takes_the_best_likely_action():
    model = make("discrete_bcq")
    w, s = weights_of(model), th.as_tensor(transitions()["observations"]).double()
    p, q = mlp(w, "imitation.mlp", s).softmax(1), mlp(w, "q_net.mlp", s)
    actions = model.predict(transitions()["observations"], deterministic=True)[0]
    for row, action in enumerate(actions):
        likely = [index for index in range(4) if p[row, index] >= 0.5 * p[row].max()]
        assert action == max(likely, key=lambda index: q[row, index])
    assert (actions != q.argmax(1).numpy()).any() and (actions != p.argmax(1).numpy()).any()


def test_discrete_bc_draws_from_the_softmax():
    model = make("discrete_bc")
    s = transitions()["observations"][:1]
    p = mlp(weights_of(model), "actor.mlp", th.as_tensor(s).double()).softmax(1)[0].detach().numpy()
    assert model.predict(s, deterministic=True)[0] == p.argmax()
    th.manual_seed(0)
    share = np.bincount(model.predict(np.repeat(s, 20_000, axis=0))[0], minlength=4) / 20_000
    np.testing.assert_allclose(share, p, atol=5 * 0.5 / 20_000**0.5)
