"""Emulated microcontrollers and their benchmark: what its counts rest on, and what it says without its tools."""

import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sb3_sparse.export.boards import BOARDS, DoesNotFit, check_tools, measure_policy
from sb3_sparse.export.boards.board import run
from sb3_sparse.export.boards.measuring import FLAGS

ROOT = Path(__file__).parent.parent
TOOLS = ("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm")
PACKAGES = " ".join(dict.fromkeys(board.packages for board in BOARDS.values()))
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
    with pytest.raises(ValueError, match=f"^{', '.join(TOOLS)}, .* not found: .* {PACKAGES}$"):
        check_tools()


#: A policy that waits.
WAITING = r"""
#include <stdint.h>
#ifndef SB3S_FLASH
#define SB3S_FLASH
#endif
typedef int32_t policy_observation;
typedef int32_t policy_action;
static const int32_t table[ENTRIES] = {1};
static void policy_act(const policy_observation *observation, policy_action *action) {
    uint32_t left = TURNS;
    __asm__ volatile("1: TURN" : "+REGISTER"(left) : : "cc");
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
#: A policy whose code, with 500 bytes of a table and 40 of variables, is in another object.
CALLING = r"""
#include <stdint.h>
typedef float policy_observation;
typedef float policy_action;
float other(float x);
static void policy_act(const policy_observation *observation, policy_action *action) {
    *action = other(*observation);
}
static const policy_observation policy_observations[8][1] = {{0}, {1}};
static const float policy_expected[8][1] = {{5}};
static int policy_self_test(void) {
    policy_action action;
    policy_act(policy_observations[1], &action);
    return !(action > 4.7853f && action < 4.7855f);
}
"""
OTHER = r"""
#include <math.h>
float other(float x);
float other(float x) {
    static volatile float seen[10];
    static const char table[500] = {5, 4};
    seen[0] = x;
    return (float)atan(x) + table[(int)seen[0]];
}
"""
#: A turn of it, the register that it counts in, what it takes, and what the call and the loop around it may take.
TURN = {
    "arm": ("nop\\n sub %0, %0, #1\\n cmp %0, #0\\n bne 1b", "l", 4, 80),
    "riscv": ("addi %0, %0, -1\\n bnez %0, 1b", "r", 2, 40),
    "avr": ("subi %A0, 1\\n sbci %B0, 0\\n sbci %C0, 0\\n brne 1b", "d", 5, 200),
}
#: A clock that runs over after 2.6 million instructions, or 4 million.
SHORT = {"arm": ["-DCLOCK=0xffff"], "riscv": ["-DCLOCK=4000000"], "avr": ["-DCLOCK=4000000"]}


def wait(folder, board, turns, entries=1):
    turn, register, *_ = TURN[board.family]
    parts = {"TURNS": str(turns), "TURN": turn, "REGISTER": register, "ENTRIES": str(entries)}
    (folder / "policy.h").write_text(re.sub("[A-Z]+", lambda match: parts.get(match[0], match[0]), WAITING))
    return measure_policy(folder, board, SHORT[board.family])


def test_rltools_is_left_out_with_a_reason(mcu, benchmark_of, tmp_path, monkeypatch, capsys):
    """By default; but who asks for it is told."""
    others = benchmark_of("deployment.rltools_cpp")
    model = mcu.fresh([8, 8])
    with pytest.raises(others.MissingError, match=r"^the headers of RLtools are not installed: pip install --no-deps"):
        others.measure_others(tmp_path, model, np.zeros((8, 17), np.float32))
    monkeypatch.setattr(others.sys, "path", [str(tmp_path)])
    found = others.measure_others(None, model, np.zeros((8, 17), np.float32))
    assert not found.rows and not found.versions and found.left_out["rltools"] in capsys.readouterr().out
    with pytest.raises(others.MissingError, match="hidden layers of one width"):
        others.find_rltools(None, mcu.fresh([8, 16]))


@needs_tools
def test_rltools(mcu, benchmark_of):
    """It acts as the model does, and has its weights in four bytes."""
    others = benchmark_of("deployment.rltools_cpp")
    model = mcu.fresh([16, 16])
    try:
        others.find_rltools(None, model)
    except others.MissingError as error:
        pytest.skip(str(error))
    found = others.measure_others(None, model, mcu.select(mcu.observe(model, None, count=64)[0]))
    assert len(found.rows) == 3 and found.versions["rltools"] and not found.left_out
    assert all(row["self_test"] == 0 and 4 * 662 < row["flash"] < 4 * 662 + 800 for row in found.rows.values())


def on_boards(boards=BOARDS):
    """Each board, skipped where its tools are missing."""
    return pytest.mark.parametrize(
        "board",
        [
            pytest.param(
                BOARDS[name],
                id=name,
                marks=pytest.mark.skipif(
                    any(shutil.which(tool) is None for tool in (BOARDS[name].compiler, BOARDS[name].emulator[0])),
                    reason=f"one of {BOARDS[name].packages} is missing",
                ),
            )
            for name in boards
        ],
    )


@on_boards()
@pytest.mark.parametrize("turns", [10, 10_000, 400_000])
def test_counts_are_exact(board, turns, tmp_path):
    """Also of an action of which forty take longer than the clock can say."""
    taken = wait(tmp_path, board, turns)
    *_, cost, call = TURN[board.family]
    exact = cost * turns
    # Besides, a clock that counts in ticks is one off, and the interrupt of another takes some cycles of each half million.
    assert exact - 5 <= taken.instructions <= exact + call + exact // 5_000 and taken.self_test == 0


@on_boards(["m4f", "rv32imc"])
def test_a_policy_of_two_objects(board, tmp_path):
    """The other one's code, variables and stack count, and what it calls in libm."""
    (tmp_path / "other.c").write_text(OTHER)
    (tmp_path / "policy.h").write_text(CALLING)
    other = tmp_path / "other.o"
    run(board.compiler, *board.processor, *FLAGS, "-fstack-usage", "-c", tmp_path / "other.c", "-o", other)
    taken = measure_policy(tmp_path, board, objects=[other])
    assert taken.self_test == 0 and 520 < taken.flash < 700 and taken.ram == 40
    assert taken.library > 1_000 and 8 <= taken.stack < 100 and taken.instructions > 50


