"""
The settings that rl-zoo3 keeps with an agent, as far as they are about its environment: ``config.yml``, and next to it
``args.yml`` or the hub's ``env_kwargs.yml``.

They come with somebody's zip and are data. A value that is not read is an error only where it is needed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from sb3_sparse.zoo.arguments import check_arguments
from sb3_sparse.zoo.beside import find_beside
from sb3_sparse.zoo.notation import Loader, Unread, brief, read_literal

#: What is given as a file to say that there are no settings.
NONE = Path("none")
#: Most bytes of a file, and most values of an entry that is used.
_BYTES, _VALUES = 1 << 16, 1000
#: How to leave the settings out, for the end of a sentence.
_WAY_OUT = "mend it, give another file with --config, or --config none to leave the settings out"


@dataclass(frozen=True)
class Settings:
    """
    How an agent's environment was made.

    :param file: The file that says so, if there is one.
    :param normalizes: Whether observations were normalized; None if the file does not say.
    :param env_wrapper: The wrappers, in rl-zoo3's notation; see :func:`~sb3_sparse.zoo.read_wrappers`.
    :param env_kwargs: Arguments of the environment.
    :param frame_stack: How many observations ``VecFrameStack`` puts together; None for no stack.
    """

    file: Path | None = None
    normalizes: bool | None = None
    env_wrapper: object = None
    env_kwargs: Mapping[str, object] = field(default_factory=dict)
    frame_stack: int | None = None

    @property
    def speaks(self) -> bool:
        """Whether there is a file and something that is not the environment's default."""
        return self.file is not None and bool(self.env_kwargs or self.notes)

    @property
    def notes(self) -> list[str]:
        """What stands between an environment and the observations that a policy takes, in sentences."""
        notes = []
        if self.env_wrapper:
            notes.append(f"the policy sees its environment behind wrappers: {brief(self.env_wrapper)}")
        if self.frame_stack:
            notes.append(f"the policy takes {self.frame_stack} observations at once, stacked by VecFrameStack")
        return notes


def find_settings(agent: Path, env: str | None = None, file: Path | None = None) -> Settings | None:
    """
    :param agent: The agent's zip.
    :param env: Name of its environment.
    :param file: A ``config.yml``, or "none" for no settings; by default the one in the folder with the name of the environment
        or of the zip, as rl-zoo3 saves it, the one next to the zip, or the only other one a folder below, which has to have
        the name of the environment with another version where that is given.
    :return: The settings; None if there are none
    :raises ValueError: if the file is damaged, several may be meant, or it says something that cannot be done here
    :raises OSError: if it cannot be read
    """
    if file == NONE:
        return None
    file = file or _find(agent, env)
    return None if file is None else _read(file)


def settle(
    found: Settings | None,
    env_kwargs: Mapping[str, object] | None,
    env_wrapper: object,
    frame_stack: int | None,
    *,
    trust: bool = False,
) -> Settings:
    """
    What the caller says of the environment counts, and otherwise what the files say.

    :param found: What the files say.
    :param env_kwargs: Arguments of the environment, which count before those in the files.
    :param env_wrapper: Its wrappers; None for those in the files.
    :param frame_stack: How many observations are put together; None for as many as the files say.
    :param trust: Whether to take any argument of the environment from the files.
    :return: Both together
    :raises ValueError: if an argument from the files may do harm
    """
    settings, own = found or Settings(), env_kwargs or {}
    if not trust:
        theirs = {name: value for name, value in settings.env_kwargs.items() if name not in own}
        check_arguments(
            f"the environment in {settings.file}",
            theirs,
            "give it with --env-kwargs, or --config none to leave the settings out",
        )
    return replace(
        settings,
        env_kwargs={**settings.env_kwargs, **own},
        env_wrapper=settings.env_wrapper if env_wrapper is None else env_wrapper,
        frame_stack=settings.frame_stack if frame_stack is None else frame_stack,
    )


