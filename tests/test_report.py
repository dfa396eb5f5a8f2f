"""The report of an export: counted by hand on a small network."""

import io
import json
import re
from dataclasses import replace
from math import log2

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_sparse import QATCallback, compress
from sb3_sparse.export.passes import fold, order, round_biases, round_weights, shrink
from sb3_sparse.export.report import density, entropy_bound, make_report, save_densities, sizes
from sb3_sparse.export.trace import Affine, Graph, trace
from sb3_sparse.runtime.format.artifact import encode
from sb3_sparse.runtime.network.records import Activation, Head, Layer, Normalize
from sb3_sparse.table import format_table
from tests.algorithms import CASES

FIRST = Layer(
    # The second unit has no inputs, the third no outputs.
    np.array([[1, 0], [0, 0], [2, 3], [0, -4]], np.float32),
    np.array([0.5, 1, 1, 0], np.float32),
    Activation("relu"),
)
LAST = Layer(np.array([[2, 5, 0, 1]], np.float32), np.zeros(1, np.float32), Activation("tanh"))
HEAD = Head("unscale", (1,), np.full(1, -1, np.float32), np.full(1, 1, np.float32))
GRAPH = Graph((2,), False, None, (FIRST, LAST), ("actor.latent_pi.0", "actor.mu"), HEAD)


def report_of(graph=GRAPH, bits=8, calibrated=True):
    original = fold(graph)
    network = shrink(original)
    if bits != 32:
        network = shrink(round_weights(network, bits, np.ones((8, 2), np.float32) if calibrated else None))
    network = round_biases(order(network))
    report = make_report(graph, original, network, nbytes=len(encode(network)), calibrated=calibrated, bits=bits)
    return report, original, network


def test_layers_by_hand():
    report, _, network = report_of()
    first, last = report.layers
    assert (first.name, first.shape, first.total, first.nonzero) == ("actor.latent_pi.0", (4, 2), 8, 4)
    assert (first.shape_after, first.nonzero_after, first.dead_neurons, first.bits) == ((2, 2), 2, 2, 8)
    assert (last.name, last.shape, last.total, last.nonzero) == ("actor.mu", (1, 4), 4, 3)
    assert (last.shape_after, last.nonzero_after, last.dead_neurons, last.bits) == ((1, 2), 2, 0, 8)
    assert report.sparsity == pytest.approx(5 / 12)
    assert report.ratio == 4 * (12 + 5) / len(encode(network))


def test_bytes_by_hand():
    report, original, network = report_of()
    nbytes = report.nbytes
    assert nbytes["dense float32"] == 4 * (12 + 5)
    assert nbytes["dense int8 (with float32 bias and scale per row)"] == 12 + 5 * (4 + 4)
    assert nbytes["papers' value-only count"] == 7
    assert nbytes["compact file"] == len(encode(network))
    tensors = {"0.weight": FIRST.weight, "1.weight": LAST.weight}
    file = io.BytesIO()
    th.save(
        {name: th.from_numpy(weight).to_sparse() for name, weight in tensors.items()}
        | {"0.bias": th.from_numpy(FIRST.bias), "1.bias": th.from_numpy(LAST.bias)},
        file,
    )
    assert nbytes["torch COO float32"] == file.getbuffer().nbytes
    file = io.BytesIO()
    np.savez_compressed(file, **tensors, **{"0.bias": FIRST.bias, "1.bias": LAST.bias})
    assert nbytes["npz compressed float32"] == file.getbuffer().nbytes
    assert nbytes == sizes(original.layers, len(encode(network)))


