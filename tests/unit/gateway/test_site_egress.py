"""What a site has sent of images to other sites: counts outlive agent and cache, days begin anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BusyError, StateError
from agent.gateway.egress import SiteEgress, rounded
from agent.limits import EGRESS_DAYS_KEPT
from agent.state import StateFile
from agent.state.egress_days import EgressDays
from federation.policy.policy import Data
from pyrdma.errors import ChannelError
from pyrdma.limits import PIECE_BYTES

pytestmark = pytest.mark.asyncio
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


class Cache:
    """A weight cache whose peers ask for more than it may send."""

    def __init__(self) -> None:
        self.sent = 0
        self.asked = 0
        self.bytes_per_s = 0
        self.until: int | None = None

    async def egress(self, bytes_per_s: int, until_bytes: int | None) -> int:
        self.bytes_per_s, self.until = bytes_per_s, until_bytes
        return self.sent

    def ask(self, nbytes: int) -> None:
        """Peers ask for so many bytes."""
        self.sent += nbytes if self.until is None else max(0, min(nbytes, self.until - self.sent))


class Days:
    """Counts in memory, until the disk fails."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.full = False

    async def sent_bytes(self, day: str) -> int:
        return self.counts.get(day, 0)

    async def set(self, day: str, sent_bytes: int) -> None:
        if self.full:
            raise StateError("the disk is full.", fix="free space")
        self.counts[day] = sent_bytes


class Site:
    """A gateway's count, and what it hangs on."""

    def __init__(self, data: Data) -> None:
        self.days = Days()
        self.cache: Cache | None = Cache()
        self.data = data
        self.now = NOON
        self.egress = self.new()

    def new(self) -> SiteEgress:
        """What an agent that starts makes."""
        return SiteEgress("uni-a", self._meter, self.days, bounds=lambda: self.data, now=lambda: self.now)

    def _meter(self) -> Cache:
        if self.cache is None:
            raise ChannelError("the weight cache is starting again.")
        return self.cache


async def test_beyond_the_quota_nothing_is_opened_until_the_next_day() -> None:
    """The sentence says how much, and the fix where to go; at midnight it begins anew."""
    site = Site(Data(egress_bytes_per_day=1000))
    assert site.cache is not None
    await site.egress.admit(200)
    site.cache.ask(700)
    await site.egress.admit(300)
    with pytest.raises(BusyError):
        await site.egress.admit(301)
    assert site.egress.left_permille() == 300
    site.cache.ask(700)
    with pytest.raises(BusyError) as used:
        await site.egress.admit(200)
    assert used.value.message == (
        "uni-a has sent 1.0 kB of images to other sites today, and the policy lets it send 1.0 kB a day."
    )
    assert "another site" in used.value.fix
    assert (site.cache.sent, site.days.counts) == (1000, {"2026-11-27": 1000})
    site.now += timedelta(hours=12)
    await site.egress.admit(200)
    site.cache.ask(5000)
    assert (await site.egress.count()).used_bytes == 1000
    assert site.days.counts == {"2026-11-27": 1000, "2026-11-28": 1000}


async def test_a_count_outlives_the_agent_and_the_cache() -> None:
    """Neither a restart of the one nor of the other gives a site a second quota."""
    site = Site(Data(egress_bytes_per_day=1000))
    assert site.cache is not None
    await site.egress.admit(200)
    site.cache.ask(600)
    await site.egress.count()
    site.cache = Cache()
    await site.egress.admit(200)
    site.cache.ask(5000)
    assert (await site.egress.count()).used_bytes == 1000
    assert site.cache.sent == 400
    site.cache, site.egress = Cache(), site.new()
    with pytest.raises(BusyError):
        await site.egress.admit(200)
    assert site.cache.until == 0


async def test_a_policy_that_changes_counts_at_once() -> None:
    """A pace, a higher quota, a lower one, none at all: what was sent stays counted."""
    site = Site(Data(egress_bytes_per_day=1000, source_bytes_per_s=50))
    assert site.cache is not None
    await site.egress.admit(200)
    site.cache.ask(5000)
    assert site.cache.bytes_per_s == 50
    site.data = Data(egress_bytes_per_day=3000)
    await site.egress.admit(200)
    assert (site.cache.bytes_per_s, site.cache.until) == (0, 3000)
    site.data = Data(egress_bytes_per_day=10)
    with pytest.raises(BusyError):
        await site.egress.admit(200)
    assert site.egress.left_permille() == 0
    site.data = Data()
    await site.egress.admit(200)
    assert (site.cache.until, site.egress.left_permille()) == (None, None)


