"""Starts runners: ``python -m agent.runner`` behind a channel, in an environment without secrets.

A runner leads a process group of its own, so that Ctrl-C in the agent's terminal leaves the order of the end
to the agent, and so that its end takes everything along that it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import agent
from agent.daemon.parts import Assignment, Parcel
from agent.error_table import from_code
from agent.errors import RunnerError, UnsupportedModelError
from agent.limits import CHECK_S, CHILD_GRACE_S, MAX_CHECK_OUTPUT_BYTES, MAX_CHILD_TALK_BYTES, UNDRAIN_S
from agent.text import printable
from pyrdma.errors import ChannelError, Error
from pyrdma.wire import Channel, Message

_log = logging.getLogger(__name__)
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
"""What a child keeps of our environment: an allow-list, since any other name may hold a secret."""
_ENGINE: Final = ("torch", "transformers", "uvicorn")


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a runner: offline, with as many threads as it may have cores."""
    threads = str(len(os.sched_getaffinity(0)))
    return {name: environ[name] for name in _KEPT if name in environ} | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        # The same code as ours, wherever the child's working directory is.
        "PYTHONPATH": str(Path(agent.__file__).resolve().parents[1]),
        "PYTHONSAFEPATH": "1",
    }


class RunnerProcess:
    """One runner. Made by ``RunnerLauncher.spawn``."""

    def __init__(self, process: Process, channel: Channel) -> None:
        self.pid = process.pid
        self.ended = asyncio.Event()
        self._process = process
        self._channel = channel
        self._phases: dict[str, float] = {}
        self._talk = b""
        self._stopped = False
        self._undraining = asyncio.Lock()
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._wait())]

    async def ready(self) -> None:
        """Wait until it can be assigned. Raises RunnerError."""
        message = await self._next()
        if message.get("op") != "ready":
            raise RunnerError(f"a runner said {message.get('op')!r} instead of ready.")
        self._keep_phases(message)

    async def assign(
        self, assignment: Assignment, parcel: Parcel, on_phase: Callable[[str, float], None]
    ) -> Mapping[str, float]:
        """Give it a lease and wait until it answers; return the seconds of its phases by name.

        Raises:
            RunnerError: it ended or broke the protocol.
            BindingError: the model cannot be bound, as the runner says.
        """
        request: Message = {
            "op": "assign",
            "lease": assignment.lease_id,
            "model": assignment.model,
            "api_key": assignment.api_key,
        }
        try:
            await self._channel.asend(request, [assignment.listener_fd])
            # A large image is many packets; the runner reads while we write.
            await asyncio.to_thread(parcel.send_to, self._channel)
        except ChannelError as error:
            raise await self._death() from error
        while True:
            message = await self._next()
            if message.get("op") == "phase":
                on_phase(str(message.get("name"))[:32], _seconds(message.get("seconds")))
            elif message.get("op") == "serving":
                self._keep_phases(message)
                return dict(self._phases)
            else:
                raise RunnerError(f"a runner said {message.get('op')!r} instead of serving.")

    def end_reason(self) -> str:
        """Say in half a sentence how it ended."""
        code = self._process.returncode
        if code is None:
            return "still runs"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended by itself (status {code})"
        return f"{how}{f': {self._last_words()}' if self._last_words() else ''}"

    async def drain(self, left_s: float) -> None:
        """Let it take nothing new, and end when what it has begun is done; it is killed in ``left_s``."""
        with contextlib.suppress(ChannelError):
            await self._channel.asend({"op": "drain", "left_s": left_s})

    async def undrain(self) -> bool:
        """Let it take requests again after ``drain``; whether it does: one that has begun to end does not."""
        try:
            async with self._undraining, asyncio.timeout(UNDRAIN_S):
                await self._channel.asend({"op": "undrain"})
                return (await self._next()).get("op") == "serving"
        except (Error, TimeoutError):
            return False

    def kill(self) -> None:
        """End it and everything that it started at once, without waiting."""
        self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        """End it and everything that it started; a second call does nothing."""
        if not self._stopped:
            self._stopped = True
            self._signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(CHILD_GRACE_S):
                    await self.ended.wait()
            except TimeoutError:
                _log.warning("runner %d did not end in %.0f s and is killed", self.pid, CHILD_GRACE_S)
        self._signal(signal.SIGKILL)  # what it started and left
        await self.ended.wait()
        self._channel.close()
        for task in self._tasks:
            task.cancel()

    async def _next(self) -> Message:
        try:
            message, fds = await self._channel.arecv()
        except ChannelError as error:
            raise await self._death() from error
        for fd in fds:
            os.close(fd)
        if message.get("op") == "failed":
            raise _failure(message)
        return message

    async def _death(self) -> RunnerError:
        # The channel ends a moment before the process does; the reason is worth that moment.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHILD_GRACE_S):
                await self.ended.wait()
        return RunnerError(f"a runner of this node {self.end_reason()}.", fix="see the agent's log")

    def _keep_phases(self, message: Message) -> None:
        phases = message.get("phases")
        if isinstance(phases, dict):
            self._phases |= {
                str(name)[:32].removesuffix("_s"): _seconds(value) for name, value in phases.items()
            }

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(4096):
            self._talk = (self._talk + data)[-MAX_CHILD_TALK_BYTES:]
            _log.debug("runner %d: %s", self.pid, printable(data.decode(errors="replace"), 4096))

    async def _wait(self) -> None:
        await self._process.wait()
        self.ended.set()

    def _last_words(self) -> str:
        lines = self._talk.decode(errors="replace").strip().splitlines()
        return printable(lines[-1], 300) if lines else ""

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


