"""The manifest's one form: what decodes is what was encoded, everything else is refused."""

from __future__ import annotations

import contextlib
import json
import struct
import time

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrdma.errors import InputError, ManifestError
from pyrdma.image import DTYPE_BITS, ImageId, Manifest, lay_out
from pyrdma.limits import MAX_IMAGE_BYTES, PIECE_BYTES

_MAGIC = b"PYRDMA-IMAGE-1\n"

_names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda name: name.isprintable() and name != "__metadata__"
)
_tensors = st.lists(
    st.tuples(
        _names,
        st.sampled_from(sorted(set(DTYPE_BITS) - {"F4"})),
        st.lists(st.integers(0, 9000), max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda tensor: tensor[0],
)
_files = st.dictionaries(
    st.from_regex(r"([a-z]{1,3}/)?[a-z0-9_]{1,8}\.(json|txt|jinja)", fullmatch=True),
    st.integers(0, 1 << 20),
    max_size=9,
)


@st.composite
def _manifests(draw: st.DrawFn) -> Manifest:
    files = {**draw(_files), "config.json": draw(st.integers(1, 999))}
    layout = lay_out(draw(_tensors), files.items())
    digest = st.binary(min_size=32, max_size=32)
    return Manifest(
        layout, tuple(draw(st.lists(digest, min_size=layout.piece_count, max_size=layout.piece_count)))
    )


_SMALL = Manifest(
    lay_out([("a", "F32", (2, 3)), ("b\u00e9", "U8", (0,))], [("config.json", 5)]), (bytes(range(32)),)
)
_TEXT = (
    b'{"files":[["config.json",256,5]],"piece_bytes":16777216,'
    b'"tensors":[["a","F32",[2,3],0,24],["b\\u00e9","U8",[0],256,0]],"total_bytes":512}'
)


def _encoded(text: bytes, digests: bytes = bytes(range(32))) -> bytes:
    return _MAGIC + struct.pack("<I", len(text)) + text + digests


def test_the_encoding_is_the_documented_one() -> None:
    """A change of a single byte of the format would change every image id in the world."""
    assert _SMALL.encode() == _encoded(_TEXT)
    assert _SMALL.image_id == blake3(_encoded(_TEXT)).digest()
    assert str(_SMALL.image_id) == "5968ce3a75f04edd0b138a38956ac454490d4f35114063a9c938e63c2732545e"


@settings(deadline=None)
@given(_manifests())
def test_a_manifest_survives_encoding(manifest: Manifest) -> None:
    """Decoding gives an equal manifest with the same id, with and without an expected id."""
    for expect in (None, manifest.image_id):
        again = Manifest.decode(manifest.encode(), expect=expect)
        assert again == manifest
        assert again.image_id == manifest.image_id
        assert again.encode() == manifest.encode()


@settings(deadline=None)
@given(_manifests(), st.data())
def test_a_damaged_manifest_is_refused_or_is_exactly_itself(manifest: Manifest, data: st.DataObject) -> None:
    """Changed bytes raise ManifestError only, never pass for the original, and never decode loosely."""
    good = manifest.encode()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 8)))
    patch = data.draw(st.one_of(st.binary(max_size=8), st.text('{}[]",:0123456789eE.- ', max_size=4)))
    bad = good[:start] + (patch if isinstance(patch, bytes) else patch.encode()) + good[end:]
    if bad == good:
        return
    with pytest.raises(ManifestError):
        Manifest.decode(bad, expect=manifest.image_id)
    try:
        other = Manifest.decode(bad)
    except ManifestError:
        return
    assert other.encode() == bad
    assert other.image_id != manifest.image_id
    assert other != manifest


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), st.lists, max_leaves=8))
def test_a_wrong_value_in_any_place_is_a_manifest_error(value: object) -> None:
    """Each field of the description, given any other JSON value, raises nothing but ManifestError."""
    for key in ("files", "tensors", "total_bytes", "piece_bytes"):
        _check_replaced([key], value)
    for key in ("files", "tensors"):
        _check_replaced([key, 0], value)
    for place in range(3):
        _check_replaced(["files", 0, place], value)
    for place in range(5):
        _check_replaced(["tensors", 0, place], value)
    _check_replaced(["tensors", 0, 2, 0], value)


def _check_replaced(path: list[str | int], value: object) -> None:
    description = json.loads(_TEXT)
    inner = description
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    data = _encoded(json.dumps(description, sort_keys=True, separators=(",", ":")).encode())
    with contextlib.suppress(ManifestError):
        assert Manifest.decode(data).encode() == data


