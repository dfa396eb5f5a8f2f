"""What agents learn in the engine, compared with SB3."""

from statistics import mean

from ..markdown import estimate, number, table
from ..page import Page, formerly, today
from ..stored import require, stored

ALGORITHMS = {"sac": "SAC", "td3": "TD3"}


def page() -> Page:
    """
    :return: The page
    """
    learning, cheetah = stored("learning"), stored("halfcheetah")
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
    agents = cheetah["agents"]
    long = [
        (
            name,
            number(found["steps"]),
            str(len(found["seeds"])),
            estimate(found["mean"], found["interval"]) if found["interval"] else number(found["mean"]),
            f"{mean(found['cpu_seconds']) / 60:.0f}",
        )
        for name, found in agents.items()
    ]
    rigl = agents["RigL 95 %, engine"]
    seeds = [mean(returns) for returns in rigl["returns"]]
    return Page(
        title="Learning in the engine",
        question="Do agents learn in the engine what they learn on SB3, and how far does one core get?",
        answer=(
            "On Pendulum the learning curves of SAC and TD3, dense and at 90 %, agree within their intervals. SAC with a"
            f" twentieth of its weights, which RigL rewires, returns {number(min(seeds))} to {number(max(seeds))} on"
            f" HalfCheetah after {number(rigl['steps'])} steps, by the seed, in {mean(rigl['cpu_seconds']) / 60:.0f} minutes"
            " of one core."
        ),
        tables=[
            "## The same curves",
            table(("agent", "SB3: final return", "engine: final return", "difference of the curves", "CPU seconds"), rows),
            "## A long run: SAC on HalfCheetah-v4",
            table(("agent", "steps", "seeds", "return", "CPU minutes"), long),
        ],
        columns={
            "final return": "mean of the last evaluation, with a 95 % t interval over seeds",
            "difference of the curves": "of the mean return of all evaluations, engine minus SB3, with Welch's 95 % interval",
            "CPU seconds": "of a run with its evaluations, on SB3 and in the engine",
            "CPU minutes": "of the whole process: start, training, evaluations",
        },
        limits=[
            (
                "The two begin with the same random numbers and drift apart by rounding, so single seeds differ; few seeds"
                " leave wide intervals."
            ),
            (
                "The dense agents are one seed each, and returns on HalfCheetah depend on the seed: those of the three sparse"
                f" agents lie {number(max(seeds) - min(seeds))} apart. So these two say how long training takes, and nothing"
                " about which learns more."
            ),
            (
                "The long runs shared the machine with other work, which also costs CPU time. The sparse agents were trained"
                " on a processor with AVX2, the dense ones on one with AVX-512."
            ),
        ],
        settings={
            "Pendulum-v1": (
                f"{len(learning['curves']['sac/dense/sb3']['returns'])} seeds; at 90 % random masks by ERK in all networks,"
                " from the first step"
            ),
            "HalfCheetah-v4": "recipe `sac_rigl.yml` with `--sparsity 0.95`, in actor and critics; 10 episodes for each agent",
        },
        commands=[
            *formerly(
                "dacce0d",
                "python benchmarks/learning.py --json benchmarks/results/learning.json --png benchmarks/results/learning.png",
            ),
            *formerly(
                "d678e56",
                "python benchmarks/halfcheetah.py --json benchmarks/results/halfcheetah.json"
                " --png benchmarks/results/halfcheetah.png",
            ),
            *today("engine"),
        ],
        files=["learning", "halfcheetah"],
        figures={
            "learning": "learning curves on Pendulum on SB3 and in the engine",
            "halfcheetah": "learning curves on HalfCheetah over steps and over CPU time",
        },
    )
