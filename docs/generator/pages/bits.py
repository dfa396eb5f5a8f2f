"""Bytes of the compact file and of a C header at 8 to 2 bits."""

from typing import Any

from ..markdown import number, table
from ..page import Page
from ..stored import require, stored

_NAMES = {"dense": "17-64-64-6, dense", "sparse": "17-256-256-6, 95 % sparse"}
_COLUMNS = ("weights", "file", "flash", "instructions", "flash unpacked", "instructions unpacked")


def page() -> Page:
    """
    :return: The page
    """
    results = stored("bits")
    rows: dict[str, Any] = results["rows"]
    tables = []
    for actor, name in _NAMES.items():
        keys = [key for key in rows if key.startswith(f"{actor}/")]
        cells = [(key.split("/")[1], *(number(rows[key][column]) for column in _COLUMNS)) for key in keys]
        tables += [f"## {name}", table(("bits", *_COLUMNS), cells)]
        for column in ("file", "flash"):
            sizes = [rows[key][column] for key in keys]
            require(sizes == sorted(sizes, reverse=True), f"fewer bits are a smaller {column}")
    for row in rows.values():
        require(row["flash"] <= row["flash unpacked"], "weights share bytes where that takes less flash")
        require(row["instructions"] >= row["instructions unpacked"], "codes take more instructions")
    dense, sparse = ({bits: rows[f"{actor}/{bits}"] for bits in (8, 4, 2)} for actor in _NAMES)
    return Page(
        title="Fewer bits, fewer bytes",
        question="How many bytes do the file and the C header of an actor take at 8, 6, 4, 3 and 2 bits per weight?",
        answer=(
            f"The file of the small dense actor takes {_list(dense, 'file')} bytes at 8, 4 and 2 bits, and its header"
            f" {_list(dense, 'flash')} bytes of flash. Of the sparse actor, whose bytes also say which weights exist, they are"
            f" {_list(sparse, 'file')}, and {_list(sparse, 'flash')}."
        ),
        tables=tables,
        columns={
            "bits": "bits per weight, `bits` of `compress`",
            "weights": "those that are not zero after rounding",
            "file": "bytes of the compact file",
            "flash": "bytes of the header's code and constants in integer arithmetic on a Cortex-M4F",
            "instructions": "instructions of one action, counted by QEMU",
            "flash unpacked, instructions unpacked": "the same with a byte for each weight: `to_c(..., pack=False)`",
        },
        limits=[
            (
                "Both actors are freshly initialised, so their weights and masks are as good as random, and nothing here says"
                " that an actor still plays with so few bits. With 2 bits a weight has three values, and many become zero."
            ),
            (
                "Weights that share bytes are unpacked one by one, so fewer bytes of flash are more instructions. Instructions"
                " are not cycles: QEMU does not model pipelines, flash wait states or caches."
            ),
            "The weights of convolutions share bytes in the file, but not in the header.",
        ],
        settings={
            "actors": "SAC, seed 0; the sparse one keeps its largest weights with ERK shares",
            "calibration": "2048 observations, standard normal",
            "compiler flags": "`-std=c99 -O2 -mthumb -ffunction-sections -fdata-sections`",
            "tools": ", ".join(results["tools"].values()),
        },
        commands=[
            "apt-get install -y --no-install-recommends gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
            "python -m benchmarks.size.bits --json benchmarks/results/bits.json",
        ],
        files=["bits"],
    )


def _list(rows: dict[int, dict[str, int]], column: str) -> str:
    first, second, third = (number(rows[bits][column]) for bits in (8, 4, 2))
    return f"{first}, {second} and {third}"
