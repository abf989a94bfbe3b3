"""What people see who work with a site: the commands, their sentences and their exit codes.

North has a gateway and a node that donate; south only borrows, on its gateway and on its node.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.errors import RefusedError
from agent.local.views import GrantedView, LeaseView, StartView

Say = Callable[[GrantedView, bytes], bytes]
Until = Callable[..., Any]


@dataclass(frozen=True)
class Sites:
    """The nodes of both, and their consortium."""

    together: Any
    n1: Any
    n2: Any
    s1: Any
    s2: Any


@pytest.fixture(scope="module")
def sites(shared_federation: Any, make_model: Callable[..., Path]) -> Sites:
    """Start both institutions, for all tests of this module."""
    made = shared_federation
    n1 = made.found(made.node("n1", "north"))
    s1 = made.found(made.node("s1", "south"), "--no-donate")
    n2 = made.join(n1, made.node("n2", "north"))
    s2 = made.join(s1, made.node("s2", "south"), "--no-donate")
    made.acquaint(n1, s1)
    n1.publish(make_model("m"), "m")
    return Sites(made, n1, n2, s1, s2)


@pytest.fixture(autouse=True)
def _idle_afterwards(sites: Sites, until: Until) -> Any:
    """After each test nothing is lent."""
    yield
    for node in (sites.n1, sites.n2, sites.s1, sites.s2):
        for lease in node.leases():
            if not lease.borrower:
                node.stop(lease.id)
    until(lambda: not sites.n1.leases() and not sites.n2.leases(), "nothing runs")


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the one JSON object that a command printed."""
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    assert made["schema"] == 1
    return made


def granted(said: dict[str, Any]) -> GrantedView:
    """Return what ``run --json`` printed as the value that it was."""
    start = StartView(**{**said["start"], "phases": (), "sources": ()})
    return GrantedView(LeaseView(**said["lease"]), said["endpoint"], said["api_key"], start)


def refused(done: subprocess.CompletedProcess[str], code: int) -> tuple[str, str]:
    """Return the sentence and the fix of a command that failed, in three lines and with this exit code."""
    assert done.returncode == code, done.stderr
    lines = [line.strip() for line in done.stderr.splitlines()]
    at = next(number for number, line in enumerate(lines) if line.startswith("error: "))
    fix = lines[at + 2].removeprefix("fix:").strip() if len(lines) > at + 2 else ""
    return lines[at].removeprefix("error: "), fix


# --- who only borrows -------------------------------------------------------------------------------------


def test_a_node_that_only_borrows_runs_models_elsewhere(sites: Sites, say: Say) -> None:
    """From a node over its gateway and the other one to that site's node; what it lends is nothing."""
    said = document(sites.s2.cli("run", "north/m", "--site", "north", "--node", "n2", "--json"))
    assert said["lease"]["donor"] == "north/n2"
    assert say(granted(said), b"hello" * 20_000) == b"hello" * 20_000 + b"|end"
    listed = sites.s2.cli("leases")
    assert listed.returncode == 0
    assert said["lease"]["id"] in listed.stdout
    assert said["endpoint"] in listed.stdout
    (lease,) = document(sites.n2.cli("leases", "--json"))["leases"]
    assert (lease["id"], lease["borrower"]) == (said["lease"]["id"], "south/s2")
    stopped = sites.s2.cli("stop", lease["id"])
    assert stopped.stdout == f"lease {lease['id']} of north/m has ended: stopped by request.\n"
    again = refused(sites.s2.cli("stop", lease["id"]), 1)
    assert again[0] == f"no lease '{lease['id']}' is used on this node."


def test_a_node_that_only_borrows_publishes_nothing(sites: Sites, make_model: Callable[..., Path]) -> None:
    """It has no memory for it, and says so."""
    folder = str(make_model("mine"))
    for node in (sites.s1, sites.s2):
        sentence, fix = refused(node.cli("publish", folder, "--name", "mine"), 2)
        assert sentence == "this node donates no memory, so it cannot hold an image."
        assert fix == "publish on a node that donates, or start this one without --no-donate"


