"""Flash, memory and instructions on five microcontrollers."""

from typing import Any

from sb3_sparse.export.boards import BOARDS

from ..markdown import number, table
from ..page import Page
from ..stored import require, stored


def page() -> Page:
    """
    :return: The page
    """
    results, trained, small = stored("mcu"), stored("mcu_sac_halfcheetah"), stored("mcu_small")
    tables = []
    for core, label in (("m4f", "Cortex-M4F"), ("m3", "Cortex-M3, without a floating-point unit")):
        rows = [
            (
                _row_name(key),
                *(number(results[column][key]) for column in ("flash", "ram", "stack", "instructions")),
                number(results["ratios"][key], 1),
            )
            for key in results["ratios"]
            if f"/{core}/" in key and not key.startswith("rltools")
        ]
        tables += [f"## {label}", table(("code", "flash", "ram", "stack", "instructions", "float32 / this"), rows)]
    tables += [
        "## Other processors",
        "Actors of two sizes in W8A16. What the header calls in the compiler's libraries comes once to a program.",
        _others(small, results),
        "## Beside RLtools",
        _verdict(results),
        _rltools(small, results),
    ]
    key, dense, theirs = "99/m4f/w8a16", "dense/m4f/float32", "rltools/m4f/float32"
    library = max(bytes_ for key, bytes_ in results["library"].items() if "/m3/" in key and "rltools" not in key)
    failures = {*results["self_test"].values(), *small["self_test"].values()}
    require("rltools" in results["versions"], "RLtools was measured (--rltools)")
    require(failures == {0}, "every header passes its self test")
    require(results["too_large"] == ["0/avr/w8a16", "0/avr/w8a32"] and not small["too_large"], "one actor does not fit")
    return Page(
        title="On a microcontroller",
        question=(
            "How much flash, memory and how many instructions does an exported actor take on a Cortex-M4F and M3, and on"
            " smaller processors?"
        ),
        answer=(
            f"On the M4F the actor at 95 % takes {number(results['flash']['95/m4f/w8a16'])} bytes of flash and"
            f" {number(results['instructions']['95/m4f/w8a16'])} instructions per action, dense float32 code"
            f" {number(results['flash'][dense])} and {number(results['instructions'][dense])}, RLtools"
            f" {number(results['flash'][theirs])} and {number(results['instructions'][theirs])}. At 99 % they are"
            f" {number(results['flash'][key])} and {number(results['instructions'][key])}."
            f" On an AVR of 16 MHz a 64-64 actor at 90 % decides in"
            f" {number(small['instructions']['90/avr/w8a16'] / 16_000, 1)} ms. Every header passed its self test."
        ),
        tables=tables,
        columns={
            "code": (
                "sparsity and [arithmetic](../guide/microcontroller.md#three-arithmetics-in-one-file); the dense rows are"
                " plain C loops"
            ),
            "flash": "bytes of code and constants",
            "ram": "bytes of static memory",
            "stack": "bytes that its own functions take on the stack, at most; libgcc's functions are not counted",
            "library": "bytes of flash of what it calls in the compiler's libraries, such as floating point",
            "instructions": "instructions of one action, counted by QEMU; on the AVR cycles, counted by simavr",
            "float32 / this": "instructions of the dense float32 code over those of this row",
            "RLtools / this": "instructions of RLtools over those of this row",
        },
        limits=[
            (
                "Code for the Cortex-M0+ was run on the emulated Cortex-M3, which executes the same instructions. The AVR is"
                " an ATmega2560, whose pointers reach 64 KiB. What does not fit there has tables of 48 KiB or more: the header"
                " refuses to compile."
            ),
            (
                "**Instructions are not cycles.** QEMU counts them exactly and does not model pipelines, flash wait states or"
                " caches. Measure times on your board."
            ),
            (
                f"The actor is freshly initialised, so its masks are as good as random, and 99 % leaves {_weights(results)}"
                " weights that lead anywhere. A trained one keeps more: a SAC agent of HalfCheetah that was pruned to 99 %"
                f" without further training keeps {_weights(trained)}, and takes {number(trained['flash'][key])} bytes of"
                f" flash, {number(trained['ram'][key])} of memory and {number(trained['instructions'][key])} instructions on"
                " the M4F. Neither number says that an agent still plays at 99 %."
            ),
            (
                "Both dense rows are plain loops, compiled with the same flags. Hand-written kernels such as CMSIS-NN's"
                " process several weights at once and would take fewer instructions; they were not measured."
            ),
            (
                f"RLtools is version {results['versions']['rltools']} with its operations for ARM, compiled as C++17 with the"
                " same flags. In C++ the compiler fuses multiplications with additions, in C99 it does not. Debian's compilers"
                " for RISC-V and AVR come without the C++ library that RLtools includes, so it was measured on ARM alone. Its"
                " variant for CMSIS-DSP does not compile in this version: it names members that its tensors do not have."
            ),
            (
                "A weight takes two bytes, its column and its value, where its layer is sparse, and one byte, zeros included,"
                " where that is smaller: from about half of the weights on. So the rows at 0 % are dense code too. Weights of"
                " fewer bits take less: see [fewer bits, fewer bytes](bits.md)."
            ),
            (
                f"On the M3 libgcc computes floating-point numbers, with up to {number(library)} bytes more of flash that its"
                " table does not count."
            ),
        ],
        settings={
            "actor": f"{results['actor']}, 17-256-256-6, ERK shares of the largest weights; or {trained['actor']}",
            "calibration": f"{results['calibration']}; or {trained['calibration']}",
            "compiler flags": f"`{results['flags']}`",
        },
        commands=[
            "apt-get install -y --no-install-recommends "
            + " ".join(dict.fromkeys(board.packages for board in BOARDS.values()))
            + " libstdc++-arm-none-eabi-newlib",
            f"pip install --no-deps --target rltools rltools=={results['versions']['rltools']}",
            "python -m benchmarks.deployment.mcu --rltools rltools --json benchmarks/results/mcu.json",
            "python -m benchmarks.deployment.mcu --rltools rltools --net-arch 64 64 --json benchmarks/results/mcu_small.json",
            (
                "python -m benchmarks.deployment.mcu --agent sac-HalfCheetah-v4.zip --env HalfCheetah-v4 \\\n"
                "    --json benchmarks/results/mcu_sac_halfcheetah.json"
            ),
        ],
        files=["mcu", "mcu_small", "mcu_sac_halfcheetah"],
    )


