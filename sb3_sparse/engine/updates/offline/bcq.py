"""Batch-constrained deep Q-learning (Fujimoto et al. 2019), as ``sb3_sparse.offline.BCQ`` computes it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from sb3_sparse.engine.batch import Batch
from sb3_sparse.engine.networks.parameters import Parameters
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.updates.chain import Chain
from sb3_sparse.engine.updates.offline.base import OfflineUpdate
from sb3_sparse.engine.updates.offline.vae import TracedVAE
from sb3_sparse.offline import BCQ
from sb3_sparse.offline.bcq import LATENT_CLIP


class BCQUpdate(OfflineUpdate):
    """
    An update of BCQ. The actions of which a target takes the best are computed one after the other, each for the whole batch.

    :param model: The model.
    """

    algorithms: ClassVar[tuple[type, ...]] = (BCQ,)
    constants: ClassVar[tuple[str, ...]] = ("tau", "gamma", "lmbda", "n_target_actions", "kl_weight")

    def __init__(self, model: BCQ) -> None:
        super().__init__(model)
        policy = model.policy
        self._vae = TracedVAE(policy.vae)
        self._actor = Chain(policy.actor.mlp, policy.actor_target.mlp)
        critic, target = policy.critic, policy.critic_target
        pairs = ((critic.qf0, target.qf0), (critic.qf1, target.qf1))
        self._critics = [Chain(q, twin, first=critic.features_dim) for q, twin in pairs]
        weights = [weights for chain in self._critics for weights in chain.weights]
        self._actor_parameters = Parameters(policy.actor.optimizer, self._actor.weights)
        self._critic_parameters = Parameters(critic.optimizer, weights)
        self.parameters = [self._vae.parameters, self._critic_parameters, self._actor_parameters]

    def _variant(self, step: int) -> Hashable:
        return super()._variant(step), self.model.__dict__["policy"].phi

    def _act(self, trace: Trace, observations: Value, latents: Value, phi: float, *, target: bool) -> Value:
        """Actions that the VAE proposes and the actor perturbs. Only the actor is trained by them."""
        proposed = self._vae.decode(trace, observations, latents)
        perturbation = self._actor(trace.concat([observations, proposed]), target=target)
        return (proposed + perturbation * phi).clamp(-1.0, 1.0)

    def _equations(self, trace: Trace, batch: Batch, variant: Hashable) -> None:
        assert isinstance(variant, tuple)
        actor_is_due, phi = variant
        model, latent_dim = self.model, self._vae.latent_dim
        observations, actions = trace.load(batch.observations), batch.load_actions(trace)
        noise, own = trace.noise(latent_dim), trace.noise(latent_dim).clamp(-LATENT_CLIP, LATENT_CLIP)
        of_targets = trace.noise(model.n_target_actions * latent_dim).clamp(-LATENT_CLIP, LATENT_CLIP)
        loss = self._vae.loss(trace, observations, actions, noise, model.kl_weight)
        self._minimize(trace, self._vae.parameters, "vae", loss)

        targets = batch.targets(trace, self._best(trace, trace.load(batch.next_observations), of_targets, phi))
        inputs = trace.concat([observations, actions])
        losses = [(critic(inputs) - targets).square() for critic in self._critics]
        self._minimize(trace, self._critic_parameters, "critic", *losses)

        if actor_is_due:
            actions = self._act(trace, observations, own, phi, target=False)
            self._minimize(trace, self._actor_parameters, "actor", -self._critics[0](trace.concat([observations, actions])))
        trace.follow(self._critic_parameters, model.tau)
        trace.follow(self._actor_parameters, model.tau)

    def _best(self, trace: Trace, observations: Value, latents: Value, phi: float) -> Value:
        """The largest value of the actions that are proposed for a state."""
        best: Value | None = None
        for first in range(0, latents.features, self._vae.latent_dim):
            actions = self._act(trace, observations, latents[first : first + self._vae.latent_dim], phi, target=True)
            inputs = trace.concat([observations, actions])
            one, other = (critic(inputs, target=True) for critic in self._critics)
            value = one.min(other) * self.model.lmbda + one.max(other) * (1.0 - self.model.lmbda)
            best = value if best is None else best.max(value)
        assert best is not None
        return best
