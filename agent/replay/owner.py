"""A site's own jobs on its own devices: first come, first served, in strict order.

The owner takes devices back for whatever its own jobs need, running or waiting, and gives back what they
leave. Which of the guests have to go is decided elsewhere; here are only numbers of devices. Without guests,
this is the cluster alone that a site's own people would have otherwise.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

from agent.replay.trace import Job


class OwnQueue:
    """The own jobs of one site.

    Args:
        devices: how many the site has.

    ``in_hand`` are devices that the owner has and no guest; the site raises and lowers it.
    """

    __slots__ = ("devices", "in_hand", "running", "waiting")

    def __init__(self, devices: int) -> None:
        self.devices = devices
        self.in_hand = 0
        self.running = 0
        self.waiting: deque[Job] = deque()

    @property
    def wanted(self) -> int:
        """How many devices the owner's jobs want in hand now."""
        return min(self.devices, self.running + sum(job.devices for job in self.waiting))

    def submit(self, job: Job) -> bool:
        """Take a job in; ``False``: it is wider than the site."""
        if job.devices > self.devices:
            return False
        self.waiting.append(job)
        return True

    def begin(self) -> list[Job]:
        """Return the jobs that start now, in order."""
        started = []
        while self.waiting and self.running + self.waiting[0].devices <= self.in_hand:
            job = self.waiting.popleft()
            self.running += job.devices
            started.append(job)
        return started

    def end(self, job: Job) -> None:
        """Note that a job is over; its devices stay in hand until the site gives them back."""
        self.running -= job.devices


def waits_alone(jobs: list[Job], devices: int) -> list[float]:
    """Return how long each job would wait if the site's devices were there for its own jobs alone.

    Jobs that are wider than the site are left out, as in ``OwnQueue``.
    """
    ends: list[tuple[float, int]] = []
    free = devices
    now_s = 0.0
    waits = []
    for job in jobs:
        if job.devices > devices:
            continue
        now_s = max(now_s, job.submit_s)
        while ends and (ends[0][0] <= now_s or free < job.devices):
            end_s, width = heappop(ends)
            now_s = max(now_s, end_s)
            free += width
        waits.append(now_s - job.submit_s)
        free -= job.devices
        heappush(ends, (now_s + job.duration_s, job.devices))
    return waits
