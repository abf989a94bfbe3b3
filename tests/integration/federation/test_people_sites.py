"""People of a site: accounts from a node to its gateway, and laptops with a token.

North has a gateway and a node; the node's people file gives accounts, the gateway decides which may be named.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.local.views import GrantedView, LeaseView, StartView

Say = Callable[[GrantedView, bytes], bytes]
Until = Callable[..., Any]
DEADLINE_S = 60.0


@dataclass(frozen=True)
class North:
    """One institution with a gateway that takes visitors, and a node."""

    n1: Any
    n2: Any
    visitors: str
    folder: Path

    def token(self, name: str, *options: str) -> Path:
        """Make a token; return its file."""
        made = self.n1.cli("token", "create", name, *options)
        assert made.returncode == 0, made.stderr
        assert "shown only now" in made.stderr
        file: Path = self.folder / f"{name}.token"
        file.write_text(made.stdout)
        file.chmod(0o600)
        return file


def free_port() -> int:
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.fixture(scope="module")
def north(shared_federation: Any, make_model: Callable[..., Path]) -> North:
    """Start the institution, for all tests of this module."""
    made = shared_federation
    visitors = f"127.0.0.1:{free_port()}"
    n1 = made.found(made.node("n1", "north"), "--visitors", visitors)
    n2 = made.join(n1, made.node("n2", "north"), "--no-donate")
    n1.publish(make_model("m"), "m")
    return North(n1, n2, visitors, made.folder)


def laptop(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a machine without an agent: nothing but the token's file tells it anything."""
    environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
    return subprocess.run(
        [sys.executable, "-m", "agent", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        env=environment,
    )


def visit(file: Path, *words: str) -> tuple[subprocess.Popen[str], GrantedView]:
    """Run a model from a laptop; return the command, which goes on, and what it printed."""
    command = [sys.executable, "-m", "agent", "run", *words, "--token-file", str(file), "--json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    text = ""
    for line in child.stdout:
        text += line
        if line == "}\n":
            break
    assert text, child.communicate()
    said = json.loads(text)
    start = StartView(**{**said["start"], "phases": (), "sources": ()})
    return child, GrantedView(LeaseView(**said["lease"]), said["endpoint"], said["api_key"], start)


def test_the_account_of_a_wish_reaches_the_gateways_book(north: North) -> None:
    """The node says which account; both have it in their books, and usage counts it."""
    done = north.n2.cli("run", "m", "--account", "/north/vision", "--json")
    assert done.returncode == 0, done.stderr
    lease = json.loads(done.stdout)["lease"]
    assert lease["account"] == "/north/vision"
    used = north.n2.cli("usage", "--account", "/north/vision", "--json")
    (row,) = json.loads(used.stdout)["accounts"]
    assert row["leases"] == 1
    assert north.n2.cli("stop", lease["id"]).returncode == 0
    (row,) = json.loads(north.n2.cli("usage", "--account", "/north/vision", "--json").stdout)["accounts"]
    assert row["leases"] == 0
    listed = json.loads(north.n2.cli("leases", "--all", "--json").stdout)["leases"]
    assert listed[0]["account"] == "/north/vision"
    assert listed[0]["who"] == f"uid:{os.geteuid()}"


def test_a_node_cannot_name_an_account_of_another_institution(north: North) -> None:
    """Its own people file may say so: the gateway does not believe it."""
    file = north.n2.paths.people_file
    file.write_text("version: 1\nusers: {root: /south/theirs}\n")
    file.chmod(0o600)
    try:
        done = north.n2.cli("run", "m")
    finally:
        file.unlink()
    assert done.returncode == 4, done.stderr
    assert "north may not speak for the account /south/theirs" in done.stderr
    assert north.n2.leases() == ()


def test_a_laptop_runs_a_model_under_its_tokens_account(north: North, say: Say, until: Until) -> None:
    """From whoami to the answer; Ctrl-C ends the lease."""
    file = north.token("alice", "--account", "/north/vision")
    who = laptop("whoami", "--token-file", str(file), "--json")
    assert who.returncode == 0, who.stderr
    assert json.loads(who.stdout)["who"] == "token:alice"
    assert json.loads(who.stdout)["account"] == "/north/vision"
    child, granted = visit(file, "m")
    assert granted.lease.account == "/north/vision"
    assert say(granted, b"hello") != b""
    held = north.n1.lease(granted.lease.id)
    assert held.who == "token:alice"
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=DEADLINE_S)
    assert child.returncode == 130
    until(lambda: north.n1.lease(granted.lease.id).state == "ended", "the lease has ended")
    (listed,) = (one for one in json.loads(north.n1.cli("token", "list", "--json").stdout)["tokens"])
    assert listed["used_at"] is not None
    north.n1.cli("token", "revoke", "alice")


def test_a_token_names_no_other_account_and_ends_no_other_lease(north: North) -> None:
    """Another account: exit code 4, nothing is left."""
    file = north.token("bob", "--account", "/north/speech")
    done = laptop("run", "m", "--account", "/north/vision", "--token-file", str(file))
    assert done.returncode == 4, done.stderr
    assert "/north/vision is not yours" in done.stderr
    north.n1.cli("token", "revoke", "bob")


def test_a_revoked_token_ends_what_runs_under_it(north: North) -> None:
    """The laptop hears why, and nothing new begins."""
    file = north.token("carol", "--account", "/north/vision")
    child, granted = visit(file, "m")
    assert north.n1.cli("token", "revoke", "carol").returncode == 0
    _, said = child.communicate(timeout=DEADLINE_S)
    assert child.returncode == 1, said
    assert "the lease has ended" in said
    assert north.n1.lease(granted.lease.id).state == "ended"
    again = laptop("run", "m", "--token-file", str(file))
    assert again.returncode == 4
    assert "no such token" in again.stderr


def test_a_token_that_others_may_read_is_not_used(north: North) -> None:
    """Whoever could read it could be this laptop."""
    file = north.token("dave")
    file.chmod(0o644)
    done = laptop("whoami", "--token-file", str(file))
    assert done.returncode == 4
    assert "others may read" in done.stderr
    north.n1.cli("token", "revoke", "dave")


def test_a_token_is_not_sent_and_not_logged(north: North) -> None:
    """The gateway's log and state have nothing of the secret; nor has the laptop's command line."""
    file = north.token("erin", "--account", "/north/vision")
    secret = file.read_text().strip().rpartition(".")[2]
    child, granted = visit(file, "m")
    assert secret not in Path(f"/proc/{child.pid}/cmdline").read_text()
    assert secret not in Path(f"/proc/{child.pid}/environ").read_text()
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=DEADLINE_S)
    assert secret not in north.n1.log.read_text()
    assert granted.api_key not in north.n1.log.read_text()
    stored = b"".join(path.read_bytes() for path in north.n1.paths.state_dir.glob("agent.sqlite3*"))
    assert secret.encode() not in stored
    north.n1.cli("token", "revoke", "erin")


def test_another_server_in_the_gateways_place_hears_nothing(north: North, tmp_path: Path) -> None:
    """A plain listener gets a TLS greeting at most: the command says who is not there."""
    import socket
    import threading

    file = north.token("finn")
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def listen() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(2.0)
                    heard.append(connection.recv(65536))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        from agent.people.token_text import decode

        token = decode(file.read_text())
        from dataclasses import replace

        moved = tmp_path / "moved.token"
        moved.write_text(replace(token, address=f"127.0.0.1:{port}").encode())
        moved.chmod(0o600)
        begun = time.monotonic()
        done = laptop("whoami", "--token-file", str(moved))
        assert time.monotonic() - begun < DEADLINE_S
    assert done.returncode == 1, done.stderr
    assert "not reachable, or another server answers" in done.stderr
    assert all(token.secret not in one and token.token_id not in one for one in heard)
    north.n1.cli("token", "revoke", "finn")
