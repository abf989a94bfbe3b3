"""The policy that a site goes by: the right version at the right moment, under the donor's own overlay."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.site.opting_out import write_opted_out
from agent.site.policy_in_force import InForce, OverlayFile, in_force, read_overlay_file, read_versions
from agent.site.policy_watch import OVERLAY_FILE, PolicyWatch
from federation.registry.membership import Membership, PolicyText

BEGIN_S = 1_800_000_000
DAY_S = 86400
POLICY = """\
version: {version}
name: {name}
effective_at: {at}
accounts:
  uni-a: {{weight: {weight}}}
  uni-b: {{weight: 1}}
purposes:
  research: {{claimants: [any]}}
device_classes:
  cpu: 0.1
lend:
  max_duration: {longest}
"""
OVERLAY = """\
kind: overlay
version: {version}
site: {site}
consortium: lab
lend:
  max_duration: {longest}
"""


def text(
    version: int,
    at_s: int = BEGIN_S,
    *,
    says: int | None = None,
    name: str = "lab",
    weight: int = 1,
    longest: str = "7d",
) -> PolicyText:
    """Return a published version; ``says`` is the version that the file itself says."""
    at = datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    number = version if says is None else says
    data = POLICY.format(version=number, name=name, at=at, weight=weight, longest=longest).encode()
    return PolicyText(version, at_s, data, hashlib.sha256(data).hexdigest())


def bad(version: int, at_s: int = BEGIN_S) -> PolicyText:
    """Return a version that no agent reads."""
    data = b"version: what\n"
    return PolicyText(version, at_s, data, hashlib.sha256(data).hexdigest())


def overlay(longest: str, *, version: int = 1, site: str = "uni-a") -> bytes:
    """Return an overlay's file."""
    return OVERLAY.format(version=version, site=site, longest=longest).encode()


def holds(
    now_s: float, *texts: PolicyText, data: bytes | None = None, opted_out: frozenset[int] = frozenset()
) -> InForce:
    """Return what holds at a time under these files."""
    versions = list(read_versions(texts, "lab", {}).values())
    return in_force(versions, read_overlay_file(data, "overlay", OverlayFile()), opted_out, "uni-a", now_s)


def number(now: InForce) -> int | None:
    """Return the version that counts."""
    return None if now.base is None else now.base.version


def test_every_site_goes_over_at_the_same_moment() -> None:
    """The newest whose time has come; what is to come is told with its time."""
    versions = (text(1), text(3, BEGIN_S + DAY_S), text(4, BEGIN_S + 2 * DAY_S))
    seen = [number(holds(BEGIN_S + at, *versions)) for at in (-1, 0, DAY_S - 1, DAY_S, 2 * DAY_S, 99 * DAY_S)]
    assert seen == [None, 1, 1, 3, 4, 4]
    before = holds(BEGIN_S - 1, *versions)
    assert before == InForce(upcoming=((1, BEGIN_S), (3, BEGIN_S + DAY_S), (4, BEGIN_S + 2 * DAY_S)))
    assert before.lends
    assert holds(BEGIN_S) == InForce()


def test_a_version_that_cannot_be_read_leaves_the_one_before() -> None:
    """And is said, from when it is known; one of the past is not spoken of any more."""
    versions = (text(1), bad(2, BEGIN_S + DAY_S), text(3, BEGIN_S + 2 * DAY_S))
    for at_s, counts, faults in ((0, 1, 1), (DAY_S, 1, 1), (2 * DAY_S, 3, 0)):
        now = holds(BEGIN_S + at_s, *versions)
        assert (number(now), len(now.faults), now.lends) == (counts, faults, True)
    assert "version 2 of the policy cannot be read here" in holds(BEGIN_S, *versions).faults[0]
    alone = holds(BEGIN_S, bad(1))
    assert (alone.policy, alone.lends) == (None, False)


@pytest.mark.parametrize(
    "wrong", [text(2, says=3), text(2, name="elsewhere"), replace(text(2), effective_at_s=BEGIN_S - 600)]
)
def test_a_file_that_is_not_what_the_list_says_does_not_count(wrong: PolicyText) -> None:
    """Another version, another consortium, another time."""
    now = holds(BEGIN_S + DAY_S, text(1, BEGIN_S - DAY_S), wrong)
    assert number(now) == 1
    assert "is not the policy that the registry's list says" in now.faults[0]


