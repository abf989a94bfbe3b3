"""Sizes, printable text, and where files lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import NodeError, RequestError
from agent.paths import make_private_dir, resolve_paths
from agent.text import format_size, parse_size, printable


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("4096", 4096),
        ("2GB", 2 * 10**9),
        ("512MiB", 512 << 20),
        ("1.5 GiB", 3 << 29),
        ("7k", 7000),
        ("1B", 1),
    ],
)
def test_sizes_are_read_with_their_units(text: str, nbytes: int) -> None:
    """Decimal and binary units mean what they say."""
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1 XB", "1e9", "1GBB", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """A typo never becomes a donation of another size."""
    with pytest.raises(RequestError):
        parse_size(text)


def test_sizes_are_shown_in_decimal_units() -> None:
    """Rates on wires are decimal, so sizes beside them are too."""
    assert [format_size(n) for n in (0, 999, 1000, 91_597_312)] == ["0 B", "999 B", "1.0 kB", "91.6 MB"]


def test_printable_text_cannot_move_a_cursor() -> None:
    """Escape sequences and newlines of a peer appear as text, and no more than asked for."""
    assert printable("a\x1b[2Jb\nc", 100) == r"a\x1b[2Jb\nc"
    assert len(printable("ä" * 100, 20).encode()) <= 20


def test_root_and_people_have_their_usual_places() -> None:
    """FHS for root, XDG for others."""
    root = resolve_paths(None, None, environ={}, is_root=True)
    assert (str(root.state_dir), str(root.run_dir)) == ("/var/lib/pyrdma-agent", "/run/pyrdma-agent")
    environ = {"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"}
    user = resolve_paths(None, None, environ=environ, is_root=False)
    assert str(user.database) == "/home/u/.local/state/pyrdma-agent/agent.sqlite3"
    assert str(user.admin_socket) == "/run/user/7/pyrdma-agent/admin.sock"


def test_a_given_state_directory_brings_its_own_run_directory() -> None:
    """A second agent does not land on the first one's sockets."""
    paths = resolve_paths(Path("/srv/b"), None, environ={"XDG_RUNTIME_DIR": "/run/user/7"}, is_root=False)
    assert str(paths.run_dir) == "/srv/b/run"


def test_a_run_directory_too_long_for_a_socket_is_refused() -> None:
    """The sentence names the directory, where the kernel's would not."""
    with pytest.raises(RequestError, match="too long"):
        resolve_paths(Path("/" + "d" * 100), None, environ={}, is_root=False)


def test_a_directory_that_cannot_be_made_is_said_with_a_fix(tmp_path: Path) -> None:
    """A file in the way gives a sentence, not a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeError, match="cannot be used") as caught:
        make_private_dir(tmp_path / "file" / "state", 0o700)
    assert "--state-dir" in caught.value.fix


def test_a_state_directory_is_closed_to_others(tmp_path: Path) -> None:
    """An existing directory is given the mode as well."""
    (tmp_path / "state").mkdir(mode=0o755)
    make_private_dir(tmp_path / "state", 0o700)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "state").iterdir()) == []
