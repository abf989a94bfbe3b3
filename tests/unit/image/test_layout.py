"""The flat space: where things lie, and which spaces cannot exist."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrdma.errors import ManifestError
from pyrdma.image import DTYPE_BITS, FileSpan, Layout, TensorSpan, lay_out, tensor_nbytes
from pyrdma.limits import MAX_IMAGE_BYTES, MAX_SIDE_FILE_BYTES, PIECE_BYTES, TENSOR_ALIGN_BYTES

_items = st.lists(
    st.tuples(st.sampled_from(sorted(set(DTYPE_BITS) - {"F4"})), st.lists(st.integers(0, 300), max_size=3)),
    min_size=1,
    max_size=20,
)
_files = st.dictionaries(st.from_regex(r"[a-z]{1,5}\.json", fullmatch=True), st.integers(0, 3000), max_size=5)


@settings(deadline=None)
@given(_items, _files)
def test_items_are_aligned_in_order_and_packed(
    items: list[tuple[str, list[int]]], files: dict[str, int]
) -> None:
    """Each start is a multiple of 256 less than 256 bytes after the last end, tensors before files."""
    tensors = [(f"t{number}", dtype, tuple(shape)) for number, (dtype, shape) in enumerate(items)]
    try:
        layout = lay_out(tensors, files.items())
    except ManifestError:
        assert sum(tensor_nbytes(dtype, shape) for _, dtype, shape in tensors) + sum(files.values()) == 0
        return
    assert [(s.name, s.dtype, s.shape) for s in layout.tensors] == tensors
    assert [(s.name, s.nbytes) for s in layout.files] == sorted(files.items())
    end = 0
    spans: list[TensorSpan | FileSpan] = [*layout.tensors, *layout.files]
    for span in spans:
        assert span.offset % TENSOR_ALIGN_BYTES == 0
        assert 0 <= span.offset - end < TENSOR_ALIGN_BYTES
        end = span.offset + span.nbytes
    assert layout.total_bytes % TENSOR_ALIGN_BYTES == 0
    assert 0 <= layout.total_bytes - end < TENSOR_ALIGN_BYTES
    assert layout.tensor_bytes == sum(span.nbytes for span in layout.tensors)


@settings(deadline=None)
@given(st.integers(1, 5 * PIECE_BYTES))
def test_pieces_cover_the_space_once(nbytes: int) -> None:
    """Pieces follow one another, all but the last are of full size, and they end where the space does."""
    layout = lay_out([("t", "U8", (nbytes,))])
    ranges = [layout.piece_range(index) for index in range(layout.piece_count)]
    assert [offset for offset, _ in ranges] == [index * PIECE_BYTES for index in range(len(ranges))]
    assert all(size == PIECE_BYTES for _, size in ranges[:-1])
    assert 0 < ranges[-1][1] <= PIECE_BYTES
    assert sum(ranges[-1]) == layout.total_bytes


@pytest.mark.parametrize("index", [-1, 1])
def test_a_piece_that_is_not_there_has_no_range(index: int) -> None:
    """An index out of range raises, also a negative one."""
    with pytest.raises(IndexError):
        lay_out([("t", "U8", (1,))]).piece_range(index)


def test_an_empty_tensor_takes_no_room() -> None:
    """The tensor after an empty one starts where the empty one does, also at the end of the space."""
    layout = lay_out([("a", "U8", (0, 5)), ("b", "F16", (3,)), ("c", "F16", (0,))])
    assert [(s.offset, s.nbytes) for s in layout.tensors] == [(0, 0), (0, 6), (256, 0)]
    assert layout.total_bytes == 256


@pytest.mark.parametrize(("dtype", "bits"), DTYPE_BITS.items())
def test_a_tensor_takes_its_elements_bits(dtype: str, bits: int) -> None:
    """Eight elements of n bits take n bytes, in any shape."""
    assert tensor_nbytes(dtype, (2, 1, 4)) == tensor_nbytes(dtype, (8,)) == bits


_GOOD = lay_out([("a", "F32", (3,)), ("b", "U8", (300,))], [("config.json", 5), ("p/config.json", 0)])
_A, _B = _GOOD.tensors
_CONFIG, _POOL = _GOOD.files


def _tensor(span: TensorSpan, **changes: object) -> TensorSpan:
    return dataclasses.replace(span, **changes)  # type: ignore[arg-type]


def _file(span: FileSpan, **changes: object) -> FileSpan:
    return dataclasses.replace(span, **changes)  # type: ignore[arg-type]


_BROKEN: dict[str, tuple[dict[str, object], str]] = {
    "no-tensors": ({"tensors": ()}, "0 tensors"),
    "wrong-order": ({"tensors": (_B, _A)}, "lies at"),
    "overlap": ({"tensors": (_A, _tensor(_B, offset=0))}, "lies at 0 instead of 256"),
    "unaligned": ({"tensors": (_A, _tensor(_B, offset=12))}, "lies at 12 instead of 256"),
    "gap": ({"tensors": (_A, _tensor(_B, offset=512))}, "lies at 512 instead of 256"),
    "negative": ({"tensors": (_tensor(_A, offset=-256), _B)}, "lies at -256"),
    "same-name": ({"tensors": (_A, _tensor(_B, name="a"))}, "twice"),
    "bad-name": ({"tensors": (_tensor(_A, name="\x1b"), _B)}, "cannot be printed"),
    "metadata-name": ({"tensors": (_tensor(_A, name="__metadata__"), _B)}, "reserves"),
    "bad-dtype": ({"tensors": (_tensor(_A, dtype="O"), _B)}, "element type"),
    "wrong-size": ({"tensors": (_tensor(_A, nbytes=16), _B)}, "16 bytes, its type and shape need 12"),
    "piece-size": ({"piece_bytes": 1}, "pieces of 1 bytes"),
    "short": ({"total_bytes": 768}, "says 768 bytes"),
    "long": ({"total_bytes": _GOOD.total_bytes + 256}, "its items take"),
    "file-unaligned": ({"files": (_file(_CONFIG, offset=556),)}, "lies at 556"),
    "file-in-tensor": ({"files": (_file(_CONFIG, offset=256),)}, "lies at 256"),
    "file-twice": ({"files": (_CONFIG, _file(_POOL, name="config.json"))}, "twice or out of order"),
    "file-order": ({"files": (_CONFIG, _file(_POOL, name="a.json"))}, "twice or out of order"),
    "file-negative": ({"files": (_file(_CONFIG, nbytes=-1),)}, "-1 bytes"),
    "file-large": ({"files": (_file(_CONFIG, nbytes=MAX_SIDE_FILE_BYTES + 1),)}, "bytes; 0 to"),
    "file-is-folder": (
        {"files": (_file(_CONFIG, name="p.json"), _file(_POOL, name="p.json/config.json"))},
        "no image may carry",
    ),
    "many-files": (
        {"files": tuple(FileSpan(f"f{number:02}.json", 1024, 0) for number in range(65))},
        "65 side files",
    ),
}


@pytest.mark.parametrize(("changes", "reason"), _BROKEN.values(), ids=_BROKEN.keys())
def test_a_layout_that_breaks_a_rule_cannot_exist(changes: dict[str, object], reason: str) -> None:
    """The constructor refuses each broken rule by name."""
    with pytest.raises(ManifestError, match=reason):
        dataclasses.replace(_GOOD, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "config",
        "../config.json",
        "/etc/x.json",
        "a/../b.json",
        "a/b/c.json",
        "./a.json",
        "a//b.json",
        "a/",
        ".hidden.json",
        ".git/config.json",
        "a\\b.json",
        "a\0.json",
        "a.json\n",
        "modeling.py",
        "model.safetensors",
        "weights.bin",
        "model.safetensors.index.json",
        "x" * 200 + ".json",
        "caf\u00e9.json",
    ],
)
def test_a_side_file_that_could_leave_the_folder_or_run_is_refused(name: str) -> None:
    """Only short plain names with a known suffix, at most one folder deep, are side files."""
    with pytest.raises(ManifestError, match="no image may carry"):
        lay_out([("a", "U8", (1,))], [(name, 1)])


def test_a_space_without_bytes_or_past_four_tebibytes_is_refused() -> None:
    """The size is bounded at both ends, and the largest one works."""
    with pytest.raises(ManifestError, match="has 0 bytes"):
        lay_out([("a", "U8", (0,))])
    with pytest.raises(ManifestError, match=f"1 to {MAX_IMAGE_BYTES}"):
        lay_out([("a", "U8", (MAX_IMAGE_BYTES,)), ("b", "U8", (1,))])
    assert lay_out([("a", "U8", (MAX_IMAGE_BYTES,))]).piece_count == 1 << 18


def test_too_many_tensors_are_refused() -> None:
    """Tensors without bytes count too."""
    span = TensorSpan("a", "U8", (0,), 0, 0)
    with pytest.raises(ManifestError, match="262145 tensors"):
        Layout((span,) * ((1 << 18) + 1), (), 256, PIECE_BYTES)
