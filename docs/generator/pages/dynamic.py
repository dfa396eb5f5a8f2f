"""Static and dynamic sparse training of TD3."""

from statistics import mean

from ..markdown import estimate, number, percent, table
from ..page import Page, command, formerly, today
from ..stored import require, stored


def page() -> Page:
    """
    :return: The page
    """
    name = "dynamic_td3_inverted_double_pendulum"
    results = stored(name)
    rows = []
    for key, agents in results["agents"].items():
        last, curve = results["final_return"][key], results["learning_curve_area"][key]
        explored = [agent["explored"].get("critic", agent["connections"] / agent["total"]) for agent in agents]
        flops = [agent["training_flops"] / results["agents"]["dense"][0]["training_flops"] for agent in agents]
        rows.append(
            (
                key.replace("set", "SET").replace("rigl", "RigL").replace("%", " %"),
                estimate(last["mean"], last["interval"]),
                estimate(curve["mean"], curve["interval"]),
                number(agents[0]["connections"]),
                percent(mean(explored)),
                f"{mean(flops):.2f}",
            )
        )
    compared = [scores[key] for scores in (results["final_return"], results["learning_curve_area"]) for key in scores]
    require(
        all(low <= 0 <= high for low, high in (score["difference_interval"] for score in compared)),
        "the interval of every difference from dense contains zero",
    )
    seeds = len(results["agents"]["dense"])
    return Page(
        title="Dynamic sparse training",
        question="Do agents that are sparse from their first step to their last reach the return of a dense agent?",
        answer=(
            "All of them learn the task, also with a tenth of the weights. At 90 % the sparse agents tend to need longer, and"
            f" the static ones longest, with relapses. But {seeds} seeds do not tell the methods apart: the 95 % interval of"
            " every difference from the dense agent contains zero."
        ),
        tables=[
            table(
                ("agent", "final return", "mean of the learning curve", "connections", "explored (critic)", "training FLOPs"),
                rows,
            )
        ],
        columns={
            "final return": "mean over seeds of the mean return after training, with a 95 % t interval over seeds",
            "mean of the learning curve": (
                "the same for the mean of the twenty evaluations during training: it says how fast an agent learns"
            ),
            "connections": "weights that the masks let exist, actor and critics together",
            "explored (critic)": "share of the critic's weights that have existed at some time of the run",
            "training FLOPs": (
                "floating-point operations of training by RigL's accounting, as a share of the dense agent's. "
                "PyTorch multiplies zeros as well, so the time does not fall with them"
            ),
        },
        limits=[
            f"{seeds} seeds on one easy task. The MuJoCo recipes of DS-TD3 have not been run to their end here.",
            "The output layers are dense, in all sparse agents.",
        ],
        settings={
            "task": "TD3 on InvertedDoublePendulum-v4, recipes `td3_{dense,static,set,rigl}.yml`, actor and critics",
            "steps": number(results["steps"]),
            "seeds": str(seeds),
            "evaluation": f"{len(results['agents']['dense'][0]['returns'])} episodes per agent, with the same seeds",
        },
        commands=[*formerly("fb68ae8", command(name)), *today("dynamic")],
        files=[name],
        figures={name: "learning curves of the dense, static, SET and RigL agents"},
    )
