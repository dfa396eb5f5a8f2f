"""Returns of a recurrent agent before and after pruning, and through its C header."""

from statistics import mean, pstdev

from ..markdown import number, percent, table
from ..page import Page
from ..stored import require, stored


def page() -> Page:
    """
    :return: The page
    """
    results = stored("recurrent")
    returns, settings = results["returns"], results["settings"]
    before, pruned, header = (returns[name] for name in ("SB3 model before pruning", "SB3 model, pruned", "C header"))
    forgetful = returns["C header without its state"]
    rows = [(name, *(number(of(values), 1) for of in (mean, pstdev, min))) for name, values in returns.items()]
    require(mean(header) >= 0.98 * mean(before), "the C header returns what the model returned before pruning, to 2 %")
    require(mean(header) >= 0.98 * mean(pruned), "the C header returns what the pruned model returns, to 2 %")
    require(mean(forgetful) < 0.5 * mean(header), "without its state the header returns less than half")
    return Page(
        title="A recurrent agent in C",
        question="Does a recurrent agent play through its C header as before it was pruned and rounded?",
        answer=(
            f"Yes, on CartPole without velocities: {number(mean(before), 1)} before pruning, {number(mean(header), 1)} at"
            f" {percent(results['sparsity'])} in 8 bits through the C header. The header without its state returns"
            f" {number(mean(forgetful), 1)}: the agent needs its memory."
        ),
        tables=[
            table(("played by", "return", "standard deviation", "minimum"), rows),
            table(
                ("bytes", ""),
                [(name, number(results[name])) for name in ("dense float32", "compact file")],
            ),
        ],
        columns={
            "return": "steps until the pole falls, at most 500: mean over episodes with the same seeds",
            "SB3 model before pruning": "the dense model in the middle of training",
            "SB3 model, pruned": "the same model after more training, during which it was pruned",
            "C header without its state": "the state is reset at every step: what the memory is worth",
            "dense float32": "weights and biases of the actor's LSTM, hidden layer and output",
        },
        limits=[
            "One agent, one training seed and an easy task.",
            "The settings were chosen among several, by the return after pruning.",
            "Training goes on while the agent is pruned, so that it has seen more steps in the end.",
        ],
        settings={
            "environment": "CartPole-v1 without the velocities of cart and pole; observations are normalized",
            "training": (
                f"RecurrentPPO, {number(settings['steps'])} steps: half of them dense, then `lstm_actor` and"
                f" `mlp_extractor` pruned by `GradualPruningCallback`, so that {percent(results['sparsity'])} of it is zero"
            ),
            "evaluation": f"{settings['episodes']} episodes, same seeds; calibration plays other episodes",
        },
        commands=["python -m benchmarks.deployment.recurrent --json benchmarks/results/recurrent.json"],
        files=["recurrent"],
    )
