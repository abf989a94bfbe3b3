"""Starts, ends and accidents of an agent: signals, second agents, processes that die, callers that leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc import aio

from agent.errors import NotAllowedError
from agent.local.client import AgentClient
from agent.local.people_views import Wanted
from agent.local.views import GrantedView
from agent.paths import Paths
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.pyrdma_pb2_grpc import OperatorStub

Start = Callable[..., Any]
Make = Callable[..., Path]
Until = Callable[..., Any]


def ask(granted: GrantedView, data: bytes) -> bytes:
    """Send bytes to an endpoint and return one answer; nothing when the other side is gone."""
    assert granted.lease.port is not None
    with socket.create_connection(("127.0.0.1", granted.lease.port), timeout=30) as connection:
        connection.sendall(data)
        try:
            return connection.recv(1 << 16)
        except ConnectionResetError:
            return b""


def test_sighup_reads_the_people_file_at_once_and_keeps_the_one_before_a_bad_one(
    start: Start, until: Until
) -> None:
    """The log says so each time; a signal before the agent is ready counts when it is, and ends nothing."""
    one = start("one", wait=False)
    until((one.paths.run_dir / "serve.lock").exists, "the agent begins")
    one.process.send_signal(signal.SIGHUP)
    file = one.paths.people_file

    def log_until(text: str) -> str:
        return until(lambda: text in (said := one.log.read_text()) and said, f"the log says {text}")  # type: ignore[no-any-return]

    assert f"there is no people file {file}" in log_until("SIGHUP: all has been read")
    for number, (text, says) in enumerate(
        (
            (
                "version: 1\nusers: {alice: /local/vision}\n",
                f"the people file {file} is in force as it is now",
            ),
            ("version: 1\nusers: {alice: vision}\n", f"the people file stays as it was before: {file}:2:"),
        )
    ):
        file.write_text(text)
        file.chmod(0o600)
        one.process.send_signal(signal.SIGHUP)
        until(
            lambda number=number: one.log.read_text().count("SIGHUP: all has been read") == number + 2, "read"
        )
        assert says in one.log.read_text()
    assert one.status().pid == one.process.pid


def test_the_end_of_its_terminal_ends_an_agent_in_order(tmp_path: Path, until: Until) -> None:
    """Then SIGHUP asks for nothing to be read: whoever started it has gone."""
    paths = Paths(tmp_path / "one", tmp_path / "one" / "run")
    stand_in, state = Path(__file__).with_name("serve_stand_in.py"), str(paths.state_dir)
    script = [sys.executable, str(stand_in), "--name", "one", "--state", state]
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    with subprocess.Popen(script, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)

        def is_ready() -> bool:
            with contextlib.suppress(BlockingIOError):
                os.read(ours, 1 << 16)  # a terminal that nobody reads would stop it
            return paths.admin_socket.exists() and paths.node_socket.exists()

        try:
            until(is_ready, "the agent is ready")
            os.close(ours)
            process.send_signal(signal.SIGHUP)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert [path.name for path in paths.run_dir.iterdir()] == ["serve.lock"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_in_order(
    start: Start, make_model: Make, until: Until, number: signal.Signals
) -> None:
    """Exit code 0, no process, no socket; the next agent's books say why the lease ended."""
    one = start("one")
    one.publish(make_model("m"), "m")
    granted = one.run("m")
    until(lambda: one.status().spares.ready, "a spare is ready")
    assert one.end(number) == 0
    assert one.left() == []
    assert [path.name for path in one.paths.run_dir.iterdir()] == ["serve.lock"]
    with pytest.raises(ConnectionRefusedError):
        ask(granted, b"x")
    (lease,) = start("one").call(lambda client: client.leases(include_ended=True))
    assert (lease.state, lease.reason) == ("ended", "the agent stopped")


def test_a_second_signal_does_not_wait_for_anyone(start: Start, make_model: Make, until: Until) -> None:
    """A runner that ignores the end holds the first signal for its grace, the second one not at all."""
    one = start("one")
    one.publish(make_model("m"), "stubborn")
    one.run("stubborn")
    one.process.send_signal(signal.SIGTERM)
    until(lambda: "a second signal" in one.log.read_text(), "the first signal is heard")
    begun = time.monotonic()
    assert one.end(signal.SIGTERM) == 1
    assert time.monotonic() - begun < 3
    until(lambda: not one.left(), "children notice that their agent is gone")


