"""A trace replayed: guests ask donors, the real decision core of each answers, owners take devices back.

What is real: every decision of a donor (``core.leases.step``, one state a donor), charges, decay and
standings (``federation.fairshare``). What is made: time, borrowers (``agent.replay.borrowers``), nodes, and
how books travel. Left out, since it decides nothing: renewals, and reports of nodes on which nothing changed.

The same trace, policy and world give the same outcome, event by event.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, assert_never

from agent.gateway.core.book import Book, Cause, Lease
from agent.gateway.core.events import (
    Effect,
    Ended,
    Event,
    Granted,
    Notice,
    Offered,
    Queued,
    Receipted,
    Record,
    Refuse,
    Reprieve,
    RunnerEnded,
    Save,
    StandingChanged,
    Start,
    Started,
    Stop,
    Tick,
)
from agent.gateway.core.law import Law
from agent.gateway.core.state import State
from agent.replay.agenda import Agenda
from agent.replay.books import WEEK_START_S, Books, Charged
from agent.replay.borrowers import LEAST_S, Borrowers
from agent.replay.donor import DonorSite, Run
from agent.replay.outcome import GuestJob, Outcome, OwnJobs, Stay
from agent.replay.owner import waits_alone
from agent.replay.trace import Job
from agent.replay.world import World
from federation.policy.policy import Policy

_TTL_S: Final = 10.0 * 366 * 86400
"""Leases are not renewed one by one: borrowers in a replay do not vanish."""


Refill = Callable[[Job], Job | None]
"""Given a guest job that begins to serve for the first time, returns one that is submitted now."""


class Simulation:
    """One replay of one trace under one policy.

    Args:
        world: donors, start cost, books.
        policy: in force at every donor.
        span_s: when it is over; jobs submitted later are not looked at.
        refill: what keeps the donors busy, if the trace alone does not.
    """

    def __init__(self, world: World, policy: Policy, *, span_s: float, refill: Refill | None = None) -> None:
        self.agenda = Agenda()
        self.outcome = Outcome(span_s, world.donors)
        self._world = world
        self._policy = policy
        self._refill = refill
        self._books = Books(world, policy)
        self._feeds: deque[tuple[DonorSite, Event | str]] = deque()
        self._feeding = False
        self._ticks: dict[str, float] = {}
        self._idle_s = 0.0
        self._idle_at_s = 0.0
        self._is_idle = True
        self._own_jobs: dict[str, list[Job]] = {one.site: [] for one in world.donors}
        self._donors: dict[str, DonorSite] = {}
        self._borrowers = Borrowers(world, self._donors, self.agenda, self._feed)
        for spec in world.donors:
            law = Law(site=spec.site, policy=policy, unix_s=WEEK_START_S)
            own = self.outcome.own[spec.site] = OwnJobs()
            self._donors[spec.site] = DonorSite(
                spec,
                world,
                State(book=Book(lease_ttl_s=_TTL_S), law=law),
                self.agenda,
                own=own,
                feed=self._feed,
                span_s=span_s,
            )

    def run(self, jobs: Iterable[Job]) -> Outcome:
        """Replay a trace to the end of the span; return what happened."""
        for donor in self._donors.values():
            for node in donor.nodes:
                self._feed(donor, node)
        self._write_receipts()
        self._sync()
        for job in jobs:
            if job.submit_s >= self.outcome.span_s:
                break
            self.agenda.run(job.submit_s)
            self.submit(job)
        self.agenda.run(self.outcome.span_s)
        self._cut()
        return self.outcome

    def submit(self, job: Job) -> None:
        """Have a job asked for now."""
        if job.local:
            donor = self._donors.get(job.site)
            if donor is not None:
                self._own_jobs[job.site].append(job)
                donor.submit_own(job)
            return
        row = GuestJob(
            account=job.account,
            institution=job.institution,
            site=job.site,
            account_class=job.account_class,
            submit_s=job.submit_s,
            devices=job.devices,
            wanted_s=job.duration_s,
        )
        self.outcome.guests.append(row)
        self._borrowers.submit(job, row)

    # --- leases -------------------------------------------------------------------------------------------

    def _granted(self, donor: DonorSite, lease: Lease) -> None:
        row = self._borrowers.granted(donor, lease)
        if row is not None:
            now_s = self.agenda.now_s
            donor.runs[lease.id] = Run(lease, row, now_s, self._idle_until(now_s))
            row.stays += 1
            self._note_idle()

    def _start(self, donor: DonorSite, lease: Lease) -> None:
        run = donor.runs.get(lease.id)
        if run is None:
            return
        run.lease, run.starting = lease, True
        run.granted_s, run.idle_before_s = self.agenda.now_s, self._idle_until(self.agenda.now_s)
        run.serving_s = self.agenda.now_s + self._world.start.seconds
        self._books.write(donor.site, self._charged(run, self.agenda.now_s), self.agenda.now_s)
        self.agenda.at(run.serving_s, self._serve, donor, run)

    def _serve(self, donor: DonorSite, run: Run) -> None:
        if run.stopped_s is not None or run.settled:
            return
        now_s = self.agenda.now_s
        self._feed(donor, Started(run.lease.id, now_s))
        row = run.guest
        if row.started_s is None:
            row.started_s = now_s
            job = None if self._refill is None else self._refill(self._borrowers.job_of(run.lease))
            if job is not None:
                self.submit(job)
        self.agenda.at(now_s + row.wanted_s - row.saved_s, self._finish, donor, run)

    def _finish(self, donor: DonorSite, run: Run) -> None:
        if run.stopped_s is None and not run.settled:
            run.stopped_s = self.agenda.now_s
            self._feed(donor, RunnerEnded(run.lease.id, "its work is done", run.stopped_s))

    def _stop(self, donor: DonorSite, lease_id: str) -> None:
        """Have a node stop a lease's runner; being told so twice does no harm."""
        run = donor.runs.get(lease_id)
        if run is not None and run.stopped_s is None:
            run.stopped_s = self.agenda.now_s
            run.evicted = True
            after_s = self._world.hand_over_s if run.starting else 0.0
            self.agenda.at(self.agenda.now_s + after_s, self._stopped, donor, lease_id)

    def _stopped(self, donor: DonorSite, lease_id: str) -> None:
        if lease_id in donor.runs:
            self._feed(donor, RunnerEnded(lease_id, "its donor ended it", self.agenda.now_s))

    def _ended(self, donor: DonorSite, lease: Lease) -> None:
        """Count a lease's work, write its last receipt, and ask anew for what is not done."""
        run = donor.runs.get(lease.id)
        if run is None or run.settled:
            return
        run.settled, run.lease = True, lease
        now_s = self.agenda.now_s
        if run.stopped_s is None:
            run.stopped_s = now_s
        self.outcome.preempted += lease.cause is Cause.PREEMPTED
        if not run.starting:
            donor.gone(run)  # it waited for its devices; nothing of it is anywhere
        self._count(run)
        msgs = self._books.write(
            donor.site, self._charged(run, now_s), now_s, final=True, refunded=lease.refunded
        )
        self._feed(donor, Receipted(lease.id, msgs, now_s))
        row = run.guest
        left_s = row.wanted_s - row.saved_s
        if left_s <= LEAST_S:
            row.ended_s = now_s
        self._borrowers.ended(lease, left_s)

    def _count(self, run: Run) -> None:
        """Share a run's time out: work that is kept, up to its last checkpoint or its end, and lost work."""
        row = run.guest
        if run.serving_s is None or run.stopped_s is None or run.stopped_s <= run.serving_s:
            return
        done_s = run.stopped_s - run.serving_s
        left_s = row.wanted_s - row.saved_s
        if done_s >= left_s - LEAST_S:
            run.useful_s = left_s
        else:
            run.useful_s = done_s // self._world.checkpoint_s * self._world.checkpoint_s
            run.lost_s = done_s - run.useful_s
        row.saved_s += run.useful_s

    def _gone(self, donor: DonorSite, lease_id: str) -> None:
        """Note that nothing of a lease is left on its node."""
        run = donor.runs.get(lease_id)
        if run is None:
            return
        donor.gone(run)
        self._note_idle()
        if run.starting:
            self.outcome.stays.append(self._stay(donor, run, self.agenda.now_s))

    def _stay(self, donor: DonorSite, run: Run, now_s: float) -> Stay:
        row = run.guest
        return Stay(
            account=row.account,
            borrower=row.institution,
            donor=donor.site,
            devices=row.devices,
            granted_s=run.granted_s,
            ended_s=now_s,
            useful_s=run.useful_s,
            lost_s=run.lost_s,
            evicted=run.evicted,
        )

    # --- books --------------------------------------------------------------------------------------------

    def _charged(self, run: Run, now_s: float) -> Charged:
        lease = run.lease
        request = lease.request
        discount_s = self._idle_until(now_s) - run.idle_before_s
        return Charged(
            lease.id, request.account, request.purpose, len(lease.devices), run.granted_s, discount_s
        )

    def _write_receipts(self) -> None:
        """Have each donor write a receipt of each open lease."""
        now_s = self.agenda.now_s
        for donor in self._donors.values():
            for run in list(donor.runs.values()):
                if run.starting and not run.settled:
                    msgs = self._books.write(donor.site, self._charged(run, now_s), now_s)
                    self._feed(donor, Receipted(run.lease.id, msgs, now_s))
        self.agenda.at(now_s + self._world.receipt_s, self._write_receipts)

    def _sync(self) -> None:
        """Have each donor take over what has arrived, and look at its line anew."""
        now_s = self.agenda.now_s
        for donor in self._donors.values():
            self._feed(donor, StandingChanged(self._books.standing(donor.site, now_s), now_s))
        self.agenda.at(now_s + self._world.sync_s, self._sync)

    def _note_idle(self) -> None:
        """Count on how long the federation has idle devices: use meanwhile is charged at a discount."""
        now_s = self.agenda.now_s
        self._idle_s = self._idle_until(now_s)
        self._idle_at_s = now_s
        self._is_idle = any(donor.lent_free() > 0 for donor in self._donors.values())

    def _idle_until(self, now_s: float) -> float:
        return self._idle_s + (now_s - self._idle_at_s if self._is_idle else 0.0)

    # --- the cores ----------------------------------------------------------------------------------------

    def _feed(self, donor: DonorSite, event: Event | str) -> None:
        """Give a donor's core an event, or a node's report by its name, once those before it are done."""
        feeds = self._feeds
        feeds.append((donor, event))
        if self._feeding:
            return
        self._feeding = True
        while feeds:
            to, what = feeds.popleft()
            given = to.report(what) if isinstance(what, str) else what
            for effect in to.decide(given):
                self._carry_out(to, given, effect)
            if isinstance(given, RunnerEnded):
                self._gone(to, given.lease_id)
            self._look_later(to)
        self._feeding = False

    def _carry_out(self, donor: DonorSite, event: Event, effect: Effect) -> None:
        match effect:
            case Save() | Queued() | Notice() | Reprieve() | Record():
                pass  # what is on disk, said to people or kept for auditors changes no decision
            case Offered():
                self._borrowers.offered(donor, effect.offer)
            case Granted():
                self._granted(donor, effect.lease)
            case Start():
                self._start(donor, effect.lease)
            case Ended():
                self._ended(donor, effect.lease)
            case Stop():
                self._stop(donor, effect.lease_id)
            case Refuse():
                self._borrowers.refused(donor, event, effect.refused)
            case _:
                assert_never(effect)

    def _look_later(self, donor: DonorSite) -> None:
        """Have a donor's core look again when something is due by time alone."""
        due_s = donor.due_s()
        if due_s is not None and due_s < self._ticks.get(donor.site, math.inf):
            self._ticks[donor.site] = due_s
            self.agenda.at(due_s, self._tick, donor, due_s)

    def _tick(self, donor: DonorSite, at_s: float) -> None:
        if self._ticks.get(donor.site) != at_s:
            return  # it looks before then
        del self._ticks[donor.site]
        due_s = donor.due_s()
        if due_s is not None and due_s <= at_s:
            self._feed(donor, Tick(at_s))
        else:
            self._look_later(donor)  # what was due then has ended

    def _cut(self) -> None:
        """Count what is open at the end of the span as far as it has come; work in hand counts as kept."""
        now_s = self.outcome.span_s
        for donor in self._donors.values():
            self.outcome.steps += donor.steps
            for run in donor.runs.values():
                if not run.settled and run.serving_s is not None:
                    run.useful_s = max(0.0, (run.stopped_s or now_s) - run.serving_s)
                    run.guest.saved_s += run.useful_s
                if run.starting:
                    self.outcome.stays.append(self._stay(donor, run, now_s))
        for site, jobs in self._own_jobs.items():
            devices = next(one.devices for one in self._world.donors if one.site == site)
            self.outcome.own[site].alone_s = waits_alone(jobs, devices)
