"""
The arguments of an environment or a wrapper that a file names, where nobody trusts the file.

MuJoCo's ``xml_file`` opens any file, other environments start a program, and a large number takes any memory.
"""

from collections.abc import Mapping

from sb3_sparse.zoo.notation import brief

#: The largest integer, and most characters of a string.
_LARGEST, _CHARACTERS = 10_000, 100


def check_arguments(whose: str, arguments: Mapping[str, object], way_out: str) -> None:
    """
    :param whose: Whose arguments they are, for the error.
    :param arguments: The arguments from a file.
    :param way_out: How to give others, for the end of the sentence.
    :raises ValueError: if one is not a plain number, a short word or a list of those
    """
    for name, value in arguments.items():
        parts = value if isinstance(value, (list, tuple)) else [value]
        if not all(map(_is_harmless, parts)):
            raise ValueError(
                f"the argument {brief(name)} of {whose}, {brief(value)}, is not taken from a file: only None, bools, floats, "
                f"integers up to {_LARGEST:,}, strings of at most {_CHARACTERS} characters without a path, and lists of those "
                f"are; --trust takes it, or {way_out}"
            )


def _is_harmless(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _CHARACTERS and not set(value) & {"/", "\\"}
    if isinstance(value, int):
        return abs(value) <= _LARGEST
    return value is None or isinstance(value, float)
