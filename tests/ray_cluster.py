"""A Ray cluster of two nodes with one core each on this machine; one of them is lost in the middle of a sweep."""

import os
import sys
import threading
import time
from pathlib import Path

from sb3_sparse.sweeps.command import run_grid

if __name__ == "__main__":
    # Not above: the doctests of all files are collected, and Ray is not installed everywhere.
    import ray
    from ray.cluster_utils import Cluster

    # Seconds that a node may take to begin, on a machine that is busy.
    os.environ["RAY_raylet_start_wait_time_s"] = "300"
    grid, sweep = sys.argv[1], Path(sys.argv[2])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

    def lose_a_node() -> None:
        while len(list((sweep / "results").glob("*.json"))) < 3:
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    thread = threading.Thread(target=lose_a_node)
    thread.start()
    complete = run_grid(grid, sweep, backend="ray")
    thread.join()
    # Ray notices a loss after some seconds, when a sweep on an idle machine may be over.
    deadline = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) != 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(ray.nodes()) == 2 and sum(node["Alive"] for node in ray.nodes()) == 1
    ray.shutdown()
    cluster.shutdown()
    sys.exit(0 if complete else 1)
