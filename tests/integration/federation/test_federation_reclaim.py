"""Owners against what may be broken: a dead gateway, stopped agents, leases that ran out meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from institutions import POLICY, port_of

from agent.errors import UnknownModelError

Make = Callable[..., Path]
Until = Callable[..., Any]


def connect(granted: Any) -> socket.socket:
    """Open a connection to a lease's port; its runner has answered once."""
    connection = socket.create_connection(("127.0.0.1", port_of(granted)), timeout=60)
    connection.sendall(b"hello")
    assert connection.recv(100) == b"hello"
    return connection


def run(asker: Any, **where: str) -> Any:
    """Run the model, once the gateway has heard of it."""
    with contextlib.suppress(UnknownModelError):
        return asker.run("m", **where)
    return None


def first_answer(granted: Any) -> bytes:
    """Return what a new connection to a lease's port gets first."""
    with socket.create_connection(("127.0.0.1", port_of(granted)), timeout=60) as connection:
        connection.sendall(b"hello")
        return connection.recv(100)


@contextlib.contextmanager
def mine(node: Any, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Begin a command of a node's owner; what still runs in the end is killed."""
    words = [sys.executable, "-m", "agent", "mine", *node.directories, "--", *command]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def all_there_is(connection: socket.socket) -> bytes:
    """Return what comes until the other side ends."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_an_owner_gets_a_device_back_while_the_gateway_is_dead(
    federation: Any, make_model: Make, until: Until
) -> None:
    """Neither the gateway nor the borrower is asked; the bound holds, and the guest is gone."""
    n1 = federation.found(federation.node("n1", "north"))
    n2 = federation.join(n1, federation.node("n2", "north"))
    n2.publish(make_model("m"), "m")
    granted = until(lambda: run(n1, node="n2"), "the lease runs on n2")
    connection = connect(granted)
    n1.kill()
    begun = time.monotonic()
    with mine(n2, "sh", "-c", "echo $PYRDMA_DEVICES") as command:
        out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (0, "cpu0\n"), err
    assert time.monotonic() - begun < 2 + 10 + 20
    assert n2.lease(granted.lease.id).state == "ended"
    assert all_there_is(connection) == b""
    connection.close()


def test_the_gateway_hears_at_once_that_an_owner_takes_a_device_back(
    federation: Any, make_model: Make, until: Until
) -> None:
    """While the owner has it nobody gets it, and the borrower hears why its lease ended."""
    n1 = federation.found(federation.node("n1", "north"))
    n2 = federation.join(n1, federation.node("n2", "north"))
    n2.publish(make_model("m"), "m")
    granted = until(lambda: run(n1, node="n2"), "the lease runs on n2")
    with mine(n2, "sleep", "600") as command:
        ended = n1.wait_ended(granted.lease.id)
        assert "its owner needs the device" in ended.reason
        assert "sleep" not in ended.reason, "what the owner runs is his affair"
        until(lambda: n1.device_states()["n2"] not in ("idle", "leased"), "the gateway knows whose it is")
        command.kill()
        command.wait()
    until(lambda: n1.device_states()["n2"] == "idle", "the device is lent again")
    until(lambda: run(n1, node="n2"), "what was published there is read again, and can be run")


def test_an_owner_that_gives_up_in_time_lets_its_guest_go_on_on_both_sides(
    federation: Any, make_model: Make, until: Until
) -> None:
    """The borrower's list says that the lease ends, then that it does not; its runner serves as before."""
    n1 = federation.found(federation.node("n1", "north"))
    n2 = federation.join(n1, federation.node("n2", "north"))
    s1 = federation.found(federation.node("s1", "south"), "--no-donate")
    federation.acquaint(n1, s1)
    n2.publish(make_model("m"), "m")
    federation.policy(POLICY + "lend:\n  grace: 10min\n", n1, s1)
    granted = until(lambda: run(s1, site="north", node="n2"), "the lease runs on n2")
    lease_id, pid = granted.lease.id, n2.lease(granted.lease.id).pid
    with connect(granted) as connection:
        for _ in range(2):
            with mine(n2, "true") as command:
                until(lambda: n2.lease(lease_id).state == "draining", "its node has given it notice")
                until(lambda: s1.lease(lease_id).state == "ending", "its borrower has heard so")
                assert s1.lease(lease_id).reason == "its owner needs the device"
                assert first_answer(granted) == b"|drains"
                command.send_signal(signal.SIGINT)
                assert command.wait(60) == 130
            until(lambda: n2.lease(lease_id).state == "active", "it goes on at its node")
            until(lambda: s1.lease(lease_id).state == "active", "its borrower has heard so")
            assert s1.lease(lease_id).reason == ""
            assert first_answer(granted) == b"hello"
        connection.sendall(b"still")
        assert connection.recv(100) == b"still"
    assert n2.lease(lease_id).pid == pid
    until(lambda: n1.device_states()["n2"] == "leased", "its gateway says so, too")
    assert s1.stop(lease_id).state == "ended"
    until(lambda: n1.device_states()["n2"] == "idle", "the device is free")


def test_a_node_that_was_stopped_past_its_lease_serves_nobody_under_it(
    federation: Any, make_model: Make, until: Until
) -> None:
    """What waited in its buffers does not reach the runner; the runner is gone soon after it goes on."""
    n1 = federation.found(federation.node("n1", "north"), "--lease-ttl", "4")
    n2 = federation.join(n1, federation.node("n2", "north"))
    n2.publish(make_model("m"), "m")
    granted = until(lambda: run(n1, node="n2"), "the lease runs on n2")
    connection = connect(granted)
    pid = n2.lease(granted.lease.id).pid
    assert n2.process is not None
    os.kill(n2.process.pid, signal.SIGSTOP)
    try:
        connection.sendall(b"too late")
        n1.wait_ended(granted.lease.id)
    finally:
        os.kill(n2.process.pid, signal.SIGCONT)
    assert b"too late" not in all_there_is(connection)
    connection.close()
    n2.wait_ended(granted.lease.id)
    until(lambda: not Path(f"/proc/{pid}").exists(), "its runner is gone")
    until(lambda: n1.device_states()["n2"] == "idle", "the device is free")


@pytest.mark.parametrize("who", ["gateway", "borrower"])
def test_an_agent_that_was_stopped_past_its_lease_holds_it_no_more(
    federation: Any, make_model: Make, until: Until, who: str
) -> None:
    """The lease is over on all sides by their own clocks, and its device can be had by others."""
    n1 = federation.found(federation.node("n1", "north"), "--lease-ttl", "4")
    s1 = federation.found(federation.node("s1", "south"), "--lease-ttl", "4")
    federation.acquaint(n1, s1)
    n1.publish(make_model("m"), "m")
    granted = s1.run("m", site="north")
    connection = connect(granted)
    stopped = n1 if who == "gateway" else s1
    assert stopped.process is not None
    os.kill(stopped.process.pid, signal.SIGSTOP)
    try:
        if who == "gateway":
            s1.wait_ended(granted.lease.id)
        else:
            n1.wait_ended(granted.lease.id)
            connection.sendall(b"too late")
    finally:
        os.kill(stopped.process.pid, signal.SIGCONT)
    assert b"too late" not in all_there_is(connection)
    connection.close()
    for node in (n1, s1):
        node.wait_ended(granted.lease.id)
    with pytest.raises(OSError, match="refused"):
        connect(granted)
    until(lambda: n1.device_states()["n1"] == "idle", "the device is free")
    assert n1.run("m").lease.state == "active"