def _find(agent: Path, env: str | None) -> Path | None:
    found = find_beside(agent, env, ["config.yml"], r"config\.yml", unnamed=False)
    if len(found) > 1:
        raise ValueError(
            f"which settings are those of {agent}? Give one of {', '.join(map(str, found))} with --config, or --config none"
        )
    return found[0] if found else None


def _read(file: Path) -> Settings:
    config = load_data(file)
    if (around := config.get("vec_env_wrapper")) is not None:
        raise ValueError(
            f"{file} has a vec_env_wrapper, {brief(around)}, and wrappers of VecEnv are not known here: export in a script of "
            "your own, or leave the settings out with --config none"
        )
    frames = config.get("frame_stack")
    if frames is not None and (not isinstance(frames, int) or isinstance(frames, bool) or frames < 1):
        raise ValueError(f"{file} is damaged: frame_stack is {brief(frames)}; {_WAY_OUT}")
    wrapper = config.get("env_wrapper")
    _check_plain(file, "env_wrapper", wrapper)
    return Settings(file, _normalizes(file, config), wrapper, _env_kwargs(file, config), frames)


def load_data(file: Path) -> dict[object, object]:
    """
    :param file: A file that rl-zoo3 or the hub has written.
    :return: What it says, as data
    :raises ValueError: if it cannot be read as data
    :raises OSError: if it cannot be read
    """
    with file.open("rb") as stream:
        text = stream.read(_BYTES + 1)
    try:
        if len(text) > _BYTES:
            raise ValueError(f"it has more than {_BYTES} bytes")
        content = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} cannot be read as settings of rl-zoo3 ({reason}): {_WAY_OUT}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{file} does not hold settings of rl-zoo3, but a {type(content).__name__}: {_WAY_OUT}")
    return content


def _normalizes(file: Path, config: Mapping[object, object]) -> bool | None:
    if "normalize" not in config and "n_timesteps" not in config:
        # Not a file of rl-zoo3, which always says how long it trains.
        return None
    value = config.get("normalize", False)
    if isinstance(value, str):
        value = read_literal(value)
    if value is None or isinstance(value, bool):
        return bool(value)
    if not isinstance(value, dict) or not isinstance(value.get("norm_obs", True), bool):
        raise ValueError(f"{file} is damaged: normalize is {brief(value)}; {_WAY_OUT}")
    return bool(value.get("norm_obs", True))


def _env_kwargs(file: Path, config: Mapping[object, object]) -> dict[str, object]:
    """Those of the command line, which ``args.yml`` and the hub's ``env_kwargs.yml`` hold, are instead of the others."""
    found = {file: config.get("env_kwargs")}
    args, hub = file.with_name("args.yml"), file.with_name("env_kwargs.yml")
    if args.is_file():
        found[args] = load_data(args).get("env_kwargs")
    if hub.is_file():
        found[hub] = load_data(hub)
    kwargs: dict[str, object] = {}
    for source, value in found.items():
        if isinstance(value, str):
            value = read_literal(value)
        if not value:
            continue
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise ValueError(f"{source} is damaged: env_kwargs is {brief(value)}; {_WAY_OUT}")
        _check_plain(source, "env_kwargs", value)
        kwargs = value
    # Nobody watches.
    return {name: value for name, value in kwargs.items() if name != "render_mode"}


def _check_plain(file: Path, name: str, value: object) -> None:
    """
    An alias in YAML costs a few bytes, and what it stands for counts wherever it stands.

    :raises ValueError: if a value holds something that is not data, or is huge
    """
    for count, part in enumerate(_parts(value)):
        if not isinstance(part, (type(None), bool, int, float, str, list, tuple, dict)):
            kind = "an object of Python" if isinstance(part, Unread) else f"a {type(part).__name__}"
            raise ValueError(f"{name} in {file} holds {kind}, which is not read: {_WAY_OUT}")
        if count == _VALUES:
            raise ValueError(f"{name} in {file} has more than {_VALUES} values: {_WAY_OUT}")


def _parts(value: object) -> Iterator[object]:
    """A value and all that is in it, the outer before the inner."""
    left = [value]
    while left:
        value = left.pop()
        yield value
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            left += value