def test_a_site_without_devices_says_so(sites: Sites) -> None:
    """Named as a place to run at, from within and from elsewhere."""
    with pytest.raises(RefusedError) as nothing:
        sites.n1.run("m", site="south")
    assert "south: no node that would do has reported a device" in nothing.value.message
    sentence, _ = refused(sites.s2.cli("run", "north/m", "--site", "south"), 1)
    assert sentence.startswith("nobody grants a lease for north/m. south: no node that would do")


# --- what is to be seen -----------------------------------------------------------------------------------


def test_nodes_shows_the_same_on_every_node_of_a_site(sites: Sites) -> None:
    """The gateway's view, for people and for programs; each node says which it is itself."""
    for node, place in ((sites.n1, "n1 is the gateway of north"), (sites.n2, "n2 is a node of north")):
        shown = node.cli("nodes")
        assert shown.returncode == 0
        lines = shown.stdout.splitlines()
        assert lines[:2] == [place, "registry  demo: fresh"]
        rows = {line.split()[0]: line.split()[1:] for line in lines[2:] if line}
        assert rows["north"][:4] == ["(own)", "ready", "2", "0"]
        assert rows["south"][:3] == ["ready", "0", "0"]
        assert rows["n1"][:4] == ["gateway", "ready", "1", "0"]
        assert rows["n2"][:4] == ["node", "ready", "1", "0"]
    own, other = document(sites.n1.cli("nodes", "--json")), document(sites.n2.cli("nodes", "--json"))
    for shown in (own, other):
        assert [one["name"] for one in shown["nodes"] if one["state"] == "ready"] == ["n1", "n2"]
    assert (own["gateway"], other["gateway"], other["role"]) == ("n1", "n1", "node")
    assert own["certificate_expires_at"] > time.time() + 3600


def test_status_shows_what_a_node_gives(sites: Sites) -> None:
    """Memory and runners where they are donated; nothing of that where they are not."""
    assert "used, pid" in sites.n2.cli("status").stdout
    for node in (sites.s1, sites.s2):
        assert "cache   none, this node donates nothing" in node.cli("status").stdout
        assert document(node.cli("status", "--json"))["donates"] is False


# --- coming and going -------------------------------------------------------------------------------------


def test_an_invite_lets_one_node_in_once(sites: Sites) -> None:
    """A second node with it, a late one, and one that changed a letter are refused; nothing is left."""
    invite = sites.n1.cli("invite", "create", "--node", "n7").stdout
    first, second = sites.together.node("n7", "north"), sites.together.node("n8", "north")
    words = ("join", "--invite-file", "-", "--address", "127.0.0.1:1")
    assert first.cli(*words, stdin=invite).stdout == "you are n7 at north\n"
    used = refused(second.cli(*words, stdin=invite), 1)
    assert used[0] == "the invite was used already, with another key."
    late = sites.n1.cli("invite", "create", "--node", "n8", "--expires", "0.01s")
    assert refused(second.cli(*words, stdin=late.stdout), 1)[0] == "the invite's time is over."
    made_up = invite[:-4] + ("aaa" if invite[-4:-1] != "aaa" else "bbb") + "\n"
    damaged = refused(second.cli(*words, stdin=made_up), 2)
    assert damaged[0] == "the invite is damaged: a character was lost or changed."
    assert refused(second.cli(*words, stdin="pyrdma1.nonsense"), 2)[0]
    assert not (second.state / "site").exists()
    foreign = sites.s1.cli("invite", "create", "--node", "n7").stderr
    assert "The invite is for n7" in foreign
    theirs = sites.s1.cli("invite", "create", "--node", "n7").stdout
    assert refused(first.cli(*words, stdin=theirs), 1)[0] == "this node is n7 of north already."
    assert sites.n1.cli("leave", "--node", "n7", "--confirm", "north").returncode == 0


