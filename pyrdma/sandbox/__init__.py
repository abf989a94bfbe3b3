"""A process that sees nothing of the machine but what it needs to compute, closed by the kernel.

``enter`` is called once, early, in a fresh process with one thread, before anything large is imported.
Afterwards:

- no network at all, not even loopback (unless the caller keeps it), and no socket but Unix ones;
- a file system of its own (``pyrdma.sandbox.root``): Python's folders read only, private ``/tmp``, no state,
  no run directory, no home, nothing that was not named;
- process numbers of its own: no other process can be seen, signalled or looked into;
- no capabilities, no new privileges, no core dumps, a filter over system calls, no descriptor but the named
  ones;
- it ends when its parent ends.

The caller's process becomes a small supervisor that passes SIGTERM on and ends with the sandboxed child's
status. It works as root and, by a user namespace, as an ordinary user. Where the kernel refuses, nothing
runs.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from pyrdma.errors import LocalError
from pyrdma.sandbox import kernel
from pyrdma.sandbox.filter import NETWORK_FAMILIES, RUNNER_FAMILIES, build_filter
from pyrdma.sandbox.root import enter_root, exposed, visible_folders

__all__ = ["Confinement", "die_with_parent", "enter", "forbid_dumps"]

_FIX: Final = (
    "allow user namespaces for this user (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns), or run the agent as root; in a container give it "
    "CAP_SYS_ADMIN and an unmasked /proc"
)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a sandboxed process keeps.

    Attributes:
        network: whether it stays in the machine's network, for a process whose work it is.
        gpus: whether it sees the machine's GPUs. CUDA begins behind the sandbox, in a process that its own
            user may still look into; once it has, and before there is anything to see, the process calls
            ``forbid_dumps``.
        keep_fds: descriptors that stay open beside 0, 1 and 2.
        packages: import names whose folders it sees.
        readable: further folders and files that it sees.
        hidden: folders that must not be visible; if one would be, ``enter`` refuses.
    """

    network: bool = False
    gpus: bool = False
    keep_fds: tuple[int, ...] = ()
    packages: tuple[str, ...] = ("pyrdma",)
    readable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()


def enter(confinement: Confinement) -> None:
    """Close the sandbox around this program; returns only in the sandboxed process.

    Raises:
        LocalError: the kernel refused a step, or the process is not fresh. Nothing of the sandbox can be
            relied on then; the caller must end.
    """
    if not sys.platform.startswith("linux"):
        raise LocalError(
            f"runners and lane workers need the namespaces of Linux; this is {sys.platform}.",
            fix="use a Linux machine",
        )
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise LocalError(
            "a sandbox can only be entered by a process with one thread.", fix="report this; it is a defect"
        )
    folders = visible_folders(confinement.packages, confinement.readable)
    shown = exposed(folders, confinement.hidden)
    if shown is not None:
        raise LocalError(
            f"the folder {shown} would be visible to models: it lies in a folder that Python itself needs.",
            fix="name a state and run directory outside of the Python installation and of the program",
        )
    _close_others(confinement.keep_fds)
    try:
        _new_namespaces(network=confinement.network)
        _become_child(confinement.keep_fds)
        enter_root(folders, gpus=confinement.gpus)
        _give_up_rights(NETWORK_FAMILIES if confinement.network else RUNNER_FAMILIES, dumps=confinement.gpus)
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise LocalError(f"this kernel refused the sandbox ({error.strerror}{where}).", fix=_FIX) from error


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends, however that ends."""
    parent = os.getppid()
    kernel.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the kernel listened


def _new_namespaces(*, network: bool) -> None:
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    if not network:
        flags |= kernel.CLONE_NEWNET
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        try:
            kernel.unshare(flags)
        except PermissionError:
            pass  # root in a container without CAP_SYS_ADMIN: as any other user
        else:
            return
    kernel.unshare(flags | kernel.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _become_child(keep: Sequence[int]) -> None:
    """Go on in a child, the first process of the new process numbers; stay behind as its supervisor."""
    die_with_parent()
    alive, held = os.pipe()
    child = os.fork()
    if child:
        os.close(alive)
        _supervise(child, keep)
    os.close(held)
    kernel.die_with_parent(signal.SIGKILL)
    # The supervisor's number is 0 from in here, so a pipe tells whether it is still there.
    os.set_blocking(alive, False)
    try:
        ended = os.read(alive, 1) == b""
    except BlockingIOError:
        ended = False
    os.close(alive)
    if ended:
        os._exit(1)


def _supervise(child: int, keep: Sequence[int]) -> NoReturn:
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for fd in keep:
        os.close(fd)  # or the other ends would not see the child's end
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def forbid_dumps() -> None:
    """Keep processes of the same user out of this process's memory, where ``enter`` has not done so."""
    kernel.forbid_dumps()


def _give_up_rights(families: Sequence[int], *, dumps: bool) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kernel.drop_capabilities()
    kernel.forbid_new_privileges()
    # After the last change of rights: some of them make a process dumpable again, or forget its parent's end.
    if not dumps:
        kernel.forbid_dumps()
    kernel.die_with_parent(signal.SIGKILL)
    program = build_filter(families)
    if program is not None:
        kernel.install_filter(program)


def _close_others(keep: Sequence[int]) -> None:
    kept = {0, 1, 2, *keep}
    for fd in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if fd not in kept:
            with contextlib.suppress(OSError):  # the listing's own is closed by now
                os.close(fd)
