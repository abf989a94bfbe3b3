"""The seccomp program, run by a small interpreter of classic BPF."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from pyrdma.sandbox.filter import NETWORK_FAMILIES, RUNNER_FAMILIES, build_filter

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SOCKET = {"x86_64": 41, "aarch64": 198}
CLONE = {"x86_64": 56, "aarch64": 220}
READ = {"x86_64": 0, "aarch64": 63}
PTRACE = {"x86_64": 101, "aarch64": 117}
MACHINES = ("x86_64", "aarch64")


def verdict(program: bytes | None, audit: int, number: int, argument: int = 0) -> int:
    """Return what the kernel would answer to one call."""
    assert program is not None
    data = struct.pack("=iIQ6Q", number, audit, 0, argument, 0, 0, 0, 0, 0)
    steps = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, value = steps[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
            continue
        taken = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[
            code
        ]
        at += if_true if taken else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_ordinary_calls_pass_and_dangerous_ones_do_not(machine: str) -> None:
    """Reads and threads pass; ptrace, io_uring and new namespaces do not; clone3 is absent."""
    program = build_filter(RUNNER_FAMILIES, machine=machine)
    audit = AUDIT[machine]
    assert verdict(program, audit, READ[machine]) == ALLOW
    assert verdict(program, audit, CLONE[machine], 0x3D0F00) == ALLOW
    assert verdict(program, audit, CLONE[machine], 0x10000000) == EPERM
    assert verdict(program, audit, PTRACE[machine]) == EPERM
    assert verdict(program, audit, 425) == EPERM
    assert verdict(program, audit, 435) == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_only_the_named_socket_families_pass(machine: str) -> None:
    """A runner has Unix sockets, with the network also the internet's; nobody has raw packets."""
    number, audit = SOCKET[machine], AUDIT[machine]
    alone = build_filter(RUNNER_FAMILIES, machine=machine)
    wired = build_filter(NETWORK_FAMILIES, machine=machine)
    assert verdict(alone, audit, number, socket.AF_UNIX) == ALLOW
    assert verdict(alone, audit, number, socket.AF_INET) == EPERM
    assert verdict(wired, audit, number, socket.AF_INET6) == ALLOW
    for program in (alone, wired):
        assert verdict(program, audit, number, socket.AF_PACKET) == EPERM
        assert verdict(program, audit, number, 38) == EPERM  # AF_ALG


def test_other_numberings_are_refused_whole() -> None:
    """A call by 32-bit or x32 numbers means something else: none passes."""
    program = build_filter(RUNNER_FAMILIES, machine="x86_64")
    assert verdict(program, 0x40000003, 3) == EPERM
    assert verdict(program, AUDIT["x86_64"], 0x40000000) == EPERM


def test_an_unknown_architecture_has_no_program() -> None:
    """There the namespaces stand alone."""
    assert build_filter(RUNNER_FAMILIES, machine="riscv64") is None