def test_a_node_that_leaves_is_a_stranger(sites: Sites) -> None:
    """It leaves by itself: the gateway knows, what it had is gone, and it can come again."""
    n3 = sites.together.join(sites.n1, sites.together.node("n3", "north"))
    running = refused(n3.cli("leave", "--confirm", "north"), 1)
    assert running[1] == "stop that agent, then leave"
    assert n3.end() == 0
    left = n3.cli("leave", "--confirm", "north")
    assert (left.returncode, left.stdout) == (0, "This node has left north.\n")
    states = {one.name: one.state for one in sites.n1.federation().nodes}
    assert states["n3"] == "left"
    assert not (n3.state / "site").exists()
    assert n3.cli("leave").stdout == "This node is of no site; nothing was changed.\n"
    sites.together.join(sites.n1, n3)
    assert n3.end() == 0
    assert sites.n1.cli("leave", "--node", "n3", "--confirm", "north").returncode == 0


def test_a_node_that_is_put_out_has_nothing_any_more(sites: Sites, say: Say, until: Until) -> None:
    """What it lent and what it used ends with the reason; its next call is refused."""
    n4 = sites.together.join(sites.n1, sites.together.node("n4", "north"))
    lent = sites.n1.run("m", node="n4")
    used = n4.run("m", node="n2")
    out = sites.n1.cli("leave", "--node", "n4", "--confirm", "north")
    assert (out.returncode, out.stdout) == (0, "n4 is no longer a node of north; its leases end.\n")
    reason = "the node n4 has left north"
    assert sites.n1.wait_ended(lent.lease.id, 10).reason == reason
    assert sites.n2.wait_ended(used.lease.id, 10).reason == reason
    assert n4.wait_ended(used.lease.id, 10).reason == reason
    sentence, _ = refused(n4.cli("run", "m"), 1)
    assert "the node n4 has left north." in sentence
    refused(n4.cli("nodes"), 1)
    until(lambda: n4.leases() == (), "what ran there ends by its own clock or order")


def test_a_node_that_is_put_out_gives_back_what_other_sites_lent(sites: Sites) -> None:
    """Its gateway does it for the node, which may do nothing any more."""
    s3 = sites.together.join(sites.s1, sites.together.node("s3", "south"), "--no-donate")
    used = s3.run("north/m", site="north", node="n2")
    out = sites.s1.cli("leave", "--node", "s3", "--confirm", "south", "--json")
    assert document(out)["sentence"] == "s3 is no longer a node of south; its leases end."
    for node in (sites.n2, s3):
        assert node.wait_ended(used.lease.id, 10).reason == "the node s3 has left south"


# --- what goes wrong at the start -------------------------------------------------------------------------


def test_a_port_in_use_is_one_sentence(sites: Sites) -> None:
    """The agent ends with exit code 1, and nothing that it had started runs on."""
    node = sites.together.node("w1", "west")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        node.port = holder.getsockname()[1]
        init = ("init", "--site", "west", "--trust-domain", "west.pyrdma.example", "--node", "w1")
        address = f"127.0.0.1:{node.port}"
        request = str(node.state.parent / "west.request.json")
        assert node.cli(*init, "--address", address, "--request", request).returncode == 0
        serve = [sys.executable, "-m", "agent", "serve", "--memory", "32MiB", "--spares", "0"]
        with subprocess.Popen(
            [*serve, *node.directories], stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as started:
            said = started.communicate(timeout=60)[1]
    assert started.returncode == 1
    errors = [line for line in said.splitlines() if not line.startswith("{")]
    assert errors[0] == f"error: the address {address} cannot be listened on."
    assert len(errors) == 3, said
    left = [one for one in psutil.process_iter() if os.getsid(one.pid) == started.pid]
    assert left == []
