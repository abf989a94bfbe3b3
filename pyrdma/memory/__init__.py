"""Host memory that processes of one node share: sealed memfds, mappings and the donated pool."""

from pyrdma.memory.mapping import Mapping, map_extents
from pyrdma.memory.memfd import lent_memfd, read_bulk, sealed_bytes
from pyrdma.memory.pool import Extent, ExtentPool, Region, extent_bytes_for

__all__ = [
    "Extent",
    "ExtentPool",
    "Mapping",
    "Region",
    "extent_bytes_for",
    "lent_memfd",
    "map_extents",
    "read_bulk",
    "sealed_bytes",
]
