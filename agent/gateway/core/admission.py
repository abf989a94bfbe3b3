"""Whether a donor would serve a request at all, now or later: what does not depend on who else is there.

The order is FAIRNESS': misconfigured, not permitted, no matching device, exceeds a limit, and then what
passes by itself, the donor being paused or having sent all that it may today. What is for good is a refusal;
what passes is a reason to wait. Caps, reserves, order and capacity are ``agent.gateway.core.serving``'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from agent.gateway.core.fleet import Device, Fleet, NodeReport
from agent.gateway.core.law import Law
from agent.gateway.core.request import LeaseRequest, Refused, account_of
from agent.text import format_size
from federation.errors import FederationInputError
from federation.fairshare.accounts import check_account
from federation.fairshare.reasons import (
    DonorPaused,
    EgressExhausted,
    ExceedsLimit,
    Misconfigured,
    NoMatchingDevice,
    NotPermitted,
    Reason,
)
from federation.policy.permit import Denied, Permitted, RequestFacts, permit
from federation.policy.policy import Policy

_KNOWN_ANSWERS: Final = 4096
"""Answers that are kept with a law: what they are kept by are strangers' words."""


@dataclass(frozen=True, slots=True)
class No:
    """A request is refused, and why in the policy's words; ``None``: that is no matter of a policy."""

    refused: Refused
    reason: Reason | None = None


def classed(request: LeaseRequest, law: Law) -> LeaseRequest:
    """Return a request with the classes that its account is in."""
    if law.standing is None:
        return request
    classes = law.standing.classes(account_of(request))
    return request if classes == request.classes else replace(request, classes=classes)


def refuses(request: LeaseRequest, law: Law, fleet: Fleet, now_s: float) -> No | None:
    """Return why a request is not served here at all, and does not wait either."""
    return (
        _misconfigured(request, law)
        or _denied(request, law, now_s)
        or _unmatched(request, law, fleet, now_s)
        or _excessive(request, law)
    )


def paused(law: Law, now_s: float) -> Reason | None:
    """Return why nobody at all is served at the moment."""
    if not law.lends_now(now_s):
        hours = ", ".join(law.lend.hours)
        return DonorPaused(f"the donor lends at {hours} only, by its own time.", law.lends_in_s(now_s) or 0)
    return _egress(law, now_s)


def pauses(request: LeaseRequest, law: Law, now_s: float) -> Reason | None:
    """Return why a request like this is not served at the moment, whoever else is there."""
    everybody = paused(law, now_s)
    if everybody is not None:
        return everybody
    hourly = denied(request, law, now_s)
    return None if hourly is None else DonorPaused(hourly.sentence)


def denied(request: LeaseRequest, law: Law, now_s: float, device_class: str = "") -> Denied | None:
    """Return the rule of the policy that says no, for good or at this hour; on devices of a class.

    Every model that the image is listed as has to be permitted; where it is listed as none, its name counts
    as the borrower says it, of no publisher and under no licence. The rule that is for good is named first.
    """
    if law.policy is None:
        return None
    # All that ``_answers`` reads of a request; the hour counts only if a rule has hours.
    asked = (
        request.account,
        request.borrower_site,
        request.purpose,
        request.classes,
        request.model,
        request.total_bytes,
        request.known,
        device_class,
        law.week_minute(now_s) if any(rule.match.hours for rule in law.policy.deny) else None,
    )
    known = law.known_answers
    if asked in known:
        return known[asked]
    answers = [
        one for one in _answers(request, law, law.policy, now_s, device_class) if isinstance(one, Denied)
    ]
    answer = next((one for one in answers if one.lasting), answers[0] if answers else None)
    if len(known) < _KNOWN_ANSWERS:
        known[asked] = answer
    return answer


def _answers(
    request: LeaseRequest, law: Law, policy: Policy, now_s: float, device_class: str
) -> Iterator[Denied | Permitted]:
    facts = RequestFacts(
        account=account_of(request),
        borrower_site=request.borrower_site,
        purpose=request.purpose,
        classes=request.classes,
        device_class=device_class,
        model=request.model,
        total_bytes=request.total_bytes,
        donor_site=law.site,
        donor_region=law.region,
        week_minute=law.week_minute(now_s),
    )
    if not request.known:
        yield permit(policy, facts)
    for one in request.known:
        listed = replace(
            facts,
            model=one.model,
            publisher=one.publisher,
            licence=one.licence,
            total_bytes=max(request.total_bytes, one.total_bytes),
        )
        yield permit(policy, listed)


def fits(request: LeaseRequest, device: Device) -> bool:
    """Whether a device has the memory for its part of the image."""
    return device.memory_bytes * request.devices >= request.total_bytes


