"""A site is made, joined and left with the real commands; steps can be repeated, refusals have reasons."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.site.home import SiteHome
from federation.identity.authority import SiteAuthority
from federation.identity.invite import decode
from federation.registry.request import decode_request

LONGEST_JOIN_S = 3.0


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _agent(*arguments: str, state: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", *arguments, "--state-dir", str(state)]
    result = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in result.stderr, result.stderr
    return result


def _init(state: Path, *more: str, site: str = "uni-a") -> subprocess.CompletedProcess[str]:
    port, joins = _free_ports(2)
    return _agent(
        "init",
        *("--site", site, "--trust-domain", f"{site}.example", "--node", "gw"),
        *("--address", f"127.0.0.1:{port}", "--join-address", f"127.0.0.1:{joins}"),
        *("--request", str(state.with_suffix(".json")), *more),
        state=state,
    )


@contextmanager
def _serving(state: Path) -> Iterator[None]:
    log = state.with_suffix(".log").open("a")
    command = [sys.executable, "-m", "agent", "serve", "--no-donate", "--state-dir", str(state)]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while _agent("status", state=state).returncode != 0:
            assert process.poll() is None, state.with_suffix(".log").read_text()
            assert time.monotonic() < deadline, "the agent does not answer"
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, state.with_suffix(".log").read_text()
        log.close()


def _invite(state: Path, node: str, file: Path) -> Path:
    made = _agent("invite", "create", "--node", node, state=state)
    assert made.returncode == 0, made.stderr
    file.write_text(made.stdout)
    return file


def _steps(result: subprocess.CompletedProcess[str]) -> list[tuple[str, ...]]:
    return [
        tuple(line.split()[:2])
        for line in result.stderr.splitlines()
        if line[:4].strip() in ("OK", "WARN", "FAIL")
    ]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Path]:
    """The state directory of a gateway whose agent runs."""
    state = tmp_path / "gw"
    assert _init(state).returncode == 0
    with _serving(state):
        yield state


def test_a_node_joins_in_five_steps_and_leaves(gateway: Path, tmp_path: Path) -> None:
    """Within the time that is promised; stdout has the outcome alone; the gateway knows it at once."""
    node = tmp_path / "gpu07"
    invite = _invite(gateway, "gpu07", tmp_path / "invite.txt")
    begun_s = time.monotonic()
    joined = _agent("join", "--invite-file", str(invite), "--address", "127.0.0.1:9", state=node)
    took_s = time.monotonic() - begun_s
    assert (joined.returncode, joined.stdout) == (0, "you are gpu07 at uni-a\n"), joined.stderr
    assert _steps(joined) == [
        ("OK", "invite"),
        ("OK", "state-dir"),
        ("OK", "gateway"),
        ("OK", "clock-skew"),
        ("OK", "enrolled"),
    ]
    assert "next: pyrdma-agent serve" in joined.stderr
    assert took_s < LONGEST_JOIN_S
    assert not (node / "site.join").exists()

    again = _agent("join", "--invite-file", "-", "--json", state=node, given=invite.read_text())
    assert again.returncode == 0
    assert "joined already" in again.stderr
    document = json.loads(again.stdout)
    assert (document["site"], document["node"], document["changed"]) == ("uni-a", "gpu07", False)

    listed = json.loads(_agent("nodes", "--json", state=gateway).stdout)
    assert {one["name"] for one in listed["nodes"]} == {"gpu07", "gw"}

    asked = _agent("leave", state=node)
    assert asked.returncode == 2
    assert "--confirm uni-a" in asked.stderr
    assert SiteHome(node / "site").exists
    left = _agent("leave", "--confirm", "uni-a", state=node)
    assert (left.returncode, left.stdout) == (0, "This node has left uni-a.\n"), left.stderr
    assert not SiteHome(node / "site").exists
    assert _agent("leave", "--confirm", "uni-a", state=node).returncode == 0, "it can be repeated"
    gone = _agent("leave", "--node", "gpu07", "--confirm", "uni-a", state=gateway)
    assert "is no node of uni-a" in gone.stderr, "the node has told the gateway that it leaves"

    used = _agent("join", "--invite-file", str(invite), state=node)
    assert used.returncode == 1
    assert not SiteHome(node / "site").exists


def test_an_invite_goes_to_stdout_alone_and_once(gateway: Path, tmp_path: Path) -> None:
    """So that `> invite.txt` works; when it ends and what comes next is talk."""
    made = _agent("invite", "create", "--node", "gpu07", "--expires", "10m", state=gateway)
    assert made.returncode == 0
    assert made.stdout.startswith("pyrdma1.")
    assert len(made.stdout.split()) == 1
    assert made.stdout.strip() not in made.stderr
    assert "next, on gpu07" in made.stderr
    as_json = json.loads(_agent("invite", "create", "--node", "gpu07", "--json", state=gateway).stdout)
    assert as_json["invite"] != made.stdout.strip()
    for arguments in (["--node", "gw"], ["--node", "a b"], ["--node", "x", "--expires", "25h"]):
        assert _agent("invite", "create", *arguments, state=gateway).returncode == 2
    assert _agent("invite", "create", "--node", "x", state=tmp_path / "nowhere").returncode == 3


def test_a_used_invite_is_said_to_be_used_and_the_node_is_in_no_site(gateway: Path, tmp_path: Path) -> None:
    """A second machine with the same file: exit code 1, and the step that failed."""
    invite = _invite(gateway, "gpu07", tmp_path / "invite.txt")
    first = _agent("join", "--invite", invite.read_text(), "--address", "127.0.0.1:9", state=tmp_path / "a")
    assert first.returncode == 0
    assert "ps" in first.stderr, "a flag is allowed and warned about"
    second = _agent("join", "--invite-file", str(invite), state=tmp_path / "b")
    assert (second.returncode, second.stdout) == (1, "")
    assert _steps(second)[-1] == ("FAIL", "enrolled")
    assert "was used already" in second.stderr
    assert not SiteHome(tmp_path / "b" / "site").exists


def test_a_node_of_one_site_does_not_join_another(gateway: Path, tmp_path: Path) -> None:
    """It names the command that leaves, and the invite stays unused."""
    invite = _invite(gateway, "gpu07", tmp_path / "invite.txt")
    other = tmp_path / "other"
    assert _init(other, site="uni-b").returncode == 0
    refused = _agent("join", "--invite-file", str(invite), state=other)
    assert refused.returncode == 1
    assert "gw of uni-b already" in refused.stderr
    assert "pyrdma-agent leave" in refused.stderr
    assert _agent("join", "--invite-file", str(invite), state=tmp_path / "new").returncode == 0


def test_another_ca_at_the_address_is_said_before_anything_is_sent(gateway: Path, tmp_path: Path) -> None:
    """An invite of another site that leads here: exit code 1, no request is made, none is left."""
    real = decode(_invite(gateway, "gpu07", tmp_path / "invite.txt").read_text())
    authority = SiteAuthority.create("uni-a.example", now_s=time.time())
    wrong = replace(real, authority_pem=authority.certificate_pem).encode()
    refused = _agent("join", "--invite-file", "-", state=tmp_path / "n", given=wrong)
    assert refused.returncode == 1
    assert _steps(refused)[-1] == ("FAIL", "gateway")
    assert "another server answers" in refused.stderr
    assert "nothing secret was sent" in refused.stderr
    assert "refused a join" not in gateway.with_suffix(".log").read_text()


def test_what_is_no_invite_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Nothing, garbage, a damaged one, no file, two of them."""
    state = tmp_path / "n"
    for arguments, given in (
        (["--invite-file", "-"], ""),
        (["--invite-file", "-"], "pyrdma1.AAAA.aaaa"),
        (["--invite-file", "-"], "x" * 100_000),
        (["--invite-file", str(tmp_path / "missing")], ""),
        (["--invite-file", "-", "--invite", "x"], ""),
        ([], ""),
    ):
        refused = _agent("join", *arguments, state=state, given=given)
        assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
        assert "fix:" in refused.stderr
    assert not state.exists()


