"""Entry of the runner process: close the sandbox first, import what is large after it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from pyrdma import sandbox
from pyrdma.errors import ChannelError, Error, LocalError
from pyrdma.wire import Channel

_OK: Final = 0
_FAILED: Final = 1


def main(arguments: list[str]) -> int:
    """Run one runner; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m agent.runner")
    parser.add_argument("--control-fd", type=int, required=True, help="the control channel, inherited")
    parser.add_argument(
        "--hide",
        type=Path,
        action="append",
        default=[],
        help="refuse to run if the sandbox would show this folder",
    )
    parser.add_argument("--gpu", action="store_true", help="compute on the GPU of CUDA_VISIBLE_DEVICES")
    options = parser.parse_args(arguments)
    channel = Channel.from_fd(options.control_fd)
    try:
        sandbox.enter(
            sandbox.Confinement(
                gpus=options.gpu,
                keep_fds=(options.control_fd,),
                packages=("agent", "pyrdma"),
                hidden=tuple(options.hide),
            )
        )
        signal.signal(signal.SIGTERM, lambda *_: os._exit(_OK))
        # Ctrl-C reaches the whole group; whoever started this process decides.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _stay_offline()
        started = time.monotonic()
        from agent.runner.process import live  # seconds, and threads: only behind the sandbox

        live(channel, started, gpu=options.gpu)
    except ChannelError:
        return _OK  # nobody is there any more: the ordinary end
    except Error as error:
        return _report(channel, error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the agent must be told
        return _report(channel, LocalError(f"the runner broke ({type(error).__name__}: {error})."))
    return _OK


def _stay_offline() -> None:
    os.environ.update(
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        TOKENIZERS_PARALLELISM="true",
        HOME="/tmp",  # noqa: S108 - private to the sandbox
        TMPDIR="/tmp",  # noqa: S108
    )


def _report(channel: Channel, error: Error) -> int:
    with contextlib.suppress(ChannelError):
        channel.send({"op": "failed", "code": error.code, "message": error.message, "fix": error.fix})
    return _FAILED


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the threads that compute are not waited for
