"""The proxy itself: each fault does what it says, and nothing once it is healed."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROXY = Path(__file__).with_name("fault_proxy.py")
SOON_S = 0.2


class Pair:
    """Both ends of a connection through the proxy."""

    def __init__(self, proxy: Any, listener: socket.socket) -> None:
        self.caller = socket.create_connection((proxy.host, proxy.port), 10)
        listener.settimeout(10)
        self.target = listener.accept()[0]
        self.target.settimeout(10)

    def close(self) -> None:
        self.caller.close()
        self.target.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A target's socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def proxy(fault_proxy: Any, listener: socket.socket) -> Iterator[Any]:
    """A proxy without faults."""
    with fault_proxy(*listener.getsockname()) as one:
        yield one


@pytest.fixture
def pair(proxy: Any, listener: socket.socket) -> Iterator[Pair]:
    """A connection through it."""
    one = Pair(proxy, listener)
    yield one
    one.close()


def _silent(end: socket.socket) -> bool:
    """Whether nothing comes for a while, neither bytes nor an end."""
    end.settimeout(SOON_S)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    else:
        return False
    finally:
        end.settimeout(10)


def _receive(end: socket.socket, nbytes: int) -> bytes:
    got = b""
    while len(got) < nbytes and (more := end.recv(nbytes - len(got))):
        got += more
    return got


def test_without_faults_it_is_a_wire(pair: Pair) -> None:
    """Bytes arrive in order and whole, both ways, and so does each side's end."""
    stream = bytes(range(256)) * 20_000
    sending = threading.Thread(
        target=lambda: (pair.caller.sendall(stream), pair.caller.shutdown(socket.SHUT_WR))
    )
    sending.start()
    assert _receive(pair.target, len(stream) + 1) == stream
    sending.join()
    pair.target.sendall(b"answer after the end")
    pair.target.close()
    assert _receive(pair.caller, 100) == b"answer after the end"


def test_a_delay_holds_one_direction(proxy: Any, pair: Pair) -> None:
    """Bytes forward come so much later, those backward at once."""
    proxy.delay(forward_s=0.6)
    begun_s = time.monotonic()
    pair.caller.sendall(b"x")
    pair.target.sendall(b"y")
    assert pair.caller.recv(1) == b"y"
    assert time.monotonic() - begun_s < 0.5
    assert pair.target.recv(1) == b"x"
    assert time.monotonic() - begun_s >= 0.6


def test_a_delay_does_not_slow_a_stream(proxy: Any, pair: Pair) -> None:
    """Eight MiB take one delay, not one for every read."""
    proxy.delay(forward_s=0.3)
    stream = bytes(8 << 20)
    begun_s = time.monotonic()
    sending = threading.Thread(target=lambda: pair.caller.sendall(stream))
    sending.start()
    assert len(_receive(pair.target, len(stream))) == len(stream)
    sending.join()
    assert time.monotonic() - begun_s < 10.0


def test_a_cut_is_a_black_hole_until_healed(proxy: Any, pair: Pair) -> None:
    """Nothing passes either way, not even an end; afterwards everything does, in order."""
    proxy.cut()
    pair.caller.sendall(b"one")
    pair.caller.shutdown(socket.SHUT_WR)
    pair.target.sendall(b"two")
    assert _silent(pair.target)
    assert _silent(pair.caller)
    proxy.heal()
    assert _receive(pair.target, 100) == b"one"
    assert _receive(pair.caller, 3) == b"two"


def test_a_cut_hides_a_death(proxy: Any, pair: Pair) -> None:
    """A target that dies behind a cut looks alive until it is healed."""
    proxy.cut("backward")
    pair.caller.sendall(b"unread")
    assert pair.target.recv(1, socket.MSG_PEEK) == b"u"
    pair.target.close()
    assert _silent(pair.caller)
    pair.caller.sendall(b"more")
    assert _silent(pair.caller)
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        pair.caller.recv(1)


def test_one_way_is_one_way(proxy: Any, pair: Pair) -> None:
    """What the target says arrives, what it should hear does not."""
    proxy.cut("forward")
    pair.caller.sendall(b"x")
    pair.target.sendall(b"y")
    assert pair.caller.recv(1) == b"y"
    assert _silent(pair.target)


def test_a_dial_behind_a_cut_reaches_nobody_until_healed(proxy: Any, listener: socket.socket) -> None:
    """The target sees no connection while the way to it is cut."""
    proxy.cut("forward")
    with socket.create_connection((proxy.host, proxy.port), 10) as caller:
        caller.sendall(b"x")
        listener.settimeout(SOON_S)
        with pytest.raises(TimeoutError):
            listener.accept()
        proxy.heal()
        listener.settimeout(10)
        with listener.accept()[0] as target:
            assert target.recv(1) == b"x"


def test_a_reset_ends_what_stands_and_nothing_else(proxy: Any, pair: Pair, listener: socket.socket) -> None:
    """Both ends see a reset; the next connection works."""
    proxy.reset()
    for end in (pair.caller, pair.target):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    following = Pair(proxy, listener)
    following.caller.sendall(b"x")
    assert following.target.recv(1) == b"x"
    assert proxy.connections == 1
    following.close()


def test_a_target_that_is_not_there_resets_the_caller(fault_proxy: Any) -> None:
    """Nobody is left waiting for a target that refuses."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # it keeps the port and does not listen
        with (
            fault_proxy(*deaf.getsockname()) as proxy,
            pytest.raises(ConnectionResetError),  # by the call, or while it is still being made
            socket.create_connection((proxy.host, proxy.port), 10) as caller,
        ):
            caller.recv(1)


def test_its_end_closes_every_connection(fault_proxy: Any, listener: socket.socket) -> None:
    """No socket and no thread stays behind."""
    before = threading.active_count()
    with fault_proxy(*listener.getsockname()) as proxy:
        one = Pair(proxy, listener)
        proxy.cut()
        one.caller.sendall(b"held")
    with pytest.raises(ConnectionResetError):
        one.target.recv(1)
    one.close()
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((proxy.host, proxy.port), 1)


def test_as_a_process_it_obeys_its_input(listener: socket.socket) -> None:
    """Each command is answered when it holds, a wrong one too; it ends with its input."""
    host, port = listener.getsockname()
    command = [sys.executable, str(PROXY), f"{host}:{port}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def say(line: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        proxy_host, _, proxy_port = process.stdout.readline().split()[1].partition(":")
        with socket.create_connection((proxy_host, int(proxy_port)), 10) as caller:
            listener.settimeout(10)
            with listener.accept()[0] as target:
                target.settimeout(10)
                assert say("cut sideways") == "not understood: cut sideways"
                assert say("cut forward") == "ok"
                caller.sendall(b"x")
                assert _silent(target)
                assert say("heal") == "ok"
                assert target.recv(1) == b"x"
                assert say("delay 0 0") == "ok"
                assert say("reset") == "ok"
                with pytest.raises(ConnectionResetError):
                    target.recv(1)
        process.stdin.close()
        assert process.wait(10) == 0
