"""
The runner: it starts workers, by joblib on this machine or by Ray on a cluster, and starts them anew when some are lost. It
keeps nothing: all that is known of the cells is in their folder.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from sb3_sparse.cores import count_cores
from sb3_sparse.parent import end_with
from sb3_sparse.sweeps.folder import Folder, NoRoomError
from sb3_sparse.sweeps.kinds import Cell
from sb3_sparse.sweeps.work import Order, work, work_under_parent

#: How often workers may be lost in a row without a cell that got finished.
_LOSSES = 3
#: How often Ray begins the same worker again, on nodes that are left.
_RETRIES = 20


def run(
    cells: Sequence[Cell], root: Path, *, backend: str = "loky", jobs: int | None = None, deadline: float = float("inf")
) -> None:
    """
    Run cells that are not finished. Those that other runners have are waited for.

    :param cells: Cells in their order.
    :param root: Folder of the sweep; on a cluster it has to be the same on all machines.
    :param backend: One of :data:`~sb3_sparse.cores.BACKENDS`.
    :param jobs: Workers; by default one for each core of the machine, or of the cluster.
    :param deadline: When no further cell is begun, as ``time.time()`` counts.
    :raises ValueError: if a package is missing
    :raises NoRoomError: if there is no room on the disk
    """
    folder = Folder(root.resolve())
    for cell in cells:
        folder.forget_deaths(cell.name)
    losses = 0
    while (pending := unfinished(cells, folder)) and time.time() < deadline:
        orders = [(cell.kind, cell.name, cell.settings) for cell in pending]
        try:
            (_work_on_ray if backend == "ray" else _work_locally)(folder.root, orders, jobs, deadline)
        except (NoRoomError, ValueError):
            raise
        except Exception:  # What a lost worker or node raises is the backend's own.
            losses = losses + 1 if len(unfinished(pending, folder)) == len(pending) else 0
            if losses == _LOSSES:
                raise


def unfinished(cells: Sequence[Cell], folder: Folder) -> list[Cell]:
    """
    :param cells: Cells.
    :param folder: Their folder.
    :return: Those that have no result, and have not died too often
    """
    return [cell for cell in cells if not folder.is_over(cell.name)]


def _work_locally(root: Path, orders: Sequence[Order], jobs: int | None, deadline: float) -> None:
    from joblib import Parallel, delayed

    count = min(jobs or count_cores("loky"), len(orders))
    call = delayed(work)(root, Path.cwd(), orders, deadline)
    # A worker that has no work yet would outlive its runner by minutes.
    ending = {"initializer": end_with, "initargs": (os.getpid(),)}
    Parallel(n_jobs=count, backend="loky", pre_dispatch="all", batch_size=1, **ending)(call for _ in range(count))


def _work_on_ray(root: Path, orders: Sequence[Order], jobs: int | None, deadline: float) -> None:
    """
    Tasks of Ray, and not the actors of joblib's backend for Ray: when a node is lost, that pool kills the workers of the other
    nodes, and its successor waits for a core that is gone. Ray begins the tasks of a lost node again as soon as there is room,
    and those that wait find room on a node that joins.
    """
    import ray

    count_cores("ray")
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(work_under_parent)
    arguments = ray.put(root), ray.put(Path.cwd()), ray.put(orders)
    ray.get([task.remote(*arguments, deadline) for _ in range(min(jobs or len(orders), len(orders)))])
