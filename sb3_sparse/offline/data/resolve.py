"""From what a user gives as a dataset to an ``OfflineDataset``."""

import gymnasium as gym

from sb3_sparse.offline.data.dataset import OfflineDataset


def resolve_dataset(given: object, algorithm: str, last: str | None) -> OfflineDataset:
    """
    :param given: A dataset, or the id of a Minari dataset, which is downloaded if it is not on this machine.
    :param algorithm: Name of the algorithm, for the error.
    :param last: Id of the dataset that a saved model was trained on, for the error; None if it has no id.
    :return: The dataset
    :raises ValueError: if ``given`` is neither
    """
    if isinstance(given, OfflineDataset):
        return given
    if isinstance(given, str):
        if given in gym.registry:
            raise ValueError(f"'{given}' is an environment, and {algorithm} takes a dataset in this place: env='{given}'")
        return OfflineDataset.from_minari(given, download=True)
    if given is not None:
        raise ValueError(f"{algorithm} takes an OfflineDataset or the id of a Minari dataset, got a {type(given).__name__}")
    raise ValueError(
        f"{algorithm} needs a dataset to train on, and a saved model does not hold it{f' ({last})' if last else ''}: "
        f'{algorithm}("MlpPolicy", dataset, ...), or {algorithm}.load(path, dataset=dataset) to go on'
    )
