"""Boolean masks as text: packed to bits, deflated, in base 85, so that SB3 saves them as JSON."""

import base64
import binascii
import zlib

import numpy as np
import torch as th


def pack(mask: th.Tensor) -> str:
    """
    :param mask: Boolean tensor of any shape.
    :return: The text
    """
    bits = np.packbits(mask.cpu().numpy().reshape(-1))
    return base64.b85encode(zlib.compress(bits.tobytes())).decode()


def unpack(text: str, shape: th.Size, what: str) -> th.Tensor:
    """
    :param text: What :func:`pack` has returned, or anything else that a file may contain.
    :param shape: Shape of the mask.
    :param what: Name of the mask, for the error.
    :return: The mask
    :raises ValueError: if the text is damaged, or does not fit the shape
    """
    size = (shape.numel() + 7) // 8
    try:
        # One byte more than the mask can have shows that there is too much.
        decompressor = zlib.decompressobj()
        data = decompressor.decompress(base64.b85decode(text), size + 1)
    except (AttributeError, TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise ValueError(f"{what} is damaged: {error}") from error
    if len(data) != size or not decompressor.eof:
        raise ValueError(
            f"{what} does not fit its weight of shape {tuple(shape)}: load the model with the layers that it was saved with, "
            "or `del model.sparsity_state`, so that the callbacks start anew on the present layers"
        )
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=shape.numel())
    return th.from_numpy(bits.astype(bool)).view(shape)
