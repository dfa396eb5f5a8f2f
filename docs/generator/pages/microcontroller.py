"""Flash, memory and instructions on two microcontrollers."""

from typing import Any

from ..markdown import number, table
from ..page import Page
from ..stored import require, stored


def page() -> Page:
    """
    :return: The page
    """
    results, trained = stored("mcu"), stored("mcu_sac_halfcheetah")
    tables = []
    for core, label in (("m4f", "Cortex-M4F"), ("m3", "Cortex-M3, without a floating-point unit")):
        rows = [
            (
                _row_name(key),
                *(number(results[column][key]) for column in ("flash", "ram", "stack", "instructions")),
                number(results["ratios"][key], 1),
            )
            for key in results["ratios"]
            if f"/{core}/" in key
        ]
        tables += [f"## {label}", table(("code", "flash", "ram", "stack", "instructions", "float32 / this"), rows)]
    key, dense = "99/m4f/w8a16", "dense/m4f/float32"
    library = max(results["library"].values())
    require(all(failures == 0 for failures in results["self_test"].values()), "every header passes its self test")
    return Page(
        title="On a microcontroller",
        question=(
            "How much flash, memory and how many instructions does an exported actor take on a Cortex-M4F and a Cortex-M3?"
        ),
        answer=(
            f"On the M4F the actor at 95 % takes {number(results['flash']['95/m4f/w8a16'])} bytes of flash and"
            f" {number(results['instructions']['95/m4f/w8a16'])} instructions per action, dense float32 code"
            f" {number(results['flash'][dense])} and {number(results['instructions'][dense])}. At 99 % they are"
            f" {number(results['flash'][key])} and {number(results['instructions'][key])}. Every header passed its self test."
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
            "instructions": "instructions of one action, counted by QEMU",
            "float32 / this": "instructions of the dense float32 code over those of this row",
        },
        limits=[
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
                "A weight takes two bytes, its column and its value, where its layer is sparse, and one byte, zeros included,"
                " where that is smaller: from about half of the weights on. So the rows at 0 % are dense code too. Weights of"
                " fewer bits take less: see [fewer bits, fewer bytes](bits.md)."
            ),
            (
                f"On the M3 libgcc computes floating-point numbers, with up to {number(library)} bytes more of flash that the"
                " table does not count."
            ),
        ],
        settings={
            "actor": f"{results['actor']}, 17-256-256-6, ERK shares of the largest weights; or {trained['actor']}",
            "calibration": f"{results['calibration']}; or {trained['calibration']}",
            "compiler flags": f"`{results['flags']}`",
        },
        commands=[
            "apt-get install -y --no-install-recommends gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
            "python -m benchmarks.deployment.mcu --json benchmarks/results/mcu.json",
            (
                "python -m benchmarks.deployment.mcu --agent sac-HalfCheetah-v4.zip --env HalfCheetah-v4 \\\n"
                "    --json benchmarks/results/mcu_sac_halfcheetah.json"
            ),
        ],
        files=["mcu", "mcu_sac_halfcheetah"],
    )


def _row_name(key: str) -> str:
    sparsity, _, arithmetic = key.split("/")
    arithmetic = {"float32": "float32", "int8": "W8A16"}.get(arithmetic, arithmetic.upper())
    return f"{sparsity if sparsity == 'dense' else f'{sparsity} %'}, {arithmetic}"


def _weights(results: dict[str, Any]) -> str:
    """Number of weights that the export keeps at 99 %: the file says it as "293 weights, 17-75-64-6"."""
    return results["sizes"]["99"].split()[0]
