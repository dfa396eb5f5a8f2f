"""The progress of a training whose clock counts updates."""

from math import inf

from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse.agents.progress import Progress


class ProgressBar(BaseCallback):
    """Shows how many updates are done, and about how long the others take."""

    #: It asks the model for its clock alone.
    holds_layers = False

    def _on_training_start(self) -> None:
        self._begin = self.model.num_timesteps
        self._progress = Progress("updates", self.model._total_timesteps - self._begin, inf)

    def _on_step(self) -> bool:
        self._progress.advance(self.num_timesteps - self._begin)
        return True
