"""
The report of a grid: ``sb3-sparse benchmark report GRID``.

A grid's entry ``report`` may say:

    report:
      control: {sparsity: 0.0}          # settings of the dense control; by default sparsity 0, or null where there is no 0
                                        # or a list of them, each for the settings that it has under `of`
      published: compression_figure_4   # the entry of benchmarks/published.yml that the grid repeats
      over: bytes                       # scores over the bytes of exported files, instead of returns over sparsity
      lowest: {Pendulum-v1: -1500}      # by environment: the return that has score 0, which is 0 by default
      note: ...                         # what a reader has to know of the grid

The environment, and settings that follow from it, are the task. Sparsity is what is compared. All other settings that vary
make lines: recipes, algorithms, with the engine and without. Each agent appears as it is and in each exported form, and both
are compared with the dense control of the line as it is. A line without one has none, but for a control that the grid names:
where that has a setting that makes lines, or is in one line alone, all lines have the same one.
"""

from sb3_sparse.sweeps.report.writing import check_report, make_report, write_report

__all__ = ["check_report", "make_report", "write_report"]
