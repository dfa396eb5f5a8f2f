"""The table of headline results: one line for each question, with the page that says all about it."""

from sb3_sparse.sweeps.report.statistics import Estimate

from .grids import comparison
from .markdown import estimate, number, table
from .stored import require, stored

NOTE = (
    "Brackets hold 95 % intervals. Pendulum and InvertedDoublePendulum are easy tasks. *Flash* is of an untrained mask: what"
    " follows from a sparsity, not that an agent still plays at it."
)


def headline(folder: str) -> str:
    """
    :param folder: Where the pages are, seen from the file that holds the table.
    :return: The table
    """
    twins = [comparison("twins-full", sparsity=sparsity) for sparsity in (0.0, 0.9)]
    double = [comparison("dynamic-full", recipe="dense"), comparison("dynamic-full", recipe="set", sparsity=0.9)]
    for _, sparse in (twins, double):
        require(
            sparse.loses is False and sparse.decides,
            "the sparse agents of the first rows are without loss by the rule of the reports",
        )
    mcu, throughput = stored("mcu"), stored("throughput")
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
    ]
    cells = [(f"[{what}]({folder}{page}.md)", before, after, how) for what, page, before, how, after in rows]
    return f"{table(('measured', 'SB3 or dense', 'sb3_sparse', 'how'), cells, align='lrrl')}\n\n{NOTE}"


def _estimate(found: Estimate | None, digits: int) -> str:
    assert found is not None and found.interval is not None
    return estimate(found.value, found.interval, digits)
