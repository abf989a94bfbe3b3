"""Publish on one node, run on another: real processes, gRPC, SQLite, caches and UCX; stand-in runners."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import (
    AmbiguousModelError,
    RequestError,
    RunnerError,
    UnknownLeaseError,
    UnknownModelError,
    UnsupportedModelError,
)
from agent.local.views import GrantedView
from pyrdma.errors import BindingError, BudgetError, ImageFormatError

Start = Callable[..., Any]
Make = Callable[..., Path]


def ask(granted: GrantedView, data: bytes) -> bytes:
    """Send bytes to an endpoint, end our half, and return all that comes back."""
    port = granted.lease.port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_a_model_published_on_one_node_starts_on_another(start: Start, make_model: Make) -> None:
    """By name, over UCX, verified; a second start moves nothing; the name stays known on the second node."""
    one = start("one")
    published = one.publish(make_model("m", nbytes=20 << 20), "m")
    two = start("two", "--peer", one.address)
    first = two.run("m")
    assert first.lease.image_id == published.image_id
    assert (first.start.lane, first.start.bytes) == ("tcp", published.total_bytes)
    assert [(source.name, source.state) for source in first.start.sources] == [("one", "done")]
    assert {"connect", "import", "warm", "map", "ready"} <= {phase.name for phase in first.start.phases}
    second = two.run("m")
    assert (second.start.lane, second.start.bytes, second.start.pull_s) == ("resident", 0, 0.0)
    (model,) = two.call(lambda client: client.models())
    assert (model.name, model.origin, model.verified_pieces, model.attached) == ("m", "pulled", 2, 2)
    (transfer,) = two.call(lambda client: client.transfers())
    assert (transfer.kind, transfer.state, transfer.progress.done_bytes) == (
        "pull",
        "done",
        published.total_bytes,
    )


def test_the_endpoint_carries_bytes_both_ways_until_the_lease_is_stopped(
    start: Start, make_model: Make, until: Callable[..., object]
) -> None:
    """Also more than any buffer; afterwards the port is closed and the books say why."""
    one = start("one")
    one.publish(make_model("m"), "m")
    granted = one.run("m")
    data = bytes(range(256)) * 4096 * 8
    assert ask(granted, data) == data + b"|end"
    ended = one.call(lambda client: client.stop(granted.lease.id))
    assert (ended.state, ended.reason) == ("ended", "stopped by request")
    with pytest.raises(ConnectionRefusedError):
        ask(granted, b"x")
    assert one.call(lambda client: client.leases()) == ()
    (lease,) = one.call(lambda client: client.leases(include_ended=True))
    assert lease.reason == "stopped by request"
    with pytest.raises(UnknownLeaseError):
        one.call(lambda client: client.stop(granted.lease.id))
    until(lambda: not list(one.paths.run_dir.glob("runner-*")), "the runner's socket is removed")


def test_the_key_reaches_the_runner_and_is_stored_nowhere(start: Start, make_model: Make) -> None:
    """Neither in the state file nor in the log, nor in any other answer; the runner's environment is bare."""
    one = start("one")
    one.publish(make_model("m"), "m")
    granted = one.run("m")
    assert ask(granted, b"key") == granted.api_key.encode() + b"|end"
    assert granted.api_key.encode() not in one.paths.database.read_bytes()
    assert granted.api_key not in one.log.read_text()
    assert granted.api_key not in one.cli("leases", "--all", "--json").stdout
    names = ask(granted, b"env").decode().removesuffix("|end").split()
    assert set(names) <= {
        *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"),
        *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM"),
        *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH", "PYTHONSAFEPATH"),
    }


def test_an_image_that_left_memory_is_read_from_its_folder_again(start: Start, make_model: Make) -> None:
    """After a restart the name is still known, and the weights come from disk with the same id."""
    one = start("one")
    published = one.publish(make_model("m"), "m")
    assert one.end() == 0
    again = start("one")
    granted = again.run("m")
    assert (granted.start.lane, granted.lease.image_id) == ("disk", published.image_id)


def test_a_folder_that_changed_is_not_taken_for_the_image(start: Start, make_model: Make) -> None:
    """Without a peer the start is refused, and nothing of the other image stays in memory."""
    one = start("one")
    folder = make_model("m", seed=1)
    one.publish(folder, "m")
    assert one.end() == 0
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    again = start("one")
    with pytest.raises(UnknownModelError, match="neither in memory, nor in its folder, nor at a peer"):
        again.run("m")
    assert again.status().cache.used_bytes == 0
    assert [lease.state for lease in again.call(lambda c: c.leases(include_ended=True))] == ["ended"]


def test_two_peers_that_mean_different_images_make_the_caller_choose(start: Start, make_model: Make) -> None:
    """The fix names both; the full reference then starts."""
    one, other = start("one"), start("other")
    published = one.publish(make_model("a", seed=1), "m")
    other.publish(make_model("b", seed=2), "m")
    two = start("two", "--peer", one.address, "--peer", other.address)
    with pytest.raises(AmbiguousModelError) as caught:
        two.run("m")
    assert published.image_id in caught.value.fix
    assert two.run(f"m@{published.image_id}").lease.image_id == published.image_id


