"""``sb3-sparse play``."""

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sb3_sparse.cli.arguments import Commands, add_environment

if TYPE_CHECKING:
    import gymnasium as gym


def add_play(commands: Commands) -> None:
    """
    :param commands: The commands of ``sb3-sparse``.
    """
    parser = commands.add_parser(
        "play",
        allow_abbrev=False,
        help="let an exported policy play, and print its returns",
        epilog="A video needs the package moviepy. Without a screen MuJoCo draws by EGL, or as MUJOCO_GL says.",
    )
    parser.add_argument("policy", type=Path, help="compact file, .sb3s")
    add_environment(parser, env="environment that it plays in", settings=False, required=True)
    parser.add_argument("--episodes", type=int, default=5, help="number of episodes (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode (%(default)s)")
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument("--render", action="store_true", help="show it in a window")
    pictures.add_argument("--video", type=Path, metavar="FOLDER", help="record a video of each episode")
    parser.set_defaults(run=_play)


def _play(args: argparse.Namespace, _: list[str]) -> None:
    from sb3_contrib.common.maskable.utils import is_masking_supported
    from stable_baselines3.common.atari_wrappers import AtariWrapper

    from sb3_sparse.agents import Player, make_environment, play
    from sb3_sparse.agents.environment import close
    from sb3_sparse.agents.player import action_masks
    from sb3_sparse.pixels.atari import is_atari
    from sb3_sparse.runtime import load
    from sb3_sparse.zoo.notation import read_arguments
    from sb3_sparse.zoo.wrappers import read_notation, read_wrappers

    if args.policy.suffix == ".zip":
        raise ValueError(f"{args.policy} is no compact file: make one with sb3-sparse compress")
    if args.episodes < 1:
        raise ValueError(f"--episodes must be at least 1, got {args.episodes}")
    if args.seed < 0:
        raise ValueError(f"--seed must be at least 0, got {args.seed}")
    _check_pictures(args)
    policy, frames = load(args.policy), args.frame_stack
    wrappers: Callable[[gym.Env], gym.Env] | None = None
    if args.env_wrapper is not None:
        wrappers = read_wrappers(read_notation(args.env_wrapper), trust=True)
    elif frames is None and policy.network.image and is_atari(args.env):
        # As the commands do that have a model; the policy may stack the frames itself.
        wrappers, frames = AtariWrapper, None if policy.network.stack else min(policy.network.shape)
    kwargs = read_arguments(args.env_kwargs)
    if args.render or args.video is not None:
        kwargs["render_mode"] = "human" if args.render else "rgb_array"
    wrapper = wrappers if args.video is None else _recorded(args.video, args.policy.stem, wrappers)
    venv = make_environment(args.env, None, kwargs, wrapper=wrapper, frame_stack=frames)
    returns = []
    try:
        masks = action_masks(venv) if is_masking_supported(venv) else None
        if masks is not None:
            print(f"{args.env} has action_masks(), and the policy chooses among the actions that it allows", flush=True)
        player = Player(policy, masks=masks)
        for seed in range(args.seed, args.seed + args.episodes):
            totals = [total for _, total in play(venv, player, seed)]
            returns.append(float(totals[-1] or 0))
            print(f"seed {seed}: return {returns[-1]:,.2f} in {len(totals):,} steps", flush=True)
    finally:
        close(venv)
    print(f"mean {statistics.fmean(returns):,.2f}, standard deviation {statistics.pstdev(returns):,.2f}")
    if args.video is not None:
        print(f"videos: {args.video}")


def _check_pictures(args: argparse.Namespace) -> None:
    """Whether what draws the environment is there."""
    if args.video is not None and find_spec("moviepy") is None:
        raise ValueError("--video needs the package moviepy: pip install moviepy")
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        if args.render and "SDL_VIDEODRIVER" not in os.environ:
            raise ValueError("--render needs a screen, and there is none (DISPLAY): record it with --video FOLDER")
        if args.video is not None:
            # MuJoCo reads it when it is imported, which the environment does below.
            os.environ.setdefault("MUJOCO_GL", "egl")


def _recorded(folder: Path, name: str, wrappers: "Callable[[gym.Env], gym.Env] | None") -> "Callable[[gym.Env], gym.Env]":
    """What wraps an environment and records a video of each episode, named by its seed, inside of other wrappers."""
    from gymnasium.wrappers import RecordVideo

    class Recorded(RecordVideo):
        seed: int | None = None

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            self.seed = seed
            return super().reset(seed=seed, options=options)

        def start_recording(self, video_name: str) -> None:
            # A VecEnv begins another episode, without a seed, when one ends.
            if self.seed is not None:
                super().start_recording(f"{name}-seed-{self.seed}")

    def wrap(env: "gym.Env") -> "gym.Env":
        recorded = Recorded(env, str(folder), lambda number: True, disable_logger=True)
        return recorded if wrappers is None else wrappers(recorded)

    return wrap
