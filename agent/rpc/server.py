"""gRPC servers on Unix sockets, with the limits and file modes that hold for all of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from grpc import aio

from agent.errors import SocketInUseError
from agent.limits import MAX_CONCURRENT_RPCS, MAX_GRPC_MESSAGE_BYTES

OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_GRPC_MESSAGE_BYTES),
)


def make_server() -> aio.Server:
    """Return a server without services or sockets."""
    return aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_RPCS)


def bind(server: aio.Server, path: Path, mode: int) -> None:
    """Bind the server to a socket with these permissions, replacing what an agent that was killed left.

    The caller holds the lock of the directory, so nobody listens there.

    Raises:
        SocketInUseError: the socket cannot be bound.
    """
    path.unlink(missing_ok=True)
    before = os.umask(0o177)  # the socket must never be open to more than its mode, not even for a moment
    try:
        server.add_insecure_port(f"unix:{path}")
        path.chmod(mode)
    except (RuntimeError, OSError) as error:
        raise SocketInUseError(
            f"the socket {path} cannot be bound.", fix="see who uses it, or name another --run-dir"
        ) from error
    finally:
        os.umask(before)
