"""``image.sock``: a process of this machine maps what a real node holds, by the library's ``attach``."""

from __future__ import annotations

import resource
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyrdma.attach import SOCKET_NAME, attach
from pyrdma.errors import Error, LocalError
from pyrdma.limits import MAX_MESSAGE_BYTES

Start = Callable[..., Any]
Make = Callable[..., Path]


def test_a_job_maps_what_the_node_holds(start: Start, make_model: Make, until: Any) -> None:
    """By name and by name@image: the file's bytes, pinned while mapped; a write stays the job's own."""
    node = start("one")
    folder = make_model("m", nbytes=20 << 20)
    published = node.publish(folder, "m")
    weights = (folder / "model.safetensors").read_bytes()[-(20 << 20) :]
    for name in ("m", f"m@{published.image_id}"):
        attachment = attach(name, node.paths.run_dir)
        (span,) = attachment.manifest.layout.tensors
        assert bytes(attachment.buffer[span.offset : span.offset + span.nbytes]) == weights
        attachment.buffer[span.offset] ^= 1
        assert node.call(lambda client: client.models())[0].attached == 1
        attachment.close()
        until(lambda: node.call(lambda client: client.models())[0].attached == 0, "the pin is gone")


@pytest.mark.parametrize("model", ["unknown", "m@" + "0" * 64, "m@12", "../m", ""])
def test_what_is_not_in_memory_is_refused_with_a_fix(start: Start, make_model: Make, model: str) -> None:
    """Unknown names, other images and what is no name: the node's sentence, and it goes on."""
    node = start("one")
    node.publish(make_model("m"), "m")
    with pytest.raises(Error) as refused:
        attach(model, node.paths.run_dir)
    assert refused.value.fix
    attach("m", node.paths.run_dir).close()


def test_a_client_that_misbehaves_stands_in_nobodys_way(start: Start, make_model: Make) -> None:
    """Silent ones, garbage and other orders are closed or refused; others are served meanwhile."""
    node = start("one")
    node.publish(make_model("m"), "m")
    path = node.paths.run_dir / SOCKET_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    silent = [_connected(path) for _ in range(4)]
    orders = (b"{}", b'{"op":"drop"}', b'{"op":"attach","model":7}')
    for packet in (*orders, b"\0" * 100, b"[]", b"x" * MAX_MESSAGE_BYTES):
        with _connected(path) as client:
            client.send(packet)
            client.settimeout(10)
            answer = client.recv(MAX_MESSAGE_BYTES)
            assert not answer or b'"failed"' in answer
    attach("m", node.paths.run_dir).close()
    for client in silent:
        client.close()


def test_no_node_is_said(tmp_path: Path) -> None:
    """A sentence with the path, not an OSError."""
    with pytest.raises(LocalError, match=SOCKET_NAME):
        attach("m", tmp_path)


def _connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(str(path))
    return client


def test_a_node_without_descriptors_answers_again_once_it_has_some(start: Start, make_model: Make) -> None:
    """Out of descriptors the socket waits; it is not lost."""
    node = start("one")
    node.publish(make_model("m"), "m")
    pid = node.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = [int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(taken) + 1, limits[1]))
    try:
        # One more than there are numbers left below the limit.
        held = [_connected(node.paths.run_dir / SOCKET_NAME) for _ in range(max(taken) + 3 - len(taken))]
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    for client in held:
        client.close()
    attach("m", node.paths.run_dir).close()
