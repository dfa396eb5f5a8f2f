"""A trained agent with everything that belongs to it: its model, its normalization and its environment, from its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize

from sb3_sparse.agents.environment import make_environment, stacked_frames
from sb3_sparse.agents.load import load_agent
from sb3_sparse.agents.normalization import check_normalization, load_normalization
from sb3_sparse.agents.observations import Frames, frame_space
from sb3_sparse.agents.player import Masks, Player, find_masks, model_act
from sb3_sparse.export import Original, read_model
from sb3_sparse.zoo.notation import brief
from sb3_sparse.zoo.settings import Settings, find_settings, settle
from sb3_sparse.zoo.wrappers import Wrappers, read_wrappers


@dataclass(frozen=True)
class Agent:
    """
    A trained agent.

    :param path: Its zip.
    :param model: The model.
    :param settings: How its environment was made.
    :param wrappers: The wrappers of its environment, if it has some.
    :param normalization: The statistics of its observations, if they are normalized.
    :param statistics: Their file.
    :param env: Name of its environment, if it is known.
    :param venv: The environment, whose observations are not normalized.
    :param frames: How many of its observations make one of the model's, if the exported policy stacks them itself.
    """

    path: Path
    model: BaseAlgorithm
    settings: Settings
    wrappers: Wrappers | None
    normalization: VecNormalize | None
    statistics: Path | None
    env: str | None
    venv: VecEnv | None
    frames: int | None = None

    @cached_property
    def original(self) -> Original:
        """
        Its policy as it was trained.

        :raises ValueError: if something in the model cannot be exported
        """
        return read_model(self.model, self.normalization, self.frames)

    @property
    def act(self) -> Player:
        """The model's deterministic policy."""
        return model_act(self.model, self.normalization, self.masks, self.stack)

    @property
    def stack(self) -> Frames | None:
        """What stacks the environment's observations for the model."""
        return None if self.frames is None else Frames(self.space, self.frames, self.normalization)

    @property
    def space(self) -> spaces.Box:
        """The space of one frame."""
        if self.venv is None:
            return frame_space(self.model.observation_space, self.frames or 1)
        assert isinstance(self.venv.observation_space, spaces.Box)
        return self.venv.observation_space

    @property
    def masks(self) -> Masks | None:
        """The masks of its next action, if it takes them."""
        return find_masks(self.model, self.venv)


def open_agent(
    path: Path,
    *,
    env: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    env_wrapper: object = None,
    frame_stack: int | None = None,
    one_frame: bool = False,
    config: Path | None = None,
    algorithm: str | None = None,
    vecnormalize: Path | None = None,
    trust: bool = False,
) -> Agent:
    """
    Open an agent, and print what was found with it.

    :param path: An SB3 zip.
    :param env: Name of the environment; without it none is made.
    :param env_kwargs: Arguments of the environment, which count before those in its settings.
    :param env_wrapper: Its wrappers in rl-zoo3's notation, an empty list for none; by default those in the settings.
    :param frame_stack: How many observations ``VecFrameStack`` puts together; by default as the settings say.
    :param one_frame: Whether the environment gives one of them at a time, and the exported policy keeps the others itself.
    :param config: rl-zoo3's settings of the training, or "none"; by default the ``config.yml`` next to the zip or below.
    :param algorithm: Name of the algorithm, if the zip does not say it.
    :param vecnormalize: Statistics of ``VecNormalize``, or "none"; by default found where SB3 and rl-zoo3 save them.
    :param trust: Whether to unpickle and import whatever the files name, which may run any code.
    :return: The agent, whose environment the caller closes
    :raises ValueError: if an argument is wrong, or the environment does not fit
    :raises OSError: if a file cannot be read
    """
    settings = settle(find_settings(path, env, config), env_kwargs, env_wrapper, frame_stack, trust=trust or env is None)
    if settings.speaks:
        kwargs = f", with {brief(settings.env_kwargs)}" if settings.env_kwargs else ""
        print(f"the environment is made as {settings.file} says{kwargs}")
    wrappers = None
    if env is not None and settings.env_wrapper is not None:
        wrappers = read_wrappers(settings.env_wrapper, trust=trust or env_wrapper is not None)
    model = load_agent(path, algorithm, trust=trust)
    print(f"{path.name}: {type(model).__name__}")
    found = load_normalization(path, env, vecnormalize, trust=trust)
    print("no statistics of VecNormalize" if found is None else f"observations are normalized as {found[0]} says")
    statistics, normalization = (None, None) if found is None else found
    if vecnormalize is None or (normalization is not None and not normalization.norm_obs):
        check_normalization(path, model, found, settings)
    frames = stacked_frames(env, model, wrapped=wrappers is not None, frame_stack=settings.frame_stack) if one_frame else None
    if one_frame and frames is None:
        raise ValueError(f"--one-frame needs to know how many frames {path.name} was trained on: give --frame-stack N as well")
    venv = None if env is None else _make(env, model, settings, wrappers)
    if isinstance(venv, VecFrameStack) and one_frame:
        # The policy stacks, and the model's player does.
        venv = venv.venv
    return Agent(path, model, settings, wrappers, normalization, statistics, env, venv, frames)


def _make(env: str, model: BaseAlgorithm, settings: Settings, wrappers: Wrappers | None) -> VecEnv:
    try:
        return make_environment(env, model, settings.env_kwargs, wrapper=wrappers, frame_stack=settings.frame_stack)
    except ValueError as error:
        if not settings.speaks:
            raise
        raise ValueError(f"{error}; {settings.file} says how it is made, --config none leaves that out") from error
