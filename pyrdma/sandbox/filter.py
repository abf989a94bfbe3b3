"""The system calls that a sandboxed process has no use for, refused by a seccomp program.

The namespaces are the wall; this is a second one, for what namespaces leave open: sockets of other families
(a kernel's parsers), looking into other processes, new namespaces, mounts, keyrings, BPF, and io_uring, which
would open sockets behind this filter's back. Calls by 32-bit numbers are refused whole. Instructions are
classic BPF over ``struct seccomp_data`` (``linux/seccomp.h``); numbers are those of each architecture's
unistd.h.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_LOAD: Final = 0x20
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_DENY: Final = 0x00050000 | errno.EPERM
_ABSENT: Final = 0x00050000 | errno.ENOSYS
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_FIRST_ARGUMENT: Final = 16
_X32: Final = 0x40000000
_NEW_NAMESPACES: Final = 0x7E020080
"""Every CLONE_NEW... flag of clone()."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """One architecture's audit number, its socket, clone and clone3, and the calls that are refused whole."""

    audit: int
    socket: int
    clone: int
    clone3: int
    refused: tuple[int, ...]


# The same on every architecture since 2019: the new mount calls, io_uring, pidfd_getfd, mount_setattr.
_SHARED: Final = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442)
_CALLS: Final = {
    "x86_64": _Numbers(
        audit=0xC000003E,
        socket=41,
        clone=56,
        clone3=435,
        refused=(
            101,  # ptrace
            *(310, 311, 312, 440),  # process_vm_readv, process_vm_writev, kcmp, process_madvise
            *(165, 166, 155, 161),  # mount, umount2, pivot_root, chroot
            *(272, 308),  # unshare, setns
            *(321, 298, 323),  # bpf, perf_event_open, userfaultfd
            *(248, 249, 250),  # add_key, request_key, keyctl
            *(303, 304),  # name_to_handle_at, open_by_handle_at
            *(
                175,
                313,
                176,
                246,
                320,
            ),  # init_module, finit_module, delete_module, kexec_load, kexec_file_load
            *(167, 168, 169, 163, 172, 173),  # swapon, swapoff, reboot, acct, iopl, ioperm
            135,  # personality
            *_SHARED,
        ),
    ),
    "aarch64": _Numbers(
        audit=0xC00000B7,
        socket=198,
        clone=220,
        clone3=435,
        refused=(
            117,  # ptrace
            *(270, 271, 272, 440),  # process_vm_readv, process_vm_writev, kcmp, process_madvise
            *(40, 39, 41, 51),  # mount, umount2, pivot_root, chroot
            *(97, 268),  # unshare, setns
            *(280, 241, 282),  # bpf, perf_event_open, userfaultfd
            *(217, 218, 219),  # add_key, request_key, keyctl
            *(264, 265),  # name_to_handle_at, open_by_handle_at
            *(
                105,
                273,
                106,
                104,
                294,
            ),  # init_module, finit_module, delete_module, kexec_load, kexec_file_load
            *(224, 225, 142, 89),  # swapon, swapoff, reboot, acct
            92,  # personality
            *_SHARED,
        ),
    ),
}
RUNNER_FAMILIES: Final = (int(socket.AF_UNIX),)
NETWORK_FAMILIES: Final = (
    *RUNNER_FAMILIES,
    int(socket.AF_INET),
    int(socket.AF_INET6),
    16,
)  # AF_NETLINK: interfaces


def build_filter(families: Sequence[int], *, machine: str | None = None) -> bytes | None:
    """Return the program that refuses what is not needed; None for an architecture without known numbers.

    Args:
        families: socket families that stay allowed.
        machine: the architecture, as ``platform.machine()`` names it; this one's by default.
    """
    calls = _CALLS.get(platform.machine() if machine is None else machine)
    if calls is None:
        return None
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_EQUAL, calls.audit, 1, 0),
        _step(_RETURN, _DENY),
        _step(_LOAD, _NUMBER),
        _step(_JUMP_AT_LEAST, _X32, 0, 1),
        _step(_RETURN, _DENY),
    ]
    for number in calls.refused:
        program += [_step(_JUMP_EQUAL, number, 0, 1), _step(_RETURN, _DENY)]
    # Its flags lie in memory, where a filter cannot look: without it libc falls back to clone.
    program += [_step(_JUMP_EQUAL, calls.clone3, 0, 1), _step(_RETURN, _ABSENT)]
    program += [
        _step(_JUMP_EQUAL, calls.clone, 0, 4),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(_JUMP_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        _step(_RETURN, _DENY),
        _step(_RETURN, _ALLOW),
        _step(_JUMP_EQUAL, calls.socket, 1, 0),
        _step(_RETURN, _ALLOW),
        _step(_LOAD, _FIRST_ARGUMENT),
    ]
    for family in families:
        program += [_step(_JUMP_EQUAL, family, 0, 1), _step(_RETURN, _ALLOW)]
    program.append(_step(_RETURN, _DENY))
    return b"".join(program)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