_BAD = {
    "empty": b"",
    "other-magic": b"PYRDMA-IMAGE-2\n" + _encoded(_TEXT)[15:],
    "only-magic": _MAGIC,
    "half-length": _MAGIC + b"\1\0",
    "length-past-the-end": _MAGIC + struct.pack("<I", len(_TEXT) + 32) + _TEXT,
    "length-of-4-gib": _MAGIC + struct.pack("<I", 0xFFFFFFFF) + _TEXT,
    "no-digest": _encoded(_TEXT, b""),
    "half-a-digest": _encoded(_TEXT, bytes(31)),
    "extra-digest": _encoded(_TEXT, bytes(64)),
    "extra-byte": _encoded(_TEXT) + b"\0",
    "spaces": _encoded(_TEXT.replace(b",", b", ")),
    "trailing-newline": _encoded(_TEXT + b"\n"),
    "not-ascii": _encoded(_TEXT.replace(b"\\u00e9", b"\xc3\xa9")),
    "not-utf8": _encoded(_TEXT.replace(b"\\u00e9", b"\xff")),
    "upper-case-escape": _encoded(_TEXT.replace(b"\\u00e9", b"\\u00E9")),
    "needless-escape": _encoded(_TEXT.replace(b'"a"', b'"\\u0061"')),
    "half-a-character": _encoded(_TEXT.replace(b"\\u00e9", b"\\ud800")),
    "unsorted": _encoded(b'{"total_bytes":512,' + _TEXT[1:].replace(b',"total_bytes":512', b"")),
    "duplicate-key": _encoded(b'{"files":[],' + _TEXT[1:]),
    "unknown-key": _encoded(_TEXT[:-1] + b',"x":1}'),
    "missing-key": _encoded(_TEXT.replace(b',"total_bytes":512', b"")),
    "list": _encoded(b"[" + _TEXT + b"]"),
    "float": _encoded(_TEXT.replace(b"512", b"512.0")),
    "exponent": _encoded(_TEXT.replace(b"512", b"512e0")),
    "nan": _encoded(_TEXT.replace(b"512", b"NaN")),
    "minus-zero": _encoded(_TEXT.replace(b"[2,3],0,", b"[2,3],-0,")),
    "true-for-one": _encoded(_TEXT.replace(b"[2,3]", b"[6,true]")),
    "text-for-number": _encoded(_TEXT.replace(b"512", b'"512"')),
    "long-integer": _encoded(_TEXT.replace(b"512", b"9" * 5000)),
    "deep": _encoded(b'{"files":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "extra-field": _encoded(_TEXT.replace(b",0,24]", b",0,24,0]")),
    "unsafe-file": _encoded(_TEXT.replace(b"config.json", b"../fig.json")),
    "code-file": _encoded(_TEXT.replace(b"config.json", b"modeling.py")),
    "piece-size": _encoded(_TEXT.replace(b"16777216", b"8388608")),
    "values": _encoded(b'{"files":[' + b"[]," * ((1 << 22) + 1) + b"[]]}"),
    "too-large": _MAGIC + bytes(64 << 20),
}


@pytest.mark.parametrize("data", _BAD.values(), ids=_BAD.keys())
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    """Each deviation from the one form is a ManifestError with a fix."""
    with pytest.raises(ManifestError) as caught:
        Manifest.decode(data)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("length-past-the-end", "cut short"),
        ("half-a-digest", "cut short or too long"),
        ("extra-digest", "2 digests for 1 pieces"),
        ("extra-field", "does not have 5 fields"),
        ("spaces", "canonical"),
        ("deep", "nested too deeply"),
        ("values", "values"),
    ],
)
def test_a_refusal_says_what_is_wrong(name: str, reason: str) -> None:
    """The sentence names the deviation, not what it led to."""
    with pytest.raises(ManifestError, match=reason):
        Manifest.decode(_BAD[name])


def test_another_id_is_refused_before_anything_is_parsed() -> None:
    """A good manifest under another name, and garbage under any name, fail alike."""
    for data in (_SMALL.encode(), b"garbage"):
        with pytest.raises(ManifestError, match="does not match the image id 000000000000"):
            Manifest.decode(data, expect=ImageId(bytes(32)))


@pytest.mark.parametrize("digests", [(), (bytes(32),) * 2, (bytes(31),), (bytes(33),)])
def test_a_manifest_needs_one_digest_for_each_piece(digests: tuple[bytes, ...]) -> None:
    """Neither missing nor surplus nor odd-sized digests make a manifest."""
    with pytest.raises(ManifestError, match="digest"):
        Manifest(_SMALL.layout, digests)


def test_a_manifest_past_the_limit_is_refused_when_it_is_made() -> None:
    """Nobody publishes what nobody would read."""
    layout = lay_out([(f"{number:01000}", "U8", (1,)) for number in range(70_000)])
    with pytest.raises(ManifestError, match="more than 67108864"):
        Manifest(layout, (bytes(32),) * layout.piece_count)


def test_the_largest_image_decodes_well_below_a_second() -> None:
    """2**18 pieces cost one slice each."""
    layout = lay_out(
        [("a", "U8", (MAX_IMAGE_BYTES // 2,)), ("b", "U8", (MAX_IMAGE_BYTES // 2 - PIECE_BYTES,))]
    )
    manifest = Manifest(layout, (bytes(32),) * layout.piece_count)
    started = time.process_time()
    assert Manifest.decode(manifest.encode(), expect=manifest.image_id) == manifest
    assert time.process_time() - started < 0.8


def test_an_image_id_reads_its_own_text() -> None:
    """The text form is 64 hexadecimal digits and nothing shorter."""
    text = "0123456789abcdef" * 4
    image_id = ImageId.parse(text)
    assert (image_id.hex(), str(image_id), image_id.short()) == (text, text, "0123456789ab")
    assert image_id == bytes.fromhex(text)
    for wrong in ("", text[:12], text.upper(), text + "0", f" {text}", f"{text}\n", "g" * 64):
        with pytest.raises(InputError):
            ImageId.parse(wrong)
    with pytest.raises(InputError):
        ImageId(bytes(31))
