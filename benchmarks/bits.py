"""
Fewer bits in real bytes: the compact file of an actor, and its flash and instructions on a microcontroller, at 8 to 2 bits.

    python benchmarks/bits.py --json benchmarks/results/bits.json

Two actors of SAC with 17 inputs and 6 actions: a small dense one (64-64) and one of the papers' size (256-256) with 5 % of its
weights. Both are freshly initialised, so nothing here says how an actor plays. Flash and instructions are of the header's
integer code on a Cortex-M4F, with weights that share bytes and with a byte for each (``pack=False``); without the tools of
``mcu.py`` there are only files.
"""

import argparse
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import torch as th
from mcu import ARITHMETICS, GCC, PACKAGES, QEMU, SIZE, export, measure, observe, run
from overhead import HalfCheetahSpaces
from report import store
from rich.progress import track
from stable_baselines3 import SAC

from sb3_sparse import CompressedPolicy

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
            measured = measure(partial(write, policy, pack), TARGET, ARITHMETICS[ARITHMETIC])
            if measured["self_test"]:
                raise RuntimeError(f"{measured['self_test']} test vectors fail")
            found |= {f"flash{name}": measured["flash"], f"instructions{name}": measured["instructions"]}
    return found


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 and 4 bits alone, for a check")
    parser.add_argument("--json", type=Path, help="where to store the result")
    args = parser.parse_args()
    missing = [tool for tool in (GCC, SIZE, QEMU) if shutil.which(tool) is None]
    if missing:
        print(f"{', '.join(missing)} not found, so there is no flash: apt-get install -y --no-install-recommends {PACKAGES}")
    th.set_num_threads(1)
    rows = {}
    for name, (units, sparsity) in ACTORS.items():
        settings = {"buffer_size": 1, "policy_kwargs": {"net_arch": units}}
        model = SAC("MlpPolicy", HalfCheetahSpaces(), seed=0, device="cpu", **settings)
        calibration, _ = observe(model, None)
        for bits in track((8, 4) if args.quick else BITS, description=name):
            rows[f"{name}/{bits}"] = row(export(model, sparsity, calibration, bits), board=not missing)
    columns = list(rows["dense/8"])
    print(f"{'':12}" + "".join(f"{column:>24}" for column in columns))
    for key, values in rows.items():
        print(f"{key:12}" + "".join(f"{values[column]:24,}" for column in columns))
    if args.json:
        ratios = {
            f"{key}/{column}": round(rows[f"{key.split('/')[0]}/8"][column] / values[column], 3)
            for key, values in rows.items()
            for column in columns
            if column != "weights"
        }
        tools = {} if missing else {"tools": {tool: run(tool, "--version").splitlines()[0] for tool in (GCC, QEMU)}}
        store(
            args.json,
            {"ratios": ratios, "intervals": {key: [value] * 2 for key, value in ratios.items()}, "rows": rows} | tools,
        )


if __name__ == "__main__":
    main()
