"""A replay over the real decision core: the same each time, no device twice, the owner's work first."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from agent.replay.alike import alike
from agent.replay.generate import Institution, generate
from agent.replay.outcome import Outcome
from agent.replay.simulation import Simulation
from agent.replay.summary import summarise
from agent.replay.trace import Job
from agent.replay.world import DonorSpec, StartCost, World

SHAPE = (
    Institution(name="north", devices=8, local_load=0.5, guest_devices=4.0),
    Institution(name="south", devices=4, local_load=0.5, guest_devices=4.0, zone_h=12.0),
    Institution(name="west", devices=0, guest_devices=3.0, account_class="student"),
)
DONORS = (DonorSpec("north", 8, 4), DonorSpec("south", 4, 4))
TRACE = tuple(generate(11, 400, SHAPE))
T_RECLAIM_S = 2.0 + 10.0 + 10.0 + 10.0


def replayed(world: World, jobs: tuple[Job, ...] = TRACE) -> Outcome:
    return Simulation(world, alike(jobs), span_s=jobs[-1].submit_s + 1.0).run(jobs)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return replayed(World(donors=DONORS))


def guest(submit_s: float, name: str, duration_s: float, devices: int = 1) -> Job:
    return Job(submit_s, f"/{name}", devices, duration_s, "research", False, name)


def own_job(submit_s: float, devices: int, duration_s: float) -> Job:
    return Job(submit_s, "/north", devices, duration_s, "research", True, "north")


def test_the_same_trace_gives_the_same_outcome(outcome: Outcome) -> None:
    """Nothing in a replay is left to chance: every stay and every wait comes again."""
    assert replayed(World(donors=DONORS)) == outcome


def test_no_device_is_used_twice(outcome: Outcome) -> None:
    """I11: at no moment do the guests of a donor hold more devices than it has."""
    for donor in DONORS:
        changes = []
        for stay in outcome.stays:
            if stay.donor == donor.site:
                changes += [(stay.granted_s, stay.devices), (stay.ended_s, -stay.devices)]
        held = 0
        for (_, change), (_, _) in pairwise([*sorted(changes), (0.0, 0)]):
            held += change
            assert 0 <= held <= donor.devices
    summary = summarise(outcome, policy="", start="warm", start_s=1.5)
    assert 0.5 < summary.utilisation <= 1.0


def test_owners_wait_no_longer_than_alone_and_a_reclaim(outcome: Outcome) -> None:
    """S8: each of the owner's own jobs starts within T_reclaim of when it would have without guests."""
    assert sum(len(own.waits_s) for own in outcome.own.values()) > 20
    assert any(own.reclaims_s for own in outcome.own.values())
    for own in outcome.own.values():
        for after, before in zip(own.waits_s, own.alone_s, strict=False):
            assert after <= before + T_RECLAIM_S
        assert all(one <= T_RECLAIM_S for one in own.reclaims_s)


def test_work_is_neither_made_nor_lost(outcome: Outcome) -> None:
    """I13: a job that is done had all of its work kept, and no job has more than it wanted."""
    for job in outcome.guests:
        assert job.saved_s <= job.wanted_s + 1e-6
        if job.ended_s is not None:
            assert job.saved_s == pytest.approx(job.wanted_s)
            assert job.started_s is not None
            assert job.ended_s >= job.started_s >= job.submit_s
    kept = sum(stay.useful_s * stay.devices for stay in outcome.stays)
    assert kept == pytest.approx(sum(job.saved_s * job.devices for job in outcome.guests))


def test_cold_starts_recover_less() -> None:
    """The same trace with starts of ten minutes serves fewer hours, and later."""
    warm = summarise(replayed(World(donors=DONORS)), policy="", start="warm", start_s=1.5)
    disk = summarise(
        replayed(World(donors=DONORS, start=StartCost("disk", 600.0))), policy="", start="disk", start_s=600.0
    )
    assert disk.recovered_h < 0.95 * warm.recovered_h
    assert disk.starting_h > 10 * warm.starting_h
    assert disk.total.wait_p50_s is not None
    assert warm.total.wait_p50_s is not None
    assert disk.total.wait_p50_s >= warm.total.wait_p50_s + 500


def test_an_owner_takes_its_devices_back_in_time() -> None:
    """A guest has its grace once the owner's job was seen; then the owner has the devices."""
    jobs = (guest(0.0, "west", 3000.0), own_job(1000.0, 4, 500.0), guest(5000.0, "west", 1.0))
    outcome = replayed(World(donors=(DonorSpec("north", 4, 4),)), jobs)
    assert outcome.own["north"].waits_s == [2.0 + 10.0 + 5.0]
    first, second = outcome.stays[:2]
    assert first.evicted
    assert first.useful_s == 600.0
    assert first.lost_s == pytest.approx(1012.0 - 1.5 - 600.0)
    assert second.granted_s == pytest.approx(1017.0 + 500.0)
    assert second.useful_s == pytest.approx(3000.0 - 600.0)


def test_a_job_that_no_donor_can_serve_is_refused() -> None:
    """More devices than any node has, or an account that the policy does not know, is no job that waits."""
    jobs = (guest(0.0, "west", 10.0, devices=8), guest(1.0, "west", 10.0))
    outcome = replayed(World(donors=(DonorSpec("north", 4, 4),)), jobs)
    assert outcome.guests[0].refused == "no-device"
    unknown = replace(jobs[1], account="/nobody")
    policy = alike(jobs)
    outcome = Simulation(World(donors=DONORS), policy, span_s=10.0).run((unknown,))
    assert outcome.guests[0].refused == "not-permitted"


def test_a_site_asks_only_donors_within_its_reach() -> None:
    """Whoever can reach one donor only is served there alone."""
    jobs = tuple(guest(float(at), "west", 100.0) for at in range(6))
    world = World(donors=DONORS, reach={"west": frozenset({"south"})})
    assert {stay.donor for stay in replayed(world, (*jobs, guest(900.0, "west", 1.0))).stays} == {"south"}
