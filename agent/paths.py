"""Where the agent keeps its state and its sockets.

State (0700) outlives the agent: the SQLite file. The run directory (0750) does not: sockets and the lock.
File permissions decide who may do what, since gRPC in Python shows no peer's user id: ``admin.sock`` is the
owner's alone, ``view.sock`` and ``node.sock`` are the group's as well. So is ``user.sock``, where each call
shows a pass of ``door.sock``, which sees who connects.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.errors import NodeError, RequestError
from agent.limits import MAX_SOCKET_PATH_BYTES

_NAME = "pyrdma-agent"
_LONGEST_NAME = "runner-0123456789abcdef.sock"


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of one agent."""

    state_dir: Path
    run_dir: Path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.state_dir / "agent.sqlite3"

    @property
    def site_dir(self) -> Path:
        """The files that make this node a node of its site; missing outside one."""
        return self.state_dir / "site"

    @property
    def join_dir(self) -> Path:
        """The key and the request of a join that has not ended; missing else."""
        return self.state_dir / "site.join"

    @property
    def admin_socket(self) -> Path:
        """Every call of the Operator service."""
        return self.run_dir / "admin.sock"

    @property
    def view_socket(self) -> Path:
        """The reading calls of the Operator service."""
        return self.run_dir / "view.sock"

    @property
    def user_socket(self) -> Path:
        """The calls of the Operator service that a person makes for itself; each needs a pass of the door."""
        return self.run_dir / "user.sock"

    @property
    def door_socket(self) -> Path:
        """Passes for the user socket."""
        return self.run_dir / "door.sock"

    @property
    def people_file(self) -> Path:
        """Who may use which accounts; missing where the agent's own user alone may."""
        return self.state_dir / "people.yaml"

    @property
    def node_socket(self) -> Path:
        """The Node service, for static peers on this machine."""
        return self.run_dir / "node.sock"

    @property
    def image_socket(self) -> Path:
        """Mappings of whole images, for processes on this machine."""
        return self.run_dir / "image.sock"

    def runner_socket(self, lease_id: str) -> Path:
        """Where the relay reaches the lease's runner."""
        return self.run_dir / f"runner-{lease_id}.sock"


def resolve_paths(
    state_dir: Path | None, run_dir: Path | None, *, environ: Mapping[str, str], is_root: bool
) -> Paths:
    """Return the directories given, with the usual places where none is.

    Raises:
        RequestError: a socket's path would not fit into a socket address.
    """
    if state_dir is None:
        base = Path(environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "/")) / ".local/state")
        state = Path("/var/lib") / _NAME if is_root else base / _NAME
    else:
        state = state_dir
    if run_dir is not None:
        run = run_dir
    elif state_dir is not None:
        run = state / "run"  # a second agent on a machine must not land on the first one's sockets
    elif is_root:
        run = Path("/run") / _NAME
    elif environ.get("XDG_RUNTIME_DIR"):
        run = Path(environ["XDG_RUNTIME_DIR"]) / _NAME
    else:
        run = state / "run"
    run = run.absolute()
    if len(os.fsencode(run / _LONGEST_NAME)) > MAX_SOCKET_PATH_BYTES:
        raise RequestError(
            f"the run directory {run} is too long for the address of a socket.",
            fix="choose a shorter one with --run-dir",
        )
    return Paths(state.absolute(), run)


def make_private_dir(path: Path, mode: int) -> None:
    """Create the directory where it is missing and give it the mode.

    Raises:
        NodeError: it cannot be created, is no directory, or is not ours.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
        if path.stat().st_uid != os.geteuid():
            raise PermissionError(1, "it belongs to another user")
        path.chmod(mode)
        probe = path / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise NodeError(
            f"the directory {path} cannot be used: {error.strerror}.",
            fix="make it writable for the user that runs the agent, or name another with "
            "--state-dir and --run-dir",
        ) from error