async def test_a_quota_of_nothing_sends_nothing() -> None:
    """Zero is a bound."""
    site = Site(Data(egress_bytes_per_day=0))
    with pytest.raises(BusyError):
        await site.egress.admit(200)
    assert site.egress.left_permille() == 0


async def test_what_cannot_be_written_down_is_not_sent() -> None:
    """A full disk stops new sources; the count is taken once it can be."""
    site = Site(Data(egress_bytes_per_day=1000))
    assert site.cache is not None
    await site.egress.admit(200)
    site.cache.ask(400)
    site.days.full = True
    with pytest.raises(StateError):
        await site.egress.admit(200)
    site.days.full = False
    assert (await site.egress.count()).used_bytes == 400


async def test_without_a_cache_nothing_can_be_sent() -> None:
    """It is starting again: whoever asks is told so."""
    site = Site(Data())
    site.cache = None
    with pytest.raises(ChannelError):
        await site.egress.admit(200)


async def test_a_day_ends_at_the_sites_midnight() -> None:
    """What was sent before it and not looked at yet is of the day before."""
    site = Site(Data(egress_bytes_per_day=1000))
    assert site.cache is not None
    assert (await site.egress.count()).renews_in_s == 12 * 3600
    site.cache.ask(300)
    site.now = NOON + timedelta(hours=13)
    sent = await site.egress.count()
    assert (sent.used_bytes, sent.renews_in_s) == (0, 23 * 3600)
    assert site.days.counts == {"2026-11-27": 300}
    assert site.cache.until == 1300


@given(
    st.integers(0, 2000),
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.integers(1, 900)),
            st.tuples(st.just("hours"), st.integers(1, 30)),
            st.tuples(st.sampled_from(["cache", "agent", "count"]), st.just(0)),
        ),
        max_size=40,
    ),
)
async def test_no_day_has_more_than_its_quota(quota: int, steps: list[tuple[str, int]]) -> None:
    """Whatever is asked when, whoever starts again, if the agent looks before a day and a cache end."""
    site = Site(Data(egress_bytes_per_day=quota))
    await site.egress.count()
    for what, value in steps:
        assert site.cache is not None
        if what == "ask":
            site.cache.ask(value)
            continue
        await site.egress.count()
        if what == "hours":
            site.now += timedelta(hours=value)
        elif what == "cache":
            site.cache = Cache()
        elif what == "agent":
            site.egress, site.cache = site.new(), Cache()
        await site.egress.count()
    await site.egress.count()
    assert all(sent <= quota for sent in site.days.counts.values())


@asynccontextmanager
async def days_in(folder: Path) -> AsyncIterator[EgressDays]:
    """The real counts, in a file."""
    file = await StateFile.open(folder / "state.sqlite3")
    try:
        yield EgressDays(file)
    finally:
        await file.close()


async def test_counts_are_in_the_state_file(tmp_path: Path) -> None:
    """They are there for the next agent; the oldest days go."""
    async with days_in(tmp_path) as days:
        for at in range(EGRESS_DAYS_KEPT + 2):
            await days.set((NOON + timedelta(days=at)).date().isoformat(), at + 1)
        await days.set("2026-12-10", 77)
    async with days_in(tmp_path) as days:
        assert await days.sent_bytes("2026-12-10") == 77
        assert await days.sent_bytes("2026-11-27") == await days.sent_bytes("2026-11-28") == 0
        assert await days.sent_bytes("2026-11-29") == 3


@pytest.mark.parametrize(
    ("used", "quota", "said"),
    [
        (0, None, 0),
        (7, 0, 7),
        (0, 0, 0),
        (0, 1000, 0),
        (1, 1000, 1000),
        (3 * PIECE_BYTES, 4 * PIECE_BYTES, 3 * PIECE_BYTES),
        (3 * PIECE_BYTES + 1, 4 * PIECE_BYTES, 4 * PIECE_BYTES),
        (5 * PIECE_BYTES, 4 * PIECE_BYTES, 5 * PIECE_BYTES),
    ],
)
async def test_a_quota_is_used_when_no_piece_fits_any_more(used: int, quota: int | None, said: int) -> None:
    """The last bytes of a day, fewer than a piece, are sent to nobody: requests wait, and are told why."""
    assert rounded(used, quota) == said
