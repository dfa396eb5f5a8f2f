"""The conditional variational auto-encoder, as ``sb3_sparse.offline.networks.VAE`` computes it."""

from __future__ import annotations

from sb3_sparse.engine.networks.parameters import Parameters
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.updates.chain import Chain
from sb3_sparse.offline.networks import VAE
from sb3_sparse.offline.networks.vae import LOG_STD_RANGE


class TracedVAE:
    """
    Encoder and decoder on values.

    :param vae: The network.
    """

    def __init__(self, vae: VAE) -> None:
        encoder = vae.encoder
        self._trunk, self._mean, self._log_std = Chain(encoder.trunk), Chain(encoder.mean), Chain(encoder.log_std)
        self._decoder = Chain(vae.decoder, first=vae.features_dim)
        chains = (self._trunk, self._mean, self._log_std, self._decoder)
        self.parameters = Parameters(vae.optimizer, [weights for chain in chains for weights in chain.weights])
        self.latent_dim = vae.latent_dim

    def decode(self, trace: Trace, observations: Value, latents: Value) -> Value:
        """The actions of latent variables. Observations have no gradient."""
        return self._decoder(trace.concat([observations, latents]))

    def loss(self, trace: Trace, observations: Value, actions: Value, noise: Value, kl_weight: float) -> Value:
        """Squared error of the reconstruction, plus the weighted divergence."""
        hidden = self._trunk(trace.concat([observations, actions]))
        mean, log_std = self._mean(hidden), self._log_std(hidden).clamp(*LOG_STD_RANGE)
        std = log_std.exp()
        divergence = (1.0 + log_std * 2.0 - mean.square() - std.square()).mean() * -0.5
        error = self.decode(trace, observations, mean + std * noise) - actions
        return error.square().mean() + divergence * kl_weight
