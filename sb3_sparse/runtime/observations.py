"""
Read the argument of ``predict``: an array or a list, or a dict of them; one observation or a batch; images with channels first
or last.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.assemble import Encoder, assemble
from sb3_sparse.runtime.network.records import Network, Part, Shape

#: Kinds of arrays that can be observations: floats, integers with and without sign, booleans.
_NUMBERS = "fiub"
_WHOLE = "an observation"


def read_observation(
    observation: Any, network: Network, encoders: Mapping[str, Encoder] | None = None
) -> tuple[NDArray[Any], bool]:
    """
    :param observation: The argument of ``predict``.
    :param network: The network that will compute it.
    :param encoders: See :func:`~sb3_sparse.runtime.network.assemble.assemble`.
    :return: One observation, an array of the network's shape (or of one frame's, if it stacks frames), and False; or a
        contiguous batch of them, ``[n, ...]`` in float32 or uint8, and True
    :raises ValueError: if it does not consist of arrays of numbers, a key is missing or unknown, or an array has another shape
    """
    if not network.parts:
        return _read_array(observation, network.frame_shape, network.image, _WHOLE)
    arrays, batch = read_parts(observation, network.parts)
    x = assemble(network, arrays, encoders)
    return (x, True) if batch else (x[0], False)


def read_parts(observation: Any, parts: tuple[Part, ...]) -> tuple[dict[str, NDArray[Any]], bool]:
    """
    :param observation: An observation of parts, or a batch of them.
    :param parts: The parts.
    :return: An array ``[n, *shape]`` for each key, with n = 1 for one observation; and whether it is a batch
    :raises ValueError: as :func:`read_observation` does
    """
    keys = [part.key for part in parts]
    if keys == [""]:
        observation = {"": observation}
    _refuse_tuples(observation)
    if not isinstance(observation, Mapping):
        raise ValueError(f"this policy takes a dict of arrays with the keys {keys}, not a {type(observation).__name__}")
    for wrong, what in ((set(keys) - set(observation), "lacks"), (set(observation) - set(keys), "has the unknown")):
        if wrong:
            raise ValueError(f"the observation {what} {sorted(map(repr, wrong))[0]}: this policy takes the keys {keys}")
    arrays, batches = {}, {}
    for part in parts:
        name = f"'{part.key}' of the observation" if part.key else _WHOLE
        image = part.encoder is not None and part.encoder.image
        array, batch = _read_array(observation[part.key], part.shape, image, name)
        arrays[part.key] = array if batch else array[None]
        batches[part.key] = len(array) if batch else None
    if len(set(batches.values())) > 1:
        lengths = ", ".join(f"'{key}' {'one' if length is None else length}" for key, length in batches.items())
        raise ValueError(f"the arrays of an observation must be as many: {lengths}")
    return arrays, None not in batches.values()


def _read_array(value: Any, shape: Shape, image: bool, name: str) -> tuple[NDArray[Any], bool]:
    """One array of this shape, or a contiguous batch, and whether it is one."""
    if type(value) is np.ndarray and value.shape == shape and value.dtype.kind in _NUMBERS:
        return value, False
    array = _as_array(value, shape, name)
    for candidate in (array, np.moveaxis(array, -1, -3)) if image and array.ndim >= 3 else (array,):
        if candidate.shape == shape:
            return np.ascontiguousarray(candidate).reshape(shape), False
        if candidate.ndim == len(shape) + 1 and candidate.shape[1:] == shape:
            # Images stay bytes: the kernels take them as they are.
            kind = np.uint8 if candidate.dtype == np.uint8 else np.float32
            return np.ascontiguousarray(candidate, kind), True
    raise ValueError(
        f"{name} of shape {array.shape} does not fit this policy: it needs {shape}, or {('n', *shape)} for a batch"
    )


def _as_array(value: Any, shape: Shape, name: str) -> NDArray[Any]:
    _refuse_tuples(value)
    try:
        array = np.asarray(value)
        if array.dtype.kind not in _NUMBERS:
            raise ValueError(f"an array of {array.dtype}")
    except ValueError as error:
        raise ValueError(f"{name} must be an array of numbers of shape {shape}: {error}") from error
    return array


def _refuse_tuples(observation: Any) -> None:
    if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
        raise ValueError("predict() was given a tuple: `obs, info = env.reset()` returns two things, pass the first alone")
