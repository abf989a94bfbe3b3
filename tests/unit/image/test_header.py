"""What counts as a safetensors header, and how each bad one is refused."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from pyrdma.errors import ImageFormatError
from pyrdma.image import StoredTensor, read_header
from pyrdma.image.header import parse_header

_F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def _read(path: Path, content: bytes) -> tuple[StoredTensor, ...]:
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_header(fd, name=path.name)
    finally:
        os.close(fd)


def _framed(text: str | bytes, data: bytes = b"") -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw + data


def _entry(**changes: object) -> str:
    return json.dumps({"w": {**_F32, **changes}})


def _tensors(*places: tuple[int, int]) -> str:
    return json.dumps(
        {
            f"w{number}": {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
            for number, (begin, end) in enumerate(places)
        }
    )


def test_a_file_written_by_safetensors_is_read(tmp_path: Path) -> None:
    """Names, types, shapes and places are those that the reference implementation wrote."""
    content = save(
        {
            "b": np.frombuffer(bytes(range(8)), np.float32).reshape(1, 2),
            "a": np.array(7, np.uint8),
            "none": np.zeros(0, np.uint8),
        },
        {"format": "pt"},
    )
    found = _read(tmp_path / "w", content)
    assert {(t.name, t.dtype, t.shape) for t in found} == {
        ("b", "F32", (1, 2)),
        ("a", "U8", ()),
        ("none", "U8", (0,)),
    }
    bytes_of = {t.name: content[t.file_offset : t.file_offset + t.nbytes] for t in found}
    assert bytes_of == {"b": bytes(range(8)), "a": b"\x07", "none": b""}


def test_tensors_come_in_the_order_of_their_bytes_whatever_the_json_says(tmp_path: Path) -> None:
    """The JSON's order does not matter; a tensor without bytes comes before the one at its place."""
    found = _read(tmp_path / "w", _framed(_tensors((3, 5), (0, 3), (3, 3)), bytes(5)))
    assert [t.name for t in found] == ["w1", "w2", "w0"]


def test_a_file_larger_than_memory_is_read_by_its_header_alone(tmp_path: Path) -> None:
    """A sparse file of one tebibyte takes no longer than its header."""
    size = 1 << 40
    path = tmp_path / "w"
    path.write_bytes(_framed(_tensors((0, size))))
    os.truncate(path, path.stat().st_size + size)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert [t.nbytes for t in read_header(fd, name="w")] == [size]
    finally:
        os.close(fd)


def test_a_header_length_that_looks_like_a_pickle_is_still_a_header(tmp_path: Path) -> None:
    """640 is written 80 02, as a pickle begins; padding with spaces is part of the format."""
    text = _entry().encode()
    assert len(_read(tmp_path / "w", _framed(text + b" " * (0x0280 - len(text)), bytes(8)))) == 1


