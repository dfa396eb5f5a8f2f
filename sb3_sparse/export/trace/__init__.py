"""A trained SB3 model as a short list of records: the modules that its observations pass, or a refusal that names a module."""

from sb3_sparse.export.trace.graph import Affine, Graph
from sb3_sparse.export.trace.model import trace
from sb3_sparse.export.trace.modules import MODULES, records
from sb3_sparse.export.trace.paths import PATHS, find_path, flatten, has_own_path
from sb3_sparse.export.trace.record import At
from sb3_sparse.export.trace.stack import read_stack

__all__ = [
    "MODULES",
    "PATHS",
    "Affine",
    "At",
    "Graph",
    "find_path",
    "flatten",
    "has_own_path",
    "read_stack",
    "records",
    "trace",
]
