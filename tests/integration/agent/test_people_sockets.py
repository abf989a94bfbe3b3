"""People of a machine who are not the agent's own user: what each may do, and what nobody may (T21).

The agent runs as root; the people are users that this machine has no names for, in the group of its sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.local.client import AgentClient, wait_until_ready
from agent.paths import Paths

ALICE, BOB, EVE, GROUP = 54321, 54322, 54323, 0
AS_USER = str(Path(__file__).with_name("as_user.py"))
PEOPLE = f"""\
version: 1
users:
  {ALICE}: {{default: /local/vision, accounts: [/local/thesis]}}
  {BOB}: /local/speech
"""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be several users")


@dataclass
class Machine:
    """One agent, and the people around it."""

    paths: Paths
    node: Any

    def environments(self) -> bytes:
        """Return the environments and command lines of the agent and of all below it."""
        agent = psutil.Process(self.node.process.pid)
        pids = [agent.pid, *(one.pid for one in agent.children(recursive=True))]
        return b"".join(
            Path(f"/proc/{pid}/{name}").read_bytes() for pid in pids for name in ("environ", "cmdline")
        )

    def cli(self, uid: int, *words: str, gid: int = GROUP) -> subprocess.CompletedProcess[str]:
        """Run a command as a user."""
        command = [sys.executable, AS_USER, str(uid), str(gid), *words, "--run-dir", str(self.paths.run_dir)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def json(self, uid: int, *words: str) -> dict[str, Any]:
        """Run a command as a user; return what it printed."""
        done = self.cli(uid, *words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def calls(self, uid: int, shown: str) -> dict[str, str]:
        """Show a pass on the user socket, as a user; return how each call ends."""
        words = ["door", str(self.paths.door_socket), shown, str(self.paths.user_socket)]
        command = [sys.executable, AS_USER, str(uid), str(GROUP), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def show(self, uid: int, shown: str) -> str:
        """Show a pass on the user socket, as a user; return whose it is, or the status."""
        return self.calls(uid, shown)["WhoAmI"]

    @contextlib.contextmanager
    def passed(self, uid: int) -> Iterator[str]:
        """Get a pass as a user; it is given back afterwards."""
        command = [sys.executable, AS_USER, str(uid), str(GROUP), "door", str(self.paths.door_socket), "", ""]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            yield child.stdout.readline().strip()
            child.communicate()


@pytest.fixture
def machine(start: Callable[..., Any], make_model: Callable[..., Path]) -> Iterator[Machine]:
    """Start an agent whose run directory others can reach, with a people file and a model."""
    run = Path(tempfile.mkdtemp(prefix="pyrdma-people-", dir="/tmp"))
    run.chmod(0o711)
    node_state = make_model("m").parent / "one"
    node_state.mkdir(mode=0o700)
    people = node_state / "people.yaml"
    people.write_text(PEOPLE)
    people.chmod(0o600)
    node = start("one", "--run", str(run / "r"), wait=False)
    paths = Paths(node.state, run / "r")
    asyncio.run(wait_until_ready(paths, 60))

    async def publish() -> None:
        async with AgentClient(paths, change=True) as client:
            async for _ in client.publish(node_state.parent / "model-m", "m"):
                pass

    asyncio.run(publish())
    yield Machine(paths, node)
    node.remember()
    shutil.rmtree(run, ignore_errors=True)


def test_each_person_runs_and_stops_under_its_own_account_and_nobody_stops_anothers(machine: Machine) -> None:
    """Alice's lease is Alice's: Bob cannot end it, root can end both."""
    alices = machine.json(ALICE, "run", "m")
    assert alices["lease"]["account"] == "/local/vision"
    assert alices["lease"]["who"] == f"uid:{ALICE}"
    bobs = machine.json(BOB, "run", "m")
    assert bobs["lease"]["account"] == "/local/speech"
    refused = machine.cli(BOB, "stop", alices["lease"]["id"])
    assert refused.returncode == 4
    assert "is another person's" in refused.stderr
    listed = machine.json(BOB, "leases")["leases"]
    assert {one["id"]: one["account"] for one in listed} == {
        alices["lease"]["id"]: "/local/vision",
        bobs["lease"]["id"]: "/local/speech",
    }
    assert machine.json(ALICE, "stop", alices["lease"]["id"])["lease"]["state"] == "ended"
    assert machine.json(0, "stop", bobs["lease"]["id"])["lease"]["state"] == "ended"


def test_an_account_that_is_not_ones_own_is_refused_and_nothing_is_left(machine: Machine) -> None:
    """Another's, none at all, no line in the file: exit code 4, what was meant, no lease."""
    other = machine.cli(ALICE, "run", "m", "--account", "/local/speech")
    assert other.returncode == 4
    assert "the account /local/speech is not yours" in other.stderr
    assert "yours are: /local/vision, /local/thesis" in other.stderr
    near = machine.cli(ALICE, "run", "m", "--account", "/local/thesys")
    assert "did you mean /local/thesis?" in near.stderr
    nobody = machine.cli(EVE, "run", "m")
    assert nobody.returncode == 4
    assert "you have no account at this site" in nobody.stderr
    assert machine.json(0, "leases", "--all")["leases"] == []
    mine = machine.json(ALICE, "run", "m", "--account", "/local/thesis")
    assert mine["lease"]["account"] == "/local/thesis"
    machine.json(ALICE, "stop", mine["lease"]["id"])


