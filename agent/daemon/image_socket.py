"""``image.sock``: hands the mapping of a whole image to a process of this machine that asks for it.

For people's own jobs and engines: they map the weights that this node holds, without a copy and without the
agent in their way afterwards. File permissions decide who may ask. One question a connection, answered by
the parcel or by one error; an image that is not whole in memory is not fetched for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.catalogue import Catalogue
from agent.daemon.parts import Parcel
from agent.errors import BusyError, RequestError, SocketInUseError, UnknownModelError
from agent.limits import ACCEPT_PAUSE_S, IMAGE_QUESTION_S, MAX_IMAGE_QUESTIONS
from agent.resolve import parse_ref
from pyrdma.errors import ChannelError, Error
from pyrdma.wire import Channel

_log = logging.getLogger(__name__)


class ImageSocket:
    """The listening socket and the questions that are being answered."""

    def __init__(self, path: Path, catalogue: Catalogue, keeper: CacheKeeper) -> None:
        self._path = path
        self._catalogue = catalogue
        self._keeper = keeper
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._questions: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Listen; the caller holds the directory's lock.

        Raises:
            SocketInUseError: the socket cannot be bound.
        """
        before = os.umask(0o117)
        try:
            self._listener.bind(str(self._path))
        except OSError as error:
            raise SocketInUseError(
                f"the socket {self._path} cannot be bound ({error.strerror}).",
                fix="see who uses it, or name another --run-dir",
            ) from error
        finally:
            os.umask(before)
        self._listener.listen(MAX_IMAGE_QUESTIONS)
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(), name="image-socket")

    async def close(self) -> None:
        """Answer nobody any more; mappings that were handed out stay."""
        tasks = [*self._questions, *([self._accepting] if self._accepting is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:  # out of descriptors: those who ask wait, the socket stays
                _log.warning("nobody can be answered on %s now (%s)", self._path, error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            question = asyncio.create_task(self._answer(Channel(connection)))
            self._questions.add(question)
            question.add_done_callback(self._questions.discard)

    async def _answer(self, channel: Channel) -> None:
        try:
            async with asyncio.timeout(IMAGE_QUESTION_S):
                try:
                    parcel = await self._parcel(channel)
                except ChannelError:
                    return  # it left, or sent what is no message
                except Error as error:
                    told = {"op": "failed", "code": error.code, "message": error.message, "fix": error.fix}
                    await channel.asend(told)
                    return
                await parcel.asend_to(channel)
        except (ChannelError, TimeoutError) as error:
            _log.debug("a question on %s went unanswered: %r", self._path, error)
        finally:
            channel.close()

    async def _parcel(self, channel: Channel) -> Parcel:
        if len(self._questions) > MAX_IMAGE_QUESTIONS:
            raise BusyError("too many processes ask this node for images at once.", fix="try again")
        message, fds = await channel.arecv()
        for fd in fds:
            os.close(fd)
        if message.get("op") != "attach" or not isinstance(message.get("model"), str):
            raise RequestError("this socket answers requests to attach a model, and nothing else.")
        ref = parse_ref(message["model"])
        image_id = await self._catalogue.bound(ref)
        if image_id is None or not await self._catalogue.in_memory(image_id):
            raise UnknownModelError(
                f"{ref} is not whole in this node's memory.",
                fix=f"bring it there with: pyrdma-agent run {ref.name}",
            )
        return await self._keeper.cache.attach(image_id)
