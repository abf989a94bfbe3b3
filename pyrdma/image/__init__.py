"""Images: model folders as one flat, content-addressed space of bytes.

``scan_folder`` says how a folder becomes a flat space, ``Layout`` where everything lies in it, ``Manifest``
what its bytes must be, ``export_folder`` makes a folder of it again. Nothing here maps memory, moves weights
between processes or knows torch.
"""

from __future__ import annotations

from pyrdma.image.dtypes import DTYPE_BITS, tensor_nbytes
from pyrdma.image.export import export_folder, write_side_files
from pyrdma.image.folder import CopySegment, FolderScan, scan_folder
from pyrdma.image.header import StoredTensor, read_header
from pyrdma.image.layout import FileSpan, Layout, TensorSpan, lay_out
from pyrdma.image.manifest import ImageId, Manifest

__all__ = [
    "DTYPE_BITS",
    "CopySegment",
    "FileSpan",
    "FolderScan",
    "ImageId",
    "Layout",
    "Manifest",
    "StoredTensor",
    "TensorSpan",
    "export_folder",
    "lay_out",
    "read_header",
    "scan_folder",
    "tensor_nbytes",
    "write_side_files",
]
