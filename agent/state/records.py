"""The rows of the state file as values."""

from __future__ import annotations

from dataclasses import dataclass

from pyrdma.image.manifest import ImageId


@dataclass(frozen=True, slots=True)
class NameRecord:
    """A name and the image that it stands for on this node.

    ``folder`` is where the weights can be read again, empty for an image that was pulled.
    """

    name: str
    image_id: ImageId
    folder: str
    bound_at: float


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A lease; ``key_digest`` is the SHA-256 of its API key, the key itself is stored nowhere."""

    id: str
    model: str
    image_id: ImageId
    state: str
    created_at: float
    ended_at: float | None
    reason: str
    port: int | None
    key_digest: bytes
