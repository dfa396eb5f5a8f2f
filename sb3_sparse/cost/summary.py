"""The cost of a whole policy: sums, training, and a table."""

from collections.abc import Mapping
from dataclasses import dataclass

from sb3_sparse.cost.algorithms import Training
from sb3_sparse.cost.counts import Counts, NetworkSummary
from sb3_sparse.cost.training import by_network, layers_of, update_flops
from sb3_sparse.sparsity import Schedule
from sb3_sparse.table import format_table

_MILLION = 1_000_000


@dataclass(frozen=True)
class Summary(Counts):
    """
    The counts of :func:`summarize`; printing it shows a table.

    :param networks: The networks by name, without target networks.
    :param nbytes: Bytes of all parameters and statistics of the policy except target networks, in one archive.
    :param training: How the model uses samples; None if that is unknown.
    """

    networks: dict[str, NetworkSummary]
    nbytes: int
    training: Training | None = None

    def training_flops(
        self,
        steps: int,
        *,
        batch_size: int | None = None,
        updates_per_step: float | None = None,
        delays: Mapping[str, int] | None = None,
        extra_forward: Mapping[str, float] | None = None,
        grow_freq: int | Mapping[str, int] | None = None,
        schedule: Schedule | Mapping[str, Schedule] | None = None,
    ) -> float:
        """
        FLOPs of a training run: with f the FLOPs of a network's forward pass,

            steps * updates_per_step * batch_size * sum over networks of 3 f / delay

        This is the count of Sokar et al. 2022, "Dynamic Sparse Training for Deep Reinforcement Learning": forward, and twice
        that backward, without target networks, without passes of one network inside the loss of another (except BCQ's, see
        ``extra_forward``), and as if ``learning_starts`` were 0.

            summary.training_flops(1_000_000)                                          # static, or rewired at random (SET)
            summary.training_flops(1_000_000, grow_freq=1000)                          # RigL
            summary.training_flops(1_000_000, schedule={"actor": Cubic(0.9, 0.0, 0.2, 0.8)})    # gradual pruning
            summary.training_flops(1_000_000, schedule=Constant(0.0))                  # the dense twin
            summary.training_flops(1_000_000, extra_forward={"critic": 1, "actor": 2}) # TD3 and its targets, delay 2

        A layer that several networks share counts for the first of them, with that network's delay.

        :param steps: Environment steps; updates of an offline algorithm.
        :param batch_size: Samples per update; by default the model's.
        :param updates_per_step: Updates per environment step; by default the model's.
        :param delays: By network: it is updated once in so many updates; by default the model's. A network that is not named
            is updated every time.
        :param extra_forward: By network, or part of one ("vae.decoder"): additional forward passes to count, per sample and
            update of this network; by default the model's, which BCQ and its discrete form have.
        :param grow_freq: Updates between two growths by gradient, each of which costs a dense backward pass and no update:
            DT in (3 f_S DT + 2 f_S + f_D) / (DT + 1) in place of 3 f (Evci et al. 2020); one for all networks, or by
            network.
        :param schedule: Sparsity along the run, in [0, 1], for networks that are pruned during it: 3 f_D mean(1 - s) in place
            of 3 f, as if every layer had this sparsity, which is exact for networks of linear layers whatever their budgets.
            One for all networks, or by network; the cost of a network that is not named follows from its connections.
        :return: FLOPs
        :raises ValueError: if a number is unknown or out of range, an argument names a network that does not exist, or a
            network has both a ``grow_freq`` and a ``schedule``
        """
        known = self.training or Training(0)
        batch_size = batch_size if batch_size is not None else known.batch_size or None
        updates_per_step = updates_per_step if updates_per_step is not None else known.updates_per_step
        if batch_size is None or updates_per_step is None:
            needed = {"batch_size": batch_size, "updates_per_step": updates_per_step}
            missing = " and ".join(name for name, value in needed.items() if value is None)
            raise ValueError(f"this summary does not know how its model trains: give training_flops {missing}")
        if steps < 0 or batch_size < 1 or updates_per_step < 0:
            raise ValueError(
                "steps and updates_per_step must not be negative and batch_size must be at least 1, got "
                f"steps={steps}, updates_per_step={updates_per_step}, batch_size={batch_size}"
            )
        if grow_freq is not None and not isinstance(grow_freq, Mapping):
            grow_freq = dict.fromkeys(self.networks, grow_freq)
        if schedule is not None and not isinstance(schedule, Mapping):
            schedule = dict.fromkeys(self.networks, schedule)
        every = known.delays if delays is None else by_network("delays", delays, self.networks)
        extra = known.extra_forward if extra_forward is None else extra_forward
        parts = [part for part in extra_forward or () if not any(layers_of(net, part) for net in self.networks.values())]
        by_network("extra_forward", dict.fromkeys(parts), self.networks)
        growth = by_network("grow_freq", grow_freq, self.networks)
        schedules = by_network("schedule", schedule, self.networks)
        if not all(delay >= 1 for delay in every.values()):
            raise ValueError(f"a delay must be at least 1 update, got {every}")
        per_sample = 0.0
        for name, network in self.networks.items():
            update = update_flops(name, network, extra_forward=extra, grow_freq=growth.get(name), schedule=schedules.get(name))
            per_sample += update / every.get(name, 1)
        return steps * updates_per_step * batch_size * per_sample

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [
            (
                *("layer", "shape", "connections", "nonzero", "total", "sparsity"),
                *("active neurons", "FLOPs", "value bytes", "npz bytes"),
            )
        ]
        for name, network in self.networks.items():
            for path, layer in network.layers.items():
                rows.append((path, "x".join(map(str, layer.shape)), *_cells(layer), ""))
            if list(network.layers) != [name]:
                rows.append((name, "", *_cells(network), f"{network.nbytes:,}"))
        return "\n".join([format_table(rows), "", *self._totals()])

    def _totals(self) -> list[str]:
        lines = [f"connections: {self.connections:,} of {self.total:,}, ratio {self.connections / self.total:.4f}"]
        if self.flops is None or self.dense_flops is None:
            return [*lines, "inference: the FLOPs of convolutions depend on the size of the images, which is unknown here"]
        ratio = self.flops / self.dense_flops if self.dense_flops else 1.0
        lines.append(
            f"inference: {self.flops:,} FLOPs per observation and pass through all networks; dense {self.dense_flops:,}, "
            f"ratio {ratio:.4f}"
        )
        if self.training is None:
            lines.append("training: unknown here; give training_flops() the batch_size and the updates_per_step")
        else:
            per_step = self.training.updates_per_step is not None
            steps, updates, what = (
                (_MILLION, None, f"{_MILLION:,} {self.training.clock}") if per_step else (1, 1, "gradient update")
            )
            sparse, dense = (
                self.training_flops(steps, updates_per_step=updates, schedule=schedule) for schedule in (None, _dense)
            )
            ratio = sparse / dense if dense else 1.0
            lines.append(
                f"training with these connections: {sparse:.4g} FLOPs per {what}; dense {dense:.4g}, ratio {ratio:.4f}"
            )
        return lines


def _dense(progress: float) -> float:
    """The schedule of the dense twin."""
    return 0.0


def _cells(counts: Counts) -> tuple[str, ...]:
    neurons = f"{counts.active_neurons:,}/{counts.neurons:,}"
    flops = "-" if counts.flops is None else f"{counts.flops:,}"
    return (
        f"{counts.connections:,}",
        f"{counts.nonzero:,}",
        f"{counts.total:,}",
        f"{counts.sparsity:.4f}",
        neurons,
        flops,
        f"{counts.value_bytes:,}",
    )
