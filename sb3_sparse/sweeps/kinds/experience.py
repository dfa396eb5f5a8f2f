"""The experience of an agent that is trained further: its replay buffer is not in its zip."""

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit


class _Nothing(BaseCallback):
    """Other callbacks do not see these steps."""

    def _on_step(self) -> bool:
        return True


def collect(model: BaseAlgorithm, steps: int) -> None:
    """
    Let an agent play into its replay buffer, exploring as in training, right after ``learn()`` has begun. The clock stays
    at 0.

    :param model: An agent. One without a replay buffer collects nothing.
    :param steps: Steps, of all environments together.
    """
    if not isinstance(model, OffPolicyAlgorithm):
        return
    assert model.env is not None and model.replay_buffer is not None
    callback = _Nothing()
    callback.init_callback(model)
    each = TrainFreq(max(1, steps // model.n_envs), TrainFrequencyUnit.STEP)
    # With learning_starts=0 no action is random.
    model.collect_rollouts(model.env, callback, each, model.replay_buffer, model.action_noise, learning_starts=0)
    model.num_timesteps = model._episode_num = 0
