"""What became of a model: being written."""

from typing import Any

from sb3_sparse.export.graph import Graph
from sb3_sparse.runtime.records import Network


class Report:
    def to_dict(self) -> dict[str, Any]:
        return {}


def make_report(graph: Graph, original: Network, network: Network, *, calibrated: bool) -> Report:
    return Report()
