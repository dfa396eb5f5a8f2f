"""The table of headline results: one line for each question, with the page that says all about it."""

from statistics import mean

from sb3_sparse.sweeps.report.statistics import Estimate

from .grids import comparison
from .markdown import estimate, number, table
from .stored import require, stored

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
    twins = [comparison("twins-full", sparsity=sparsity) for sparsity in (0.0, 0.9)]
    double = [comparison("dynamic-full", recipe="dense"), comparison("dynamic-full", recipe="set", sparsity=0.9)]
    breakout = [
        comparison("minatar-full", form, env="MinAtarBreakout-v1", recipe=recipe, sparsity=sparsity)
        for form, recipe, sparsity in (("agent", "gmp", 0.0), ("8 bits", "gmp_qat", 0.9))
    ]
    for _, sparse in (twins, double, breakout):
        require(sparse.loses is False, "the sparse agents of the first rows are without loss by the rule of the reports")
    exported, latency, mcu = stored("returns"), stored("inference")["latency"], stored("mcu")
    throughput = stored("throughput")
    overhead, replay = stored("overhead"), stored("replay")
    teacher, student = (
        comparison("distilled_agents-full", form, agent="experts/tqc-HalfCheetah-v4.zip", sparsity=sparsity)
        for form, sparsity in (("agent", None), ("8 bits", 0.95))
    )
    minutes = student.group.results[0]["cpu_seconds"] / 60
    cheetah = exported["agents"]["sac-HalfCheetah-v4"]["returns"]
    key = "sac-HalfCheetah-v4/8 bits"
    ratio = estimate(exported["ratios"][key], exported["intervals"][key], 3)
    rows = [
        (
            "return, SAC on Pendulum",
            "twins",
            _estimate(twins[0].mean, 1),
            f"90 % sparse actor; difference {_estimate(twins[1].difference, 1)}",
            _estimate(twins[1].mean, 1),
        ),
        (
            "return, TD3 on InvertedDoublePendulum",
            "dynamic",
            _estimate(double[0].mean, 0),
            f"90 % sparse from the first step (SET); difference {_estimate(double[1].difference, 0)}",
            _estimate(double[1].mean, 0),
        ),
        (
            "return, DQN on MinAtar Breakout",
            "minatar",
            _estimate(breakout[0].mean, 1),
            f"90 % pruned, then 8 bits; difference {_estimate(breakout[1].difference, 1)}",
            _estimate(breakout[1].mean, 1),
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
            "distilled_agents",
            number(mean(teacher.group.returns)),
            f"95 % sparse in 8 bits, in {minutes:.1f} CPU minutes; ratio {_estimate(student.score, 3)}",
            number(mean(student.group.returns)),
        ),
        (
            "time of an action, µs",
            "inference",
            number(latency["sb3"]["median"]),
            "95 % sparse, compiled C",
            number(latency["95/compiled"]["median"], 1),
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


def _estimate(found: Estimate | None, digits: int) -> str:
    assert found is not None and found.interval is not None
    return estimate(found.value, found.interval, digits)