def _misconfigured(request: LeaseRequest, law: Law) -> No | None:
    why = ""
    if request.devices < 1:
        why = f"a lease has one device or more, not {request.devices}"
    elif request.duration_s < 0 or (request.min_runtime_s or 0) < 0:
        why = "a lease lasts no negative time"
    elif law.policy is not None:
        try:
            check_account(account_of(request))
        except FederationInputError as error:
            why = error.message.rstrip(".")
    if not why:
        return None
    change = "write the request anew"
    return No(Refused("misconfigured", f"{why}.", change, terminal=True), Misconfigured(f"{why}.", change))


def _denied(request: LeaseRequest, law: Law, now_s: float) -> No | None:
    answer = denied(request, law, now_s)
    if answer is None or not answer.lasting:
        return None
    return No(
        Refused("not-permitted", answer.sentence, answer.fix, terminal=True),
        NotPermitted(answer.rule_id, answer.sentence, answer.fix),
    )


def _unmatched(request: LeaseRequest, law: Law, fleet: Fleet, now_s: float) -> No | None:
    """Return why no device would ever do: of those that are lent, be they in use or with their owner."""
    if not (law.policy is not None and law.policy.deny) and _matched(request, fleet, now_s):
        return None  # as below, and soon: nearly always the first node will do
    nodes = _eligible(request, fleet, now_s)
    if isinstance(nodes, Refused):
        reason = NoMatchingDevice(f"the node {request.node}") if request.node is not None else None
        return No(nodes, reason)
    donating = [one for one in nodes if one.donating]
    if not donating:
        return No(
            Refused(
                "not-donating",
                "no device that would do is donated at the moment.",
                "ask again later, or ask another site",
                terminal=False,
            )
        )
    if any(sum(fits(request, one) for one in report.devices) >= request.devices for report in donating):
        return _barred(request, law, donating, now_s)
    largest = max(one.memory_bytes for report in donating for one in report.devices)
    if request.devices > 1:
        sentence = f"no node here has {request.devices} devices that would do."
        return No(
            Refused("no-device", sentence, "ask for fewer devices, or ask another site", terminal=True),
            NoMatchingDevice(f"{request.devices} devices of one node"),
        )
    sentence = (
        f"the image has {format_size(request.total_bytes)}, the largest donated device "
        f"{format_size(largest)}."
    )
    return No(
        Refused("too-large", sentence, "choose a smaller model, or ask another site", terminal=True),
        NoMatchingDevice(f"{format_size(request.total_bytes)} on one device"),
    )


def _matched(request: LeaseRequest, fleet: Fleet, now_s: float) -> bool:
    """Whether a node that is there lends enough devices that would do."""
    for heard in fleet.nodes.values():
        report = heard.report
        if report.donating and request.node in (None, report.node) and not heard.silent(now_s):
            left = request.devices
            for one in report.devices:
                left -= fits(request, one)
                if left <= 0:
                    return True
    return False


def _barred(request: LeaseRequest, law: Law, donating: list[NodeReport], now_s: float) -> No | None:
    """Return the rule that bars each class of devices that would do."""
    if law.policy is None or not law.policy.deny:
        return None
    classes = sorted(
        {one.device_class for report in donating for one in report.devices if fits(request, one)}
    )
    answers = [denied(request, law, now_s, one) for one in classes]
    first = answers[0]
    if first is None or any(one is None or not one.lasting for one in answers):
        return None
    return No(
        Refused("not-permitted", first.sentence, first.fix, terminal=True),
        NotPermitted(first.rule_id, first.sentence, first.fix),
    )


def _excessive(request: LeaseRequest, law: Law) -> No | None:
    for reason in _excesses(request, law):
        return No(Refused(reason.code, reason.sentence(), reason.change, terminal=True), reason)
    return None


def _excesses(request: LeaseRequest, law: Law) -> Iterator[ExceedsLimit]:
    if law.policy is None:
        return
    if request.devices > law.caps.max_devices:
        yield ExceedsLimit("devices", request.devices, law.caps.max_devices)
    if request.duration_s > law.lend.max_duration_s:
        yield ExceedsLimit("seconds", request.duration_s, law.lend.max_duration_s)
    least_s = 0 if request.instant else law.lend.min_runtime_s
    if request.min_runtime_s is not None and request.min_runtime_s > least_s:
        yield ExceedsLimit("seconds before other guests", request.min_runtime_s, least_s)


def _egress(law: Law, now_s: float) -> Reason | None:
    limit = None if law.policy is None else law.policy.data.egress_bytes_per_day
    sent = law.egress
    if limit is None or sent is None or sent.used_bytes < limit or now_s >= sent.renews_at_s:
        return None
    return EgressExhausted(law.site, limit, int(sent.renews_at_s - now_s))


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
    nodes = [one for one in nodes if one.devices]
    if not nodes:
        return Refused(
            "no-device",
            "no node that would do has reported a device lately.",
            "ask again in a moment if the site has just started, or ask another site",
            terminal=False,
        )
    return nodes