def test_a_site_is_made_once(tmp_path: Path) -> None:
    """The same values again change nothing; other values are refused; the request is the consortium's."""
    state = tmp_path / "gw"
    ports = _free_ports(1)
    base = ["init", "--site", "uni-a", "--trust-domain", "uni-a.example", "--node", "gw"]
    base += ["--address", f"127.0.0.1:{ports[0]}", "--request", str(tmp_path / "r.json"), "--json"]
    first = _agent(*base, state=state)
    assert first.returncode == 0, first.stderr
    (tmp_path / "r.json").unlink()
    second = _agent(*base, state=state)
    assert second.returncode == 0, second.stderr
    assert "made before" in second.stderr
    one, two = json.loads(first.stdout), json.loads(second.stdout)
    assert (one.pop("changed"), two.pop("changed")) == (True, False)
    assert one == two
    assert decode_request((tmp_path / "r.json").read_bytes()).document.site == "uni-a"
    other = _agent(*base, "--region", "eu", state=state)
    assert (other.returncode, other.stdout) == (1, "")
    assert "pyrdma-agent leave" in other.stderr


def test_values_that_cannot_be_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Names, addresses, a registry without its pin."""
    for more in (["--listen", "here"], ["--registry", "/r"], ["--root-pin", "ab"], ["--region", "x" * 65]):
        refused = _init(tmp_path / "gw", *more)
        assert (refused.returncode, refused.stdout) == (2, ""), (more, refused.stderr)
    assert not (tmp_path / "gw").exists()


def test_a_site_is_not_left_while_its_agent_runs(gateway: Path) -> None:
    """The CA's key would go from under it."""
    refused = _agent("leave", "--confirm", "uni-a", state=gateway)
    assert refused.returncode == 1
    assert "stop that agent" in refused.stderr
    assert SiteHome(gateway / "site").load().site == "uni-a"


def test_a_node_leaves_though_nobody_can_be_told(tmp_path: Path) -> None:
    """With the gateway gone, or with its own files damaged: it says what is left to do."""
    state, node = tmp_path / "gw", tmp_path / "n"
    assert _init(state).returncode == 0
    with _serving(state):
        invite = _invite(state, "gpu07", tmp_path / "invite.txt")
        assert _agent("join", "--invite-file", str(invite), state=node).returncode == 0
    left = _agent("leave", "--confirm", "uni-a", state=node)
    assert (left.returncode, left.stdout) == (0, "This node has left uni-a.\n")
    assert "was not told" in left.stderr
    (state / "site" / "ca.key").write_bytes(b"")
    damaged = _agent("leave", "--confirm", "site", state=state)
    assert damaged.returncode == 0, damaged.stderr
    assert not SiteHome(state / "site").exists
