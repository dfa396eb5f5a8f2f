"""C99: being written."""

from sb3_sparse.runtime.records import Network


def to_c(network: Network, *, name: str = "policy") -> str:
    raise NotImplementedError
