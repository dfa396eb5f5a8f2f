"""What becomes of the agents of a public collection."""

from ..markdown import estimate, number, table
from ..page import Page
from ..stored import require, stored


def page() -> Page:
    """
    :return: The page
    """
    rows = stored("collection")["agents"]
    accepted = {name: row for name, row in rows.items() if row["answer"] == "accepted"}
    played = {name: row for name, row in accepted.items() if row["returns"]}
    require(len(accepted) == len(rows), "every agent is exported")
    require(all(row["header"].startswith("passed (float") for row in accepted.values()), "every header passes its self test")
    require(all(row["onnx"] == "equal" for row in accepted.values()), "every ONNX graph acts as the file does")
    lost = [name for name, row in played.items() if row["returns"]["difference"]["interval"][1] < 0]
    gained = [name for name, row in played.items() if row["returns"]["difference"]["interval"][0] > 0]
    require(not lost, "no agent returns less by more than its episodes show")
    speeds = [row["speedup"] for row in accepted.values()]
    return Page(
        title="A public collection",
        question="What becomes of agents that SB3 1.x has trained, as they lie in the public collection `rl-trained-agents`?",
        answer=(
            f"All {len(rows)} are exported, without the old package `gym`. Every C header compiles and passes its self test,"
            f" and every ONNX graph acts as the file does. {len(played)} are played, and none returns less than its model by"
            f" more than its episodes could show. An action is computed {min(speeds):.0f} to {max(speeds):.0f} times as fast"
            " as by SB3's `predict`."
        ),
        tables=[
            table(
                ("agent", "played in", "SB3 zip", "float32", "file", "faster", "integers in C"),
                [
                    (
                        name,
                        row["env_used"] or "nothing",
                        *map(number, row["bytes"].values()),
                        number(row["speedup"]),
                        "yes" if "integers" in row["header"] else "no",
                    )
                    for name, row in accepted.items()
                ],
                align="llrrrrl",
            ),
            "## Returns",
            table(
                ("agent", "episodes", "SB3", "exported", "difference"),
                [
                    (name, number(row["returns"]["episodes"]), *map(_returns, list(row["returns"].values())[1:]))
                    for name, row in played.items()
                ],
            ),
        ],
        columns={
            "agent": "its folder in the collection; one in `her/` and one in `tqc/` have dict observations",
            "played in": "today's version of the environment that it was trained in; nothing where that is not installed",
            "SB3 zip, float32, file": "bytes of the zip, of the actor's dense float32 weights, and of the compact file",
            "faster": "median time of SB3's `predict` for one observation over that of the file, in one thread",
            "integers in C": "whether the header has integer arithmetic as well, which needs calibration",
            "SB3, exported, difference": (
                "mean return with its 95 % t interval over episodes with the same seeds; the difference is over pairs"
            ),
        },
        limits=[
            (
                "Where a walker falls now and then, the smallest change moves the falls to other episodes. A rounded policy is"
                f" another one, and may fall more often or less: {', '.join(gained) or 'no agent'} returns more than its model"
                " here, which is not an improvement by rounding that others may expect."
            ),
            "The simulators are of a later version than those that the agents were trained in.",
            "Agents whose environment is not installed are exported without calibration, and their returns are unknown.",
            "Other work ran on the machine. The contestants of `faster` take turns, so it slows all alike.",
            f"{len(accepted)} of the collection's agents.",
        ],
        settings={
            "agents": "`rl-trained-agents`, written by SB3 1.x, with rl-zoo3's settings and statistics next to each",
            "export": "`sb3-sparse compress`, 8 bits, 4096 observations for calibration, with what it finds next to the zip",
            "evaluation": "20 episodes of each, or as many as there is time for in two minutes",
        },
        commands=["python -m benchmarks.deployment.collection rl-trained-agents --json benchmarks/results/collection.json"],
        files=["collection"],
    )


def _returns(found: dict) -> str:
    return estimate(found["mean"], found["interval"], 1)