def test_an_overlay_restricts_the_version_in_force() -> None:
    """Whichever version that is; others see the consortium's own."""
    now = holds(BEGIN_S, text(1), data=overlay("1d", version=7))
    assert now.policy is not None
    assert now.base is not None
    assert (now.policy.lend.max_duration_s, now.base.lend.max_duration_s) == (DAY_S, 7 * DAY_S)
    assert (now.overlay, now.lends, now.faults) == (7, True, ())


@pytest.mark.parametrize("data", [overlay("9d"), overlay("1d", site="uni-b")])
def test_an_overlay_that_does_not_fit_stops_lending(data: bytes) -> None:
    """It loosens, or is another donor's: nothing is lent rather than more than was meant."""
    now = holds(BEGIN_S, text(1), data=data)
    assert (now.lends, now.overlay, number(now)) == (False, 0, 1)
    assert "the overlay does not fit version 1" in now.faults[0]


def test_what_will_not_fit_is_said_beforehand() -> None:
    """There is time to mend it; until then all is well."""
    versions = (text(1), text(2, BEGIN_S + DAY_S, longest="12h"))
    now = holds(BEGIN_S, *versions, data=overlay("1d"))
    assert now.lends
    assert "does not fit version 2" in now.faults[0]
    assert not holds(BEGIN_S + DAY_S, *versions, data=overlay("1d")).lends


def test_a_damaged_overlay_leaves_the_one_before() -> None:
    """At the first start with one there is none before: then nothing is lent."""
    before = read_overlay_file(overlay("1d"), "overlay", OverlayFile())
    versions = list(read_versions([text(1)], "lab", {}).values())
    damaged = read_overlay_file(b"kind: overlay\nlend: 7\n", "overlay", before)
    now = in_force(versions, damaged, frozenset(), "uni-a", BEGIN_S)
    assert now.policy is not None
    assert now.policy.lend.max_duration_s == DAY_S
    assert now.lends
    assert now.faults
    first = read_overlay_file(b"kind: overlay\nlend: 7\n", "overlay", OverlayFile())
    assert not in_force(versions, first, frozenset(), "uni-a", BEGIN_S).lends


def test_a_site_that_opted_out_lends_nothing_under_that_version() -> None:
    """Before and after it all is as ever."""
    versions = (text(1), text(2, BEGIN_S + DAY_S), text(3, BEGIN_S + 2 * DAY_S))
    seen = [holds(BEGIN_S + at * DAY_S, *versions, opted_out=frozenset({2})).lends for at in range(4)]
    assert seen == [True, False, True, True]


def members(*texts: PolicyText) -> Membership:
    """Return what the registry says."""
    return Membership("lab", 1, BEGIN_S - DAY_S, BEGIN_S + DAY_S, (), {}, {}, texts)


class Clock:
    """A clock that a test sets."""

    now_s = float(BEGIN_S)

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def watching(
    folder: Path, clock: Clock, *texts: PolicyText
) -> AsyncIterator[tuple[PolicyWatch, list[InForce]]]:
    """Watch a folder; yields also what was told."""
    told: list[InForce] = []
    watch = PolicyWatch(folder, "uni-a", told.append, clock=clock)
    await watch.start(members(*texts) if texts else None)
    try:
        yield watch, told
    finally:
        await watch.close()


@pytest.mark.asyncio
async def test_what_changes_is_told_once(tmp_path: Path) -> None:
    """The start, the switch, the overlay's file; nothing while nothing changes."""
    clock = Clock()
    async with watching(tmp_path, clock, text(1), text(2, BEGIN_S + DAY_S)) as (watch, told):
        await watch.look()
        assert [number(one) for one in told] == [1]
        clock.now_s += DAY_S
        await watch.look()
        assert [number(one) for one in told] == [1, 2]
        (tmp_path / OVERLAY_FILE).write_bytes(overlay("1d"))
        await watch.look()
        assert (told[-1].overlay, len(told)) == (1, 3)
        (tmp_path / OVERLAY_FILE).unlink()
        await watch.look()
        assert (told[-1].overlay, len(told)) == (0, 4)
        assert len(watch.policies()) == 2


