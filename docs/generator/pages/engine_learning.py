"""What agents learn in the engine on Pendulum, compared with SB3."""

from ..markdown import estimate, table
from ..page import Page, formerly, today
from ..stored import require, stored

ALGORITHMS = {"sac": "SAC", "td3": "TD3"}


def page() -> Page:
    """
    :return: The page
    """
    learning = stored("learning")
    rows = []
    for name in sorted({key.rsplit("/", 1)[0] for key in learning["curves"]}):
        algorithm, kind = name.split("/", 1)
        key = f"{name}/curve return, engine - SB3"
        finals = [learning["final"][f"{name}/{way}"] for way in ("sb3", "engine")]
        seconds = [learning["cpu_seconds"][f"{name}/{way}"] for way in ("sb3", "engine")]
        rows.append(
            (
                f"{ALGORITHMS[algorithm]}, {'dense' if kind == 'dense' else '90 %'}",
                *(estimate(final["mean"], final["interval"]) for final in finals),
                estimate(learning["ratios"][key], learning["intervals"][key]),
                f"{seconds[0]:.0f} and {seconds[1]:.0f}",
            )
        )
        low, high = learning["intervals"][key]
        require(low <= 0.0 <= high, f"the interval of the difference of {name} contains zero")
    return Page(
        title="Learning in the engine",
        question="Do agents learn in the engine what they learn on SB3?",
        answer="On Pendulum the learning curves of SAC and TD3, dense and at 90 %, agree within their intervals.",
        tables=[
            table(("agent", "SB3: final return", "engine: final return", "difference of the curves", "CPU seconds"), rows),
            "[Runs of HalfCheetah](engine-long.md) are longer, and of few seeds.",
        ],
        columns={
            "final return": "mean of the last evaluation, with a 95 % t interval over seeds",
            "difference of the curves": "of the mean return of all evaluations, engine minus SB3, with Welch's 95 % interval",
            "CPU seconds": "of a run with its evaluations, on SB3 and in the engine",
        },
        limits=[
            (
                "The two begin with the same random numbers and drift apart by rounding, so single seeds differ; few seeds"
                " leave wide intervals."
            ),
        ],
        settings={
            "Pendulum-v1": (
                f"{len(learning['curves']['sac/dense/sb3']['returns'])} seeds; at 90 % random masks by ERK in all networks,"
                " from the first step"
            ),
        },
        commands=[
            *formerly(
                "dacce0d",
                "python benchmarks/learning.py --json benchmarks/results/learning.json --png benchmarks/results/learning.png",
            ),
            *today("engine --size reduced"),
        ],
        files=["learning"],
        figures={"learning": "learning curves on Pendulum on SB3 and in the engine"},
    )