_BAD_HEADERS = {
    "not-utf8": (_framed(b'{"\xff\xfe": 1}'), "is not UTF-8"),
    "not-json": (_framed("{w}"), "is no JSON"),
    "list": (_framed("[]"), "does not begin with a brace"),
    "leading-space": (_framed(" {}"), "does not begin with a brace"),
    "zero-padding": (_framed("{}\0\0"), "padded"),
    "newline-padding": (_framed("{}\n"), "padded"),
    "empty": (_framed(""), "does not begin with a brace"),
    "deep-list": (_framed('{"w":' + "[" * 100_000 + "]" * 100_000 + "}"), "nested too deeply"),
    "deep-object": (_framed('{"w":' * 50_000 + "1" + "}" * 50_000), "nested too deeply"),
    "many-values": (_framed('{"w":[' + "1," * 500_000 + "1]}"), "exactly a type, a shape and offsets"),
    "duplicate-name": (
        _framed('{"w":{"dtype":"U8","shape":[],"data_offsets":[0,1]},' * 2 + '"x":1}'),
        "is no JSON",
    ),
    "duplicate-tensor": (_framed(_entry()[:-1] + "," + _entry()[1:], bytes(8)), "key twice"),
    "duplicate-key": (_framed('{"w":{"dtype":"U8","dtype":"F32","shape":[]}}'), "key twice"),
    "duplicate-by-escape": (_framed(_entry()[:-1] + ',"\\u0077":1}', bytes(8)), "key twice"),
    "bad-dtype": (_framed(_entry(dtype="F31"), bytes(8)), "element type 'F31'"),
    "dtype-list": (_framed(_entry(dtype=["F32"]), bytes(8)), "no element type"),
    "float-shape": (_framed(_entry(shape=[2.0]), bytes(8)), "no integer"),
    "nan": (_framed(_entry(shape=[float("nan")]), bytes(8)), "no integer"),
    "bool-shape": (_framed(_entry(shape=[True, 2]), bytes(8)), "no list of integers"),
    "text-shape": (_framed(_entry(shape="2"), bytes(8)), "no list of integers"),
    "negative-shape": (_framed(_entry(shape=[-2, -1]), bytes(8)), "negative dimension"),
    "high-rank": (_framed(_entry(shape=[1] * 17 + [2]), bytes(8)), "dimensions"),
    # 2**62 elements of 4 bytes, and 2**32 * 2**32: both are 0 modulo 2**64.
    "overflow-bytes": (_framed(_entry(shape=[1 << 62], data_offsets=[0, 0])), "larger than an image"),
    "overflow-product": (
        _framed(_entry(shape=[1 << 32, 1 << 32], data_offsets=[0, 0])),
        "larger than an image",
    ),
    "overflow-beside-zero": (
        _framed(_entry(shape=[0, 1 << 62, 1 << 62], data_offsets=[0, 0])),
        "larger than an image",
    ),
    "long-integer": (_framed('{"w":' + "9" * 100_000 + "}"), "too long"),
    "part-of-a-byte": (_framed(_entry(dtype="F4", shape=[3], data_offsets=[0, 1]), b"0"), "within a byte"),
    "wrong-bytes": (_framed(_entry(shape=[3]), bytes(8)), "8 bytes where its type and shape need 12"),
    "backwards": (_framed(_entry(data_offsets=[8, 0]), bytes(8)), "run backwards"),
    "negative-offset": (_framed(_entry(data_offsets=[-8, 0]), bytes(8)), "negative"),
    "one-offset": (_framed(_entry(data_offsets=[8]), bytes(8)), "not two integers"),
    "text-offset": (_framed(_entry(data_offsets=["0", "8"]), bytes(8)), "not two integers"),
    "extra-key": (_framed(_entry(code="x"), bytes(8)), "exactly a type, a shape and offsets"),
    "missing-key": (_framed('{"w":{"dtype":"F32"}}'), "exactly a type, a shape and offsets"),
    "entry-is-text": (_framed('{"w":"F32"}'), "exactly a type, a shape and offsets"),
    "metadata-number": (_framed('{"__metadata__":{"a":1}}'), "metadata"),
    "metadata-text": (_framed('{"__metadata__":"pt"}'), "metadata"),
    "empty-name": (_framed('{"":{}}'), "cannot be printed"),
    "escape-in-name": (_framed('{"\\u001b[2J":{}}'), "cannot be printed"),
    "right-to-left-name": (_framed('{"\\u202egnp":{}}'), "cannot be printed"),
    "half-a-character": (_framed('{"\\ud800":{}}'), "cannot be printed"),
    "long-name": (_framed(json.dumps({"w" * 1025: {}})), "more than 1024 bytes"),
    "long-name-in-bytes": (
        _framed(json.dumps({"\u65e5" * 400: {}}, ensure_ascii=False)),
        "more than 1024 bytes",
    ),
    "overlap": (_framed(_tensors((0, 8), (4, 12)), bytes(12)), "overlaps"),
    "same-place": (_framed(_tensors((0, 8), (0, 8)), bytes(8)), "overlaps"),
    "hole": (_framed(_tensors((0, 8), (9, 12)), bytes(12)), "behind a hole"),
    "hole-at-start": (_framed(_tensors((1, 8)), bytes(8)), "behind a hole"),
    "empty-tensor-out-of-range": (_framed(_tensors((0, 8), (9, 9)), bytes(8)), "behind a hole"),
    "truncated-data": (_framed(_entry(), bytes(5)), "cut short: 3 bytes are missing"),
    "oversized-data": (_framed(_entry(), bytes(10)), "2 bytes longer"),
    "truncated-header": (_framed(_entry())[:-10], "cut short: 10 bytes of its header"),
    "truncated-length": (b"\x08\0\0", "less than any weight file"),
    "no-bytes": (b"", "less than any weight file"),
    "huge-header": (struct.pack("<Q", (1 << 64) - 1) + b"{}", "claims a header of 18446744073709551615"),
    "header-past-cap": (_framed(b"{" + b" " * (1 << 20) + b"}"), "1048576 are allowed"),
    "pickle": (pickle.dumps({"w": [1.0] * 99}), "is a pickle"),
    "old-pickle": (pickle.dumps({"w": [1.0] * 99}, protocol=2), "is a pickle"),
    "zip-of-pickles": (b"PK\x03\x04\0\0\x08\x08\0\0" + bytes(40), "is a pickle"),
    "lfs-pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
}


