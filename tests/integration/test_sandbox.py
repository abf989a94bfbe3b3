"""Processes in the sandbox, which try to get out."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PRELUDE = """
import ctypes, json, os, signal, socket, sys
from pathlib import Path
from pyrdma import sandbox
from pyrdma.errors import LocalError
libc = ctypes.CDLL(None, use_errno=True)
def attempt(action):
    try:
        return ["done", repr(action())]
    except OSError as error:
        return ["refused", error.errno]
def call(function, *arguments):
    if function(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "")
"""
WITHOUT_CAPABILITIES = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
for capability in range(64):
    if capability != 31:  # CAP_SETFCAP: without it root alone may not have a user namespace of itself
        libc.prctl(24, capability, 0, 0, 0)
libc.prctl(47, 4, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def command(script: str, *arguments: object, ordinary: bool = False) -> list[str]:
    """Return the command of a script; ``ordinary`` leaves only the way by a user namespace."""
    before = ["-c", WITHOUT_CAPABILITIES] if ordinary else []
    return [sys.executable, *before, "-c", PRELUDE + script, *map(str, arguments)]


def outcome(script: str, *arguments: object, ordinary: bool = False, **options: Any) -> Any:
    """Run a script to its end and return the JSON that it printed."""
    result = subprocess.run(
        command(script, *arguments, ordinary=ordinary),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
        **options,
    )
    return json.loads(result.stdout)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state directory with a secret in it."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state/agent.db").write_text("secret")
    return tmp_path / "state"


@pytest.fixture
def host_port() -> Iterator[int]:
    """Return a loopback port of the host that answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept_all, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def accept_all(server: socket.socket) -> None:
    """Accept and drop connections until the server closes."""
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


# Opened, never written: a broken sandbox must not cost the machine that tests it anything.
ESCAPES = """
state, port = Path(sys.argv[1]), int(sys.argv[2])
tries = {
    "connect": lambda: socket.create_connection(("127.0.0.1", port), 5),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "packet": lambda: socket.socket(17, socket.SOCK_RAW),
    "read state": lambda: (state / "agent.db").read_text(),
    "list state": lambda: os.listdir(state),
    "list home": lambda: os.listdir(Path.home() / ".ssh"),
    "write beside": lambda: os.open(state.parent, os.O_TMPFILE | os.O_WRONLY),
    "write in package": lambda: os.open(sandbox.__file__, os.O_WRONLY),
    "write in python": lambda: os.open(sys.prefix, os.O_TMPFILE | os.O_WRONLY),
    "write in etc": lambda: os.open("/etc", os.O_TMPFILE | os.O_WRONLY),
    "write to kernel": lambda: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    "parent's environment": lambda: Path(f"/proc/{sys.argv[3]}/environ").read_bytes(),
    "parent's memory": lambda: open(f"/proc/{sys.argv[3]}/mem", "rb"),
    "trace parent": lambda: call(libc.ptrace, 16, int(sys.argv[3]), 0, 0),
    "read parent": lambda: call(libc.process_vm_readv, int(sys.argv[3]), 0, 0, 0, 0, 0),
    "signal parent": lambda: os.kill(int(sys.argv[3]), 0),
    "mount": lambda: call(libc.mount, b"x", b"/tmp", b"tmpfs", 0, 0),
    "remount": lambda: call(libc.mount, b"x", b"/usr", b"", 0x1020, 0),
    "new user namespace": lambda: call(libc.unshare, 0x10000000),
    "chroot": lambda: os.chroot("/tmp"),
    "device node": lambda: os.mknod("/tmp/sda", 0o60600, os.makedev(8, 0)),
    "keyring": lambda: call(libc.syscall, {"x86_64": 250, "aarch64": 219}[os.uname().machine], 0, -3, 0),
    "bpf": lambda: call(libc.syscall, {"x86_64": 321, "aarch64": 280}[os.uname().machine], 0, 0, 0),
    "io_uring": lambda: call(libc.syscall, 425, 1, 0),
}
open_before = ("connect", "read state", "list state", "signal parent")
before = {name: attempt(tries[name])[0] for name in open_before}
sandbox.enter(sandbox.Confinement())
print(json.dumps({"before": before, "after": {name: attempt(action)[0] for name, action in tries.items()}}))
"""


