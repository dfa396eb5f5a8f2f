"""Returns of exported agents over those of their models."""

from statistics import mean, pstdev

from ..markdown import estimate, number, table
from ..page import Page
from ..stored import BEFORE_LAYOUTS, require, stored


def page() -> Page:
    """
    :return: The page
    """
    results = stored("returns")
    forms = ("8 bits", "8 bits without calibration", "float")
    tables = []
    for form in forms:
        rows = []
        for name, agent in results["agents"].items():
            key = f"{name}/{form}"
            rows.append(
                (
                    name,
                    *(_spread(agent["returns"][who]) for who in ("SB3 model", form)),
                    estimate(results["ratios"][key], results["intervals"][key], 3),
                    number(agent["nbytes"][form]),
                )
            )
        tables += [f"## Exported: {form}", table(("agent", "SB3 model", "exported file", "exported / SB3", "bytes"), rows)]
    calibrated = {name: results["intervals"][f"{name}/8 bits"] for name in results["agents"]}
    require(all(high >= 1 for _, high in calibrated.values()), "no calibrated 8-bit export returns less than its model")
    lost = sum(results["intervals"][f"{name}/8 bits without calibration"][1] < 1 for name in results["agents"])
    return Page(
        title="Returns of exported agents",
        question="Does an exported 8-bit agent play as well as the model that it was made from?",
        answer=(
            "With calibration observations, none of the four agents returns less than its model by more than its episodes"
            f" could show. Without calibration {lost} of them do."
        ),
        tables=tables,
        columns={
            "SB3 model, exported file": "return, mean ± standard deviation over episodes with the same seeds",
            "exported / SB3": "ratio of the means, with a 95 % bootstrap interval over pairs of episodes with the same seed",
            "bytes": f"the compact file, {BEFORE_LAYOUTS}",
            "float": (
                "a control: the weights are not rounded, and the ratio shows what float rounding alone does to an episode"
            ),
        },
        limits=[
            "Four dense agents. Those that were pruned while they learnt are on [another page](sac_from_scratch.md).",
            (
                "Hopper agents fall now and then, and the smallest rounding moves the falls to other episodes. A ratio above 1"
                " is not an improvement by rounding."
            ),
        ],
        settings={
            "agents": "`rl-trained-agents`, the public collection that rl-zoo3 trained for a million steps; dense",
            "evaluation": (
                f"{len(results['agents']['sac-Hopper-v4']['returns']['8 bits'])} episodes per agent and form, same seeds; "
                "calibration plays other episodes"
            ),
            "seeds": "one training seed per agent",
        },
        commands=[
            "python -m benchmarks.deployment.returns sac-HalfCheetah-v4.zip tqc-HalfCheetah-v4.zip sac-Hopper-v4.zip"
            " tqc-Hopper-v4.zip \\\n    --json benchmarks/results/returns.json"
        ],
        files=["returns"],
    )


def _spread(values: list[float]) -> str:
    return f"{number(mean(values))} ± {number(pstdev(values))}"
