"""The system calls that a sandbox needs and Python 3.11 has no names for.

Numbers and flags are those of Linux' own headers (``linux/sched.h``, ``linux/mount.h``, ``linux/prctl.h``,
``linux/capability.h``). Each call raises ``OSError`` with the kernel's reason.
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_NOATIME: Final = 0x400
MS_NODIRATIME: Final = 0x800
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MS_RELATIME: Final = 0x200000

_MNT_DETACH: Final = 2
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_libc.syscall.restype = ctypes.c_long


def unshare(flags: int) -> None:
    """Leave the namespaces that ``flags`` name for new ones."""
    _check(_libc.unshare(flags))


def mount(source: str, target: str, *, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system, bind a path or change a mount's flags."""
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None),
        target,
    )


def pivot_into(root: str) -> None:
    """Make a mounted folder the root of this mount namespace and let go of the old one."""
    number = _PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(38, f"pivot_root has no known number on {platform.machine()}")
    os.chdir(root)
    # Both names the same: the old root lies over the new one, and is taken away from there.
    _check(_libc.syscall(ctypes.c_long(number), b".", b"."))
    _check(_libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")


def die_with_parent(signum: int) -> None:
    """Ask for a signal when the parent ends; the caller checks that it has not ended yet."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0))


def forbid_dumps() -> None:
    """Keep core dumps, and processes of the same user, away from this process's memory."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def forbid_new_privileges() -> None:
    """Let no later exec give this process more than it has."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def drop_capabilities() -> None:
    """Give up every capability, for good."""
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    capability = 0
    while _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc.capset(header, nothing))


def install_filter(program: bytes) -> None:
    """Give the kernel a seccomp program for this thread and all that it starts.

    Args:
        program: classic BPF instructions of 8 bytes each.
    """

    class _Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    handed = _Program(len(program) // 8, program)
    _check(_libc.prctl(22, 2, ctypes.addressof(handed), 0, 0))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _check(result: int, path: str | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
