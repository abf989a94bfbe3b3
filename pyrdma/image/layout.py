"""The flat space of an image: where each tensor and side file lies.

Rules, which hold for every ``Layout`` that exists (its constructor checks them):

- tensors first, then side files in ascending order of their names; both from offset 0 without a choice: each
  item starts at the first multiple of ``TENSOR_ALIGN_BYTES`` after the one before it;
- an item without bytes takes no room, so the item after it starts where it does;
- the space ends at the last item's end, rounded up, and is cut into pieces of ``PIECE_BYTES``, the last
  shorter;
- names are unique, types and shapes give exactly the bytes that are there, and every limit is kept.

Bytes between items are zero. That is the writer's duty; the pieces' digests hold everybody to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyrdma.errors import ManifestError
from pyrdma.image.dtypes import tensor_nbytes
from pyrdma.image.names import check_tensor_name, is_side_file_name, shown
from pyrdma.limits import (
    MAX_IMAGE_BYTES,
    MAX_SIDE_FILE_BYTES,
    MAX_SIDE_FILES,
    MAX_TENSORS,
    PIECE_BYTES,
    TENSOR_ALIGN_BYTES,
)


def align_up(offset: int) -> int:
    """Return the first place at or after an offset where an item may start."""
    return -(-offset // TENSOR_ALIGN_BYTES) * TENSOR_ALIGN_BYTES


@dataclass(frozen=True, slots=True)
class TensorSpan:
    """One tensor, dense and row-major, in the flat space; offsets and sizes in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class FileSpan:
    """One side file in the flat space; its name is a relative path of one or two components."""

    name: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The flat space of one image.

    Raises:
        ManifestError: the spans break a rule of this module.
    """

    tensors: tuple[TensorSpan, ...]
    files: tuple[FileSpan, ...]
    total_bytes: int
    piece_bytes: int

    def __post_init__(self) -> None:
        end = _check_files(self.files, _check_tensors(self.tensors))
        if self.piece_bytes != PIECE_BYTES:
            raise ManifestError(f"An image has pieces of {self.piece_bytes} bytes instead of {PIECE_BYTES}.")
        if self.total_bytes != align_up(end):
            raise ManifestError(f"An image says {self.total_bytes} bytes, its items take {align_up(end)}.")
        if not 0 < self.total_bytes <= MAX_IMAGE_BYTES:
            raise ManifestError(
                f"An image has {self.total_bytes} bytes; 1 to {MAX_IMAGE_BYTES} are possible."
            )

    @property
    def piece_count(self) -> int:
        """The number of pieces, at least one."""
        return -(-self.total_bytes // self.piece_bytes)

    def piece_range(self, index: int) -> tuple[int, int]:
        """Return the offset and the size of a piece.

        Raises:
            IndexError: there is no such piece.
        """
        if not 0 <= index < self.piece_count:
            raise IndexError(f"no piece {index} among {self.piece_count}")
        offset = index * self.piece_bytes
        return offset, min(self.piece_bytes, self.total_bytes - offset)

    @property
    def tensor_bytes(self) -> int:
        """The bytes of all tensors, without side files and padding."""
        return sum(span.nbytes for span in self.tensors)


def lay_out(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], files: Iterable[tuple[str, int]] = ()
) -> Layout:
    """Return the layout of tensors in this order and of side files.

    Args:
        tensors: ``(name, dtype, shape)`` of each.
        files: ``(name, nbytes)`` of each, in any order.

    Raises:
        ManifestError: the items break a rule of this module.
    """
    end = 0
    tensor_spans: list[TensorSpan] = []
    for name, dtype, shape in tensors:
        try:
            nbytes = tensor_nbytes(dtype, shape)
        except ValueError as error:
            raise ManifestError(f"Tensor {shown(name)} {error}.") from error
        tensor_spans.append(TensorSpan(name, dtype, shape, align_up(end), nbytes))
        end = tensor_spans[-1].offset + nbytes
    file_spans: list[FileSpan] = []
    for name, nbytes in sorted(files):
        file_spans.append(FileSpan(name, align_up(end), nbytes))
        end = file_spans[-1].offset + nbytes
    return Layout(tuple(tensor_spans), tuple(file_spans), align_up(end), PIECE_BYTES)


def _check_tensors(tensors: tuple[TensorSpan, ...]) -> int:
    if not 0 < len(tensors) <= MAX_TENSORS:
        raise ManifestError(f"An image has {len(tensors)} tensors; 1 to {MAX_TENSORS} are possible.")
    end = 0
    names: set[str] = set()
    for span in tensors:
        try:
            check_tensor_name(span.name)
            nbytes = tensor_nbytes(span.dtype, span.shape)
        except ValueError as error:
            raise ManifestError(f"Tensor {shown(span.name)} {error}.") from error
        if span.nbytes != nbytes:
            raise ManifestError(
                f"Tensor {shown(span.name)} has {span.nbytes} bytes, its type and shape need {nbytes}."
            )
        if span.offset != align_up(end):
            raise ManifestError(
                f"Tensor {shown(span.name)} lies at {span.offset} instead of {align_up(end)}."
            )
        if span.name in names:
            raise ManifestError(f"Tensor {shown(span.name)} is there twice.")
        names.add(span.name)
        end = span.offset + nbytes
    return end


def _check_files(files: tuple[FileSpan, ...], end: int) -> int:
    if len(files) > MAX_SIDE_FILES:
        raise ManifestError(f"An image has {len(files)} side files, more than {MAX_SIDE_FILES}.")
    names = {span.name for span in files}
    previous = ""
    for span in files:
        if not is_side_file_name(span.name) or span.name.split("/")[0] in names - {span.name}:
            raise ManifestError(f"Side file {shown(span.name)} has a name that no image may carry.")
        if span.name <= previous:
            raise ManifestError(f"Side file {shown(span.name)} is there twice or out of order.")
        if not 0 <= span.nbytes <= MAX_SIDE_FILE_BYTES:
            raise ManifestError(
                f"Side file {shown(span.name)} has {span.nbytes} bytes; 0 to {MAX_SIDE_FILE_BYTES} can be."
            )
        if span.offset != align_up(end):
            raise ManifestError(
                f"Side file {shown(span.name)} lies at {span.offset} instead of {align_up(end)}."
            )
        previous = span.name
        end = span.offset + span.nbytes
    return end
