"""The report of an export: bytes by layer and format, notes, and a figure of the densities."""

from sb3_sparse.export.report.collect import make_report
from sb3_sparse.export.report.contents import LayerReport, Report
from sb3_sparse.export.report.figure import density, save_densities
from sb3_sparse.export.report.sizes import COMPACT, entropy_bound, sizes
from sb3_sparse.export.report.table import format_table

__all__ = [
    "COMPACT",
    "LayerReport",
    "Report",
    "density",
    "entropy_bound",
    "format_table",
    "make_report",
    "save_densities",
    "sizes",
]
