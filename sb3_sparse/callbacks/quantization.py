"""
Quantization-aware training: from some moment on a network computes with the weights that its integers will have, and with the
activations, if these are to be integers as well.
"""

from collections.abc import Sequence

from sb3_sparse.callbacks.arguments import check_moment
from sb3_sparse.callbacks.base import LayerCallback
from sb3_sparse.callbacks.rounded_inputs import make_grids
from sb3_sparse.nn import InputGrid, Layer, check_bits
from sb3_sparse.state import round_inputs


class QATCallback(LayerCallback):
    """
    Train with quantized weights: symmetric, uniform, one scale per linear layer and one per output channel of a
    convolution (Ivanov et al. 2025, who do so after pruning, for 20 % longer). In every forward pass

        scale = max|W| / (2**(bits - 1) - 1)        q = clip(round(W / scale), -2**(bits - 1) + 1, 2**(bits - 1) - 1)

    the layer computes with ``scale * q``. The gradient goes straight through to W, which stays a float ``Parameter``, in
    the optimizer and in the zip. Biases are not quantized. Pruned weights are zero on any grid, so this
    callback works together with the pruning callbacks, before or after them in a list, and while they still prune:

        pruning = GradualPruningCallback("actor", 0.9, start=2_000, end=8_000)
        model.learn(12_000, callback=[pruning, QATCallback("actor", start=10_000)])

    With ``activation_bits`` the inputs of the layers that an observation passes on its way to the deterministic action are
    rounded too: observations to 16 bits, pixels not at all, and all other inputs to ``activation_bits``,

        unit = range / top        q = clip(round(x / unit), low, top)        x = unit * q

    from 0 to ``2**activation_bits - 1`` behind a ReLU or a sigmoid, else from ``-top`` to ``top``, which is
    ``2**(activation_bits - 1) - 1``. The gradient goes straight through to x. The range is an exponential average of the
    largest input of each batch that is trained on; that of an observation is 1.5 times the largest one. It is frozen half way
    from ``start`` to the end of that ``learn()``. Every exported form then rounds to the same grid: see
    :func:`~sb3_sparse.export.compress`.

    Target networks compute with the float weights that they average: only the deployed network needs a grid, and so the value
    of a target moves smoothly and not in steps of a scale. Until ``start``, training is bit-identical to a run without the
    callback. After ``learn()`` the network stays quantized.

    The zip of a stock policy is a plain SB3 zip of the float weights, and ``SAC.load`` computes with those until a callback of
    this package or :func:`sb3_sparse.restore` restores the quantizers. A sparse policy loads with them.

    :param network: Name of a network under ``model.policy`` ("actor", "critic", "q_net", "mlp_extractor", ...), a list,
        or "all".
    :param start: When quantization begins: a share of the run if a float, environment steps if an int.
    :param bits: Bits of a weight, from 2 to 8.
    :param activation_bits: Bits of an activation, from 2 to 8; None for float activations.
    :param verbose: Verbosity level: 0 for no output, 1 for a line when quantization begins.
    :param name: Name of the run, if this class works on the same network more than once.
    :raises ValueError: on bits that are not a whole number from 2 to 8, or a ``start`` that is not a moment of a run; when
        training begins, on an unknown network, a model that trains without gradients, or inputs that cannot be rounded
    """

    def __init__(
        self,
        network: str | Sequence[str],
        start: float | int,
        bits: int = 8,
        activation_bits: int | None = None,
        verbose: int = 0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(network, name=name, verbose=verbose)
        self.start = check_moment("start", start)
        self.bits = check_bits(bits)
        self.activation_bits = activation_bits
        if activation_bits is not None:
            self.activation_bits = check_bits(activation_bits, "activation_bits", "a rounded activation")

    def _arguments(self) -> dict[str, object]:
        return {"start": self.start, "bits": self.bits, "activation_bits": self.activation_bits}

    def _init_callback(self) -> None:
        selected = self._select_layers()
        self._grids = self._make_grids(selected)
        run = self._open_run(selected, with_masks=False)
        self._clock.saved.setdefault("start", self._clock.resolve(self.start))
        self._clock.saved.setdefault("updates", 0)
        self._state = run.state
        self.layers = run.start()
        self._log = self._measure()

    def _make_grids(self, selected: dict[str, dict[str, Layer]]) -> dict[str, InputGrid]:
        if self.activation_bits is None:
            return {}
        layers = {name: layer for each in selected.values() for name, layer in each.items()}
        return make_grids(self.model.policy, layers, self.bits, self.activation_bits)

    def _update(self) -> None:
        saved = self._clock.saved
        if saved["updates"] == 0 and self.timestep >= saved["start"]:
            self._quantize()
            saved["updates"] = 1
        if saved["updates"] == 1 and self._grids and self.timestep >= saved["freeze"]:
            self._freeze()
            saved["updates"] = 2

    def _quantize(self) -> None:
        self._look()
        for layers in self.layers.values():
            for name, layer in layers.items():
                layer.set_bits(self.bits)
                self._state.save_bits(name, self.bits)
                if name in self._grids:
                    round_inputs(self._state, name, layer, self._grids[name])
        if self._grids:
            self._clock.saved["freeze"] = self.timestep + (self.model._total_timesteps - self.model.num_timesteps) // 2
        self._log = self._measure()
        if self.verbose > 0:
            activations = f", activations in {self.activation_bits}" if self._grids else ""
            print(f"{type(self).__name__}: step {self.timestep}, {self.bits} bits in {', '.join(self.layers)}{activations}")

    def _freeze(self) -> None:
        for grid in self._rounded().values():
            grid.follows = False

    def _rounded(self) -> dict[str, InputGrid]:
        layers = (pair for layers in self.layers.values() for pair in layers.items())
        return {name: layer.input_grid for name, layer in layers if layer.input_grid is not None}

    def _measure(self) -> dict[str, float]:
        log: dict[str, float] = {
            f"quantization/{network}_bits": max(layer.bits or 8 * layer.weight.element_size() for layer in layers.values())
            for network, layers in self.layers.items()
        }
        if self.activation_bits is not None:
            log["quantization/activation_bits"] = self.activation_bits if self._rounded() else 32
        return log

    def _end(self) -> None:
        for name, grid in self._rounded().items():
            self._state.save_inputs(name, grid)
        if self.verbose > 0 and self._clock.saved["updates"] == 0:
            start = self._clock.saved["start"]
            print(f"{type(self).__name__}: stopped at step {self.timestep}, before it begins at {start}")
