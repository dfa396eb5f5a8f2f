"""Where workers are, and for how many there is room: the cores of this machine, or of a Ray cluster."""

#: Processes of this machine, or those of a Ray cluster.
BACKENDS = ("loky", "ray")


def count_cores(backend: str) -> int:
    """
    Count cores. A program that has no connection to a Ray cluster gets one: to that of ``RAY_ADDRESS``, or to one that starts
    now on this machine.

    :param backend: One of :data:`BACKENDS`.
    :return: How many workers it has room for
    :raises ValueError: if its package is missing
    """
    try:
        if backend == "ray":
            import ray

            if not ray.is_initialized():
                ray.init(log_to_driver=False, logging_level="ERROR")
            return int(ray.cluster_resources().get("CPU", 1))
        from joblib import cpu_count

        return int(cpu_count())
    except ModuleNotFoundError as error:
        raise ValueError(f"the backend {backend} needs {error.name}: pip install sb3_sparse[sweep]") from error
