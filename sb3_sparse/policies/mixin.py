"""One mixin makes any SB3 policy sparse from its first step."""

from collections.abc import Mapping, Sequence
from typing import Any

from sb3_sparse.nn import MaskedLayer, apply_mask, find_optimizers, find_twins, hold_masks, mask_layers, select_networks
from sb3_sparse.sparsity import (
    DISTRIBUTIONS,
    MOMENTS,
    SALIENCIES,
    SAMPLES,
    check_choice,
    find_distribution,
    find_lambdas,
    prune_to,
)


class SparsePolicyMixin:
    """
    Masked layers instead of linear and convolutional ones, with masks that are saved in the policy's state dict.

    SB3 builds the networks as usual. Then their layers are converted and pruned, and the target networks get the same masks.
    With ``sparsity=0`` a model trains bit-identically to one with the stock policy. The masks do not change unless a callback
    of ``sb3_sparse.callbacks`` changes them.

        class SparseSACPolicy(SparsePolicyMixin, SACPolicy): ...
        SAC(SparseSACPolicy, env, policy_kwargs=dict(sparsity={"actor": 0.9, "critic": 0.5}))

    :param sparsity: Share of zeros of each network, in [0, 1): one number for all, or one per network (others stay dense).
        It must be None exactly when the distribution has lambdas, which fix the counts.
    :param distribution: How many weights each layer keeps: a name in ``DISTRIBUTIONS``, or a mapping of one such name to its
        arguments, such as ``{"erdos_renyi": {"lambdas": [7, 64]}}``.
    :param saliency: Which weights each layer keeps: a name in ``SALIENCIES`` that needs neither data nor an optimizer's state.
    :param exclude: Layers to leave dense, as shell patterns: "actor.mu", "mu", "qf*.4".
    :raises ValueError: on an unknown name, network or layer, or a sparsity that is outside [0, 1), too high for the layers, or
        given in addition to lambdas
    """

    def __init__(
        self,
        *args: Any,
        sparsity: float | Mapping[str, float | None] | None = 0.0,
        distribution: str | Mapping[str, Mapping[str, object]] = "erk",
        saliency: str = "random",
        exclude: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        # The other arguments are those of the stock policy, which differ from policy to policy.
        super().__init__(*args, **kwargs)
        self._sparse_kwargs = {"sparsity": sparsity, "distribution": distribution, "saliency": saliency, "exclude": exclude}
        mask_layers(self)  # type: ignore[arg-type]
        hold_masks(self)  # type: ignore[arg-type]
        self._prune(sparsity, distribution, saliency, exclude)

    def _prune(
        self,
        sparsity: float | Mapping[str, float | None] | None,
        distribution: str | Mapping[str, Mapping[str, object]],
        saliency: str,
        exclude: Sequence[str],
    ) -> None:
        # Names only, not functions: the policy is saved with its arguments.
        for name, table in ((distribution, DISTRIBUTIONS), (saliency, SALIENCIES)):
            if not isinstance(name, Mapping) and name not in table:
                raise ValueError(f"unknown name '{name}': use one of {', '.join(table)}")
        if saliency in (*SAMPLES, *MOMENTS):
            needed = "data" if saliency in SAMPLES else "a trained optimizer"
            raise ValueError(
                f"saliency '{saliency}' needs {needed}, and a policy has none when it is built: use "
                f"OneShotPruningCallback(..., saliency='{saliency}')"
            )
        budget, score = find_distribution(distribution), SALIENCIES[saliency]
        if isinstance(sparsity, Mapping) and not sparsity:
            return
        if isinstance(sparsity, Mapping) and "all" in sparsity:
            raise ValueError(f"sparsity={sparsity!r}: for all networks give one number, and a mapping for single ones")
        chosen = list(sparsity) if isinstance(sparsity, Mapping) else "all"
        networks = select_networks(self, chosen, exclude)  # type: ignore[arg-type]
        optimizers, twins = find_optimizers(self), find_twins(self)  # type: ignore[arg-type]
        for network, modules in networks.items():
            share = check_choice(budget, sparsity[network] if isinstance(sparsity, Mapping) else sparsity, score)
            if share == 0.0 and find_lambdas(budget) is None:
                continue  # Draw nothing: the random numbers of a dense run stay what they were.
            layers = {name: layer for name, layer in modules.items() if isinstance(layer, MaskedLayer)}
            masks = prune_to(
                {name: layer.weight for name, layer in layers.items()},
                {name: layer.mask for name, layer in layers.items()},
                share,
                saliency=score,
                distribution=budget,
            )
            for name, layer in layers.items():
                apply_mask(layer, masks[name], optimizers, twins.get(layer, ()))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._get_constructor_parameters()  # type: ignore[misc]
        return parameters | self._sparse_kwargs
