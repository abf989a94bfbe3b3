"""The fixed frame in which one lane worker asks another for a range of an image, and the tags of the answers.

A frame is 48 bytes, little endian: magic ``PRL1``, kind (u32), session, offset, nbytes, tag, zero (u64 each).
The answer to a request is the range itself, sent under the request's tag, or a refusal; before it may come
any number of signs that the source waits for the range itself. Tags of answers are random, so that a third
peer of the same worker cannot place bytes where it was not asked; placed ones would fail their digest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_FORMAT: Final = struct.Struct("<4sIQQQQQ")
_MAGIC: Final = b"PRL1"
FRAME_BYTES: Final = _FORMAT.size

CONTROL_TAG: Final = 1 << 56
"""The tag of every frame; the upper byte of a tag says what it is."""
DATA_TAG: Final = 2 << 56
"""Set in the tag of every answer."""
TAG_BITS: Final = (1 << 56) - 1
"""The random part of an answer's tag."""


class Kind(IntEnum):
    """What a frame says."""

    REQUEST = 1
    """Send me this range of your session under this tag."""
    REFUSE = 2
    """I will not: the range under this tag does not come."""
    LEAVE = 3
    """I am done with this session; offset, nbytes and tag are zero."""
    WAIT = 4
    """The range under this tag comes once I have it: I am pulling it myself."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; all numbers are unsigned 64 bit.

    ``offset`` and ``nbytes`` are bytes of the image's flat space.
    """

    kind: Kind
    session: int
    offset: int
    nbytes: int
    tag: int

    def encode(self) -> bytes:
        """Return the frame's bytes."""
        return _FORMAT.pack(_MAGIC, self.kind, self.session, self.offset, self.nbytes, self.tag, 0)

    @classmethod
    def decode(cls, data: bytes) -> Frame | None:
        """Return the frame in ``data``, or None when a stranger sent something else."""
        if len(data) != FRAME_BYTES:
            return None
        magic, kind, session, offset, nbytes, tag, zero = _FORMAT.unpack(data)
        if magic != _MAGIC or zero or kind not in tuple(Kind):
            return None
        if kind == Kind.LEAVE:
            if offset or nbytes or tag:
                return None
        elif tag & ~TAG_BITS != DATA_TAG:
            return None
        return cls(Kind(kind), session, offset, nbytes, tag)
