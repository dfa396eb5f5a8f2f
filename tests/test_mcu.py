"""Emulated microcontrollers and their benchmark: what its counts rest on, and what it says without its tools."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sb3_sparse.export.boards import BOARDS, DoesNotFit, check_tools, measure_policy

ROOT = Path(__file__).parent.parent
TOOLS = ("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm")
PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
needs_tools = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS), reason=f"one of {', '.join(TOOLS)} is missing"
)


@pytest.fixture
def mcu(benchmark_of):
    return benchmark_of("deployment.mcu")


@pytest.fixture
def found(mcu):
    """The contestants for an actor that is freshly initialised."""
    model = mcu.SAC("MlpPolicy", mcu.HalfCheetahSpaces(), buffer_size=1, seed=0, device="cpu")
    observations, source = mcu.observe(model, None, count=64)
    assert source.startswith("drawn")
    return mcu.contestants(model, observations, (0.99,))[0]


def test_an_environment_that_is_not_there(mcu, capsys):
    observations, source = mcu.observe(None, "Nowhere-v0", count=8)
    assert observations.shape == (8, 17) and source.startswith("drawn")
    assert "Nowhere-v0 cannot be made" in capsys.readouterr().out


@pytest.mark.quick("options1")
@pytest.mark.parametrize("options", [(), ("--quick",)])
def test_missing_tools(options, tmp_path):
    command = [sys.executable, "-m", "benchmarks.deployment.mcu", *options]
    result = subprocess.run(command, env={"PATH": str(tmp_path)}, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].endswith(f"apt-get install -y --no-install-recommends {PACKAGES}")


@needs_tools
@pytest.mark.parametrize("target", ["m4f", "m3"])
def test_fits_a_microcontroller(mcu, found, target):
    """All test vectors pass on the emulated board; 99 % sparse is small enough and far faster than dense."""
    dense = mcu.count(found["dense/float32"][0], target)
    int8 = mcu.count(found["dense/int8"][0], target)
    ours = mcu.count(found["99/w8a16"][0], target, found["99/w8a16"][1])
    assert dense["self_test"] == int8["self_test"] == ours["self_test"] == 0
    assert ours["flash"] <= 2000 and ours["ram"] <= 512
    assert ours["instructions"] <= (7500 if target == "m4f" else 20000)
    assert 40 * ours["instructions"] < dense["instructions"] and 20 * ours["instructions"] < int8["instructions"]
    # Weights in four bytes and in one.
    assert 4 * 71_000 < dense["flash"] < 4 * 74_000 and 71_000 < int8["flash"] < 80_000


@needs_tools
@pytest.mark.parametrize("arithmetic", ["w8a16", "w8a32"])
def test_fewer_bits_are_less_flash(mcu, arithmetic):
    """A dense 17-64-64-6 actor, tables and code together; and a byte for each weight is more flash, but fewer instructions."""
    model = mcu.SAC(
        "MlpPolicy", mcu.HalfCheetahSpaces(), buffer_size=1, seed=0, device="cpu", policy_kwargs={"net_arch": [64, 64]}
    )
    observations, _ = mcu.observe(model, None, count=256)
    rows = {}

    def write(policy, pack, folder):
        policy.to_c(folder / "policy.h", pack=pack)

    for bits in (8, 6, 4, 3, 2):
        policy = mcu.compress(model, bits=bits, calibration=observations)
        for pack in (True, False):
            rows[bits, pack] = mcu.count(partial(write, policy, pack), "m4f", mcu.ARITHMETICS[arithmetic])
    assert not any(row["self_test"] for row in rows.values())
    weights = 17 * 64 + 64 * 64 + 64 * 6
    for bits in (6, 4, 3, 2):
        assert rows[bits, True]["flash"] <= weights * bits / 8 + 1400
        assert rows[bits, False]["flash"] > rows[bits, True]["flash"] + 0.9 * weights * (8 - bits) / 8 - 100
        assert rows[bits, False]["instructions"] < 0.8 * rows[bits, True]["instructions"]


@needs_tools
def test_a_wrong_policy_is_noticed(mcu, found, tmp_path):
    write, defines = found["99/w8a16"]

    def tampered(folder):
        write(folder)
        text = (folder / "policy.h").read_text()
        assert "v = sb3s_tanh(v);" in text
        (folder / "policy.h").write_text(text.replace("v = sb3s_tanh(v);", "v = -sb3s_tanh(v);"))

    assert mcu.count(tampered, "m4f", defines)["self_test"] == mcu.VECTORS


def test_missing_tools_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=f"^{', '.join(TOOLS)} not found: .* {PACKAGES}$"):
        check_tools()


#: A policy that waits: a turn is three instructions on both boards.
WAITING = r"""
#include <stdint.h>
typedef int32_t policy_observation;
typedef int32_t policy_action;
static const int32_t table[] = {ENTRIES};
static void policy_act(const policy_observation *observation, policy_action *action) {
    uint32_t left = TURNS;
    __asm__ volatile("1: nop\n subs %0, #1\n bne 1b" : "+r"(left) : : "cc");
    *action = table[*observation];
}
static const policy_observation policy_observations[8][1] = {{0}};
static const float policy_expected[8][1] = {{0}};
static int policy_self_test(void) {
    policy_action action;
    int i;
    for (i = 0; i < 8; i++) policy_act(policy_observations[i], &action);
    return 0;
}
"""
#: A clock that runs over after 2.6 million instructions.
SHORT = ["-DCLOCK=0xffff"]


@needs_tools
@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
@pytest.mark.parametrize("turns", [10, 10_000, 600_000])
def test_instructions_are_exact(board, turns, tmp_path):
    """Also of an action of which forty take longer than the clock can say."""
    (tmp_path / "policy.h").write_text(WAITING.replace("TURNS", str(turns)).replace("ENTRIES", "1"))
    taken = measure_policy(tmp_path, board, SHORT)
    # One tick is 40 instructions; the rest is the call and the loop around it.
    assert 3 * turns <= taken.instructions <= 3 * turns + (40 if turns < 600_000 else 120) and taken.self_test == 0


@needs_tools
@pytest.mark.parametrize(
    ("turns", "entries", "sentence"),
    [(1_000_000, "1", "more than 600 million instructions"), (1, "1" + ", 1" * 1_100_000, "larger than the 4 MiB")],
)
def test_what_does_not_fit(turns, entries, sentence, tmp_path):
    (tmp_path / "policy.h").write_text(WAITING.replace("TURNS", str(turns)).replace("ENTRIES", entries))
    with pytest.raises(DoesNotFit, match=sentence):
        measure_policy(tmp_path, BOARDS["m4f"], SHORT)


def test_tables(benchmark_of):
    dense_c = benchmark_of("deployment.dense_c")
    assert dense_c.define("int8_t", "weight0", np.array([[1, -2], [3, 4]])) == "static const int8_t weight0[] = {1, -2, 3, 4};"
    assert "[2][1] = {{1.0" in dense_c.define("float", "policy_expected", np.ones((2, 1)))
