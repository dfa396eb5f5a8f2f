"""The parts of one gradient update: its random numbers, the step of one network, and the means of the losses for the log."""

from stable_baselines3.common.logger import Logger
from torch import Generator, Tensor

from sb3_sparse.offline.networks import Network
from sb3_sparse.sparsity import Loss


def update_generator(seed: int, number: int, generator: Generator | None = None) -> Generator:
    """
    A generator that depends on nothing but its arguments, so that a resumed run samples the same as an uninterrupted one.

    :param seed: Seed of the run.
    :param number: Number of the update.
    :param generator: A CPU generator to seed; None makes a new one.
    :return: The generator for this update
    """
    # Torch uses 32 bits of a seed; as the factor is odd, no two of 2**32 updates have the same seed.
    return (Generator() if generator is None else generator).manual_seed((seed + number * 2_654_435_761) % 2**32)


def take_step(network: Network, loss: Loss) -> Tensor:
    """
    :param network: A network, with its optimizer.
    :param loss: Its loss. Other networks that it passes through get no gradient.
    :return: The loss before the step
    """
    parameters = [parameter for group in network.optimizer.param_groups for parameter in group["params"]]
    value = loss()
    for parameter in parameters:
        # As zero_grad() does, without its overhead, which is noticeable with small networks.
        parameter.grad = None
    value.backward(inputs=parameters)  # type: ignore[no-untyped-call]
    network.optimizer.step()
    return value.detach()


class LossMeans:
    """Means of the losses between two entries of the log, summed up on the device."""

    def __init__(self) -> None:
        self._losses = dict[str, tuple[Tensor | float, int]]()

    def add(self, name: str, loss: Tensor | float) -> None:
        """
        :param name: Name of a network.
        :param loss: Its loss in one update.
        """
        if name in self._losses:
            total, count = self._losses[name]
            self._losses[name] = total + loss, count + 1
        else:
            self._losses[name] = loss, 1

    def record(self, logger: Logger) -> None:
        """
        Record the means, and begin anew.

        :param logger: Where to.
        """
        for name, (total, count) in self._losses.items():
            logger.record(f"train/{name}_loss", float(total) / count)
        self._losses.clear()
