"""Who gets a donated device: the place for a policy, and the simplest one.

A rule looks at the request, the book and the fleet, and says yes with a device or no with a reason; it
changes nothing. The bounds of the book are not a rule's: they hold whatever the policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent.gateway.book import Book
from agent.gateway.fleet import Fleet, NodeReport
from agent.gateway.placement import Candidate, choose
from agent.gateway.request import Admitted, LeaseRequest, Refused
from agent.text import format_size


class Rule(Protocol):
    """A donor's policy."""

    def admit(self, request: LeaseRequest, book: Book, fleet: Fleet, now_s: float) -> Admitted | Refused:
        """Return a device that nobody holds, or why there is none."""


@dataclass(frozen=True, slots=True)
class FirstCome:
    """Donated devices go to whoever asks first.

    It refuses, in this order, with ``unknown-node``, ``no-device``, ``not-donating``, ``too-large`` and
    ``all-leased``. The book adds ``full`` and ``granted-already``, whatever the rule.
    """

    def admit(self, request: LeaseRequest, book: Book, fleet: Fleet, now_s: float) -> Admitted | Refused:
        """Return the best free device that holds the image, or why there is none."""
        nodes = _eligible(request, fleet, now_s)
        if isinstance(nodes, Refused):
            return nodes
        donating = [one for one in nodes if one.donating]
        if not donating:
            return Refused(
                "not-donating",
                "no device that would do is donated at the moment.",
                "ask again later, or ask another site",
                terminal=False,
            )
        every = [Candidate(report, device) for report in donating for device in report.devices]
        fitting = [one for one in every if one.device.memory_bytes >= request.total_bytes]
        if not fitting:
            largest = max(one.device.memory_bytes for one in every)
            return Refused(
                "too-large",
                f"the image has {format_size(request.total_bytes)}, the largest donated device "
                f"{format_size(largest)}.",
                "choose a smaller model, or ask another site",
                terminal=True,
            )
        taken = book.taken()
        free = [one for one in fitting if one.ref not in taken and not book.blocked(one.report)]
        chosen = choose(request, free)
        if chosen is None:
            return Refused(
                "all-leased",
                f"every device that would do is in use ({len(fitting)}).",
                "ask again when a lease has ended, or ask another site",
                terminal=False,
            )
        return Admitted(chosen.ref, chosen.report.holds(request.image_id))


def _eligible(request: LeaseRequest, fleet: Fleet, now_s: float) -> list[NodeReport] | Refused:
    """Return the nodes with devices among which the request may choose."""
    if request.node is not None and request.node not in fleet.nodes:
        return Refused(
            "unknown-node",
            f"this site has no node {request.node}.",
            "name another node, or none",
            terminal=True,
        )
    nodes = [one for one in fleet.present(now_s) if request.node in (None, one.node)]
    if request.node is not None and not nodes:
        return Refused(
            "unknown-node",
            f"the node {request.node} has not been heard of for a while.",
            "name another node, or none; look at the node if it is yours",
            terminal=False,
        )
    if request.devices != 1:
        return Refused(
            "no-device",
            f"a lease here has one device, not {request.devices}.",
            "ask for one device",
            terminal=True,
        )
    nodes = [one for one in nodes if one.devices]
    if not nodes:
        return Refused(
            "no-device",
            "no node that would do has reported a device lately.",
            "ask again in a moment if the site has just started, or ask another site",
            terminal=False,
        )
    return nodes