@pytest.mark.parametrize("ordinary", [False, True], ids=["as started", "by a user namespace"])
def test_no_way_out_is_open(state: Path, host_port: int, ordinary: bool) -> None:
    """Network, files, kernel and other processes: what worked before the sandbox is refused in it."""
    tried = outcome(ESCAPES, state, host_port, os.getpid(), ordinary=ordinary)
    assert set(tried["before"].values()) == {"done"}
    assert {name for name, result in tried["after"].items() if result != "refused"} == set()


INSIDE = """
keep, lost = int(sys.argv[1]), int(sys.argv[2])
sandbox.enter(sandbox.Confinement(keep_fds=(keep,)))
import resource, tempfile
with tempfile.NamedTemporaryFile() as file:
    file.write(b"x")
pair = socket.socketpair()
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "kept": attempt(lambda: os.fstat(keep))[0],
    "lost": attempt(lambda: os.fstat(lost))[0],
    "processes": [name for name in os.listdir("/proc") if name.isdigit()],
    "interfaces": Path("/proc/net/dev").read_text().count(":"),
    "capabilities": [status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "privileges": status["NoNewPrivs"].strip(),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "dumpable": libc.prctl(3, 0, 0, 0, 0),
    "roots": sorted(os.listdir("/")),
    "etc": sorted(os.listdir("/etc")),
    "packages": sorted(os.listdir(Path(sandbox.__file__).parents[2])),
    "user": __import__("getpass").getuser(),
}))
"""


def test_what_is_left_is_enough_and_no_more(tmp_path: Path) -> None:
    """Inside there are a private /tmp, Unix sockets, the kept descriptor, one process and nobody's rights."""
    keep, lost = os.pipe()
    try:
        seen = outcome(INSIDE, keep, lost, pass_fds=(keep, lost))
    finally:
        os.close(keep)
        os.close(lost)
    assert (seen["kept"], seen["lost"]) == ("done", "refused")
    assert seen["processes"] == ["1"]
    assert seen["interfaces"] == 1  # a loopback of its own, down
    assert set(seen["capabilities"]) == {"0" * 16}
    assert (seen["privileges"], seen["core"], seen["dumpable"]) == ("1", [0, 0], 0)
    assert not {"var", "run", "home", "boot", "opt", "srv"} & set(seen["roots"])
    assert not {"shadow", "ssh", "hosts", "resolv.conf"} & set(seen["etc"])
    assert "pyrdma" in seen["packages"]
    assert not {".git", "agent", "tests", "pyproject.toml"} & set(seen["packages"])


ON_A_GPU = """
import threading
from pyrdma.sandbox import root
root.gpu_files = lambda: [Path("/dev/tty")]  # a machine with GPUs has more there; any device will do
sandbox.enter(sandbox.Confinement(gpus=True))
thread = threading.Thread(target=threading.Event().wait, daemon=True)
thread.start()
name = Path(f"/proc/self/task/{thread.native_id}/comm")
lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
open_before = libc.prctl(3, 0, 0, 0, 0)
sandbox.forbid_dumps()
print(json.dumps({
    "named": [attempt(lambda: name.write_text("cuda"))[0], name.read_text().strip()] if open_before else None,
    "writable": sorted(line[4] for line in lines if line[5].split(",")[0] == "rw"),
    "dumpable": [open_before, libc.prctl(3, 0, 0, 0, 0)],
    "devices": sorted(os.listdir("/dev")),
    "sys": sorted(os.listdir("/sys")),
    "sysctl": attempt(lambda: Path("/proc/sys/kernel/core_pattern").write_text("|/bin/sh"))[0],
}))
"""


@pytest.mark.parametrize("ordinary", [False, True], ids=["as started", "by a user namespace"])
def test_a_process_on_a_gpu_may_name_its_threads(ordinary: bool) -> None:
    """CUDA does so by a file of ``/proc``, and must: all else is read only; no dumps once it has begun."""
    seen = outcome(ON_A_GPU.replace("sandbox.forbid_dumps()\n", "", 1), ordinary=ordinary)
    assert seen["named"] == ["done", "cuda"]
    assert seen["writable"] == ["/dev/shm", "/proc/1", "/tmp"]
    assert "tty" in seen["devices"]
    assert {"bus", "devices"} <= set(seen["sys"])
    assert seen["sysctl"] == "refused"
    assert outcome(ON_A_GPU, ordinary=ordinary)["dumpable"] == [1, 0]


