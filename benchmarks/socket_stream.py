"""The reference of ``loopback``: one plain Python socket stream into touched memory, digests in a thread.

Nothing of ours but the piece size: a sender process that calls ``sendall``, a receiver process that calls
``recv_into`` and hands each finished piece to one thread that takes its BLAKE3 digest and compares it.
"""

from __future__ import annotations

import mmap
import multiprocessing
import queue
import socket
import threading
import time
from multiprocessing.connection import Connection

import blake3

PIECE_BYTES = 16 << 20
READ_BYTES = 4 << 20


class SocketPair:
    """A sender and a receiver process that wait with their memory touched.

    Args:
        nbytes: size of one stream; both sides hold it in memory.
    """

    def __init__(self, nbytes: int) -> None:
        context = multiprocessing.get_context("spawn")
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.close()
        self._ours, theirs = context.Pipe()
        sender_ours, sender_theirs = context.Pipe()
        self._receiver = context.Process(target=_receive, args=(nbytes, port, theirs), daemon=True)
        self._receiver.start()
        assert self._ours.recv() == "listening"
        self._sender = context.Process(target=_send, args=(nbytes, port, sender_theirs), daemon=True)
        self._sender.start()
        self._sender_pipe = sender_ours
        digests = sender_ours.recv()
        self._ours.send(digests)
        assert self._ours.recv() == "ready"

    def run(self) -> float:
        """Stream once; return seconds from the order until the last digest is right."""
        started_s = time.perf_counter()
        self._sender_pipe.send("go")
        right = self._ours.recv()
        seconds = time.perf_counter() - started_s
        if not right:
            raise AssertionError("the socket stream arrived damaged")
        return seconds

    def close(self) -> None:
        """End both processes."""
        for process in (self._sender, self._receiver):
            process.kill()
            process.join()


def _pieces(nbytes: int) -> list[tuple[int, int]]:
    return [(at, min(PIECE_BYTES, nbytes - at)) for at in range(0, nbytes, PIECE_BYTES)]


def _send(nbytes: int, port: int, pipe: Connection) -> None:
    import numpy as np

    memory = mmap.mmap(-1, nbytes)
    view = memoryview(memory)
    np.frombuffer(memory, np.uint8)[:] = np.random.default_rng(7).integers(0, 256, nbytes, np.uint8)
    pipe.send([blake3.blake3(view[at : at + size]).digest() for at, size in _pieces(nbytes)])
    with socket.create_connection(("127.0.0.1", port)) as stream:
        while pipe.recv() == "go":
            stream.sendall(view)


def _receive(nbytes: int, port: int, pipe: Connection) -> None:
    memory = mmap.mmap(-1, nbytes)
    view = memoryview(memory)
    for at in range(0, nbytes, mmap.PAGESIZE):
        memory[at] = 1
    server = socket.create_server(("127.0.0.1", port))
    pipe.send("listening")
    stream, _ = server.accept()
    expected = pipe.recv()
    pipe.send("ready")
    while True:
        work: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        wrong: list[int] = []

        def prove(work: queue.SimpleQueue[int | None] = work, wrong: list[int] = wrong) -> None:
            while (piece := work.get()) is not None:
                at = piece * PIECE_BYTES
                if blake3.blake3(view[at : min(nbytes, at + PIECE_BYTES)]).digest() != expected[piece]:
                    wrong.append(piece)

        thread = threading.Thread(target=prove)
        thread.start()
        done = 0
        while done < nbytes:
            count = stream.recv_into(view[done : done + READ_BYTES])
            if not count:
                return
            before = done // PIECE_BYTES
            done += count
            for piece in range(before, done // PIECE_BYTES):
                work.put(piece)
        if nbytes % PIECE_BYTES:
            work.put(nbytes // PIECE_BYTES)
        work.put(None)
        thread.join()
        pipe.send(not wrong)