async def start_runner(command: Sequence[str], gpus: str = "") -> RunnerProcess:
    """Start a process that speaks a runner's protocol; it gets ``--control-fd N`` as its last arguments.

    Args:
        command: its program and arguments.
        gpus: what it sees of the machine's GPUs; empty: what we see.

    Raises:
        RunnerError: no process can be started.
    """
    channel, theirs = Channel.pair()
    with theirs:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--control-fd", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=child_environment(os.environ) | ({"CUDA_VISIBLE_DEVICES": gpus} if gpus else {}),
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            channel.close()
            raise RunnerError(f"no runner could be started: {error.strerror}.") from error
    return RunnerProcess(process, channel)


class RunnerLauncher:
    """Starts runners and the check of a folder.

    Args:
        hidden: directories that a runner must not see; it refuses to run where its sandbox would show them.
    """

    def __init__(self, hidden: Sequence[Path]) -> None:
        self._hidden = [argument for path in hidden for argument in ("--hide", str(path))]

    async def spawn(self, gpus: str = "") -> RunnerProcess:
        """Start a spare runner, which sees these GPUs if any are named.

        Raises:
            RunnerError: what a runner needs is not installed, or no process can be started.
        """
        missing = [name for name in _ENGINE if importlib.util.find_spec(name) is None]
        if missing:
            raise RunnerError(
                f"this node cannot run models: {', '.join(missing)} not installed.",
                fix="install the extra: pip install 'pyrdma-agent[engine]'",
            )
        command = [sys.executable, "-m", "agent.runner", *self._hidden, *(["--gpu"] if gpus else [])]
        return await start_runner(command, gpus)

    async def check(self, folder: Path) -> str:
        """Check in a process of its own that the folder's model can be bound; return a note or nothing.

        Raises:
            Error: what the check found.
            RunnerError: the check itself failed.
        """
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed here: the architecture was not checked, only the files"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "agent.runner.check", str(folder)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(os.environ),
            cwd="/",
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(CHECK_S):
                out, err = await process.communicate()
        except TimeoutError as error:
            raise RunnerError(f"the check of {folder} took more than {CHECK_S:.0f} s.") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return _verdict(out[-MAX_CHECK_OUTPUT_BYTES:], err, folder)


def _verdict(out: bytes, err: bytes, folder: Path) -> str:
    try:
        result = json.loads(out.decode().strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = printable(err.decode(errors="replace").strip().rpartition("\n")[2], 300)
        raise RunnerError(f"the check of {folder} broke: {last or 'it said nothing'}.") from None
    if isinstance(result, dict) and result.get("ok") is True:
        return str(result.get("note", ""))
    raise _failure(result if isinstance(result, dict) else {}, UnsupportedModelError)


def _failure(message: Mapping[str, Any], otherwise: type[Error] = RunnerError) -> Error:
    code, text = message.get("code"), printable(str(message.get("message", "it failed.")), 2000)
    fix = printable(str(message.get("fix", "")), 2000)
    known = from_code(code, text, fix) if isinstance(code, str) else None
    return known if isinstance(known, Error) else otherwise(text, fix=fix)


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
