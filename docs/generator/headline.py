"""The table of headline results: one line for each question, with the page that says all about it."""

from statistics import mean

from .markdown import estimate, number, table
from .stored import stored

NOTE = (
    "Each row is of another agent. Brackets hold 95 % intervals. Pendulum, InvertedDoublePendulum and MinAtar are easy tasks,"
    " and the SAC agent of HalfCheetah is dense. The rows *time of an action* and *flash* are of untrained masks: they say"
    " what size and speed follow from a sparsity, not that an agent still plays at it. The sparse training step has a fused"
    " Adam, which stock SB3 does not use."
)


def headline(folder: str) -> str:
    """
    :param folder: Where the pages are, seen from the file that holds the table.
    :return: The table
    """
    twins, dynamic, pixels = stored("twins_sac_pendulum"), stored("dynamic_td3_inverted_double_pendulum"), stored("pixels")
    exported, latency, mcu = stored("returns"), stored("inference")["latency"], stored("mcu")
    throughput = stored("throughput")
    overhead, distilled, replay = stored("overhead"), stored("distill"), stored("replay")
    final, breakout = dynamic["final_return"], pixels["scores"]["MinAtarBreakout-v1"]
    key = "tqc-HalfCheetah-v4/0.95/8 bits"
    student, share = distilled["students"][key], estimate(distilled["ratios"][key], distilled["intervals"][key], 3)
    means = {kind: mean(twins["mean_returns"][kind]) for kind in ("dense", "sparse")}
    cheetah = exported["agents"]["sac-HalfCheetah-v4"]["returns"]
    gap = estimate(twins["return_difference"], twins["intervals"]["return_difference"], 1)
    key = "sac-HalfCheetah-v4/8 bits"
    ratio = estimate(exported["ratios"][key], exported["intervals"][key], 3)
    rows = [
        (
            "return, SAC on Pendulum",
            "twins",
            number(means["dense"], 1),
            f"90 % sparse actor; difference {gap}",
            number(means["sparse"], 1),
        ),
        (
            "return, TD3 on InvertedDoublePendulum",
            "dynamic",
            _score(final["dense"], 0),
            "90 % sparse from the first step (SET)",
            _score(final["set 90%"], 0),
        ),
        (
            "return, DQN on MinAtar Breakout",
            "pixels",
            _score(breakout["0 pruned"], 1),
            "90 % pruned, then 8 bits",
            _score(breakout["0.9 quantized"], 1),
        ),
        (
            "return, trained SAC on HalfCheetah",
            "returns",
            number(mean(cheetah["SB3 model"])),
            f"exported with 8 bits; ratio {ratio}",
            number(mean(cheetah["8 bits"])),
        ),
        (
            "return, trained TQC on HalfCheetah, distilled",
            "distill",
            number(distilled["teachers"]["tqc-HalfCheetah-v4"]),
            f"95 % sparse in 8 bits, in {student['cpu_minutes'][0]:.1f} CPU minutes; ratio {share}",
            number(mean(student["returns"])),
        ),
        (
            "time of an action, µs",
            "inference",
            number(latency["sb3"]["median"]),
            "95 % sparse, compiled C",
            number(latency["95/portable"]["median"], 1),
        ),
        (
            "flash on a Cortex-M4F, bytes",
            "microcontroller",
            number(mcu["flash"]["dense/m4f/float32"]),
            "95 % sparse, 8-bit weights",
            number(mcu["flash"]["95/m4f/w8a16"]),
        ),
        (
            "steps per CPU second, SAC on HalfCheetah, over SB3",
            "throughput",
            "1",
            "90 % sparse, in the engine",
            estimate(throughput["ratios"]["sac/sparse/0.9"], throughput["intervals"]["sac/sparse/0.9"], 1),
        ),
        (
            "time of a SAC training step, over stock",
            "overhead",
            "1",
            "actor and critics 90 % pruned",
            estimate(overhead["ratios"]["sac/all/prune"], overhead["intervals"]["sac/all/prune"], 3),
        ),
        (
            "a million Atari transitions, GB",
            "training_speed",
            number(replay["bytes_per_transition"]["sb3"] / 1000, 1),
            "`FrameReplayBuffer`",
            number(replay["bytes_per_transition"]["ours"] / 1000, 1),
        ),
    ]
    cells = [(f"[{what}]({folder}{page}.md)", before, after, how) for what, page, before, how, after in rows]
    return f"{table(('measured', 'SB3 or dense', 'sb3_sparse', 'how'), cells, align='lrrl')}\n\n{NOTE}"


def _score(score: dict[str, list[float]], digits: int) -> str:
    return estimate(score["mean"], score["interval"], digits)