@pytest.mark.asyncio
async def test_a_look_that_is_asked_for_says_how_everything_stands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when it was said before; a fault says what stays in force, and nothing is told twice."""
    async with watching(tmp_path, Clock(), text(1)) as (watch, told):
        (tmp_path / OVERLAY_FILE).write_bytes(overlay("1d"))
        await watch.look(aloud=True)
        (tmp_path / OVERLAY_FILE).write_bytes(overlay("forever", version=2))
        for _ in range(2):
            caplog.clear()
            with caplog.at_level(logging.INFO):
                await watch.look(aloud=True)
            (fault, stands) = [one.getMessage() for one in caplog.records]
            assert fault.endswith("; the one before it stays in force.")
            assert stands == "the policy in force: version 1 under the overlay's version 1"
        assert (told[-1].overlay, len(told)) == (1, 3)


@pytest.mark.asyncio
async def test_new_versions_come_with_the_members(tmp_path: Path) -> None:
    """Without members, or when the list is left out by a fault, those known before stay."""
    clock = Clock()
    async with watching(tmp_path, clock) as (watch, told):
        assert watch.now == InForce()
        watch.learn(members(text(1)))
        async with asyncio.timeout(10):
            while not told:
                await asyncio.sleep(0.01)
        watch.learn(None)
        watch.learn(replace(members(), faults={"policy/*": "expired"}))
        await watch.look()
        await watch.look()
        assert [number(one) for one in told] == [1, 1]
        assert told[-1].faults == ("expired",)


@pytest.mark.asyncio
async def test_a_bad_overlay_keeps_the_one_before_also_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And says so loudly, once."""
    clock = Clock()
    (tmp_path / OVERLAY_FILE).write_bytes(overlay("1d"))
    async with watching(tmp_path, clock, text(1)) as (watch, _):
        assert watch.now.overlay == 1
        (tmp_path / OVERLAY_FILE).write_bytes(overlay("1d", version=2)[:-4] + b"forever\n")
        for _ in range(3):
            await watch.look()
        assert watch.now.overlay == 1
        assert "the overlay" in watch.now.faults[0]
        loud = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert len(loud) == 1
    async with watching(tmp_path, clock, text(1)) as (watch, _):
        assert (watch.now.overlay, watch.now.lends) == (1, True)
        assert watch.now.faults
        (tmp_path / OVERLAY_FILE).write_bytes(b"x" * (1 << 20))
        await watch.look()
        assert (watch.now.overlay, watch.now.lends) == (1, True)


@pytest.mark.asyncio
async def test_what_a_site_opted_out_of_is_taken_over_from_its_file(tmp_path: Path) -> None:
    """Also after a restart; a file that is damaged changes nothing of what was opted out of before."""
    clock = Clock()
    texts = (text(1), text(2, BEGIN_S + DAY_S))
    async with watching(tmp_path, clock, *texts) as (watch, told):
        write_opted_out(tmp_path, frozenset({2}))
        await watch.look()
        assert watch.now.lends
        clock.now_s += DAY_S
        await watch.look()
        assert (number(watch.now), watch.now.lends, len(told)) == (2, False, 2)
        assert "opted out of version 2" in watch.now.why_not
        (tmp_path / "policy-opted-out.json").write_text("{")
        await watch.look()
        assert not watch.now.lends
        write_opted_out(tmp_path, frozenset({2}))
    async with watching(tmp_path, clock, *texts) as (watch, _):
        assert not watch.now.lends
        write_opted_out(tmp_path, frozenset())
        await watch.look()
        assert watch.now.lends


@pytest.mark.asyncio
async def test_a_clock_set_back_goes_back_to_no_older_version(tmp_path: Path) -> None:
    """The registry's last signature is later than what it shows."""
    clock = Clock()
    clock.now_s = BEGIN_S - 30 * DAY_S
    texts = (text(1, BEGIN_S - 9 * DAY_S), text(2, BEGIN_S - 2 * DAY_S))
    async with watching(tmp_path, clock, *texts) as (watch, _):
        assert number(watch.now) == 2
