"""
Fewer bits in real bytes: the compact file of an actor, and its flash and instructions on a microcontroller, at 8 to 2 bits.

    python -m benchmarks.size.bits --json benchmarks/results/bits.json

Two actors of SAC with 17 inputs and 6 actions: a small dense one (64-64) and one of the papers' size (256-256) with 5 % of its
weights. Both are freshly initialised, so nothing here says how an actor plays. Flash and instructions are of the header's
integer code on a Cortex-M4F, with weights that share bytes and with a byte for each (``pack=False``); without the tools of
``mcu.py`` there are only files.
"""

from argparse import Namespace
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track
from stable_baselines3 import SAC

from benchmarks.deployment.mcu import ARITHMETICS, count, export, observe
from benchmarks.shared.question import ask, table
from benchmarks.shared.spaces import HalfCheetahSpaces
from benchmarks.shared.store import Result
from sb3_sparse import CompressedPolicy
from sb3_sparse.export.boards import check_tools, describe_tools

#: By name: hidden units and sparsity.
ACTORS = {"dense": ([64, 64], 0.0), "sparse": ([256, 256], 0.95)}
BITS = (8, 6, 4, 3, 2)
TARGET, ARITHMETIC = "m4f", "w8a16"


def write(policy: CompressedPolicy, pack: bool, folder: Path) -> None:
    """
    :param policy: An exported policy.
    :param pack: Whether weights share bytes.
    :param folder: Where policy.h goes.
    """
    policy.to_c(folder / "policy.h", pack=pack)


def row(policy: CompressedPolicy, *, board: bool) -> dict[str, int]:
    """
    :param policy: An exported policy.
    :param board: Whether there are the tools for a microcontroller.
    :return: What is left of its weights, bytes of its file, flash and instructions
    """
    found = {"weights": sum(int(np.count_nonzero(layer.weight)) for layer in policy.network.layers), "file": policy.nbytes}
    if board:
        for name, pack in (("", True), (" unpacked", False)):
            measured = count(partial(write, policy, pack), TARGET, ARITHMETICS[ARITHMETIC])
            if measured["self_test"]:
                raise RuntimeError(f"{measured['self_test']} test vectors fail")
            found |= {f"flash{name}": measured["flash"], f"instructions{name}": measured["instructions"]}
    return found


def measure(args: Namespace) -> Result:
    """
    :param args: Whether to be quick.
    :return: Bytes and instructions of both actors, and how many times less than at 8 bits that is
    """
    board = True
    try:
        check_tools()
    except ValueError as error:
        board = False
        print(f"{error}; so there is no flash")
    rows = {}
    for name, (units, sparsity) in ACTORS.items():
        settings = {"buffer_size": 1, "policy_kwargs": {"net_arch": units}}
        model = SAC("MlpPolicy", HalfCheetahSpaces(), seed=0, device="cpu", **settings)
        calibration, _ = observe(model, None)
        for bits in track((8, 4) if args.quick else BITS, description=name):
            rows[f"{name}/{bits}"] = row(export(model, sparsity, calibration, bits), board=board)
    ratios = {
        f"{key}/{column}": round(rows[f"{key.split('/')[0]}/8"][column] / value, 3)
        for key, values in rows.items()
        for column, value in values.items()
        if column != "weights"
    }
    tools = {"tools": describe_tools()} if board else {}
    return {"ratios": ratios, "intervals": {key: [value] * 2 for key, value in ratios.items()}, "rows": rows} | tools


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table
    """
    rows = result["rows"]
    yield table(
        "bytes, and instructions of an action",
        ("", *rows["dense/8"]),
        [(key, *values.values()) for key, values in rows.items()],
    )


if __name__ == "__main__":
    ask(measure, show=show, quick="8 and 4 bits alone")
