"""A lab of network namespaces: machines with a network of their own, joined by a bridge, on this machine.

Machine ``i`` has the address ``10.77.0.(i + 1)`` on ``eth0`` and a loopback of its own. The bridge stands in
one more namespace: nothing of the lab is seen outside, and two labs never meet. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

STOP_S = 10.0


def why_not() -> str:
    """Return why there can be no lab here, or nothing where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"pyrdma-{os.getpid()}-{secrets.token_hex(3)}"
    try:
        for action in ("add", "del"):
            _ip("netns", action, name)
        subprocess.run(["tc", "-Version"], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        return f"{error.filename} is not installed here (Debian package iproute2)"
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not allowed here: {error.stderr.strip()}"
    return ""


class Lab:
    """So many machines on one switch, from ``with`` to its end.

    Args:
        count: machines, at most 200.
    """

    def __init__(self, count: int) -> None:
        prefix = f"pyrdma-{os.getpid()}-{secrets.token_hex(3)}"
        self._switch = f"{prefix}-switch"
        self.machines = [f"{prefix}-{machine}" for machine in range(count)]
        self._started: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def address(self, machine: int) -> str:
        """Return a machine's address, which the others reach."""
        return f"10.77.0.{machine + 1}"

    def run_in(self, machine: int, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command on a machine, with the options of ``subprocess.Popen``; the pid is its own."""
        process = subprocess.Popen(["ip", "netns", "exec", self.machines[machine], *command], **options)
        self._started.append(process)
        return process

    def shape(self, machine: int, rate_mbit: int) -> None:
        """Let a machine send no faster than this."""
        _ip(
            *("netns", "exec", self.machines[machine]),
            *("tc", "qdisc", "replace", "dev", "eth0", "root", "tbf"),
            *("rate", f"{rate_mbit}mbit", "burst", "2mb", "latency", "50ms"),
        )

    def close(self) -> None:
        """End every process of the lab and remove all of it; a second call does nothing."""
        for process in self._started:
            process.kill()
        for name in (*self.machines, self._switch):
            with contextlib.suppress(subprocess.CalledProcessError):  # it was never made
                for pid in _ip("netns", "pids", name).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                _ip("netns", "del", name)
        for process in self._started:
            process.wait(STOP_S)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    # What was never written to a process that is gone is nobody's loss.
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
        self._started.clear()

    def _build(self) -> None:
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "switch", "up")
        for machine, name in enumerate(self.machines):
            port = f"port{machine}"
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip(
                *("-n", self._switch, "link", "add", port, "type", "veth"),
                *("peer", "name", "eth0", "netns", name),
            )
            _ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
            _ip("-n", name, "address", "add", f"{self.address(machine)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
