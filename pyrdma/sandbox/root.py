"""The file system that a sandboxed process sees: what Python, or a GPU's driver, needs, and nothing else.

The root is an empty tmpfs that becomes read only itself. Folders are bound into it under their own names,
read only, so that paths which Python already knows stay valid. ``/tmp`` and ``/dev/shm`` are private and in
memory, ``/proc`` shows this process only, ``/etc`` holds a few generated or harmless files. No other path of
the machine exists. A process that uses GPUs may write to its own part of ``/proc``: CUDA gives its threads
names there, and does not start where it cannot.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from pyrdma.sandbox.kernel import (
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    mount,
    pivot_into,
)

_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC: Final = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives")
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_GPU_PREFIX: Final = "nvidia"
_SYS: Final = ("/sys/devices/system/cpu", "/sys/devices/system/node")
_GPU_SYS: Final = ("/sys/bus/pci", "/sys/devices", "/sys/module/nvidia", "/sys/class/drm")
_FLAGS: Final = {
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
}
_NEW_ROOT: Final = "/tmp"  # noqa: S108 - covered in a mount namespace of our own; it exists everywhere
_PRIVATE: Final = ("tmp", "dev/shm")
_TMP_SHARE: Final = "25%"
"""Of the machine's memory, for ``/tmp`` and ``/dev/shm`` each: side files and torch's scratch files, not
weights."""


def visible_folders(packages: Iterable[str], readable: Iterable[Path]) -> list[Path]:
    """Return the folders and files to bind, outermost first, none inside another.

    Args:
        packages: import names whose folders are shown; the folder around them is not.
        readable: further paths of the caller.
    """
    wanted = [Path(path) for path in _SYSTEM]
    wanted += [
        Path(prefix) for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    ]
    wanted += [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is not None:
            wanted += [Path(place) for place in spec.submodule_search_locations or ()]
    wanted += readable
    paths = {path.absolute() for path in wanted if path.exists()}
    return _outermost(paths | {path.resolve() for path in paths})


def exposed(folders: Sequence[Path], hidden: Sequence[Path]) -> Path | None:
    """Return the first folder that must stay hidden but lies in one that is shown."""
    for path in hidden:
        if any(_inside(path.resolve(), folder.resolve()) for folder in folders):
            return path
    return None


def enter_root(folders: Sequence[Path], *, gpus: bool = False) -> None:
    """Build the private root and make it this process's only file system.

    Called in mount and PID namespaces of its own.

    Args:
        folders: what is shown of the file system.
        gpus: whether the GPUs are.

    Raises:
        OSError: the kernel refused a step.
    """
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    # The new root covers /tmp, so everything is opened before and bound through its descriptor.
    binds = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in _all_binds(folders, gpus=gpus)]
    links = [(path, path.readlink()) for path in map(Path, _SYSTEM) if path.is_symlink()]
    mount("tmpfs", _NEW_ROOT, kind="tmpfs", flags=MS_NOSUID | MS_NODEV, data="size=16m,mode=0755")
    root = Path(_NEW_ROOT)
    for link, target in links:
        (root / link.relative_to("/")).symlink_to(target)
    # Before the binds: what is shown may lie below /tmp.
    for name in _PRIVATE:
        place = root / name
        place.mkdir(parents=True, exist_ok=True)
        mount(
            "tmpfs", str(place), kind="tmpfs", flags=MS_NOSUID | MS_NODEV, data=f"size={_TMP_SHARE},mode=1777"
        )
    for path, fd in binds:
        _bind(fd, root / path.relative_to("/"))
        os.close(fd)
    _write_etc(root / "etc")
    proc = root / "proc"
    proc.mkdir()
    mount("proc", str(proc), kind="proc", flags=MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if gpus:
        mount(str(proc / "1"), str(proc / "1"), flags=MS_BIND)
    pivot_into(str(root))
    # Behind the pivot: only now does the kernel's list name nothing but what can be reached.
    _close_for_writing(writable={*(f"/{name}" for name in _PRIVATE), "/proc/1"})


def _all_binds(folders: Sequence[Path], *, gpus: bool) -> Iterator[Path]:
    yield from (path for path in folders if not path.is_symlink())
    yield from filter(Path.exists, map(Path, _ETC))
    yield from (Path("/dev") / name for name in _DEVICES)
    yield from gpu_files() if gpus else ()
    # A mount below another bind would be covered by it, and could not be closed for writing any more.
    yield from _outermost(filter(Path.exists, map(Path, (*_SYS, *(_GPU_SYS if gpus else ())))))


def gpu_files() -> list[Path]:
    """Return what a process needs of ``/dev`` to use NVIDIA's GPUs."""
    return sorted(path for path in Path("/dev").iterdir() if path.name.startswith(_GPU_PREFIX))


def _bind(fd: int, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    mount(f"/proc/self/fd/{fd}", str(target), flags=MS_BIND | MS_REC)


def _write_etc(etc: Path) -> None:
    uid, gid = os.getuid(), os.getgid()
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text(f"runner:x:{uid}:{gid}::/tmp:/usr/sbin/nologin\n")
    (etc / "group").write_text(f"runner:x:{gid}:\n")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")


def _close_for_writing(*, writable: set[str]) -> None:
    """Remount everything read only, keeping the flags that a user namespace may not clear."""
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
        mounts = [(fields[4], fields[5]) for fields in (line.split() for line in lines)]
    for place, options in mounts:
        # The kernel writes blanks and backslashes in paths as octal numbers.
        path = place.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")
        name = os.fsdecode(path)
        if name in writable:
            continue
        kept = sum(_FLAGS.get(option, 0) for option in options.split(","))
        mount("none", name, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | kept)


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that lie in none of the others, the shortest first."""
    kept: list[Path] = []
    for path in sorted(paths, key=lambda each: len(each.parts)):
        if not any(_inside(path, other) for other in kept):
            kept.append(path)
    return kept


def _inside(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
