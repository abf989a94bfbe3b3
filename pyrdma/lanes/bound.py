"""Is this process reachable where it must not be? Read from the kernel, not from what was configured.

UCX has no authentication: whoever reaches its port can crash or own the process. A bare UCX worker listens at
once, and on every interface unless ``UCX_NET_DEVICES`` is set.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from pathlib import Path
from typing import Final

from pyrdma.errors import LaneError

_SIOCGIFADDR: Final = 0x8915
_LISTEN: Final = "0A"


def interface_address(interface: str) -> str:
    """Return the IPv4 address of a network interface.

    Raises:
        LaneError: there is no such interface, or it has no address.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            reply = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError as error:
            raise LaneError(
                f"the interface {interface!r} that was declared protected is not usable ({error.strerror}).",
                fix="declare one that 'ip address' lists, with --interface NAME",
            ) from error
    return socket.inet_ntoa(reply[20:24])


def listening() -> set[str]:
    """Return the addresses that sockets of this process listen on; IPv6 ones as raw hex."""
    inodes = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue  # the descriptor of this very listing
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and fields[9] in inodes:
                raw = fields[1].split(":")[0]
                found.add(socket.inet_ntoa(bytes.fromhex(raw)[::-1]) if len(raw) == 8 else raw)
    return found


def require_bound_to(interface: str) -> None:
    """Refuse to go on when this process listens anywhere but on the declared interface.

    Raises:
        LaneError: it does.
    """
    allowed = interface_address(interface)
    beyond = listening() - {allowed}
    if beyond:
        raise LaneError(
            f"UCX listens on {', '.join(sorted(beyond))}, beyond the protected interface {interface!r}.",
            fix="set no UCX_NET_DEVICES of your own for the agent",
        )
