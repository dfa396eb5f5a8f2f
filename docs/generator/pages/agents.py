"""Small agents to run."""

from typing import Any

from sb3_sparse.sweeps.kinds.evaluation import FIRST_EPISODE

from ..grids import dense_agents, siblings
from ..markdown import estimate, number, percent, table
from ..page import Page
from ..stored import stored


def page() -> Page:
    """
    :return: The page
    """
    results, trained = stored("agents"), stored("trained")
    agents = results["agents"]
    everyone = [*agents.values(), *trained["agents"].values()]
    smallest = min(everyone, key=lambda own: own["nbytes"])
    largest = max(everyone, key=lambda own: own["nbytes"])
    first = next(iter(agents))
    return Page(
        title="Small agents to run",
        question="Which sparse and small agents can I run now?",
        answer=(
            f"{len(everyone)} agents of {number(smallest['nbytes'])} to {number(largest['nbytes'])} bytes are part of this"
            " repository: students of dense agents, and agents that were pruned while they learnt. The largest file has"
            f" {number(largest['weights'])} weights."
        ),
        tables=[
            f"```bash\nsb3-sparse play docs/results/agents/{first}.sb3s --env {agents[first]['env']}\n```",
            *[block for name, own in agents.items() for block in _card(name, own, results)],
            *[block for name, own in trained["agents"].items() for block in _trained_card(name, own, trained["episodes"])],
        ],
        columns={
            "returns": "mean over fresh episodes, which nothing was chosen on; a student and its teacher play the same ones",
            "all seeds": "mean returns of all agents that were trained with these settings, and of dense ones",
            "share": "the student's over the teacher's; 95 % interval by a bootstrap over episodes",
            "weights": "those that are not zero, without neurons that nothing reads",
        },
        limits=[
            "One distillation each, with seed 0, so an interval is over episodes alone.",
            "An agent that was pruned while it learnt was chosen by other episodes, among all runs that were stored then: the"
            " smallest file that returned as much as the published dense agent, since ours were trained later, or else the"
            " best. [What all of them return](sac_from_scratch.md).",
            "*made by* names the settings. A run of the grid begins anew at each of its checkpoints, so this command makes"
            " another agent.",
            "A Hopper agent falls now and then, and a share above 1 says that a student falls less.",
            "The agents are for the versions of the environments that stand here. Other versions may have other observations"
            " or dynamics: look at the returns there first.",
        ],
        settings={
            "teachers": "`rl-trained-agents`, the public collection that rl-zoo3 trained for a million steps (MIT)",
            "distillation": f"{number(results['updates'])} updates, otherwise as `distill` does it",
            "evaluation": f"{results['episodes']} episodes",
        },
        commands=[
            "python -m benchmarks.size.agents "
            + " ".join(f"{own['teacher']}.zip:{own['shape']}:{own['bits']}" for own in agents.values())
            + f" \\\n    --updates {results['updates']} --json benchmarks/results/agents.json",
            f"sb3-sparse benchmark run {trained['grid']} --folder logs/sweeps",
            "python -m benchmarks.size.trained --folder logs/sweeps --json benchmarks/results/trained.json",
        ],
        files=["agents", "trained"],
    )


def _card(name: str, own: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """The card of one agent: heading and table."""
    widths, sparsity = own["shape"].split("-")
    network = f"hidden layers {widths.replace('x', ', ')}, " + ("dense" if sparsity == "0" else f"{sparsity} % sparse")
    rows = [
        ("task", f"{own['env']}, one observation in, the action in the environment's bounds out"),
        ("network", f"{network}, {number(own['weights'])} weights of {own['bits']} bits"),
        ("bytes", number(own["nbytes"])),
        ("returns", f"{number(own['returns']['student'], 1)}, its teacher {number(own['returns']['teacher'], 1)}"),
        ("again", _play(name, own, results["episodes"], FIRST_EPISODE)),
        ("share", estimate(own["ratio"], own["interval"], 3)),
        ("made by", f"{number(results['updates'])} updates of a distillation, in {own['cpu_minutes']:.1f} CPU minutes"),
        ("teacher", f"`{own['teacher']}.zip`, {own['algorithm']}"),
        ("SHA-256", f"`{own['sha256']}`"),
    ]
    return [f"## {name}", f"[agents/{name}.sb3s](agents/{name}.sb3s)", table(("", ""), rows, align="ll")]


def _trained_card(name: str, own: dict[str, Any], episodes: int) -> list[str]:
    """The card of an agent that was pruned while it learnt."""
    left = ", ".join(f"{network} {percent(share)}" for network, share in own["weights left"].items())
    sparsity = "" if own["sparsity"] is None else f" --sparsity {own['sparsity']:g}"
    command = (
        f"sb3-sparse train --algo {own['algorithm'].lower()} --env {own['env']} --recipe {own['recipe']}{sparsity} --engine"
    )
    rows = [
        ("task", f"{own['env']}, one observation in, the action in the environment's bounds out"),
        ("network", f"{number(own['weights'])} weights of 8 bits"),
        ("bytes", number(own["nbytes"])),
        ("returns", f"{estimate(own['return'], own['interval'])} over episodes of this agent"),
        ("again", _play(name, own, episodes, 5_000_000)),
        ("all seeds", _seeds(own)),
        ("made by", f"`{command} --seed {own['seed']}`, {number(own['steps'])} steps in {own['cpu_minutes']:.0f} CPU minutes"),
        ("weights left", left),
        ("SHA-256", f"`{own['sha256']}`"),
    ]
    return [f"## {name}", f"[agents/{name}.sb3s](agents/{name}.sb3s)", table(("", ""), rows, align="ll")]


def _play(name: str, own: dict[str, Any], episodes: int, seed: int) -> str:
    return f"`sb3-sparse play docs/results/agents/{name}.sb3s --env {own['env']} --episodes {episodes} --seed {seed}`"


def _seeds(own: dict[str, Any]) -> str:
    returns = siblings(own).returns
    return f"{', '.join(map(number, returns))}; dense: {', '.join(map(number, dense_agents(own['env'])))}"
