"""An owner's own jobs: strictly first come, first served; the agenda: everything in its moment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.replay.agenda import Agenda
from agent.replay.owner import OwnQueue, waits_alone
from agent.replay.trace import Job


def own_job(submit_s: float, devices: int, duration_s: float) -> Job:
    return Job(submit_s, "/a", devices, duration_s, "research", True, "a")


traces = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 5), st.integers(1, 30)), min_size=1, max_size=25
).map(lambda rows: [own_job(float(a), b, float(c)) for a, b, c in sorted(rows)])


def test_a_wide_job_holds_up_those_behind_it() -> None:
    """The order is strict: nobody slips past a job that does not fit yet."""
    jobs = [own_job(0.0, 3, 10.0), own_job(1.0, 4, 10.0), own_job(2.0, 1, 10.0)]
    assert waits_alone(jobs, 4) == [0.0, 9.0, 18.0]


def test_a_job_wider_than_the_site_is_left_out() -> None:
    """It would hold up everybody for good."""
    assert waits_alone([own_job(0.0, 5, 1.0), own_job(0.0, 4, 1.0)], 4) == [0.0]
    assert not OwnQueue(4).submit(own_job(0.0, 5, 1.0))


@given(traces)
def test_the_queue_starts_jobs_as_the_cluster_alone_would(jobs: list[Job]) -> None:
    """With all devices in hand all the time, the queue's waits are those of the cluster alone."""
    agenda, queue = Agenda(), OwnQueue(5)
    queue.in_hand = 5
    waits: list[float] = []

    def begin() -> None:
        for job in queue.begin():
            waits.append(agenda.now_s - job.submit_s)
            agenda.at(agenda.now_s + job.duration_s, end, job)

    def end(job: Job) -> None:
        queue.end(job)
        begin()

    for job in jobs:
        agenda.run(job.submit_s)
        assert queue.submit(job)
        begin()
    agenda.run(1e9)
    assert waits == waits_alone(jobs, 5)
    assert queue.running == 0
    assert queue.wanted == 0


@given(st.lists(st.integers(0, 5), max_size=30))
def test_calls_are_made_in_order_of_time_and_then_of_entry(moments: list[int]) -> None:
    """Virtual time never goes back, and equal moments keep their order."""
    agenda, made = Agenda(), []
    for number, moment in enumerate(moments):
        agenda.at(float(moment), lambda at, of: made.append((agenda.now_s, at, of)), moment, number)
    agenda.run(10.0)
    assert [(at, of) for _, at, of in made] == sorted((at, of) for of, at in enumerate(moments))
    assert all(now_s == at for now_s, at, _ in made)
    assert agenda.now_s == 10.0
