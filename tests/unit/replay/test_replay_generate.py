"""Made traces: the same by seed, in order, and of the load that was asked for."""

from __future__ import annotations

import pytest

from agent.replay.generate import DEFAULT, GUEST, LOCAL, Institution, generate

WEEK_S = 7 * 86400.0


def test_a_seed_gives_one_trace() -> None:
    """A seed gives its jobs, another one others; a shorter trace is the beginning of a longer one."""
    jobs = list(generate(7, 300))
    assert jobs == list(generate(7, 300))
    assert jobs[:100] == list(generate(7, 100))
    assert jobs != list(generate(8, 300))
    assert [one.submit_s for one in jobs] == sorted(one.submit_s for one in jobs)


def test_an_institution_more_changes_nothing_of_the_others() -> None:
    """Each institution has chance of its own."""
    more = (*DEFAULT, Institution(name="zelkova", devices=4, guest_devices=3.0))
    before = list(generate(3, 200))
    after = [one for one in generate(3, 200, more) if one.site != "zelkova"]
    assert after == before[: len(after)]
    assert len(after) > 150


@pytest.mark.parametrize("local", [True, False])
def test_an_institution_asks_for_what_it_was_given(local: bool) -> None:
    """Over whole weeks the jobs come to the load that the shape names, within a few per cent of chance."""
    one = Institution(
        name="oak", devices=40, local_load=0.5 if local else 0.0, guest_devices=0.0 if local else 20.0
    )
    weeks = 6
    jobs = []
    for job in generate(5, 10**6, (one,)):
        if job.submit_s >= weeks * WEEK_S:
            break
        jobs.append(job)
    assert all(job.local is local for job in jobs)
    load = sum(job.devices * job.duration_s for job in jobs) / (weeks * WEEK_S)
    assert load == pytest.approx(20.0, rel=0.1)
    hours = [0] * 24
    for job in jobs:
        hours[int(job.submit_s % 86400 // 3600)] += 1
    assert sum(hours[12:18]) > 2 * sum(hours[0:6])


def test_durations_have_a_long_tail() -> None:
    """Half of the jobs are short, and the mean is far above the median."""
    assert LOCAL.mean_s() > 2.5 * LOCAL.median_s
    assert GUEST.mean_s() > 1.8 * GUEST.median_s


def test_who_owns_nothing_has_no_jobs_of_its_own() -> None:
    """An institution without devices only asks."""
    jobs = list(generate(1, 5000))
    assert {one.site for one in jobs if one.local} == {one.name for one in DEFAULT if one.devices}
    assert {one.site for one in jobs if not one.local} == {one.name for one in DEFAULT}
