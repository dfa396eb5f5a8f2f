"""Dynamic sparse training: the weights that exist move, and their number stays the same."""

import math
import warnings
from collections.abc import Iterable, Sequence

import torch as th

from sb3_sparse.callbacks.arguments import check_count, check_moment
from sb3_sparse.callbacks.base import LayerCallback
from sb3_sparse.callbacks.masks import Masks, check_targets
from sb3_sparse.callbacks.rewiring.growth import GROW, Growth, check_drop
from sb3_sparse.callbacks.rewiring.pending import Pending
from sb3_sparse.callbacks.rewiring.topk import TopkFollower, follow_topk, unfollow
from sb3_sparse.callbacks.rewiring.topology import Topology
from sb3_sparse.nn import Layer, MaskedLayer
from sb3_sparse.sparsity import SCHEDULES, Named, check_schedule
from sb3_sparse.state import first_seed


class RewiringCallback(LayerCallback):
    """
    Dynamic sparse training: at every ``update_freq`` steps each sparse layer drops a fraction of its weights, those closest
    to zero, and grows as many elsewhere, which start at zero. SET grows at random (Mocanu et al. 2018; DS-TD3: Sokar et al.
    2022), RigL where the gradient is largest (Evci et al. 2020; Graesser et al. 2022 for reinforcement learning).

    It moves the weights of a network that is sparse already: by a pruning callback before it in the list, or by a sparse
    policy. Dense layers stay as they are. DS-TD3 at half of the weights:

        static = OneShotPruningCallback("all", 0.5, saliency="random", targets="topk")
        model.learn(100_000, callback=[static, RewiringCallback("all")])

    A rewiring takes place between the gradient steps that follow environment step ``k * update_freq`` and the next
    environment step. It is left out if the model has not been trained since the last one. A weight that was dropped may be
    grown again at once; it then keeps its value. The gradients of RigL are those of the last minibatch before a rewiring;
    autograd computes them in any case, so recording them costs nothing at other times.

    Logged are the share of weights that have ever existed (the ITOP rate of Liu et al. 2021), the share that the last rewiring
    has replaced, and the neurons with at least one weight. :func:`topology_history` returns them for all rewirings.

    :param network: Name of a network under ``model.policy`` ("actor", "critic", "q_net", "mlp_extractor", ...), a list,
        or "all".
    :param fraction: Share of each layer's weights that a rewiring moves, in [0, 1], rounded down to whole weights.
    :param update_freq: Environment steps between two rewirings.
    :param grow: Where weights grow: "random" or "gradient".
    :param fraction_schedule: "constant", or how the fraction falls to 0 at ``stop``: a name in
        :data:`~sb3_sparse.sparsity.SCHEDULES`.
    :param stop: When rewiring ends (there is none at ``stop`` itself): a share of the first run if a float, environment steps
        if an int. At 1.0 a constant fraction goes on as long as training does, also in later calls of ``learn()``.
    :param targets: Rule for target networks: "topk" prunes their smallest weights after each soft update, down to the online
        network's number of weights (DS-TD3); "mask" gives them the online mask (RLx2: Tan et al. 2023); "polyak" leaves the
        soft update as it is.
    :param seed: Seed of random growth; the model's seed by default.
    :param verbose: Verbosity level: 0 for no output, 1 for a line at every rewiring.
    :param drop: Score by which existing weights are dropped, lowest first: "magnitude", or "magnitude_by_sign", which takes
        the fraction of the positive and of the negative weights (as DS-TD3's published code does).
    :param exclude: Layers to leave as they are, as shell patterns: "actor.mu", "mu", "qf*.4".
    :param name: Name of the run, if this class works on the same network more than once.
    :raises ValueError: on an unknown name, a fraction outside [0, 1] or a ``stop`` that is not a moment of a run; at the start
        of training on an unknown network
    """

    def __init__(
        self,
        network: str | Sequence[str],
        fraction: float = 0.05,
        update_freq: int = 1000,
        grow: str = "random",
        fraction_schedule: str = "constant",
        stop: float | int = 1.0,
        targets: str = "topk",
        seed: int | None = None,
        verbose: int = 0,
        *,
        drop: str = "magnitude",
        exclude: Sequence[str] = (),
        name: str | None = None,
    ) -> None:
        super().__init__(network, exclude=exclude, name=name, verbose=verbose)
        self.targets = check_targets(targets)
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0.0 <= fraction <= 1.0:
            raise ValueError(f"fraction is a share of the weights and must lie in [0, 1], got {fraction!r}")
        if grow not in GROW:
            raise ValueError(f"unknown grow='{grow}': use one of {', '.join(GROW)}")
        self.fraction = float(fraction)
        self.update_freq = check_count("update_freq", update_freq, least=1)
        self.grow = grow
        self.fraction_schedule = check_schedule("fraction_schedule", fraction_schedule)
        self.stop = check_moment("stop", stop)
        self.drop = check_drop(drop)
        self.seed = None if seed is None else check_count("seed", seed, least=0)

    def _arguments(self) -> dict[str, object]:
        own = ("fraction", "update_freq", "grow", "fraction_schedule", "stop", "drop", "seed")
        return {"exclude": sorted(self.exclude), "targets": self.targets, **{name: getattr(self, name) for name in own}}

    def _init_callback(self) -> None:
        selected = self._select_layers()
        run = self._open_run(selected, with_masks=True)
        self._state = run.state
        for chosen in selected.values():
            for name, layer in chosen.items():
                # They are used later, but damage has to be found before anything is changed.
                self._state.load_mask(name, layer.weight.shape, "explored")
                self._state.load_mask(name, layer.weight.shape, "pending")
        self._set_moments()
        self.layers = run.start()
        self._masks = Masks(
            self.model.policy,
            self.layers,
            self._optimizers,
            self._state,
            self._clock.key,
            targets=self.targets,
        )
        self._log = self._masks.reapply()
        self._growth = Growth(self.model, self.layers, self._optimizers, self.drop, self.grow)
        layers = {name: layer for network in self.layers.values() for name, layer in network.items()}
        self._pending = Pending(self.model, self._state, self._clock.saved, layers)
        self._topologies: dict[str, Topology] = {}
        self._start_rule(self._masks.twins)

    def _set_moments(self) -> None:
        """Resolve the moments that are relative to this run. A resumed clock has them already."""
        clock = self._clock.saved
        if "seed" not in clock:
            clock["seed"] = first_seed(self.seed, self.model)
        clock.setdefault("start", self.timestep)
        clock.setdefault("updates", 0)
        clock.setdefault("n_updates", self.model._n_updates)
        constant = self.fraction_schedule == "constant"
        if not (constant and isinstance(self.stop, float) and self.stop == 1.0):
            clock.setdefault("stop", self._clock.resolve(self.stop))
        start = clock["start"]
        end = max(start, clock.get("stop", start))
        self._fraction = SCHEDULES[self.fraction_schedule](self.fraction if constant else 0.0, self.fraction, start, end)
        if clock.get("stop", math.inf) <= start + self.update_freq:
            warnings.warn(
                f"stop={self.stop} is step {clock['stop']}, and the first rewiring is due at step "
                f"{start + self.update_freq}: there will be none (a float is a share of the run, 1.0 its end)",
                stacklevel=2,
            )

    def _start_rule(self, twins: dict[MaskedLayer, list[Layer]]) -> None:
        """Replace whatever rule the target networks have had before."""
        self._followers: list[TopkFollower] = []
        if self.targets == "topk":
            self._followers = follow_topk(twins)
        else:
            unfollow(twins)
        if self.targets == "mask":
            for network, layers in self.layers.items():
                self._masks.change(network, {name: layer.mask.clone() for name, layer in layers.items()}, twins=True)

    def _update(self) -> None:
        # DQN updates its target network after this, and other callbacks may look at the model after that.
        for follower in self._followers:
            follower.prune()

    def _on_step(self) -> bool:
        self._begin()
        return super()._on_step()

    def _begin(self) -> None:
        """Look at the networks once, after the first step of a run: by then the callbacks that make them sparse have run."""
        if self._topologies:
            return
        for network, layers in self.layers.items():
            self._topologies[network] = Topology(self._state, network, layers, self.timestep)
        counts = [int(x.mask.sum()) for layers in self.layers.values() for x in layers.values() if x.pruned]
        if not counts and len(self._state.clocks) == 1:
            warnings.warn(
                f"{', '.join(self.layers)}: dense, so there is nothing to rewire: put a OneShotPruningCallback(..., "
                'saliency="random") before RewiringCallback, or take a sparse policy',
                stacklevel=2,
            )
        if counts and self.fraction > 0 and max(counts) * self.fraction < 1:
            warnings.warn(
                f"fraction={self.fraction} of the largest layer's {max(counts)} weights is less than one: none will ever move",
                stacklevel=2,
            )

    def _due(self) -> int:
        """Number of the rewiring that is due now, or 0."""
        clock = self._clock.saved
        number = (self.timestep - clock["start"]) // self.update_freq
        if "stop" in clock:
            number = min(number, (clock["stop"] - clock["start"] - 1) // self.update_freq)
        return number if number > clock["updates"] else 0

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        # Just before train().
        if self._due():
            self._look()
            self._growth.start()

    def _on_rollout_start(self) -> None:
        # Just after train().
        if not self._holds_masks:
            self._enforce()
        masks = self._propose()
        if masks:
            self._rewire(masks)

    def _end(self) -> None:
        # Just after the last train().
        self._look()
        self._enforce()
        if self.grow == "gradient" and (masks := self._propose()):
            # Weights that grow now would stay zero if training is over, and the gradients are lost if it goes on.
            self._pending.keep(masks)
        if self.verbose > 0:
            topologies = self._state.topologies()
            done = ", ".join(f"{network} {len(topologies.get(network, []))} times" for network in self.layers)
            print(f"{type(self).__name__}: stopped at step {self.timestep}, rewired {done}")

    def _enforce(self) -> None:
        self._masks.enforce()
        for follower in self._followers:
            follower.prune()

    def _propose(self) -> Named:
        """New masks of all layers if a rewiring is due and can be done; else none."""
        self._growth.stop()
        number = self._due()
        if not number:
            return {}
        self._look()
        self._begin()
        clock = self._clock.saved
        if self.model._n_updates == clock["n_updates"]:
            # Not trained since the last one: this one is left out.
            clock["updates"] = number
            return {}
        fraction = self._fraction(clock["start"] + number * self.update_freq)
        return self._pending.take() or self._growth.masks(fraction, clock["seed"], number)

    def _rewire(self, masks: Named) -> None:
        for network, layers in self.layers.items():
            old = {name: layer.mask.clone() for name, layer in layers.items()}
            if self.targets != "mask":
                for layer in layers.values():
                    _unmask(self._masks.twins[layer])
            self._log |= self._masks.change(network, {name: masks[name] for name in layers}, twins=self.targets == "mask")
            self._log |= self._topologies[network].record(self.timestep, old)
        self._clock.saved.update(updates=self._due(), n_updates=self.model._n_updates)
        if self.verbose > 0:
            done = ", ".join(f"{network} {self._log[f'sparsity/{network}_churn']:.4f}" for network in self.layers)
            print(f"{type(self).__name__}: step {self.timestep}, replaced of {done}")


def _unmask(targets: Iterable[Layer]) -> None:
    """Remove the masks of a sparse policy's targets: they get another topology, and loading them would zero weights."""
    for target in targets:
        if isinstance(target, MaskedLayer) and target.pruned:
            target.set_mask(th.ones_like(target.mask))
