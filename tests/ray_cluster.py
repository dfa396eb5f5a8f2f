"""A Ray cluster of two nodes with one core each on this machine, of which one is lost; and a sweep that survives that."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sb3_sparse.sweeps.command import run_grid


@contextmanager
def two_nodes(is_due: Callable[[], bool]) -> Iterator[None]:
    """
    :param is_due: Whether the second node is to be lost now.
    :return: A context with the cluster; afterwards the second node has been lost
    """
    # Not above: the doctests of all files are collected, and Ray is not installed everywhere.
    import ray
    from ray.cluster_utils import Cluster

    # Seconds that a node may take to begin, on a machine that is busy.
    os.environ["RAY_raylet_start_wait_time_s"] = "300"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

    def lose_a_node() -> None:
        while not is_due():
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    thread = threading.Thread(target=lose_a_node, daemon=True)
    thread.start()
    try:
        yield
        thread.join()
        # Ray notices a loss after some seconds, when what runs on an idle machine may be over.
        deadline = time.monotonic() + 60
        while sum(node["Alive"] for node in ray.nodes()) != 1 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert len(ray.nodes()) == 2 and sum(node["Alive"] for node in ray.nodes()) == 1
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    grid, sweep = sys.argv[1], Path(sys.argv[2])
    with two_nodes(lambda: len(list((sweep / "results").glob("*.json"))) >= 3):
        complete = run_grid(grid, sweep, backend="ray")
    sys.exit(0 if complete else 1)