def test_two_peers_with_one_image_are_both_sources(start: Start, make_model: Make) -> None:
    """The pull stripes over everyone who has it."""
    folder = make_model("m", nbytes=100 << 20)
    one, other = start("one"), start("other")
    one.publish(folder, "m")
    other.publish(folder, "m")
    peers = ("--peer", one.address, "--peer", other.address)
    granted = start("two", *peers).run("m")
    assert {source.name for source in granted.start.sources} == {"one", "other"}
    assert sum(source.bytes for source in granted.start.sources) >= granted.start.bytes


def test_an_unreachable_peer_does_not_stop_a_start_from_another(start: Start, make_model: Make) -> None:
    """It is said in the status, and in the sentence when nobody has the model."""
    one = start("one")
    one.publish(make_model("m"), "m")
    two = start("two", "--peer", "unix:/nowhere/node.sock", "--peer", one.address)
    assert two.run("m").start.lane == "tcp"
    assert [peer.reachable for peer in two.status().peers] == [False, True]
    with pytest.raises(UnknownModelError, match=r"Not reachable: unix:/nowhere/node\.sock"):
        two.run("unknown")


def test_bad_input_gives_a_sentence_and_a_fix_and_leaves_the_next_try_unhurt(
    start: Start, make_model: Make, tmp_path: Path
) -> None:
    """No folder, a folder that is no model, a model that needs conversion, a bad name, one too large."""
    one = start("one", "--memory-mib", "64")
    empty = tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[Path, str, type[Exception]]] = [
        (tmp_path / "nothing", "m", ImageFormatError),
        (empty, "m", ImageFormatError),
        (make_model("c", architecture="Converted"), "m", UnsupportedModelError),
        (make_model("n"), "../m", RequestError),
        (make_model("large", nbytes=100 << 20), "m", BudgetError),
    ]
    for folder, name, kind in cases:
        with pytest.raises(kind) as caught:
            one.publish(folder, name)
        assert caught.value.fix, caught.value  # type: ignore[attr-defined]
    assert one.call(lambda client: client.models()) == ()
    one.publish(make_model("good"), "m")
    assert one.run("m").lease.state == "active"


def test_a_runner_that_refuses_the_model_ends_the_lease_with_its_sentence(
    start: Start, make_model: Make
) -> None:
    """The caller hears what the runner said; the next start has a fresh runner."""
    one = start("one")
    folder = make_model("m")
    one.publish(folder, "refuses")
    one.publish(folder, "m")
    with pytest.raises(BindingError, match="It does not fit"):
        one.run("refuses")
    (lease,) = one.call(lambda client: client.leases(include_ended=True))
    assert (lease.state, lease.reason) == ("ended", "It does not fit.")
    assert one.run("m").lease.state == "active"


def test_a_node_without_an_engine_says_so(start: Start, make_model: Make) -> None:
    """The start fails with the reason; the node itself goes on."""
    one = start("one", "--spares", "0")
    one.publish(make_model("m"), "m")
    (one.state / "broken").touch()
    with pytest.raises(RunnerError, match="no engine here") as caught:
        one.run("m")
    assert caught.value.fix == "install one"
    (one.state / "broken").unlink()
    assert one.run("m").lease.state == "active"


def test_the_command_line_goes_the_whole_way(start: Start, make_model: Make) -> None:
    """Every command once: JSON on stdout, talk on stderr, the right exit codes."""
    one = start("one")
    folder = make_model("m")
    published = json.loads(one.cli("publish", str(folder), "--name", "m", "--json").stdout)
    assert (published["schema"], published["skipped"]) == (1, ["README.md"])
    assert "checked by a stand-in" in published["notes"]
    plain = one.cli("publish", str(folder), "--name", "m")
    assert plain.stdout == f"m@{published['image_id']}\n"
    assert "not part of the image: README.md" in plain.stderr
    assert "next: pyrdma-agent run m" in plain.stderr
    granted = json.loads(one.cli("run", "m", "--json").stdout)
    assert granted["endpoint"].startswith("http://127.0.0.1:")
    assert set(granted["start"]["phases"]) == {"import_s", "warm_s", "map_s", "ready_s"}
    lease = granted["lease"]["id"]
    people = one.cli("run", "m")
    assert people.stdout.startswith("endpoint  http://127.0.0.1:")
    for word in (
        "curl -H 'Authorization: Bearer ",
        "pyrdma-agent stop ",
        "The lease stays until you stop it",
    ):
        assert word in people.stderr
    leases = json.loads(one.cli("leases", "--json").stdout)["leases"]
    assert lease in [one["id"] for one in leases]
    assert "api_key" not in leases[0]
    assert json.loads(one.cli("stop", lease, "--json").stdout)["lease"]["state"] == "ended"
    for command in ("models", "leases", "transfers", "status"):
        assert one.cli(command).returncode == 0
        assert json.loads(one.cli(command, "--json").stdout)["schema"] == 1
    again = one.cli("stop", lease)
    assert (again.returncode, again.stdout) == (1, "")
    assert "side: your input" in again.stderr
    assert "fix:  see them with: pyrdma-agent leases" in again.stderr
    assert one.cli("run", "no such name").returncode == 2
    assert one.cli("publish", str(folder / "nothing"), "--name", "m").returncode == 2
