"""CPU time of an environment step in the engine, in SBX and in RLtools, beside stock SB3."""

from ..markdown import estimate, table
from ..page import Page
from ..stored import stored

CONTESTANTS = {
    "sb3": "SB3",
    "sbx": "SBX",
    "dense": "engine, dense",
    "sparse/0.9": "engine, 90 % sparse",
    "sparse/0.99": "engine, 99 % sparse",
    "rltools": "RLtools, its own Pendulum",
    "rltools/gymnasium": "RLtools, Gymnasium's Pendulum",
    "rltools/loops": "RLtools without MKL, its own Pendulum",
}
COMPARISONS = {
    "halfcheetah": "HalfCheetah-v4, 256-256, batches of 256",
    "pendulum/64": "Pendulum, 64-64, batches of 100",
    "pendulum/256": "Pendulum, 256-256, batches of 256",
}


def page() -> Page:
    """
    :return: The page
    """
    results = stored("rivals")
    ratios, skipped = results["ratios"], results["skipped"]

    def rows(comparison: str) -> list[tuple[str, str, str]]:
        found = []
        for side, label in CONTESTANTS.items():
            name = f"{comparison}/{side}"
            if name in results["milliseconds"]:
                ratio = "1"
                if name in ratios:
                    ratio = estimate(ratios[name], results["intervals"][name], 1 if ratios[name] > 1.0 else 2)
                found.append((label, ratio, f"{results['milliseconds'][name]:.2f}"))
            elif name in skipped:
                found.append((label, f"skipped: {skipped[name]}", ""))
        return found

    def times(name: str) -> str:
        return f"{ratios[name]:.1f} times" if name in ratios else "(skipped)"

    return Page(
        title="Beside SBX and RLtools",
        question="How fast does SAC train in the engine, compared with SBX (SB3's algorithms on JAX) and RLtools (C++)?",
        answer=(
            f"Over stock SB3 on HalfCheetah, SBX trains {times('halfcheetah/sbx')} as fast, the engine"
            f" {times('halfcheetah/dense')} with all weights and {times('halfcheetah/sparse/0.9')} with a tenth of them. On"
            f" Pendulum at RLtools' own small setting, RLtools trains {times('pendulum/64/rltools')} as fast and the dense"
            f" engine {times('pendulum/64/dense')}; with 256-256 it is {times('pendulum/256/rltools')} and"
            f" {times('pendulum/256/dense')}."
        ),
        tables=[
            block
            for comparison, title in COMPARISONS.items()
            for block in (f"## {title}", table(("SAC", "over SB3", "ms per step"), rows(comparison)))
        ],
        columns={
            "over SB3": "CPU time of a step of stock SB3 over that of the contestant; median and its 95 % interval",
            "ms per step": "median CPU time of an environment step with one gradient step",
            "RLtools": "its Python wheel with MKL, as it advises for Linux; without MKL it multiplies by its own loops",
        },
        limits=[
            "Speed alone: nothing is evaluated, and the engine's zeros are placed at random.",
            (
                "RLtools' own Pendulum is C++ and costs next to nothing. SB3, SBX and the engine step Gymnasium's in Python,"
                " with a Monitor and SB3's `learn()` around it, and all of that is in their time."
            ),
            (
                "Imports and compilation are left out: SBX compiles by JAX in every run, RLtools by the C++ compiler for every"
                " new size, the engine by the C++ compiler once per machine."
            ),
            (
                "SBX is measured on a CPU, and JAX is made for GPUs and TPUs as well. MKL is Intel's, and may do better on its"
                " processors."
            ),
            "All are on one core with one thread each. SB3 and SBX use several by default.",
            "The core was shared with other work, which widens the intervals.",
        ],
        settings={
            "updates": "one gradient step after each environment step; learning begins at the 300th",
            "rounds": f"{results['rounds']}, all contestants in turns of about a CPU second, each in a process of its own",
        },
        commands=["taskset -c 0 python -m benchmarks.speed.rivals --json benchmarks/results/rivals.json"],
        files=["rivals"],
    )
