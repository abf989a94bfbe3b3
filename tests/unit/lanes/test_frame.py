"""Frames between lane workers: what decodes is what was encoded, and nothing else decodes."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from pyrdma.lanes.frame import DATA_TAG, FRAME_BYTES, TAG_BITS, Frame, Kind

_u64 = st.integers(0, 2**64 - 1)
_tags = st.integers(0, TAG_BITS).map(lambda bits: DATA_TAG | bits)


@given(st.sampled_from([Kind.REQUEST, Kind.REFUSE, Kind.WAIT]), _u64, _u64, _u64, _tags)
def test_a_frame_survives_its_encoding(kind: Kind, session: int, offset: int, nbytes: int, tag: int) -> None:
    """Every frame reads back equal, in 48 bytes."""
    frame = Frame(kind, session, offset, nbytes, tag)
    assert len(frame.encode()) == FRAME_BYTES == 48
    assert Frame.decode(frame.encode()) == frame


@given(st.binary(max_size=100))
def test_strangers_bytes_decode_to_nothing(data: bytes) -> None:
    """Fuzz: random bytes without the magic are no frame, and never an exception."""
    assert data[:4] == b"PRL1" or Frame.decode(data) is None


@given(st.binary(min_size=44, max_size=44))
def test_whatever_decodes_encodes_to_the_same_bytes(rest: bytes) -> None:
    """Fuzz behind the magic: there is one form for each frame."""
    data = b"PRL1" + rest
    frame = Frame.decode(data)
    assert frame is None or frame.encode() == data


def test_what_is_almost_a_frame_is_none() -> None:
    """Unknown kind, another tag space, a set reserved word, a byte more or less: no frame."""
    good = Frame(Kind.REQUEST, 1, 2, 3, DATA_TAG | 4).encode()
    assert Frame.decode(good) is not None
    assert Frame.decode(good + b"\0") is None
    assert Frame.decode(good[:-1]) is None
    assert Frame.decode(b"PRL2" + good[4:]) is None
    assert Frame.decode(good[:-1] + b"\1") is None
    assert Frame.decode(good[:4] + struct.pack("<I", 9) + good[8:]) is None
    for tag in (4, (1 << 56) | 4, (3 << 56) | 4):
        assert Frame.decode(Frame(Kind.REQUEST, 1, 2, 3, tag).encode()) is None


def test_leaving_names_a_session_and_nothing_else() -> None:
    """The word of farewell has no range and no tag; one that has is no frame."""
    leave = Frame(Kind.LEAVE, 7, 0, 0, 0)
    assert Frame.decode(leave.encode()) == leave
    for wrong in (
        Frame(Kind.LEAVE, 7, 1, 0, 0),
        Frame(Kind.LEAVE, 7, 0, 1, 0),
        Frame(Kind.LEAVE, 7, 0, 0, 1),
    ):
        assert Frame.decode(wrong.encode()) is None