@pytest.mark.parametrize(("content", "reason"), _BAD_HEADERS.values(), ids=_BAD_HEADERS.keys())
def test_a_bad_weight_file_is_refused_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    """Each malformed file is an ImageFormatError that says what is wrong and what to do."""
    with pytest.raises(ImageFormatError, match=re.escape(reason)) as caught:
        _read(tmp_path / "weights", content)
    assert "'weights'" in caught.value.message
    assert caught.value.fix


def test_more_values_than_any_model_has_are_not_parsed() -> None:
    """A text of nothing but small values is refused before it becomes objects."""
    with pytest.raises(ImageFormatError, match="values"):
        parse_header(b'{"w":[' + b"1," * (1 << 22) + b",1]}", 0, name="w")


def test_more_tensors_than_any_model_has_are_refused() -> None:
    """The count is bounded before any entry is looked at."""
    entries = ",".join(f'"{number}":0' for number in range((1 << 18) + 1))
    with pytest.raises(ImageFormatError, match="names 262145 tensors"):
        parse_header(f"{{{entries}}}".encode(), 0, name="w")


def test_a_large_file_may_have_a_header_of_one_percent_but_not_past_the_cap(tmp_path: Path) -> None:
    """The allowance grows with the file and ends at 16 MiB."""
    path = tmp_path / "w"
    for header_bytes, allowed in ((2 << 20, True), (17 << 20, False)):
        text = _tensors((0, 200 << 20)) if allowed else _tensors((0, 4 << 30))
        path.write_bytes(_framed(text + " " * (header_bytes - len(text))))
        os.truncate(path, path.stat().st_size + ((200 << 20) if allowed else (4 << 30)))
        fd = os.open(path, os.O_RDONLY)
        try:
            if allowed:
                assert len(read_header(fd, name="w")) == 1
            else:
                with pytest.raises(ImageFormatError, match="16777216 are allowed"):
                    read_header(fd, name="w")
        finally:
            os.close(fd)


def test_what_is_no_regular_file_is_refused() -> None:
    """A device has no size to check a header against."""
    fd = os.open("/dev/zero", os.O_RDONLY)
    try:
        with pytest.raises(ImageFormatError, match="no regular file"):
            read_header(fd, name="zero")
    finally:
        os.close(fd)


@settings(deadline=None)
@given(data=st.data())
def test_whatever_is_accepted_the_reference_reads_alike(
    data: st.DataObject, weight_file: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A damaged file is refused, or means to safetensors itself exactly what it means here."""
    good = weight_file(
        {"a": ("F32", [2], bytes(range(8))), "b": ("U8", [0, 3], b""), "c": ("I16", [1, 2], b"abcd")}
    )
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(bad) - 1))
        bad[place] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b' "{}[],:0123456789')))
    try:
        found = _read(tmp_path_factory.getbasetemp() / "damaged", bytes(bad))
    except ImageFormatError:
        return
    theirs = {name: (info["dtype"], info["shape"], info["data"]) for name, info in _reference(bytes(bad))}
    assert theirs == {
        t.name: (t.dtype, list(t.shape), bytes(bad[t.file_offset : t.file_offset + t.nbytes])) for t in found
    }


def _reference(content: bytes) -> list[tuple[str, dict[str, object]]]:
    found = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    return [(name, {**info, "data": bytes(info["data"])}) for name, info in found]


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 100))
def test_no_bytes_raise_anything_else(raw: bytes, data_bytes: int) -> None:
    """Random bytes after a brace are an ImageFormatError or tensors, never another exception."""
    with contextlib.suppress(ImageFormatError):
        assert sum(t.nbytes for t in parse_header(b"{" + raw + b"}", data_bytes, name="w")) == data_bytes
