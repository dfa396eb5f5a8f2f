"""DQN on MinAtar, pruned and then trained with 8 bits, and an attempt at Pong."""

from statistics import mean
from typing import Any

from ..markdown import estimate, number, percent, table
from ..page import Page, command, formerly, today
from ..stored import require, stored

GAMES = {"MinAtarBreakout-v1": "Breakout", "MinAtarSpaceInvaders-v1": "Space Invaders"}


def page() -> Page:
    """
    :return: The page
    """
    results, pong = stored("pixels"), stored("pong")
    tables = []
    for env, scores in results["scores"].items():
        shares = [key.removesuffix(" pruned") for key in scores if key.endswith(" pruned")]
        rows = [
            (
                "dense" if share == "0" else percent(float(share)),
                *_score(scores[f"{share} pruned"]),
                *_score(scores[f"{share} quantized"]),
                number(scores[f"{share} quantized"]["bytes"]),
            )
            for share in shares
        ]
        head = ("sparsity", "pruned", "minus dense", "then 8 bits", "minus dense", "bytes")
        tables += [f"## {GAMES[env]}", table(head, rows)]
    lost = {env: scores["0.95 pruned"] for env, scores in results["scores"].items()}
    for scores in results["scores"].values():
        for share in ("0.8", "0.9"):
            low, high = scores[f"{share} pruned"]["difference_interval"]
            require(low < 0 < high, "90 % of the weights can go without a loss that three seeds could show")
    breakout, invaders = lost["MinAtarBreakout-v1"], lost["MinAtarSpaceInvaders-v1"]
    require(breakout["difference"] < -2 and invaders["difference_interval"][1] < 0, "95 % loses return on both games")
    swing = _worst_swing(results)
    tables += ["## Pong, as far as it was tried", _pong(pong)]
    atari_hours = 1e7 / stored("atari_speed")["stock_steps_per_second"]["dqn"] / 3600
    seeds = len(results["agents"]["MinAtarBreakout-v1"]["0 pruned"])
    return Page(
        title="From pixels: pruned, then 8 bits",
        question="Does a DQN agent that is pruned, and then trained with 8-bit weights, reach the return of the dense agent?",
        answer=(
            f"On two MinAtar games 90 % of the weights can go without a loss that {seeds} seeds could show. At 95 % the"
            f" return is lower: it differs from the dense agent's by {_difference(breakout)} on Breakout and by"
            f" {_difference(invaders)} on Space Invaders."
        ),
        tables=tables,
        columns={
            "pruned": "return after 100 % of the steps, mean over seeds and 95 % t interval",
            "then 8 bits": "return of the same agents after another 20 % of the steps with 8-bit weights",
            "minus dense": "difference from the dense agent after 100 % of the steps, with Welch's 95 % interval",
            "bytes": (
                "the exported compact file of the 8-bit agent, mean over seeds. Mean returns of these files and of "
                f"their agents differ by at most {_export_gap(results, 'quantized'):.1f}"
            ),
        },
        limits=[
            (
                "The 8-bit agents have trained 20 % longer than the agents that they are compared with; a dense control of the"
                " same length was not run (`--no-control`); the grid `minatar` has one."
            ),
            (
                "Agents swing from one evaluation to the next, and those with 8 bits swing most: a dense one returned "
                f"{swing['before']:.0f} over 10 episodes at step {number(swing['step'])}, before its last two updates, and "
                f"{swing['after']:.0f} over {swing['episodes']} episodes after them."
            ),
            (
                "Before they train with 8 bits, agents can change when they are exported: the mean returns of file and agent"
                f" differ by up to {_export_gap(results, 'pruned'):.1f}."
            ),
            (
                "Atari itself takes the paper ten million steps, at the"
                f" {number(stored('atari_speed')['stock_steps_per_second']['dqn'])} steps per second of [stock DQN"
                f" here](training_speed.md) {atari_hours:.0f} hours per agent. It has recipes and no results of ours yet."
            ),
            (
                f"Pong was tried for {number(pong['steps'])} steps, {pong['steps'] / 1e5:.1f} % of that, with frames of 42 x"
                " 42: neither agent has won a point in its evaluations, so this run does not compare the two."
            ),
        ],
        settings={
            "task": (
                "DQN on MinAtar, recipe `dqn_gmp_qat.yml`: the whole Q-network pruned, as in figure 5 of Ivanov et al. 2025"
            ),
            "steps": f"{number(results['steps'])}, then {number(results['steps'] * 0.2)} with 8 bits",
            "seeds": str(seeds),
            "evaluation": f"{swing['episodes']} episodes per agent",
        },
        commands=[*formerly("5a8c857", command("pixels"), command("pong")), *today("minatar", "pong")],
        files=["pixels", "pong"],
        figures={"pixels": "returns over sparsity on the two games, pruned and with 8 bits"},
    )


def _difference(score: dict[str, Any]) -> str:
    return estimate(score["difference"], score["difference_interval"], 1)


def _score(score: dict[str, Any]) -> tuple[str, str]:
    is_reference = score["difference_interval"] == [0.0, 0.0]
    return estimate(score["mean"], score["interval"], 1), "" if is_reference else _difference(score)


def _worst_swing(results: dict[str, Any]) -> dict[str, float]:
    """The dense 8-bit agent of Space Invaders that changed most between its last evaluation in training and the final one."""
    env = "MinAtarSpaceInvaders-v1"
    swings = []
    for (steps, curve), agent in zip(results["learning_curves"][env]["0"], results["agents"][env]["0 quantized"], strict=True):
        after = mean(agent["returns"])
        swings.append({"step": steps[-1], "before": curve[-1], "after": after, "episodes": len(agent["returns"])})
    return max(swings, key=lambda swing: swing["before"] - swing["after"])


def _export_gap(results: dict[str, Any], kind: str) -> float:
    """Largest difference between the mean return of exported files and that of their agents."""
    scores = [score for env in results["scores"].values() for key, score in env.items() if key.endswith(kind)]
    return max(abs(score["exported_mean"] - score["mean"]) for score in scores)


def _pong(results: dict[str, Any]) -> str:
    agents = results["agents"]
    require(
        all(value == -21 for agent in agents.values() for value in (*agent["returns"], *agent["curve"]["mean_return"])),
        "neither agent has won a point on Pong",
    )
    rows = [
        (key.replace("%", " %"), number(mean(agent["returns"])), number(agent["nonzero"]), number(agent["bytes"]))
        for key, agent in agents.items()
    ]
    return table(("agent", "return", "weights", "bytes"), rows)
