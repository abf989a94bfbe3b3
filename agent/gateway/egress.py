"""What this site sends of images to other sites: counted by the day, and held to the policy's bounds.

Rules: only the gateway sends to other sites, through its lane worker, which counts bytes as it sends them,
keeps the pace for all of them together, and stops by itself where the day's quota ends; here the count is
written down, and the worker's bounds are set anew as policy and day change. Once the quota is used no source
is opened for another site, and the donor's rules hear of it. What stays within the site counts for nothing.
A count that was not read or written is no count: no source is opened then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from agent.errors import BusyError, StateError
from agent.limits import EGRESS_EVERY_S
from agent.text import format_size
from federation.policy.policy import PER_MILLE, Data
from pyrdma.errors import ChannelError, Error
from pyrdma.limits import PIECE_BYTES

_log = logging.getLogger(__name__)


class Meter(Protocol):
    """A weight cache, as far as it counts what leaves the site."""

    async def egress(self, bytes_per_s: int, until_bytes: int | None) -> int:
        """Bound what is sent to other sites; return what was since this cache began."""


class Days(Protocol):
    """The counts as they outlive the agent; both raise StateError."""

    async def sent_bytes(self, day: str) -> int:
        """Return the count of a day."""

    async def set(self, day: str, sent_bytes: int) -> None:
        """Write the count of a day."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent on the present day, and how long the day still is."""

    used_bytes: int
    renews_in_s: float


class SiteEgress:
    """The site's count.

    Args:
        site: its name, for people.
        meter: returns the cache that runs now; raises ChannelError while none does.
        days: where the counts lie.
        bounds: returns what the policy in force says.
        now: the site's own time.
    """

    def __init__(
        self,
        site: str,
        meter: Callable[[], Meter],
        days: Days,
        *,
        bounds: Callable[[], Data],
        now: Callable[[], datetime],
    ) -> None:
        self._site = site
        self._meter = meter
        self._days = days
        self._bounds = bounds
        self._now = now
        self._day = ""
        self._used_bytes = 0
        self._metered: Meter | None = None
        self._told_bytes = 0
        """Of what that cache has counted, what is in the days' counts."""
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._fault = ""

    def start(self, counted: Callable[[Sent], Awaitable[object]]) -> None:
        """Begin to count; ``counted`` hears of each count that is new, as ``rounded`` says."""
        self._task = asyncio.create_task(self._count_always(counted), name="egress")

    async def close(self) -> None:
        """Count a last time, and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            try:
                await self.count()
            except Error as error:
                _log.warning("what was sent last is not counted: %s", error.message)

    def left_permille(self) -> int | None:
        """Return how much of the day's quota is left; ``None``: the policy has none."""
        quota = self._bounds().egress_bytes_per_day
        if quota is None:
            return None
        return max(0, quota - self._used_bytes) * PER_MILLE // max(1, quota)

    async def admit(self, total_bytes: int) -> None:
        """Let another site open a source of an image, and have the bounds in force before it does.

        Raises:
            BusyError: the day's quota is used: less is left than one piece of the image.
            ChannelError: nothing can be sent at the moment.
            StateError: what was sent cannot be read or written.
        """
        used_bytes = (await self.count()).used_bytes
        self._news.set()  # the rules hear it at once, too
        quota = self._bounds().egress_bytes_per_day
        if quota is not None and quota - used_bytes < min(PIECE_BYTES, total_bytes):
            raise BusyError(
                f"{self._site} has sent {format_size(used_bytes)} of images to other sites today, and the "
                f"policy lets it send {format_size(quota)} a day.",
                fix="pull from another site, or after midnight there",
            )

    async def count(self) -> Sent:
        """Take the count from the cache, write it down, and set the bounds; return the present day's.

        Raises:
            ChannelError: no cache runs.
            StateError: a count cannot be read or written.
        """
        async with self._turn:
            now = self._now()
            if not self._day:
                await self._begin(now.date().isoformat())
            meter = self._meter()
            if meter is not self._metered:
                self._metered, self._told_bytes = meter, 0
            await self._take(meter)
            if self._day != now.date().isoformat():
                await self._begin(now.date().isoformat())
                await self._take(meter)
            return Sent(self._used_bytes, _until_midnight_s(now))

    async def _begin(self, day: str) -> None:
        self._used_bytes = await self._days.sent_bytes(day)
        self._day = day

    async def _take(self, meter: Meter) -> None:
        data = self._bounds()
        quota = data.egress_bytes_per_day
        until = None if quota is None else self._told_bytes + max(0, quota - self._used_bytes)
        told_bytes = await meter.egress(data.source_bytes_per_s or 0, until)
        if told_bytes > self._told_bytes:
            used_bytes = self._used_bytes + told_bytes - self._told_bytes
            await self._days.set(self._day, used_bytes)
            self._used_bytes, self._told_bytes = used_bytes, told_bytes

    async def _count_always(self, counted: Callable[[Sent], Awaitable[object]]) -> None:
        last: tuple[str, int, int | None] | None = None
        while True:
            self._news.clear()
            try:
                sent = await self.count()
            except ChannelError:
                pass  # it is started again by itself
            except StateError as error:
                if error.message != self._fault:
                    _log.error("what is sent to other sites is not counted: %s", error.message)
                self._fault = error.message
            else:
                self._fault = ""
                quota = self._bounds().egress_bytes_per_day
                said = (self._day, sent.used_bytes, quota)
                if said != last:
                    last = said
                    await counted(Sent(rounded(sent.used_bytes, quota), sent.renews_in_s))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), EGRESS_EVERY_S)


def rounded(used_bytes: int, quota: int | None) -> int:
    """Return what was sent as the donor's rules hear it: all, once what is left is too little for a piece."""
    if quota is None or used_bytes >= quota or quota - used_bytes >= min(PIECE_BYTES, quota):
        return used_bytes
    return quota


def _until_midnight_s(now: datetime) -> float:
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return max(0.0, (midnight - now).total_seconds())
