"""A sparse SAC agent and its dense twin on Pendulum."""

from statistics import mean, pstdev, stdev

from ..markdown import estimate, number, table
from ..page import Page, command, formerly, today
from ..stored import require, stored


def page() -> Page:
    """
    :return: The page
    """
    name = "twins_sac_pendulum"
    results = stored(name)
    rows = []
    for label, key in (("dense twin", "dense"), ("90 % sparse", "sparse")):
        agents = results["agents"][key]
        returns = [value for agent in agents for value in agent["returns"]]
        rows.append(
            (
                label,
                f"{number(mean(returns), 1)} ± {number(pstdev(returns), 1)}",
                number(agents[0]["nonzero"]),
                f"{mean(agent['active_neurons'] for agent in agents):.0f} of {agents[0]['neurons']}",
                number(mean(agent["bytes"] for agent in agents)),
            )
        )
    difference = estimate(results["return_difference"], results["intervals"]["return_difference"], 1)
    low, high = results["intervals"]["return_difference"]
    require(low < 0 < high, "the interval of the difference contains zero")
    spread = number(stdev(results["mean_returns"]["dense"]), 1)
    return Page(
        title="A sparse agent and its dense twin",
        question="Does an agent that keeps a tenth of its actor's weights reach the return of the dense agent?",
        answer=(
            f"On Pendulum-v1 it does. The mean returns, sparse minus dense, differ by {difference}, and the interval contains"
            f" zero. The mean returns of the dense seeds have a standard deviation of {spread}."
        ),
        tables=[table(("agent", "return", "weights of the actor", "active neurons", "actor on disk, bytes"), rows)],
        columns={
            "return": "mean ± standard deviation over all evaluation episodes of all seeds",
            "weights of the actor": "nonzero weights of the linear layers; biases are not counted",
            "active neurons": "units with at least one weight that leads to them, mean over seeds",
            "actor on disk": (
                "the actor's state dict as `numpy.savez_compressed` writes it in float32; "
                "the [exported file](inference.md) is several times smaller"
            ),
            "difference": "sparse minus dense, with a 95 % bootstrap interval over seeds",
        },
        limits=[
            (
                "Pendulum is an easy task. The tasks of the papers take a million steps each: the package has recipes for"
                " them, but nobody has trained those to the end here."
            ),
            "Both agents are evaluated in float32. 8-bit agents are on [another page](pixels.md).",
        ],
        settings={
            "task": "SAC on Pendulum-v1, recipe `sac_gmp.yml`, the actor pruned to 90 %",
            "steps": number(results["steps"]),
            "seeds": str(len(results["seeds"])),
            "evaluation": f"{len(results['agents']['dense'][0]['returns'])} episodes per agent, with the same seeds",
        },
        commands=[*formerly("076bfe6", command(name)), *today("twins")],
        files=[name],
        figures={name: "learning curves of both agents, and the sparsity of the actor, over the steps"},
    )