@pytest.mark.parametrize(("bits", "row"), [(4, 12 * 4 // 8 + 40), (3, -(-12 * 3 // 8) + 40), (8, None), (32, None)])
def test_packed_bits_by_hand(bits, row):
    """Fewer than 8 bits have a row of their own."""
    nbytes = report_of(bits=bits)[0].nbytes
    assert [size for name, size in nbytes.items() if re.match(r"dense \d-bit", name)] == ([] if row is None else [row])
    assert row is None or f"dense {bits}-bit (packed, likewise)" in nbytes


def test_entropy_bound_by_hand():
    # 4 of 8 weights: one bit each for the mask. Rounded by rows to 127, (85, 127) and -127: H(1/2, 1/4, 1/4) = 1.5 bits.
    assert entropy_bound(FIRST) == pytest.approx((8 * 1 + 4 * 1.5) / 8 + 4 * 4)
    # 3 of 4, all different.
    mask = -0.75 * log2(0.75) - 0.25 * log2(0.25)
    assert entropy_bound(LAST) == pytest.approx((4 * mask + 3 * log2(3)) / 8 + 4)
    # With 2 bits: 2, 5 and 1 become 0, 1 and 0.
    assert entropy_bound(LAST, bits=2) == pytest.approx(4 * mask / 8 + 4)
    empty = replace(LAST, weight=np.zeros((1, 4), np.float32))
    assert entropy_bound(empty) == 4


def test_entropy_bound_of_integers_takes_them_as_they_are():
    integers = np.array([[1, 1, -1, 0], [2, 2, 2, 2]], np.int8)
    layer = Layer(integers, np.zeros(2, np.float32), scale=np.ones(2, np.float32))
    mask = -7 / 8 * log2(7 / 8) - 1 / 8 * log2(1 / 8)
    content = -2 / 7 * log2(2 / 7) - 1 / 7 * log2(1 / 7) - 4 / 7 * log2(4 / 7)
    assert entropy_bound(layer) == pytest.approx((8 * mask + 7 * content) / 8 + 8)


def test_json_round_trip():
    report, _, _ = report_of(calibrated=False)
    content = report.to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["bytes"] == report.nbytes and content["ratio"] == report.ratio
    assert content["layers"][0]["shape"] == [4, 2] and content["notes"] == list(report.notes)


def test_tables():
    report, _, _ = report_of(calibrated=False)
    layers, nbytes, notes = str(report).split("\n\n")
    lines = layers.splitlines()
    assert lines[0].split()[:3] == ["layer", "shape", "weights"]
    assert lines[1].split() == ["actor.latent_pi.0", "4x2", "8", "4", "2x2", "2", "2", "8"]
    assert lines[-1].split() == ["total", "12", "7", "4", "2"]
    assert len({len(line) for line in lines[:-1]}) == 1, "the columns are aligned"
    assert nbytes.splitlines()[1].split() == ["dense", "float32", "68", "1.00"]
    assert notes.splitlines() == list(report.notes)
    assert format_table([("a", "b"), ("long", "1")]) == "a     b\nlong  1"


def test_notes_say_what_was_given_up():
    assert report_of()[0].notes == ()
    guessed, ranges = report_of(calibrated=False)[0].notes
    assert "guessed" in guessed and "no integer-only C code" in ranges
    (floats,) = report_of(bits=32)[0].notes
    assert "stay float32" in floats and "no integer-only C code" in floats
    normalize = Normalize(np.zeros(2, np.float32), np.ones(2, np.float32), 10.0)
    assert "VecNormalize" in report_of(replace(GRAPH, normalize=normalize))[0].notes[0]
    norm = Affine(np.ones(4, np.float32), np.ones(4, np.float32))
    assert report_of(replace(GRAPH, operations=(FIRST, norm, LAST)))[0].notes == (
        "Batch norm was folded into the layers around it.",
    )
    trained = replace(LAST, weight=LAST.weight.astype(np.int8), scale=np.ones(1, np.float32))
    report = report_of(replace(GRAPH, operations=(FIRST, trained)))[0]
    assert report.notes == ("Trained with quantization and left on that grid: actor.mu.",)
    assert [layer.bits for layer in report.layers] == [8, 4], "5 is a number of four bits"
    # Scales of rows cannot hold signs that differ from column to column.
    norm = Affine(np.array([1, -1, 1, -1], np.float32), np.ones(4, np.float32))
    report = report_of(replace(GRAPH, operations=(FIRST, norm, trained)))[0]
    assert "rounded anew" in report.notes[1] and [layer.bits for layer in report.layers] == [8, 8]


def test_bits_of_a_model():
    """Layers that were trained with 4 bits keep them; the others get the bits that were asked for."""
    model = CASES["td3"].make()
    model.learn(40, callback=QATCallback("actor", start=30, bits=4))
    report = compress(model, bits=6, calibration=np.ones((8, 3))).report()
    assert {layer.bits for layer in report.layers} == {4}
    assert [layer.name for layer in report.layers] == ["actor.mu.0", "actor.mu.2", "actor.mu.4"]
    assert {layer.bits for layer in compress(CASES["td3"].make(), bits=6).report().layers} == {6}
    assert {layer.bits for layer in compress(CASES["td3"].make(), bits=32).report().layers} == {32}


def test_a_squashed_and_clipped_mean_is_a_layer_of_its_own():
    model = CASES["sac"].make(use_sde=True)
    report = compress(model).report()
    assert report.layers[-1].name == "squash" and report.layers[-1].shape == (1, 1)


def test_density_in_blocks():
    weight = np.zeros((4, 6), np.float32)
    weight[:2, :3] = 1
    assert density(weight, pixels=2).tolist() == [[1, 0], [0, 0]]
    weight[3, 5] = -1
    assert density(weight, pixels=2) == pytest.approx(np.array([[1, 0], [0, 1 / 6]]))
    assert np.array_equal(density(weight), weight != 0)
    assert density(np.ones((3, 2, 5, 5)), pixels=7).tolist() == np.ones((3, 7)).tolist()
    assert density(weight, pixels=5).mean() == pytest.approx(7 / 24, abs=0.05)


def test_densities_of_a_convolutional_network(tmp_path):
    pytest.importorskip("matplotlib")
    layers = (
        Layer(np.ones((4, 3, 8, 8), np.float32), np.zeros(4, np.float32), Activation("relu"), stride=(4, 4)),
        Layer(np.ones((2, 4 * 8 * 8), np.float32), np.zeros(2, np.float32)),
    )
    graph = Graph((3, 36, 36), True, None, layers, ("q_net.cnn.0", "q_net.q_net.0"), Head("argmax", (), groups=(2,)))
    report, original, network = report_of(graph, bits=32)
    save_densities(tmp_path / "densities.png", report, original, network)
    assert (tmp_path / "densities.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_of_a_model_counts_its_actor_alone():
    model = CASES["sac"].make()
    report = compress(model).report()
    graph = trace(model)
    assert [layer.name for layer in report.layers] == list(graph.names)
    weights = [module.weight for module in model.actor.modules() if isinstance(module, nn.Linear)]
    # The last layer of the actor gives the standard deviation, which the deterministic action does not need.
    assert sum(layer.total for layer in report.layers) == sum(weight.numel() for weight in weights[:-1])
