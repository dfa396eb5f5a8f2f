"""The report of an export: bytes by layer and format, notes, and a figure of the densities."""

from sb3_sparse.export.report.collect import make_report
from sb3_sparse.export.report.contents import LayerReport, Report
from sb3_sparse.export.report.figure import density, save_densities
from sb3_sparse.export.report.sizes import COMPACT_FILE, entropy_bound, sizes

__all__ = [
    "COMPACT_FILE",
    "LayerReport",
    "Report",
    "density",
    "entropy_bound",
    "make_report",
    "save_densities",
    "sizes",
]
