"""The lab itself: machines that reach each other and nothing else, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as server:
    print("ready", flush=True)
    while True:
        caller, _ = server.accept()
        with caller:
            caller.sendall(caller.recv(100))
"""
CALL = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 7000), 10) as server:
        server.sendall(b"hello")
        print(server.recv(100).decode(), flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
"""
SINK = """
import socket
with socket.create_server(("", 7000)) as server:
    print("ready", flush=True)
    caller, _ = server.accept()
    while caller.recv(1 << 20):
        pass
    caller.sendall(b"done")
"""
POUR = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 7000), 10) as sink:
    begun_s = time.monotonic()
    sink.sendall(bytes(int(sys.argv[2])))
    sink.shutdown(socket.SHUT_WR)
    assert sink.recv(100) == b"done"
    print(time.monotonic() - begun_s, flush=True)
"""


def _python(lab: Any, machine: int, text: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", text, *arguments]
    process: subprocess.Popen[str] = lab.run_in(machine, command, stdout=subprocess.PIPE, text=True)
    return process


def _serve(lab: Any, machine: int, text: str, *arguments: str) -> subprocess.Popen[str]:
    process = _python(lab, machine, text, *arguments)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _left(lab: Any) -> list[str]:
    mine = lab.machines[0].rpartition("-")[0]
    return [name.name for name in Path("/run/netns").glob(f"{mine}-*")]


def test_machines_reach_each_other(network_lab: Any) -> None:
    """A TCP echo crosses the switch, in both directions at once."""
    with network_lab(3) as lab:
        for machine in (0, 1):
            _serve(lab, machine, ECHO, lab.address(machine))
        for caller, called in ((0, 1), (1, 0), (2, 0)):
            assert _python(lab, caller, CALL, lab.address(called)).communicate(timeout=20)[0] == "hello\n"


def test_machines_are_apart(network_lab: Any) -> None:
    """One machine's loopback, and this machine's, are out of another's reach."""
    with network_lab(2) as lab:
        _serve(lab, 0, ECHO, "127.0.0.1")
        inside = _python(lab, 0, CALL, "127.0.0.1").communicate(timeout=20)[0]
        across = _python(lab, 1, CALL, "127.0.0.1").communicate(timeout=20)[0]
        assert (inside, across) == ("hello\n", "ConnectionRefusedError\n")
        outside = Path("/proc/self/ns/net").stat().st_ino
        inodes = {Path(f"/run/netns/{name}").stat().st_ino for name in lab.machines}
        assert len(inodes | {outside}) == 3
        assert not {"port0", "port1", "switch"} & {link.name for link in Path("/sys/class/net").iterdir()}


def test_two_labs_never_meet(network_lab: Any) -> None:
    """The same address in two labs is two machines."""
    with network_lab(2) as one, network_lab(2) as other:
        _serve(one, 0, ECHO, one.address(0))
        assert _python(one, 1, CALL, one.address(0)).communicate(timeout=20)[0] == "hello\n"
        assert (
            _python(other, 1, CALL, other.address(0)).communicate(timeout=20)[0] == "ConnectionRefusedError\n"
        )


def test_a_shaped_machine_is_slow(network_lab: Any) -> None:
    """Bytes past the burst of 2 MB take the time that the rate allows."""
    with network_lab(2) as lab:
        lab.shape(0, 80)
        _serve(lab, 1, SINK)
        took_s = float(_python(lab, 0, POUR, lab.address(1), str(12_000_000)).communicate(timeout=60)[0])
        assert took_s > 0.9


def test_nothing_is_left_after_a_failure(network_lab: Any) -> None:
    """Namespaces and processes, grandchildren too, are gone when a test fails inside the lab."""
    lab = network_lab(2)
    with suppress(RuntimeError), lab:
        shell = lab.run_in(0, ["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
        child = int(shell.stdout.readline())
        assert len(_left(lab)) == 3
        raise RuntimeError
    assert _left(lab) == []
    assert shell.returncode is not None
    deadline_s = time.monotonic() + 10
    while Path(f"/proc/{child}/stat").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline_s


def test_nothing_is_left_after_half_a_start(network_lab: Any) -> None:
    """A lab that cannot be built removes what it has made."""
    lab = network_lab(2)
    lab.machines[1] = lab.machines[0]
    with pytest.raises(subprocess.CalledProcessError), lab:
        pass
    assert _left(lab) == []