def _others(*results: dict[str, Any]) -> str:
    rows = []
    columns = ("flash", "library", "ram", "stack", "instructions")
    for board in ("m0+", "rv32imc", "avr"):
        for name, found in zip(("64-64", "256-256"), results, strict=True):
            for sparsity in (0, 90, 99):
                key = f"{sparsity}/{board}/w8a16"
                numbers = ["does not fit"] * len(columns)
                if key not in found["too_large"]:
                    numbers = [number(found[column][key]) for column in columns]
                rows.append((BOARDS[board].title, name, f"{sparsity} %", *numbers))
    heading = ("processor", "actor", "sparsity", "flash", "library", "ram", "stack", "instructions; AVR: cycles")
    return table(heading, rows)


def _verdict(results: dict[str, Any]) -> str:
    """What the comparison with RLtools says about the larger actor."""
    flash, instructions = results["flash"], results["instructions"]
    theirs = {board: instructions[f"rltools/{board}/float32"] for board in ("m4f", "m3", "m0+")}
    dense, sparse = ({board: instructions[f"{sparsity}/{board}/w8a16"] for board in theirs} for sparsity in (0, 90))
    floats = {sparsity: instructions[f"{sparsity}/m4f/w8a32"] for sparsity in (0, 90)}
    require(theirs["m4f"] < min(dense["m4f"], floats[0]), "on the M4F RLtools takes fewer instructions than our dense code")
    require(all(theirs[board] > 10 * dense[board] for board in ("m3", "m0+")), "without a unit our dense code takes fewer")
    return (
        "[RLtools](https://rl.tools) is a C++ library that runs networks in float32 on microcontrollers. It has no sparse"
        " layers, so a pruned actor takes there what the dense one takes. Its actor here has the weights of our dense one, and"
        " its actions are within 0.000001 of numpy's for all test vectors. With 256-256 on the M4F, which has a floating-point"
        " unit, RLtools takes fewer instructions than our dense integer code:"
        f" {number(theirs['m4f'])} compared with {number(dense['m4f'])}."
        f" Our header at 90 % takes {number(sparse['m4f'])}, which is {number(theirs['m4f'] / sparse['m4f'], 1)} times fewer."
        f" With float activations, as RLtools has them, our code takes {number(floats[0] / theirs['m4f'], 1)} times as many"
        f" when dense, and {number(theirs['m4f'] / floats[90], 1)} times fewer at 90 %."
        f" Without such a unit, integers take {number(theirs['m3'] / dense['m3'], 1)} (M3) and"
        f" {number(theirs['m0+'] / dense['m0+'], 1)} (M0+) times fewer instructions already at 0 %, and"
        f" {number(theirs['m3'] / sparse['m3'])} and {number(theirs['m0+'] / sparse['m0+'])} times fewer at 90 %. Flash on the"
        f" M4F is {number(flash['rltools/m4f/float32'])} bytes compared with {number(flash['0/m4f/w8a16'])} at 0 % and"
        f" {number(flash['90/m4f/w8a16'])} at 90 %."
    )


def _rltools(*results: dict[str, Any]) -> str:
    rows = []
    columns = ("flash", "library", "ram", "stack", "instructions")
    for board in ("m4f", "m3", "m0+"):
        for name, found in zip(("64-64", "256-256"), results, strict=True):
            key = f"rltools/{board}/float32"
            arithmetics = ("w8a16", "w8a32") if board == "m4f" else ("w8a16",)
            for code in (key, *(f"{sparsity}/{board}/{each}" for each in arithmetics for sparsity in (0, 90, 99))):
                ratio = number(found["instructions"][key] / found["instructions"][code], 1)
                rows.append(
                    (BOARDS[board].title, name, _row_name(code), *(number(found[each][code]) for each in columns), ratio)
                )
    return table(("processor", "actor", "code", *columns, "RLtools / this"), rows, align="lllrrrrrr")


def _row_name(key: str) -> str:
    sparsity, _, arithmetic = key.split("/")
    arithmetic = {"float32": "float32", "int8": "W8A16"}.get(arithmetic, arithmetic.upper())
    return f"{f'{sparsity} %' if sparsity.isdigit() else {'dense': 'dense', 'rltools': 'RLtools'}[sparsity]}, {arithmetic}"


def _weights(results: dict[str, Any]) -> str:
    """Number of weights that the export keeps at 99 %: the file says it as "293 weights, 17-75-64-6"."""
    return results["sizes"]["99"].split()[0]