def test_without_need_no_gpu_is_seen() -> None:
    """Neither its files nor the driver's: a process that computes on the processor has no use for them."""
    script = """
from pyrdma.sandbox import root
root.gpu_files = lambda: [Path("/dev/tty")]
sandbox.enter(sandbox.Confinement())
lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
writable = sorted(line[4] for line in lines if "rw" in line[5].split(","))
print(json.dumps([sorted(os.listdir("/dev")), writable]))
"""
    devices, writable = outcome(script)
    assert "tty" not in devices
    assert writable == ["/dev/shm", "/tmp"]


def test_a_process_may_keep_the_network(host_port: int) -> None:
    """With ``network`` loopback answers, and everything else stays shut."""
    script = """
sandbox.enter(sandbox.Confinement(network=True))
print(json.dumps([
    attempt(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5))[0],
    attempt(lambda: socket.socket(17, socket.SOCK_RAW))[0],
    attempt(lambda: os.listdir("/var"))[0],
]))
"""
    assert outcome(script, host_port) == ["done", "refused", "refused"]


def test_named_folders_are_seen_read_only(state: Path) -> None:
    """What the caller names can be read under its own path, also below /tmp, and not written."""
    script = """
state = Path(sys.argv[1])
sandbox.enter(sandbox.Confinement(readable=(state,)))
print(json.dumps([(state / "agent.db").read_text(), attempt(lambda: (state /
"agent.db").write_text("x"))[0]]))
"""
    assert outcome(script, state) == ["secret", "refused"]


def refusal(script: str, *arguments: object) -> Any:
    """Return message and fix of the LocalError that entering the sandbox raises."""
    entering = f"""
{script}
try:
    sandbox.enter(confinement)
    print(json.dumps("entered"))
except LocalError as error:
    print(json.dumps([error.message, error.fix]))
"""
    return outcome(entering, *arguments)


def test_a_hidden_folder_that_would_be_seen_is_refused() -> None:
    """A state directory inside of Python's own folders cannot be kept out of sight: nothing runs."""
    script = "confinement = sandbox.Confinement(hidden=(Path(sys.prefix, 'state'),))"
    message, fix = refusal(script)
    assert "would be visible" in message
    assert "outside" in fix


def test_a_process_with_threads_is_refused() -> None:
    """Threads would stay outside: the sandbox is entered before they start."""
    message, _ = refusal(
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start();"
        "confinement = sandbox.Confinement()"
    )
    assert "one thread" in message


def test_a_kernel_that_refuses_gives_a_sentence_and_a_fix() -> None:
    """Where no namespace can be had nothing runs: the error says what to allow."""
    # A filter of our own in front plays the kernel that allows no namespaces.
    script = """
import struct
from pyrdma.sandbox import kernel
unshare = {"x86_64": 272, "aarch64": 97}[os.uname().machine]
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, unshare), (6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000)]
kernel.forbid_new_privileges()
kernel.install_filter(b"".join(struct.pack("=HBBI", *step) for step in steps))
confinement = sandbox.Confinement()
"""
    message, fix = refusal(script)
    assert "this kernel refused the sandbox" in message
    assert "user namespaces" in fix


LASTING = """
sandbox.enter(sandbox.Confinement())
if sys.argv[1] == "status":
    sys.exit(7)
signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
print("inside", flush=True)
signal.pause()
"""


def lasting() -> subprocess.Popen[bytes]:
    """Start a sandboxed process that waits for SIGTERM; return when it is inside."""
    process = subprocess.Popen(command(LASTING, "wait"), cwd=REPOSITORY, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"inside\n"
    return process


def test_the_status_comes_through() -> None:
    """The supervisor ends with the status of the process inside."""
    status = subprocess.run(command(LASTING, "status"), cwd=REPOSITORY, timeout=60, check=False).returncode
    assert status == 7


def test_sigterm_comes_through() -> None:
    """SIGTERM to the process that was started reaches the one inside."""
    with lasting() as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 9


def test_a_killed_supervisor_takes_the_process_with_it() -> None:
    """However the supervisor ends, nothing of the sandbox stays: the pipe that it held closes."""
    with lasting() as process:
        process.kill()
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], 20)
        assert readable
        assert process.stdout.read() == b""