def test_a_kill_leaves_no_child_and_the_next_agent_starts(
    start: Start, make_model: Make, until: Until
) -> None:
    """Stale sockets are replaced, open leases are closed in the books, names are still there."""
    one = start("one")
    one.publish(make_model("m"), "m")
    one.run("m")
    until(lambda: one.status().spares.ready, "a spare is ready")
    one.end(signal.SIGKILL)
    until(lambda: not one.left(), "children notice that their agent is gone")
    assert one.paths.admin_socket.exists()
    again = start("one")
    (lease,) = again.call(lambda client: client.leases(include_ended=True))
    assert (lease.state, lease.reason) == ("ended", "the agent ended without stopping it")
    assert again.run("m").lease.state == "active"


def test_a_second_agent_on_the_same_directories_is_refused(start: Start) -> None:
    """It says which process has them, exits with 1, and the first one does not notice."""
    one = start("one")
    second = start("one", wait=False)
    assert second.process.wait(60) == 1
    log = second.log.read_text()
    assert f"socket in use: another agent (pid {one.process.pid}) runs on" in log
    assert "FIX use that one, stop it, or give this one its own" in log
    assert one.status().pid == one.process.pid


def test_a_second_agent_on_the_same_state_alone_is_refused(start: Start, tmp_path: Path) -> None:
    """Two writers of one state file must not be, whatever their sockets; and the command's exit code is 1."""
    one = start("one")
    command = [sys.executable, "-m", "agent", "serve", "--state-dir", str(one.state)]
    result = subprocess.run(
        [*command, "--run-dir", str(tmp_path / "other")], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert "socket in use" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_state_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """One sentence, a fix, exit code 1, and no process left behind."""
    place = tmp_path / "file"
    place.write_text("")
    result = subprocess.run(
        [sys.executable, "-m", "agent", "serve", "--state-dir", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert f"the directory {place} cannot be used" in result.stderr
    assert "--state-dir" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_damaged_state_file_stops_the_start_and_nothing_is_left(start: Start) -> None:
    """The agent refuses with a fix instead of losing what it knew."""
    one = start("one")
    one.end()
    one.paths.database.write_bytes(b"x" * 5000)
    again = start("one", wait=False)
    assert again.process.wait(60) == 1
    assert "is damaged" in again.log.read_text()


def test_a_runner_that_dies_ends_its_lease_with_the_reason(
    start: Start, make_model: Make, until: Until
) -> None:
    """The endpoint closes, the books say how it died, the node goes on."""
    one = start("one")
    one.publish(make_model("m"), "m")
    granted = one.run("m")
    assert ask(granted, b"die") == b""
    until(lambda: not one.call(lambda client: client.leases()), "the lease ends")
    (lease,) = one.call(lambda client: client.leases(include_ended=True))
    assert lease.reason == "its runner was ended by SIGKILL"
    with pytest.raises(ConnectionRefusedError):
        ask(granted, b"x")
    assert one.run("m").lease.state == "active"


def test_a_spare_that_dies_is_replaced_and_said(start: Start, until: Until) -> None:
    """Whatever kills it, a warm one stands by again."""
    one = start("one")
    (pid,) = until(lambda: one.status().spares.ready and one.status().spares.pids, "a spare is ready")
    os.kill(pid, signal.SIGKILL)
    until(lambda: one.status().spares.ready and one.status().spares.pids != (pid,), "another spare")
    assert "a spare runner was ended by SIGKILL" in one.log.read_text()


def test_a_cache_that_dies_is_started_again_and_running_leases_go_on(
    start: Start, make_model: Make, until: Until
) -> None:
    """The status says so; what was in memory alone comes back from its folder."""
    one = start("one")
    one.publish(make_model("m"), "m")
    granted = one.run("m")
    first = one.status().cache.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: one.status().cache.pid not in (None, first), "another cache")
    cache = one.status().cache
    assert (cache.restarts, cache.last_fault) == (1, f"the weight cache (pid {first}) ended by itself")
    assert ask(granted, b"hello") == b"hello"
    again = one.run("m")
    assert (again.start.lane, again.lease.image_id) == ("disk", granted.lease.image_id)


def test_ctrl_c_during_a_start_calls_it_off(start: Start, make_model: Make, until: Until) -> None:
    """The command exits with 130, the lease ends, its runner is gone."""
    one = start("one")
    one.publish(make_model("m"), "slow")
    command = [sys.executable, "-m", "agent", "run", "slow", "--run-dir", str(one.paths.run_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:

        def starting() -> Any:
            return [lease for lease in one.call(lambda c: c.leases()) if lease.state == "starting"]

        (lease,) = until(starting, "the lease is starting")
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (130, "")
    assert "Traceback" not in err
    until(lambda: not one.call(lambda client: client.leases()), "the lease ends")
    (ended,) = one.call(lambda client: client.leases(include_ended=True))
    assert ended.reason == "the request was called off"
    until(lambda: not psutil.pid_exists(lease.pid), "its runner ends")


def test_a_start_past_its_deadline_exits_with_5_and_is_called_off(
    start: Start, make_model: Make, until: Until
) -> None:
    """The sentence says what became of it."""
    one = start("one")
    one.publish(make_model("m"), "slow")
    result = one.cli("run", "slow", "--timeout", "2")
    assert (result.returncode, result.stdout) == (5, "")
    assert "did not finish in time" in result.stderr
    until(lambda: not one.call(lambda client: client.leases()), "the lease ends")


def test_a_runner_that_ignores_the_end_is_killed(start: Start, make_model: Make) -> None:
    """A stop returns within the grace and leaves no process."""
    one = start("one")
    one.publish(make_model("m"), "stubborn")
    granted = one.run("stubborn")
    pid = one.call(lambda client: client.leases())[0].pid
    one.call(lambda client: client.stop(granted.lease.id))
    assert not psutil.pid_exists(pid)


def test_the_view_socket_shows_and_changes_nothing(start: Start, make_model: Make, tmp_path: Path) -> None:
    """Reading calls answer; publish, run and stop are refused with exit code 4."""
    one = start("one")
    modes = {path.name: path.stat().st_mode & 0o777 for path in one.paths.run_dir.glob("*.sock")}
    shared = dict.fromkeys(("view.sock", "user.sock", "door.sock", "node.sock", "image.sock"), 0o660)
    assert modes == {"admin.sock": 0o600} | shared
    assert one.paths.run_dir.stat().st_mode & 0o777 == 0o750
    assert one.paths.state_dir.stat().st_mode & 0o777 == 0o700
    only_view = tmp_path / "view"
    only_view.mkdir()
    (only_view / "admin.sock").symlink_to(one.paths.view_socket)

    async def change(work: Callable[[AgentClient], Any]) -> None:
        async with AgentClient(Paths(one.state, only_view), change=True) as client:
            assert (await client.status()).name == "one"
            await work(client)

    async def run(client: AgentClient) -> None:
        async for _ in client.run(Wanted("m")):
            pass

    async def publish(client: AgentClient) -> None:
        async for _ in client.publish(tmp_path, "m"):
            pass

    for work in (run, publish, lambda client: client.stop("x")):
        with pytest.raises(NotAllowedError, match="does not change anything"):
            asyncio.run(change(work))
    command = [sys.executable, "-m", "agent", "stop", "x", "--run-dir", str(only_view)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 4


def test_a_message_past_the_limit_is_refused_and_the_agent_goes_on(start: Start) -> None:
    """Four MiB, whatever field it is in."""
    one = start("one")

    async def flood() -> grpc.StatusCode:
        options = [("grpc.max_send_message_length", -1)]
        async with aio.insecure_channel(f"unix:{one.paths.admin_socket}", options=options) as channel:
            stub: Any = OperatorStub(channel)  # type: ignore[no-untyped-call]
            try:
                await stub.StopLease(pb.StopLeaseRequest(lease_id="x" * (5 << 20)), timeout=30)
            except aio.AioRpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    assert asyncio.run(flood()) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert one.status().name == "one"
