"""An owner takes devices back from real processes: commands, notice, kill, memory, and what is lent again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.errors import OwnedError
from agent.local.device_views import OwnDeviceView
from agent.local.views import GrantedView

Start = Callable[..., Any]
Make = Callable[..., Path]
Until = Callable[..., Any]
GRACE_S = 1.0


def device(node: Any, name: str = "cpu0") -> OwnDeviceView:
    """Return a device of a node as its owner sees it now."""
    return next(one for one in node.call(lambda client: client.devices()) if one.id == name)


def lease(node: Any, lease_id: str) -> Any:
    """Return a lease of a node's books."""
    every = node.call(lambda client: client.leases(include_ended=True))
    return next(one for one in every if one.id == lease_id)


@contextlib.contextmanager
def talking(granted: GrantedView) -> Iterator[socket.socket]:
    """Keep a connection to a lease's runner open; it has answered once."""
    assert granted.lease.port is not None
    with socket.create_connection(("127.0.0.1", granted.lease.port), timeout=30) as connection:
        connection.sendall(b"hello")
        assert connection.recv(100) == b"hello"
        yield connection


def answer(granted: GrantedView) -> bytes:
    """Return what a new connection to a lease's runner gets first."""
    assert granted.lease.port is not None
    with socket.create_connection(("127.0.0.1", granted.lease.port), timeout=30) as connection:
        connection.sendall(b"hello")
        return connection.recv(100)


