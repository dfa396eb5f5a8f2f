"""The time of one action."""

from collections.abc import Sequence
from typing import Any

from ..markdown import number, percent, table
from ..page import Page
from ..stored import require, stored


def page() -> Page:
    """
    :return: The page
    """
    results, batches, arm = stored("inference"), stored("batches"), stored("neon")
    sparse = [ratio for name, ratio in batches["ratios"].items() if not name.startswith("0/")]
    require(min(sparse) > 1, "no batch of a sparse actor is slower than dense torch")
    kernels = ("portable", "compiled", "avx2", "vbmi")
    eight_bits = [who for who in kernels if who in ("avx2", "vbmi")]
    floats = [who for who in kernels if who not in eight_bits]
    actor = ("onnx_float32", "onnx_int8", "litert_float32", "litert_int8", "numpy", "ctypes", *kernels)
    cnn = ("onnx_float32", "onnx_static", "numpy", *kernels)
    shares = (0, 80, 90, 95, 98, 99)
    first = results["networks"]["cnn/95"]["kept"]["features_extractor.cnn.0"]
    whole = results["networks"]["cnn/0"]["kept"]["features_extractor.cnn.0"]
    sb3, best = results["latency"]["sb3"]["median"], results["latency"]["95/compiled"]["median"]
    return Page(
        title="Time of one action",
        question="How long does an exported policy take from an observation to an action, compared with SB3's `predict`?",
        answer=(
            f"At 95 % sparsity the compiled C kernels answer in {best:.1f} µs, SB3's `predict` in {sb3:.0f} µs:"
            f" {results['ratios']['95/compiled']:.0f} times faster. Most of the difference is Python and dispatch that SB3"
            f" runs and the export does not: the column `numpy` ({results['ratios']['95/numpy']:.0f} times) shows how much."
        ),
        tables=[
            "## An actor, 17-256-256-6",
            f"As times faster than SB3's `predict`, which took {sb3:.0f} µs:",
            table(
                ("sparsity", *(_backend(who) for who in actor), "bytes"),
                [
                    (f"{s} %", *(f"{results['ratios'][f'{s}/{who}']:.0f}" for who in actor), _bytes(results, str(s)))
                    for s in shares
                ],
            ),
            "## Trained agents",
            (
                "The [small agents](agents.md), as times faster than SB3's `predict` of a dense 256-256 with the same"
                " observations and actions. Below those with 256-256 units are untrained masks of 17-256-256-6 of the same"
                " sparsity:"
            ),
            table(
                ("agent", "weights", *(_backend(who) for who in ("numpy", *kernels)), "bytes"),
                _trained(results, ("numpy", *kernels)),
            ),
            "## DQN's Nature CNN",
            (
                "A stack of four 84 x 84 frames in, one of 6 actions out; SB3 took"
                f" {results['latency']['cnn/sb3']['median']:.0f} µs. The budgets are ERK's, which at 95 % keep"
                f" {percent(first / whole)} of the first convolution, or uniform, the same share of every layer:"
            ),
            table(
                ("sparsity", *(_backend(who) for who in cnn), "vbmi, uniform", "bytes", "bytes, uniform"),
                [
                    (
                        f"{s} %",
                        *(f"{results['ratios'][f'cnn/{s}/{who}']:.1f}" for who in cnn),
                        f"{results['ratios'][f'cnn/{s}-uniform/vbmi']:.1f}" if s else "",
                        _bytes(results, f"cnn/{s}"),
                        _bytes(results, f"cnn/{s}-uniform") if s else "",
                    )
                    for s in shares
                ],
            ),
            (
                f"At 95 % `vbmi` needs {_median(results, 'cnn/95/vbmi')} µs with ERK and"
                f" {_median(results, 'cnn/95-uniform/vbmi')} µs uniform, ONNX Runtime's int8"
                f" {_median(results, 'cnn/95/onnx_static')} µs."
            ),
            "## Batches of the actor",
            (
                "As times faster than the forward pass of the dense network in torch, without SB3's `predict`, for so many"
                " observations in a call. Backend `compiled`, whose activations are floats, and, behind the stroke, `int8`"
                f" (`{batches['int8']}`):"
            ),
            _batches(batches),
            (
                "With half of its weights gone or more, the actor was faster than dense torch in every batch. The dense one"
                " with float activations is slower from 16 observations on: it is the same matrix products in numpy."
            ),
            "## The actor on 64-bit ARM",
            (
                "Instructions of an action with portable C, with the backend `compiled`, whose activations are floats as well,"
                " and with `neon`, which rounds them to 8 bits as `vbmi` does, compiled for the same architecture and counted"
                " under QEMU. Only `neon` has other code for a processor with dotprod. In brackets the share of portable C."
                " Instructions are not time."
            ),
            table(
                ("sparsity", "portable", "compiled", "neon", "neon, dotprod"),
                [
                    (
                        f"{s} %",
                        number(arm["instructions"][f"{s}/armv8-a"]["portable"]),
                        _instructions(arm, f"{s}/armv8-a", "compiled"),
                        _instructions(arm, f"{s}/armv8-a", "neon"),
                        _instructions(arm, f"{s}/armv8.2-a+dotprod", "neon"),
                    )
                    for s in shares
                ],
            ),
        ],
        columns={
            "0 %": "the dense network, exported",
            "ONNX Runtime, LiteRT": (
                "the same network in these runtimes, which multiply zeros like any other number. ONNX Runtime's int8 "
                "of the CNN is its own static quantization, with 8-bit activations"
            ),
            ", ".join(["numpy", "ctypes", *floats]): "backends of the compact file: 8-bit weights, float activations",
            ", ".join(eight_bits): (
                "compiled C that rounds hidden activations to 8 bits too, the backend `int8`, in the instructions of its name"
            ),
            "bytes": "the compact file",
        },
        limits=[
            (
                "But for the trained agents the masks are of an untrained network: they say what size and speed follow from a"
                " sparsity, not that an agent still plays at it. Returns are on [other](returns.md) [pages](minatar.md)."
            ),
            "In one process on one core; but for the batches, one observation at a time. The machine's processor decides"
            " about `vbmi`.",
            "All rows but those of SB3 and of dense torch have 8-bit weights and have lost their dead neurons.",
        ],
        settings={
            "weights": results["weights"],
            "rounds": (
                "actor: {} rounds of {} calls; ".format(*results["rounds"]["sb3"])
                + "CNN: {} rounds of {} calls; all rows in turns".format(*results["rounds"]["cnn/sb3"])
            ),
            "left out": "; ".join(sorted(set(results["skipped"].values()))) + " (so LiteRT has no rows for the CNN)",
        },
        commands=[
            "python -m benchmarks.speed.inference --json benchmarks/results/inference.json"
            " --png benchmarks/results/inference.png",
            "python -m benchmarks.speed.batches --json benchmarks/results/batches.json",
            "python -m benchmarks.deployment.neon --json benchmarks/results/neon.json",
        ],
        files=["inference", "batches", "neon"],
        figures={"inference": "time of one action over sparsity, by backend"},
    )


