"""
The kernels for NEON, compiled by a cross compiler and run by QEMU: the actions of the families of this processor, to the bit,
and the number of instructions. QEMU says nothing about time.
"""

import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.deployment import neon
from sb3_sparse.runtime import Policy
from sb3_sparse.runtime.backends import structs
from sb3_sparse.runtime.backends.build import OPTIONS
from sb3_sparse.runtime.backends.families import NEON
from sb3_sparse.runtime.backends.plan import Plan
from sb3_sparse.runtime.network.records import Activation, Head, Layer, Network
from tests import test_convolution
from tests.networks import FAMILY_NAMES, draw_minifloats, draw_network, draw_observations, draw_recurrent_network

ROOT = Path(__file__).parents[1]
COMPILER, EMULATOR = neon.COMPILER, neon.EMULATOR

pytestmark = [
    pytest.mark.skipif(not shutil.which(COMPILER) or not shutil.which(EMULATOR), reason=f"no {COMPILER} or {EMULATOR} here"),
    pytest.mark.skipif(not FAMILY_NAMES, reason="this processor has no family to compare with"),
]


@pytest.fixture(scope="module", params=neon.ARCHITECTURES)
def program(request, tmp_path_factory):
    """Runs plans from a file: ``sanitized.c``, without sanitizers."""
    path = tmp_path_factory.mktemp("neon") / "program"
    include = f"-I{ROOT / 'sb3_sparse/runtime/backends/c'}"
    source = str(ROOT / "tests/sanitized.c")
    command = [
        COMPILER,
        *OPTIONS,
        "-std=c99",
        "-static",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-march={request.param}",
        include,
        source,
        "-o",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


def run(program, cases):
    """Actions of plans for observations, all in one run; the last dimension of the actions is that of the plan."""
    plans = b""
    for plan, x in cases:
        outputs = np.frombuffer(plan.data, np.int32, 5)[4]
        plans += struct.pack("<5i", len(plan.data), plan.scratch, len(x), 4 * outputs, x.itemsize) + plan.data + x.tobytes()
    folder = program.parent
    (folder / "plans").write_bytes(plans)
    command = [EMULATOR, "-cpu", "max", str(program), str(folder / "plans"), str(folder / "actions")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    actions, parts = np.fromfile(folder / "actions", np.float32), []
    for plan, x in cases:
        # Those of a panel follow.
        rows = len(x) * (1 + plan.panels)
        size = rows * np.frombuffer(plan.data, np.int32, 5)[4]
        parts.append(actions[:size].reshape(rows, -1))
        actions = actions[size:]
    assert not len(actions)
    return parts


def expect_same_actions(program, cases):
    found = run(program, [(Plan(network, NEON), x) for network, x in cases])
    for (network, x), actions in zip(cases, found, strict=True):
        expected = Policy(network, FAMILY_NAMES[0]).predict(x)[0].reshape(len(x), -1)
        np.testing.assert_array_equal(actions, expected)


def unlimited(network):
    infinite = np.full(network.head.inputs, np.inf, np.float32)
    return replace(network, head=replace(network.head, low=-infinite, high=infinite))


@pytest.mark.parametrize("image", [False, True], ids=["vector", "image"])
def test_networks_to_the_bit(program, image):
    cases = []
    for seed in range(40):
        rng = np.random.default_rng([seed, image])
        network = unlimited(draw_network(rng, image=image, quantized=True, head="clip", width=300))
        cases.append((network, draw_observations(rng, network, 5).astype(np.float32)))
    expect_same_actions(program, cases)


def test_convolutions_to_the_bit(program):
    cases = []
    for geometry in test_convolution.GEOMETRIES:
        for density in (0.0, 0.03, 1.0):
            network = test_convolution.draw(geometry, density=density)
            pixels = np.random.default_rng(1).integers(0, 256, (1, *network.shape), dtype=np.uint8)
            cases += [(network, pixels), (network, pixels.astype(np.float32))]
    expect_same_actions(program, cases)


def test_floats_agree_with_numpy(program):
    """The backend "compiled": one observation after the other, and in panels where networks have them."""
    cases, kinds = [], set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        if seed % 5 == 4:
            network = draw_recurrent_network(rng, head="clip")
        else:
            network = draw_network(rng, image=seed % 5 == 3, head="clip", width=300)
        cases.append((unlimited(network), draw_observations(rng, network, 5).astype(np.float32)))
    plans = [Plan(network, floats=NEON, panels=True) for network, _ in cases]
    found = run(program, [(plan, x) for plan, (_, x) in zip(plans, cases, strict=True)])
    for (network, x), plan, actions in zip(cases, plans, found, strict=True):
        expected = Policy(network, "numpy").predict(x)[0].reshape(len(x), -1)
        size = np.abs(expected).max()
        np.testing.assert_allclose(actions, np.tile(expected, (1 + plan.panels, 1)), rtol=1e-5, atol=2e-6 * size)
        kinds |= set(np.frombuffer(plan.data, structs.LAYER, len(network.layers), structs.PLAN.itemsize)["kind"])
    assert {structs.Kernel.COLUMNS, structs.Kernel.ROWS, structs.Kernel.PICKS, structs.Kernel.CONVOLUTION} == kinds
    assert any(plan.panels for plan in plans) and not all(plan.panels for plan in plans)


def test_a_machine_with_neon_takes_it():
    """By the compiler's macros, "int8" finds the family, and "compiled" that of its kernels."""
    code = """if True:
        from sb3_sparse.runtime.backends.build import macros
        from sb3_sparse.runtime.backends.families import FAMILIES
        print(*(name for name, family in FAMILIES.items() if macros(".c").issuperset(family.macros)))
    """
    environment = {**os.environ, "CC": COMPILER}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT, check=True)
    assert done.stdout.split() == ["neon"]
    kernels = str(ROOT / "sb3_sparse/runtime/backends/c/kernels.h")
    done = subprocess.run([COMPILER, "-E", "-dM", "-x", "c", kernels], capture_output=True, text=True, check=True)
    assert '#define SB3S_FAMILY "neon"' in done.stdout.splitlines()


def actor(density, rng):
    """17-256-256-6 of integers, as dense as ERK makes each layer."""
    layers = []
    for index, (inputs, outputs) in enumerate(((17, 256), (256, 256), (256, 6))):
        keep = min(1.0, density[index])
        weight = (rng.integers(-127, 128, (outputs, inputs)) * (rng.random((outputs, inputs)) < keep)).astype(np.int8)
        scale = draw_minifloats(rng, outputs, 0.02 / np.sqrt(inputs * keep))
        layers.append(Layer(weight, np.zeros(outputs, np.float32), Activation("tanh" if index == 2 else "relu"), scale))
    return Network((17,), False, None, tuple(layers), Head("unscale", (6,), np.full(6, -1, "f4"), np.full(6, 1, "f4")))


@pytest.mark.parametrize("architecture", neon.ARCHITECTURES)
@pytest.mark.parametrize(("density", "limit"), [((1.0, 0.128, 1.0), 0.5), ((0.214, 0.027, 0.582), 0.7)], ids=["80 %", "95 %"])
def test_fewer_instructions_than_the_portable_kernels(architecture, density, limit, tmp_path):
    rng = np.random.default_rng(0)
    network, program = actor(density, rng), tmp_path / "actions"
    x = rng.normal(size=(4, 17)).astype(np.float32)
    neon.build(architecture, program)
    plans = (Plan(network, NEON), Plan(network, floats=NEON), Plan(network))
    counts = [neon.count(program, plan, x) for plan in plans]
    assert 500 < counts[0] < limit * counts[2], counts
    assert 500 < counts[1] < 0.8 * counts[2], counts
