"""An image mapped into this process: the mapping, and how it arrives.

A parcel is one or more messages: the first carries a pin, the manifest (a sealed memfd) and extents, the
others more extents. The pin is one end of a socket pair; while anyone holds it the weight cache keeps the
region as it is. The kernel closes it with the process, however that ends.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import weakref
from pathlib import Path
from typing import Final

from pyrdma.errors import ChannelError, LocalError, from_code
from pyrdma.image import Manifest
from pyrdma.limits import MAX_MANIFEST_BYTES, MAX_MESSAGE_FDS
from pyrdma.memory.mapping import Access, map_extents
from pyrdma.memory.memfd import read_bulk
from pyrdma.memory.pool import MOST_EXTENTS
from pyrdma.wire import Channel, Message

PARCEL_OP: Final = "attachment"
DEFAULT_RUN_DIR: Final = Path("/run/pyrdma-agent")
"""Where a node that runs as root has its sockets."""
SOCKET_NAME: Final = "image.sock"
_OWN_REFERENCES: Final = 2
"""To ``buffer`` while nobody else uses it: the attachment's and that of the call that counts them."""


class Attachment:
    """One whole, proven image, mapped privately: a page that is written becomes this process's own.

    ``buffer`` holds the flat space as bytes; page aligned, ``manifest.layout.total_bytes`` long.
    """

    def __init__(self, manifest: Manifest, fds: list[int], extent_bytes: int, pin: int) -> None:
        if manifest.layout.total_bytes > len(fds) * extent_bytes:
            raise ChannelError("a process of this node sent less memory than its image has.")
        self.manifest = manifest
        self._mapping = map_extents(fds, extent_bytes, Access.PRIVATE)
        self._pin = pin
        self.buffer = self._mapping.view(manifest.layout.total_bytes)

    def close(self) -> None:
        """Unmap the image and let the cache reuse its memory; a second call does nothing.

        Raises:
            BufferError: a tensor or view made from ``buffer`` is still there; everything stays as it was.
        """
        if self._pin < 0:
            return
        # Tensors hold the buffer's object, views of it only what lies under it: look for both.
        if sys.getrefcount(self.buffer) > _OWN_REFERENCES:
            raise BufferError("a tensor of this image is still in use")
        nbytes = self.buffer.nbytes
        self.buffer.release()
        mapping = weakref.ref(self._mapping)
        del self._mapping
        if mapping() is not None:
            gc.collect()  # views that only garbage holds are no use of the image
        if (still := mapping()) is not None:
            self._mapping = still
            self.buffer = still.view(nbytes)
            raise BufferError("a view of this image is still in use")
        os.close(self._pin)
        self._pin = -1


def attach(model: str, run_dir: Path = DEFAULT_RUN_DIR, *, timeout_s: float = 30.0) -> Attachment:
    """Map a model that the node of this machine holds whole in memory.

    Args:
        model: ``NAME`` or ``NAME@IMAGEID``, as ``pyrdma-agent models`` shows it.
        run_dir: the node's run directory.
        timeout_s: how long the node may take.

    Raises:
        LocalError: no node answers there.
        Error: the node's own sentence, for a model that is not in its memory.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(sock)
    try:
        sock.connect(str(run_dir / SOCKET_NAME))
        channel.send({"op": "attach", "model": model})
        return receive_attachment(channel, timeout_s)
    except OSError as error:
        reason = error.strerror or "no answer in time"
        raise LocalError(
            f"no node hands out images at {run_dir / SOCKET_NAME} ({reason}).",
            fix="start one with: pyrdma-agent serve; or name its run directory",
        ) from error
    finally:
        channel.close()


def parcel_messages(
    pin: int, manifest_fd: int, fds: tuple[int, ...], extent_bytes: int
) -> list[tuple[Message, list[int]]]:
    """Return the messages of a parcel with their descriptors."""
    held = [pin, manifest_fd, *fds]
    head = {"op": PARCEL_OP, "extents": len(fds), "extent_bytes": extent_bytes}
    return [(head, held[at : at + MAX_MESSAGE_FDS]) for at in range(0, len(held), MAX_MESSAGE_FDS)]


def receive_attachment(channel: Channel, timeout_s: float | None = None) -> Attachment:
    """Receive a parcel and map it.

    Raises:
        ChannelError: the channel ended or carries something else.
        ManifestError: what came as the manifest is none.
        Error: the other end's own sentence, instead of a parcel.
    """
    held: list[int] = []
    try:
        while True:
            message, fds = channel.recv(timeout_s)
            held.extend(fds)
            if message.get("op") == "failed":
                told = (str(message.get(name, "")) for name in ("code", "message", "fix"))
                raise from_code(*told)
            extents = message.get("extents")
            if (
                message.get("op") != PARCEL_OP
                or not isinstance(extents, int)
                or not 0 < extents <= MOST_EXTENTS
            ):
                raise ChannelError("a process of this node sent something else than an image.")
            if len(held) >= extents + 2:
                break
        pin, manifest_fd, *extent_fds = held
        held = [pin, *extent_fds]
        manifest = Manifest.decode(read_bulk(manifest_fd, MAX_MANIFEST_BYTES))
        attachment = Attachment(manifest, extent_fds, int(message["extent_bytes"]), pin)
        held = extent_fds
        return attachment
    finally:
        for fd in held:
            os.close(fd)
