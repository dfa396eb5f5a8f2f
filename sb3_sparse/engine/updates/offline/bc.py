"""Behaviour cloning by a VAE or by a multilayer perceptron, as ``sb3_sparse.offline.BC`` computes it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from sb3_sparse.engine.batch import Batch
from sb3_sparse.engine.networks.parameters import Parameters
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.updates.chain import Chain
from sb3_sparse.engine.updates.offline.base import OfflineUpdate
from sb3_sparse.engine.updates.offline.vae import TracedVAE
from sb3_sparse.offline import BC, VAEPolicy


class BCUpdate(OfflineUpdate):
    """
    An update of behaviour cloning.

    :param model: The model.
    """

    algorithms: ClassVar[tuple[type, ...]] = (BC,)
    constants: ClassVar[tuple[str, ...]] = ("kl_weight",)

    def __init__(self, model: BC) -> None:
        super().__init__(model)
        policy = model.policy
        self._vae: TracedVAE | None = None
        if isinstance(policy, VAEPolicy):
            self._vae = TracedVAE(policy.vae)
            self.parameters = [self._vae.parameters]
        else:
            self._actor = Chain(policy.actor.mlp)
            self.parameters = [Parameters(policy.actor.optimizer, self._actor.weights)]

    def _equations(self, trace: Trace, batch: Batch, variant: Hashable) -> None:
        observations, actions = trace.load(batch.observations), batch.load_actions(trace)
        if self._vae is not None:
            loss = self._vae.loss(trace, observations, actions, trace.noise(self._vae.latent_dim), self.model.kl_weight)
            self._minimize(trace, self.parameters[0], "vae", loss)
        elif variant:
            self._minimize(trace, self.parameters[0], "actor", (self._actor(observations) - actions).square().mean())