def _trained(results: dict[str, Any], backends: Sequence[str]) -> list[tuple[str, ...]]:
    """A row for each agent of the repository; behind those of 256-256 units, one of untrained masks of their sparsity."""
    rows = []
    students, pruned = stored("agents")["agents"], stored("trained")["agents"]
    for name in {**students, **pruned}:
        # Those that were pruned while they learnt have the hidden layers of the recipe, 256-256.
        share = pruned[name]["weights left"]["actor"] if name in pruned else 0.0
        shape, _, sparsity = students.get(name, {"shape": f"256x256-{100 - 100 * share:.0f}"})["shape"].rpartition("-")
        own = [(name, name, f"{name}/agent")]
        for title, rates, key in own + [(f"untrained, {sparsity} %", sparsity, sparsity)] * (shape == "256x256"):
            weights = number(sum(results["networks"][key]["nonzero_after_export"]))
            ratios = (f"{results['ratios'][f'{rates}/{who}']:.0f}" for who in backends)
            rows.append((title, weights, *ratios, _bytes(results, key)))
    return rows


def _batches(results: dict[str, Any]) -> str:
    names = list(results["ratios"])
    shares, sizes = (list(dict.fromkeys(name.split("/")[part] for name in names)) for part in (0, 2))
    rows = [
        (
            f"{share} %",
            *(
                "/".join(f"{results['ratios'][f'{share}/{backend}/{size}']:.1f}" for backend in ("compiled", "int8"))
                for size in sizes
            ),
        )
        for share in shares
    ]
    return table(("sparsity", *(number(int(size)) for size in sizes)), rows)


def _instructions(results: dict[str, Any], row: str, name: str) -> str:
    found = results["instructions"][row]
    return f"{number(found[name])} ({found[name] / found['portable']:.2f})"


def _backend(name: str) -> str:
    names = {"onnx_static": "ONNX Runtime int8"}
    return names.get(name, name.replace("onnx_", "ONNX Runtime ").replace("litert_", "LiteRT "))


def _bytes(results: dict[str, Any], key: str) -> str:
    return number(results["networks"][key]["bytes"])


def _median(results: dict[str, Any], key: str) -> str:
    return number(results["latency"][key]["median"])