def test_whoami_says_what_the_kernel_and_the_file_say(machine: Machine) -> None:
    """A person, somebody without a line, the agent's own user."""
    alice = machine.json(ALICE, "whoami")
    assert (alice["who"], alice["account"], alice["admin"]) == (f"uid:{ALICE}", "/local/vision", False)
    assert alice["accounts"] == ["/local/vision", "/local/thesis"]
    assert machine.json(EVE, "whoami")["account"] == ""
    root = machine.json(0, "whoami")
    assert (root["account"], root["admin"]) == ("/local", True)
    assert [one["account"] for one in machine.json(BOB, "usage")["accounts"]] == ["/local/speech"]
    assert machine.cli(BOB, "usage", "--account", "/local/vision").returncode == 4


def test_what_belongs_to_the_operator_is_not_on_the_user_socket(machine: Machine) -> None:
    """Publishing reads files as the agent; invites and tokens let others in."""
    for words in (("publish", "/etc", "--name", "x"), ("token", "create", "x"), ("token", "list")):
        done = machine.cli(ALICE, *words)
        assert done.returncode == 4, done.stderr
    outside = machine.cli(ALICE, "whoami", gid=54321)  # not of the group: no socket at all
    assert outside.returncode == 4
    assert "you may not open" in outside.stderr


def test_the_user_socket_has_a_list_of_what_it_does_and_does_nothing_else(machine: Machine) -> None:
    """A call that is new to the service is the operator's alone until somebody decides otherwise here."""
    looks = {
        *("GetStatus", "ListModels", "ListLeases", "ListTransfers", "GetFederation", "ListDevices"),
        "GetQueue",
    }
    own = {"Run", "StopLease", "WhoAmI", "GetUsage"}
    with machine.passed(ALICE) as alices:
        ends = machine.calls(ALICE, alices)
    refused = {name for name, end in ends.items() if end == "PERMISSION_DENIED"}
    assert refused == ends.keys() - looks - own
    without = machine.calls(ALICE, "no.pass")
    assert {name for name, end in without.items() if end == "PERMISSION_DENIED"} == refused | own


def test_a_pass_is_its_users_and_ends_with_its_connection(machine: Machine) -> None:
    """Whoever asks the door is who the kernel says; a pass that was given back is nobody's."""
    with machine.passed(ALICE) as alices, machine.passed(BOB) as bobs:
        assert machine.show(ALICE, alices) == f"uid:{ALICE}"
        assert machine.show(BOB, bobs) == f"uid:{BOB}"
        mixed = alices.partition(".")[0] + "." + bobs.partition(".")[2]
        assert machine.show(BOB, mixed) == "PERMISSION_DENIED"
        assert machine.show(BOB, "x" * 500) == "PERMISSION_DENIED"
    assert machine.show(ALICE, alices) == "PERMISSION_DENIED"
    assert machine.show(BOB, bobs) == "PERMISSION_DENIED"


def test_no_pass_or_key_is_in_the_log_or_in_an_environment(machine: Machine) -> None:
    """After starts, stops, refusals: the agent's log and its processes' environments hold no secret."""
    with machine.passed(ALICE) as alices:
        machine.show(BOB, alices.partition(".")[0] + ".wrong")
        granted = machine.json(ALICE, "run", "m")
        machine.cli(BOB, "stop", granted["lease"]["id"])
        environments = machine.environments()
        machine.json(ALICE, "stop", granted["lease"]["id"])
    secrets = (alices.partition(".")[2], granted["api_key"])
    assert all(len(one) > 20 for one in secrets)
    for secret in secrets:
        assert secret not in machine.node.log.read_text()
        assert secret.encode() not in environments
    state = b"".join(path.read_bytes() for path in machine.paths.state_dir.glob("agent.sqlite3*"))
    assert all(secret.encode() not in state for secret in secrets)


def test_a_changed_people_file_counts_at_once_and_a_wrong_one_not(machine: Machine) -> None:
    """A slip of the pen is said to whoever asks, and changes nothing."""
    file = machine.paths.people_file
    new = file.with_suffix(".new")
    new.write_text(PEOPLE.replace("/local/speech", "speech"))
    new.chmod(0o600)
    new.rename(file)
    bob = machine.json(BOB, "whoami")
    assert bob["account"] == "/local/speech"
    assert f"{file}:4:" in bob["notice"]
    new.write_text(PEOPLE.replace("/local/speech", "/local/sound"))
    new.chmod(0o600)
    new.rename(file)
    bob = machine.json(BOB, "whoami")
    assert (bob["account"], bob["notice"]) == ("/local/sound", "")
