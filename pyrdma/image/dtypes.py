"""Element types that an image carries, and how many bytes a shape of them takes.

The names are those of the safetensors format, as far as torch has a type for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from pyrdma.image.names import shown
from pyrdma.limits import MAX_IMAGE_BYTES, MAX_RANK

DTYPE_BITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "BOOL": 8,
        "U8": 8,
        "I8": 8,
        "U16": 16,
        "I16": 16,
        "U32": 32,
        "I32": 32,
        "U64": 64,
        "I64": 64,
        "F4": 4,
        "F8_E4M3": 8,
        "F8_E4M3FNUZ": 8,
        "F8_E5M2": 8,
        "F8_E5M2FNUZ": 8,
        "F8_E8M0": 8,
        "F16": 16,
        "BF16": 16,
        "F32": 32,
        "F64": 64,
        "C64": 64,
    }
)
"""Bits of one element."""


def tensor_nbytes(dtype: str, shape: Sequence[int]) -> int:
    """Return the bytes of a dense tensor; 0 when a dimension is 0.

    The product over the dimensions, zeros counted as ones, is bounded too: a consumer computes strides from
    it in 64 bits, also for a tensor without elements.

    Raises:
        ValueError: with the end of a sentence that begins with the tensor.
    """
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise ValueError(f"has the element type {shown(dtype)}, which no image carries")
    if len(shape) > MAX_RANK:
        raise ValueError(f"has {len(shape)} dimensions, more than {MAX_RANK}")
    for size in shape:
        if size < 0:
            raise ValueError("has a negative dimension")
        bits *= size or 1
        if bits > 8 * MAX_IMAGE_BYTES:
            raise ValueError(f"is larger than an image may be ({MAX_IMAGE_BYTES} bytes)")
    if 0 in shape:
        return 0
    if bits % 8:
        raise ValueError("ends within a byte")
    return bits // 8
