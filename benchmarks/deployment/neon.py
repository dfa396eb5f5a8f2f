"""
What an action costs on 64-bit ARM: instructions of the kernels for NEON, for 8-bit activations and for floats, and of the
portable ones, counted under QEMU.

    python -m benchmarks.deployment.neon --json benchmarks/results/neon.json

The papers' SAC actor (17-256-256-6), freshly initialised, with ERK shares of its largest weights and in 8 bits. Rows are
called "<sparsity in %>/<architecture>": a processor without dotprod, such as the Cortex-A72 of a Raspberry Pi 4, and one with
it. All kernels are compiled for that architecture with the options of the runtime, and columns are its backends: "portable",
where the compiler puts into vectors what it can, "compiled", which has float activations as well, and "neon", which rounds
them to 8 bits. A ratio is the instructions of the portable kernels over those for NEON, and "<row>/compiled" over those of
"compiled". They are not time.

Needs ``aarch64-linux-gnu-gcc`` and ``qemu-aarch64``: the Debian packages gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and
qemu-user.
"""

import shutil
import subprocess
import tempfile
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.deployment.mcu import export, fresh
from benchmarks.shared.question import ask, table
from benchmarks.shared.store import Result, describe_versions
from sb3_sparse.runtime.backends.build import OPTIONS
from sb3_sparse.runtime.backends.families import NEON
from sb3_sparse.runtime.backends.plan import Plan

SPARSITIES = (0.0, 0.8, 0.9, 0.95, 0.98, 0.99)
ARCHITECTURES = ("armv8-a", "armv8.2-a+dotprod")
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
#: The backends.
NAMES = ("portable", "compiled", "neon")
#: Actions that are counted, behind a first one.
ACTIONS = 10
_HERE = Path(__file__).parent
_KERNELS = _HERE.parents[1] / "sb3_sparse" / "runtime" / "backends" / "c"


def build(architecture: str, program: Path) -> None:
    """
    :param architecture: What the compiler calls the architecture.
    :param program: Where to write a program that acts.
    """
    source = str(_HERE / "neon" / "actions.c")
    command = [
        COMPILER,
        *OPTIONS,
        "-std=c99",
        "-static",
        f"-march={architecture}",
        f"-I{_KERNELS}",
        source,
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True, timeout=100)


def count(program: Path, plan: Plan, observations: NDArray[np.float32]) -> float:
    """
    :param program: What :func:`build` has written.
    :param plan: The plan of a network.
    :param observations: ``[n, inputs]``, at least two.
    :return: Instructions of an action: what the program runs besides is the same for one observation and for all
    """
    log = program.with_suffix(".log")
    files = [program.with_suffix(f".{name}") for name in ("plan", "observations")]
    files[0].write_bytes(plan.data)
    files[1].write_bytes(np.ascontiguousarray(observations, np.float32).tobytes())
    lines = []
    for actions in (1, len(observations)):
        # A line of the log for each instruction.
        emulator = [EMULATOR, "-cpu", "max", "-singlestep", "-d", "exec,nochain", "-D", str(log)]
        arguments = [str(program), str(files[0]), str(plan.scratch), str(files[1]), str(actions)]
        subprocess.run([*emulator, *arguments], check=True, timeout=100)
        with log.open() as file:
            lines.append(sum(line.startswith("Trace") for line in file))
    return (lines[1] - lines[0]) / (len(observations) - 1)


def measure(args: Namespace) -> Result:
    """
    :param args: Whether to be quick.
    :return: Instructions and their ratios
    :raises RuntimeError: if the tools are not installed
    """
    if not shutil.which(COMPILER) or not shutil.which(EMULATOR):
        raise RuntimeError("install the Debian packages gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user")
    model, rng = fresh(), np.random.default_rng(0)
    x = rng.standard_normal((1024, 17)).astype(np.float32)
    instructions: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for architecture in ARCHITECTURES:
            program = Path(folder) / architecture.split("+")[-1]
            build(architecture, program)
            for sparsity in SPARSITIES[3:4] if args.quick else SPARSITIES:
                network = export(model, sparsity, x).network
                plans = {
                    "portable": Plan(network),
                    "compiled": Plan(network, floats=NEON),
                    "neon": Plan(network, NEON),
                }
                found = {name: round(count(program, plan, x[: ACTIONS + 1])) for name, plan in plans.items()}
                instructions[f"{100 * sparsity:.3g}/{architecture}"] = found
    tools = {tool: _version(tool) for tool in (COMPILER, EMULATOR)}
    names = {"": "neon", "/compiled": "compiled"}
    return {
        "ratios": {
            f"{row}{end}": round(found["portable"] / found[name], 3)
            for end, name in names.items()
            for row, found in instructions.items()
        },
        "intervals": {},
        "instructions": instructions,
        "versions": describe_versions() | tools,
    }


def _version(tool: str) -> str:
    done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0].removeprefix(f"{tool} ")


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was counted.
    :return: A table
    """
    rows = [
        (row, *(f"{count:,}" for count in found.values()), *(f"{found[name] / found['portable']:.2f}" for name in NAMES[1:]))
        for row, found in result["instructions"].items()
    ]
    header = ("row", *NAMES, *(f"share of {name}" for name in NAMES[1:]))
    yield table("instructions of an action, SAC actor 17-256-256-6", header, rows)


if __name__ == "__main__":
    ask(measure, show=show, quick="one sparsity")
