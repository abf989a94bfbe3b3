"""The process of a UCX lane worker: its command, its environment, its first word, its end.

Rules: the worker gets the environment that UCX needs and nothing of ours. What it says is cut and shown
without escapes. When ``end`` returns, neither the worker nor the supervisor of its sandbox runs.

It does not know what the worker is ordered to do, nor what it may say after its first word: that is
``pyrdma.transport.ucx``.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pyrdma.errors import Error, LaneError, from_code
from pyrdma.image.names import shown
from pyrdma.limits import MAX_LANE_ADDRESS_BYTES
from pyrdma.wire import Channel, Message

START_DEADLINE_S: Final = 30.0
"""Importing UCX takes under a second; a loaded machine is given this long."""
ORDER_DEADLINE_S: Final = 10.0
"""A worker that has not obeyed an order by then hangs."""
WORKER_COMMAND: Final = (sys.executable, "-m", "pyrdma.lanes.ucx")


def worker_environment(interface: str) -> dict[str, str]:
    """Return the environment of a UCX worker: what UCX needs, and nothing of ours.

    The segment sizes are measured: with UCX's defaults a pull on loopback reached 0.51 of one plain socket
    stream, with these 0.83 (``python -m benchmarks loopback --size 5e8 --pairs 5``).
    """
    kept = (
        "PATH",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
        "LANG",
        "RAPIDS_LIBUCX_PREFER_SYSTEM_LIBRARY",
    )
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return environment | {
        "UCX_TLS": "tcp,self",
        "UCX_NET_DEVICES": interface,
        "UCX_TCP_TX_SEG_SIZE": "1m",
        "UCX_TCP_RX_SEG_SIZE": "1m",
        "UCX_WARN_UNUSED_ENV_VARS": "n",
        "UCX_LOG_LEVEL": "fatal",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


class WorkerProcess:
    """One worker, from its start to its end. Made by ``start``.

    ``pid`` is the worker itself, behind its supervisor; ``channel`` its control channel; ``lane`` and
    ``address`` what it said of itself.
    """

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self.pid = process.pid
        self.channel = channel
        self.lane = ""
        self.address = b""
        self._process = process
        self._pidfd = -1

    @classmethod
    async def start(cls, interface: str, *, command: Sequence[str], deadline_s: float) -> WorkerProcess:
        """Start a worker on a protected interface and wait for its first word.

        Raises:
            LaneError: UCX is missing, the interface is not usable, or the worker did not come up.
        """
        if tuple(command) == WORKER_COMMAND and importlib.util.find_spec("ucxx") is None:
            # Said here: without numpy, which comes with it, the worker dies before it can say so.
            raise LaneError(
                "UCX is not installed here.", fix="install pyrdma-agent with the extra 'cpu' or 'cu12'"
            )
        channel, theirs = Channel.pair()
        with theirs:
            process = subprocess.Popen(
                [*command, "--control-fd", str(theirs.fileno()), "--interface", interface],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=worker_environment(interface),
            )
        self = cls(process, channel)
        try:
            message, fds = await asyncio.wait_for(channel.arecv(), deadline_s)
            for fd in fds:
                os.close(fd)
            self._take_first(message)
            self.pid = _innermost(process.pid)
            self._pidfd = os.pidfd_open(self.pid)
        except (Error, OSError, TimeoutError) as error:
            self.end()
            if isinstance(error, LaneError):
                raise
            raise LaneError(f"the UCX lane worker did not come up ({error or 'time is up'}).") from error
        return self

    def end(self) -> None:
        """End the worker and its supervisor; when this returns nothing of them runs."""
        self._process.kill()
        self._process.wait()
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            select.select([self._pidfd], [], [], ORDER_DEADLINE_S)
            os.close(self._pidfd)
            self._pidfd = -1
        self.channel.close()

    def _take_first(self, message: Message) -> None:
        if message.get("op") == "failed":
            code, told, fix = (said(message.get(key, "")) for key in ("code", "message", "fix"))
            raise from_code(code, told, fix)
        if message.get("op") != "ready":
            raise LaneError("the UCX lane worker broke its contract.")
        try:
            self.address = bytes.fromhex(str(message["address"]))
            self.lane = said(message["lane"])[:32]
        except (KeyError, ValueError) as error:
            raise LaneError("the UCX lane worker broke its contract.") from error
        if not 0 < len(self.address) <= MAX_LANE_ADDRESS_BYTES:
            raise LaneError("the UCX lane worker broke its contract.")


def said(text: object) -> str:
    """Return what a worker said, fit to be shown: it may have been told by a stranger."""
    told = str(text)[:200]
    return told if told.isprintable() else shown(told)


def _innermost(pid: int) -> int:
    """Return the worker behind its sandbox's supervisor; the process itself where there is none."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return pid
    return int(children[0]) if children else pid
