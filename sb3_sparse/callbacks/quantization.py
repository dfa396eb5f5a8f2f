"""Quantization-aware training: from some moment on a network computes with the weights that its integers will have."""

from collections.abc import Sequence

from sb3_sparse.callbacks.arguments import check_moment
from sb3_sparse.callbacks.base import LayerCallback
from sb3_sparse.nn import check_bits


class QATCallback(LayerCallback):
    """
    Train with quantized weights: symmetric, uniform, one scale per linear layer and one per output channel of a
    convolution (Ivanov et al. 2025, who do so after pruning, for 20 % longer). In every forward pass

        scale = max|W| / (2**(bits - 1) - 1)        q = clip(round(W / scale), -2**(bits - 1) + 1, 2**(bits - 1) - 1)

    the layer computes with ``scale * q``. The gradient goes straight through to W, which stays a float ``Parameter``, in
    the optimizer and in the zip. Biases and activations are not quantized. Pruned weights are zero on any grid, so this
    callback works together with the pruning callbacks, before or after them in a list, and while they still prune:

        pruning = GradualPruningCallback("actor", 0.9, start=2_000, end=8_000)
        model.learn(12_000, callback=[pruning, QATCallback("actor", start=10_000)])

    Target networks compute with the float weights that they average: only the deployed network needs a grid, and so the value
    of a target moves smoothly and not in steps of a scale. Until ``start``, training is bit-identical to a run without the
    callback. After ``learn()`` the network stays quantized.

    The zip of a stock policy is a plain SB3 zip of the float weights, and ``SAC.load`` computes with those until a callback of
    this package or :func:`sb3_sparse.restore` restores the quantizers. A sparse policy loads with them.

    :param network: Name of a network under ``model.policy`` ("actor", "critic", "q_net", "mlp_extractor", ...), a list,
        or "all".
    :param start: When quantization begins: a share of the run if a float, environment steps if an int.
    :param bits: Bits of a weight, from 2 to 8.
    :param verbose: Verbosity level: 0 for no output, 1 for a line when quantization begins.
    :param name: Name of the run, if this class works on the same network more than once.
    :raises ValueError: on bits that are not a whole number from 2 to 8, or a ``start`` that is not a moment of a run; when
        training begins, on an unknown network, or a model that trains without gradients
    """

    def __init__(
        self,
        network: str | Sequence[str],
        start: float | int,
        bits: int = 8,
        verbose: int = 0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(network, name=name, verbose=verbose)
        self.start = check_moment("start", start)
        self.bits = check_bits(bits)

    def _arguments(self) -> dict[str, object]:
        return {"start": self.start, "bits": self.bits}

    def _init_callback(self) -> None:
        run = self._open_run(self._select_layers(), with_masks=False)
        self._clock.saved.setdefault("start", self._clock.resolve(self.start))
        self._clock.saved.setdefault("updates", 0)
        self._state = run.state
        self.layers = run.start()
        self._log = self._measure()

    def _update(self) -> None:
        if self._clock.saved["updates"] == 0 and self.timestep >= self._clock.saved["start"]:
            self._quantize()
            self._clock.saved["updates"] = 1

    def _quantize(self) -> None:
        self._look()
        for layers in self.layers.values():
            for name, layer in layers.items():
                layer.set_bits(self.bits)
                self._state.save_bits(name, self.bits)
        self._log = self._measure()
        if self.verbose > 0:
            print(f"{type(self).__name__}: step {self.timestep}, {self.bits} bits in {', '.join(self.layers)}")

    def _measure(self) -> dict[str, float]:
        return {
            f"quantization/{network}_bits": max(layer.bits or 8 * layer.weight.element_size() for layer in layers.values())
            for network, layers in self.layers.items()
        }

    def _end(self) -> None:
        if self.verbose > 0 and self._clock.saved["updates"] == 0:
            start = self._clock.saved["start"]
            print(f"{type(self).__name__}: stopped at step {self.timestep}, before it begins at {start}")
