"""A training run that can be killed at any moment, goes on from its last checkpoint, and ends as if it had not been."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.save_util import load_from_pkl, save_to_pkl
from stable_baselines3.her import HerReplayBuffer

from sb3_sparse.sweeps.folder import make_durable, write_whole
from sb3_sparse.sweeps.kinds.experience import collect
from sb3_sparse.sweeps.kinds.messages import Messages

#: What SB3's evaluations remember, as plain numbers.
_EVALUATIONS = (
    "evaluations_timesteps",
    "evaluations_results",
    "evaluations_length",
    "evaluations_successes",
    "best_mean_reward",
    "last_mean_reward",
)


def find_checkpoint(folder: Path) -> Path | None:
    """
    :param folder: Folder of a run.
    :return: The folder of its last whole checkpoint; None if there is none
    """
    whole = [path for path in folder.glob("checkpoint-*") if path.suffix != ".part"]
    return max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)


class ProgressCallback(BaseCallback):
    """
    Says how far a distillation is.

    :param folder: Folder of the cell.
    :param updates: Updates of the whole run.
    """

    #: It asks for nothing that the engine has.
    holds_layers = False

    def __init__(self, folder: Path, updates: int) -> None:
        super().__init__()
        self._messages, self._updates = Messages(folder), updates

    def _on_step(self) -> bool:
        self._messages.tell(min(1.0, self.num_timesteps / self._updates))
        return True


class ResumableCallback(BaseCallback):
    """
    Saves a run between two rollouts, and begins anew there with all that SB3 does not save: the environment is reset, and
    every random generator gets a seed of its own, which follows from the run's seed and the step. So a run that is loaded from
    the checkpoint goes on exactly as the one that saved it. It has to be the first of the callbacks, because those behind it
    read the clock, which rl-zoo3 sets to zero.

    The episodes that the reset cuts off count as truncated.

    :param folder: Folder of the run.
    :param freq: Steps between two checkpoints.
    :param offline: Whether the algorithm trains on recorded data, so that its rollouts end between two updates.
    :param checkpoint: The checkpoint whose agent the model was loaded from; None for a new run.
    :param collected: Steps that a trained agent, with which a new run begins, plays before its training.
    """

    #: It asks the model for everything.
    holds_layers = False

    def __init__(
        self, folder: str, freq: int, offline: bool = False, checkpoint: str | None = None, collected: int = 0
    ) -> None:
        super().__init__()
        self.collected = collected
        self.folder, self.freq, self.offline = Path(folder), freq, offline
        self._resumed = None if checkpoint is None else Path(checkpoint)
        self._state: dict[str, Any] = {}
        self._messages = Messages(self.folder)

    def _init_callback(self) -> None:
        if self._resumed is not None:
            self._state = json.loads((self._resumed / "state.json").read_text())
            self.model.num_timesteps = self._state["steps"]
        self._saved = self.model.num_timesteps // self.freq

    def _on_training_start(self) -> None:
        callbacks = self.locals["callback"]
        assert isinstance(callbacks, CallbackList)
        #: All others, and those of SB3's evaluations.
        self._others = callbacks.callbacks
        self._evaluations = [other for other in self._others if isinstance(other, EvalCallback)]
        if self._resumed is None:
            if self.collected:
                collect(self.model, self.collected)
                self._begin_anew()
            return
        self.model._episode_num = self._state["episodes"]
        for other, calls in zip(self._others, self._state["calls"], strict=True):
            other.n_calls = calls
        for evaluation, saved in zip(self._evaluations, self._state["evaluations"], strict=True):
            for name in _EVALUATIONS:
                setattr(evaluation, name, saved[name])

    def _on_rollout_start(self) -> None:
        if not self.offline:
            self._between_rollouts()

    def _on_rollout_end(self) -> None:
        if self.offline:
            self._between_rollouts()

    def _on_step(self) -> bool:
        self._messages.tell(min(1.0, self.num_timesteps / max(1, self.model._total_timesteps)))
        return True

    def _between_rollouts(self) -> None:
        if self._resumed is not None:
            normalization = self.model.get_vec_normalize_env()
            if normalization is not None:
                normalization.obs_rms, normalization.ret_rms = load_from_pkl(self._resumed / "statistics.pkl")
            self._resumed = None
            self._begin_anew()
        elif self.model.num_timesteps // self.freq > self._saved:
            self._saved = self.model.num_timesteps // self.freq
            self._save()
            self._begin_anew()

    def _save(self) -> None:
        model, steps = self.model, self.model.num_timesteps
        partial, whole = (self.folder / f"checkpoint-{steps}{ending}" for ending in (".part", ""))
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        model.save(partial / "agent.zip")
        if getattr(model, "replay_buffer", None) is not None:
            model.save_replay_buffer(partial / "replay_buffer.pkl")  # type: ignore[attr-defined]
        normalization = model.get_vec_normalize_env()
        if normalization is not None:
            save_to_pkl(partial / "statistics.pkl", (normalization.obs_rms, normalization.ret_rms))
        state = {
            "steps": steps,
            "episodes": getattr(model, "_episode_num", 0),
            "calls": [other.n_calls for other in self._others],
            "evaluations": [{name: _plain(getattr(each, name)) for name in _EVALUATIONS} for each in self._evaluations],
        }
        write_whole(partial / "state.json", json.dumps(state))
        make_durable(partial)
        partial.rename(whole)
        for path in self.folder.glob("checkpoint-*"):
            if path != whole:
                shutil.rmtree(path, ignore_errors=True)

    def _begin_anew(self) -> None:
        model = self.model
        assert model.env is not None
        seed = int(np.random.SeedSequence([model.seed or 0, model.num_timesteps]).generate_state(1)[0] >> 1)
        _end_episodes(model)
        model.set_random_seed(seed)
        for evaluation in self._evaluations:
            evaluation.eval_env.seed(seed)
        for venv in (model.env, *(evaluation.eval_env for evaluation in self._evaluations)):
            # Some environments draw from their space. That of a loaded model is another object.
            venv.action_space.seed(seed)
        noise = getattr(model, "action_noise", None)
        if noise is not None:
            noise.reset()
        model._last_obs = model.env.reset()  # type: ignore[assignment]
        model._last_episode_starts = np.ones(model.env.num_envs, dtype=bool)
        if model._vec_normalize_env is not None:
            model._last_original_obs = model._vec_normalize_env.get_original_obs()
        if model.use_sde:
            model.policy.reset_noise(model.env.num_envs)  # type: ignore[operator]


def _end_episodes(model: BaseAlgorithm) -> None:
    """In the replay buffer the transition before a reset is the last of its episode: returns of several steps stop there."""
    buffer = getattr(model, "replay_buffer", None)
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            # SB3 warns those who call this while the episode goes on.
            warnings.simplefilter("ignore")
            buffer.truncate_last_trajectory()
    elif isinstance(buffer, ReplayBuffer) and buffer.handle_timeout_termination and buffer.size():
        # As SB3 marks a time limit, so that the value of the next observation counts. Terminal ones stay terminal.
        open_ended = np.asarray(buffer.dones[buffer.pos - 1]) == 0
        buffer.dones[buffer.pos - 1, open_ended] = 1
        buffer.timeouts[buffer.pos - 1, open_ended] = 1


def _plain(value: Any) -> Any:
    """Numbers of numpy, however deep in lists, as those of Python."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value