@contextlib.contextmanager
def mine(node: Any, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Begin a command of the owner's; what still runs in the end is killed."""
    options, command = (words[: words.index("--")], words[words.index("--") :])
    line = [sys.executable, "-m", "agent", "mine", "--run-dir", str(node.paths.run_dir), *options, *command]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def said(process: subprocess.Popen[str]) -> str:
    """Return the next line that a command prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_mine_takes_a_device_back_runs_a_command_and_lends_it_again(
    start: Start, make_model: Make, until: Until
) -> None:
    """Its exit code is passed on, the guest hears why it ended, and the next one can start."""
    one = start("one")
    one.publish(make_model("m"), "m")
    granted = one.run("m")
    script = "echo $PYRDMA_DEVICES; exit 7"
    with mine(one, "--", "sh", "-c", script) as command:
        out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (7, "cpu0\n"), err
    assert "taking back cpu0. This ends 1 leases of this node after 1 s of grace" in err
    assert "cpu0 yours after" in err
    ended = lease(one, granted.lease.id)
    assert ended.state == "ended"
    assert ended.reason == "the owner of cpu0 needs it"
    until(lambda: device(one).state == "lent", "the device is lent again")
    assert one.run("m").lease.state == "active"


def test_while_a_command_has_it_no_lease_starts_and_its_memory_is_free(
    start: Start, make_model: Make, until: Until
) -> None:
    """No runner, no spare, no image is left; a start is refused with the reason; all comes back."""
    one = start("one")
    one.publish(make_model("m"), "m")
    one.run("m")
    until(lambda: one.status().spares.ready, "a spare is ready")
    with mine(one, "--", "sh", "-c", "echo begun; read line") as command:
        assert said(command) == "begun"
        status = one.status()
        assert (status.cache.used_bytes, status.cache.faulted_bytes) == (0, 0)
        assert (status.spares.ready, status.spares.pids) == (0, ())
        names = {" ".join(process.cmdline()) for process in one.left()}
        assert not [name for name in names if "stand_in_runner" in name]
        with pytest.raises(
            OwnedError, match=r"the owner of this node has cpu0: the owner runs sh -c .* \(pid"
        ):
            one.run("m")
        command.communicate("\n", timeout=60)
    until(lambda: device(one).state == "lent", "the device is lent again")
    until(lambda: one.status().spares.ready, "a spare is ready again")
    until(lambda: one.status().cache.used_bytes, "what was published is read again")
    assert one.run("m").lease.state == "active"


def test_a_guest_finishes_what_it_has_begun_and_takes_nothing_new(
    start: Start, make_model: Make, until: Until
) -> None:
    """The lease says that it drains; it ends with its last connection, before its grace is over."""
    one = start("one", "--grace", "60")
    one.publish(make_model("m"), "m")
    granted = one.run("m")
    with talking(granted) as connection, mine(one, "--", "true") as command:
        until(lambda: lease(one, granted.lease.id).state == "draining", "the lease has notice")
        held = device(one)
        assert held.state == "reclaiming"
        assert 0 < held.left_s <= 60
        connection.sendall(b"more")
        assert connection.recv(100) == b"more", "what is open goes on"
        connection.close()
        assert command.wait(60) == 0
    assert lease(one, granted.lease.id).state == "ended"


def test_a_guest_that_ignores_its_notice_is_killed_when_its_grace_is_over(
    start: Start, make_model: Make, until: Until
) -> None:
    """SIGTERM would not do; the device is there within grace and kill, and nothing of the guest is left."""
    one = start("one")
    one.publish(make_model("m"), "stubborn")
    granted = one.run("stubborn")
    pid = lease(one, granted.lease.id).pid
    begun = time.monotonic()
    with mine(one, "--", "true") as command:
        assert command.wait(60) == 0
    assert GRACE_S <= time.monotonic() - begun < 2 + GRACE_S + 20
    assert not psutil.pid_exists(pid)
    until(lambda: device(one).state == "lent", "the device is lent again")
    last = device(one).last_reclaim_s
    assert last is not None
    assert GRACE_S <= last < GRACE_S + 5


def test_a_start_that_does_not_answer_yet_is_called_off_at_once(
    start: Start, make_model: Make, until: Until
) -> None:
    """It has begun nothing, so it needs no grace."""
    one = start("one", "--grace", "60")
    one.publish(make_model("m"), "slow")
    command = [sys.executable, "-m", "agent", "run", "slow", "--run-dir", str(one.paths.run_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        until(lambda: [one for one in one.call(lambda c: c.leases()) if one.state == "starting"], "it starts")
        begun = time.monotonic()
        with mine(one, "--", "true") as taking:
            assert taking.wait(60) == 0
        assert time.monotonic() - begun < 30
        _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "the owner of cpu0 needs it" in err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_that_is_killed_gives_its_device_back(
    start: Start, make_model: Make, until: Until, number: signal.Signals
) -> None:
    """Signals reach the command itself, and the agent notices however it ends."""
    one = start("one")
    with mine(one, "--", "sleep", "600") as command:
        until(lambda: device(one).state == "owned", "the command has the device")
        until(lambda: psutil.Process(command.pid).name() == "sleep", "the command runs in its place")
        command.send_signal(number)
        assert command.wait(60) == -number
    until(lambda: device(one).state == "lent", "the device is lent again")


def test_a_command_that_is_called_off_while_it_waits_gives_up_its_claim(
    start: Start, make_model: Make, until: Until
) -> None:
    """Ctrl-C: exit code 130, the device is lent again, and its guest goes on with what it had begun."""
    one = start("one", "--grace", "600")
    one.publish(make_model("m"), "m")
    granted = one.run("m")
    pid = lease(one, granted.lease.id).pid
    with talking(granted) as connection:
        with mine(one, "--", "touch", str(one.state / "never")) as command:
            until(lambda: lease(one, granted.lease.id).state == "draining", "the lease has notice")
            until(lambda: answer(granted) == b"|drains", "its runner takes nothing new")
            command.send_signal(signal.SIGINT)
            assert command.wait(60) == 130
        until(lambda: device(one).state == "lent", "the device is lent again")
        until(lambda: lease(one, granted.lease.id).state == "active", "the lease goes on")
        assert (lease(one, granted.lease.id).reason, device(one).last_reclaim_s) == ("", None)
        connection.sendall(b"still")
        assert connection.recv(100) == b"still"
    with talking(granted):
        assert lease(one, granted.lease.id).pid == pid, "the same runner takes new requests"
    until(lambda: one.status().spares.ready, "a spare is ready again")
    assert one.run("m").lease.state == "active"
    assert not (one.state / "never").exists()


def test_a_runner_that_was_idle_has_gone_when_its_owner_changes_its_mind(
    start: Start, make_model: Make, until: Until
) -> None:
    """Nothing was open, so it ended at the notice: its lease ends with that reason, not as active again."""
    one = start("one", "--grace", "600")
    one.publish(make_model("m"), "m")
    granted = one.run("m")
    with mine(one, "--", "sleep", "600") as command:
        until(lambda: lease(one, granted.lease.id).state != "active", "the lease has notice")
        command.send_signal(signal.SIGINT)
        command.wait(60)
    until(lambda: lease(one, granted.lease.id).state == "ended", "the lease has ended")
    assert lease(one, granted.lease.id).reason == "the owner of cpu0 needs it"
    until(lambda: device(one).state == "lent", "the device is lent again")


def test_a_reclaim_that_somebody_else_undoes_says_so(start: Start, make_model: Make, until: Until) -> None:
    """Whoever waits for the device hears at once that it is not coming; the guest goes on."""
    one = start("one", "--grace", "600")
    one.publish(make_model("m"), "m")
    granted = one.run("m")
    words = ["reclaim", "cpu0", "--confirm", "cpu0", "--run-dir", str(one.paths.run_dir)]
    with (
        talking(granted),
        subprocess.Popen([sys.executable, "-m", "agent", *words], stderr=subprocess.PIPE, text=True) as waits,
    ):
        try:
            until(lambda: lease(one, granted.lease.id).state == "draining", "the lease has notice")
            assert one.cli("donate", "cpu0").returncode == 0
            _, err = waits.communicate(timeout=60)
        finally:
            waits.kill()
        assert waits.returncode == 1
        assert "cpu0 was lent again meanwhile" in err
        until(lambda: lease(one, granted.lease.id).state == "active", "the lease goes on")


def test_a_command_that_does_not_exist_takes_nothing_back(start: Start) -> None:
    """It is looked for first."""
    one = start("one")
    result = one.cli("mine", "no-such-program")
    assert result.returncode == 2
    assert "no device was taken back" in result.stderr
    assert device(one).last_reclaim_s is None


def test_of_two_devices_the_free_one_is_taken_and_the_guest_stays(start: Start, make_model: Make) -> None:
    """Nobody is ended while something is free; with both wanted, the guest goes."""
    one = start("one", "--devices", "2")
    one.publish(make_model("m"), "m")
    granted = one.run("m")
    (taken,) = [view.id for view in one.call(lambda client: client.devices()) if view.guests]
    with talking(granted) as connection:
        with mine(one, "--", "sh", "-c", "echo $PYRDMA_DEVICES") as command:
            out, _ = command.communicate(timeout=60)
        assert out.split() == [name for name in ("cpu0", "cpu1") if name != taken]
        connection.sendall(b"still")
        assert connection.recv(100) == b"still"
    with mine(one, "--devices", "2", "--", "sh", "-c", "echo $PYRDMA_DEVICES") as command:
        out, _ = command.communicate(timeout=60)
    assert out == "cpu0,cpu1\n"
    assert lease(one, granted.lease.id).state == "ended"


def test_withdraw_reclaim_and_drain_ask_say_and_outlive_the_agent(
    start: Start, make_model: Make, until: Until
) -> None:
    """Guests are named before they are ended; without a name nothing is changed; `donate` undoes it all."""
    one = start("one", "--devices", "2")
    one.publish(make_model("m"), "m")
    granted = one.run("m")
    (taken,) = [view.id for view in one.call(lambda client: client.devices()) if view.guests]
    dry = one.cli("withdraw", taken, "--dry-run")
    assert dry.returncode == 0
    assert "This ends 1 leases of this node after 1 s of grace" in dry.stderr
    refused = one.cli("withdraw", taken)
    assert refused.returncode == 2
    assert f"add --confirm {taken}" in refused.stderr
    assert lease(one, granted.lease.id).state == "active"
    drained = one.cli("drain", taken, "--json")
    assert [view["draining"] for view in json.loads(drained.stdout)["devices"]] == [True]
    assert one.run("m").lease.state == "active", "the other device takes it"
    done = one.cli("withdraw", taken, "--confirm", taken)
    assert done.returncode == 0, done.stderr
    until(lambda: device(one, taken).state == "owned", "the device is withdrawn")
    assert one.cli("donate", taken, "--hours", "00:00-24:00", "--headroom", "64MiB").returncode == 0
    until(lambda: device(one, taken).state == "lent", "the device is lent again")
    assert one.cli("reclaim", taken).returncode == 0, "nobody loses by it, so nobody is asked"
    assert device(one, taken).state == "owned"
    assert one.end() == 0
    again = start("one", "--devices", "2")
    until(lambda: device(again, taken).state == "owned", "it is still its owner's")
    kept = device(again, taken)
    assert (kept.hours, kept.headroom_bytes, kept.donated) == (("00:00-24:00",), 64 << 20, True)
    assert kept.wanted == ("its operator has taken it back",)


@pytest.mark.parametrize(
    "words",
    [
        ("donate", "gpu7"),
        ("donate", "--hours", "mon-fri 25:00-06:00"),
        ("donate", "--headroom", "1TiB"),
        ("donate", "--hours", "08:00-12:00", "--all-hours"),
        ("reclaim", "cpu0", "--devices", "1"),
        ("mine", "--device", "cpu9", "--", "true"),
        ("mine", "--devices", "2", "--", "true"),
    ],
)
def test_what_makes_no_sense_changes_nothing(start: Start, words: tuple[str, ...]) -> None:
    """Exit code 2, a sentence, and the device stays as it was."""
    one = start("one")
    directory = ("--run-dir", str(one.paths.run_dir))
    command = [sys.executable, "-m", "agent", words[0], *directory, *words[1:]]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    view = device(one)
    assert (view.state, view.hours, view.headroom_bytes) == ("lent", (), 0)


def test_a_device_that_is_lent_while_idle_comes_back_when_others_compute(start: Start, until: Until) -> None:
    """Processes beside the agent's are seen; what the agent's own do is no local use."""
    one = start("one")
    assert one.cli("donate", "--only-idle").returncode == 0
    code = "while True: pass"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(os.cpu_count() or 1)]
    try:
        view = until(lambda: (held := device(one)).state == "owned" and held, "local use is seen")
        assert view.wanted == ("others compute on this machine",)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert one.cli("donate", "--always").returncode == 0
    until(lambda: device(one).state == "lent", "the device is lent again")


def test_a_device_outside_its_hours_is_its_owners(start: Start, until: Until) -> None:
    """The window closes at once when the hours change, and opens again with them."""
    one = start("one")
    day = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[(time.localtime().tm_wday + 3) % 7]
    assert one.cli("donate", "--hours", f"{day} 00:00-01:00").returncode == 0
    until(lambda: device(one).state == "owned", "its hours are over")
    assert device(one).wanted == (f"it is lent {day} 00:00-01:00 only",)
    assert one.cli("donate", "--all-hours").returncode == 0
    until(lambda: device(one).state == "lent", "the device is lent again")


def test_the_view_socket_shows_devices_and_takes_none(start: Start, tmp_path: Path) -> None:
    """Exit code 4 for whoever may only look."""
    one = start("one")
    only_view = tmp_path / "view"
    only_view.mkdir()
    (only_view / "admin.sock").symlink_to(one.paths.view_socket)
    for words in (("reclaim",), ("donate",), ("mine", "true")):
        command = [sys.executable, "-m", "agent", words[0], "--run-dir", str(only_view), *words[1:]]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 4, result.stderr
    shown = one.cli("devices", "--json")
    assert [view["id"] for view in json.loads(shown.stdout)["devices"]] == ["cpu0"]