@on_boards()
def test_what_does_not_fit(board, tmp_path):
    with pytest.raises(DoesNotFit, match=f"takes more than .* million .* on the emulated {re.escape(board.title)}"):
        wait(tmp_path, board, 2_500_000)
    with pytest.raises(DoesNotFit, match=f"is larger than the .* of the emulated {re.escape(board.title)}"):
        wait(tmp_path, board, 1, entries=8_000 if board.family == "avr" else 1_100_000)


@on_boards()
@pytest.mark.parametrize("arithmetic", [(), ("-DPOLICY_INTEGER",)], ids=["floats", "integers"])
def test_self_test(mcu, board, arithmetic, tmp_path):
    """A policy of three layers plays its test vectors on every board."""
    model = mcu.SAC(
        "MlpPolicy", mcu.HalfCheetahSpaces(), buffer_size=1, seed=0, device="cpu", policy_kwargs={"net_arch": [16, 16]}
    )
    policy = mcu.export(model, 0.5, mcu.observe(model, None, count=64)[0])
    policy.to_c(tmp_path / "policy.h")
    taken = measure_policy(tmp_path, board, arithmetic)
    assert taken.self_test == 0 and 500 < taken.flash < 2_200 and taken.ram < 300
    text = (tmp_path / "policy.h").read_text()
    assert "= sb3s_tanh(" in text
    (tmp_path / "policy.h").write_text(text.replace("= sb3s_tanh(", "= -sb3s_tanh("))
    assert measure_policy(tmp_path, board, arithmetic).self_test == 8


@on_boards(["avr"])
@pytest.mark.parametrize("arithmetic", [(), ("-DPOLICY_INTEGER",)], ids=["floats", "integers"])
def test_more_tables_than_a_processor_addresses(mcu, board, arithmetic, tmp_path):
    """avr-gcc takes an array of 65,536 bytes for one of none, and says nothing."""
    model = mcu.SAC("MlpPolicy", mcu.HalfCheetahSpaces(), buffer_size=1, seed=0, device="cpu")
    mcu.export(model, 0.0, mcu.observe(model, None, count=64)[0]).to_c(tmp_path / "policy.h")
    with pytest.raises(DoesNotFit, match="larger than the 256 KiB of flash"):
        measure_policy(tmp_path, board, arithmetic)


@on_boards(["avr"])
@pytest.mark.parametrize(
    ("units", "arithmetic", "fits"),
    [(122, "-DFLOATS", True), (122, "-DPOLICY_INTEGER", False), (173, "-DFLOATS", False)],
    ids=["33 KiB in several", "33 KiB in one", "64 KiB"],
)
def test_tables_near_what_a_processor_addresses(mcu, board, units, arithmetic, fits, tmp_path):
    """Tables lie beside interrupt vectors and test vectors; and avr-gcc takes none of more than 32,767 bytes."""
    model = mcu.fresh([units] * 3)
    mcu.export(model, 0.0, mcu.observe(model, None, count=64)[0]).to_c(tmp_path / "policy.h")
    if fits:
        assert measure_policy(tmp_path, board, [arithmetic]).self_test == 0
    else:
        with pytest.raises(DoesNotFit, match="larger than the 256 KiB of flash"):
            measure_policy(tmp_path, board, [arithmetic])


def test_tables(benchmark_of):
    dense_c = benchmark_of("deployment.dense_c")
    assert dense_c.define("int8_t", "weight0", np.array([[1, -2], [3, 4]])) == "static const int8_t weight0[] = {1, -2, 3, 4};"
    assert "[2][1] = {{1.0" in dense_c.define("float", "policy_expected", np.ones((2, 1)))
