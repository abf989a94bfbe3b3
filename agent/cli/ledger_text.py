"""What ``ledger`` and ``audit`` print: the same facts for people and as JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent.cli.output import data, table, talk
from agent.state.ledger_rows import DonorRow
from federation.ledger.accept import Outcome
from federation.ledger.items import Evidence
from federation.ledger.standing import LeaseLine, is_unilateral
from federation.ledger.verdict import Verdict

SCHEMA: Final = 1
_SHOWN: Final = 20
"""Findings that are printed for people; the JSON form has more."""


def show_document(
    lines: Sequence[LeaseLine], donors: Sequence[DonorRow], evidence: Sequence[Evidence], *, now_s: int
) -> dict[str, Any]:
    """Return ``ledger show`` as JSON."""
    return {
        "schema": SCHEMA,
        "leases": [
            {
                "donor": one.donor,
                "lease": one.lease_id,
                "borrower": one.borrower,
                "account": one.account,
                "purpose": one.purpose,
                "devices": one.device.split(","),
                "device_class": one.device_class,
                "from_s": one.from_s,
                "to_s": one.to_s,
                "busy_ms": one.busy_ms,
                "charge_msgs": one.charge_msgs,
                "receipts": one.seq,
                "countersigned": one.signed_seq,
                "final": one.final,
                "refunded": one.refunded,
                "unilateral": is_unilateral(one, now_s),
            }
            for one in lines
        ],
        "donors": [
            {
                "donor": one.donor,
                "position": one.head.position,
                "digest": one.head.digest.hex(),
                "last_s": one.to_s,
                "contradicted_at": one.forked_at,
            }
            for one in donors
        ],
        "contradictions": [
            {"donor": one.donor, "kind": one.kind, "position": one.position} for one in evidence
        ],
    }


def show_text(
    lines: Sequence[LeaseLine], donors: Sequence[DonorRow], evidence: Sequence[Evidence], *, now_s: int
) -> None:
    """Print ``ledger show`` for people."""
    if not donors:
        talk("No receipts yet: they come with the first lease under a policy.")
        return
    table(
        ("LEASE", "DONOR", "ACCOUNT", "PURPOSE", "DEVICES", "SINCE", "SERVED", "CHARGE", "STATE"),
        [
            (
                one.lease_id[:16],
                one.donor,
                one.account,
                one.purpose,
                f"{one.device} ({one.device_class})",
                time.strftime("%m-%d %H:%M", time.localtime(one.from_s)),
                f"{one.busy_ms // 1000} s",
                f"{one.charge_msgs / 1000:.0f}",
                _state(one, now_s),
            )
            for one in lines
        ],
    )
    data("")
    table(
        ("DONOR", "RECEIPTS", "LAST", "HEAD", ""),
        [
            (
                one.donor,
                str(one.head.position),
                time.strftime("%Y-%m-%d %H:%M", time.localtime(one.to_s)) if one.to_s else "-",
                one.head.digest.hex()[:16],
                f"contradicted itself at {one.forked_at}" if one.forked_at is not None else "",
            )
            for one in donors
        ],
    )
    for found in evidence:
        talk(f"{found.donor} has signed two receipts that cannot both be true, at position {found.position}.")


def verify_document(found: Mapping[str, Outcome], contradictions: int, *, took_s: float) -> dict[str, Any]:
    """Return ``ledger verify`` as JSON."""
    return {
        "schema": SCHEMA,
        "receipts": sum(one.chain.head.position for one in found.values()),
        "seconds": round(took_s, 3),
        "contradictions": contradictions,
        "donors": [
            {
                "donor": donor,
                "holds_to": one.chain.head.position,
                "problem": None
                if one.refusal is None
                else {"code": one.refusal.code, "sentence": one.refusal.sentence},
            }
            for donor, one in sorted(found.items())
        ],
    }


def verify_text(found: Mapping[str, Outcome], contradictions: int, *, took_s: float) -> None:
    """Print ``ledger verify`` for people."""
    total = sum(one.chain.head.position for one in found.values())
    for donor, one in sorted(found.items()):
        position = one.chain.head.position
        if one.refusal is None:
            data(f"{donor}: {position} receipts hold")
        else:
            data(f"{donor}: {position} receipts hold, then {one.refusal.code}: {one.refusal.sentence}")
    if contradictions:
        data(f"{contradictions} contradictions are kept as evidence")
    talk(f"{total} receipts in {took_s:.1f} s.")


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON."""
    return {
        "schema": SCHEMA,
        "verdict": "clean" if verdict.clean else "problems",
        "consortium": verdict.consortium,
        "made_by": verdict.site,
        "made_at_s": verdict.made_at_s,
        "ledger_digest": verdict.digest.hex(),
        "counts": dict(verdict.counts),
        "problems": [
            {"code": one.code, "about": one.about, "sentence": one.sentence} for one in verdict.problems
        ],
        "notes": [{"code": one.code, "about": one.about, "sentence": one.sentence} for one in verdict.notes],
        "charged_msgs": dict(sorted(verdict.charged.items())),
        "heads": {
            donor: {"position": head.position, "digest": head.digest.hex()}
            for donor, head in sorted(verdict.heads.items())
        },
    }


def verdict_text(verdict: Verdict) -> None:
    """Print a verdict for people."""
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(verdict.made_at_s))
    data(f"export of {verdict.site}, consortium {verdict.consortium}, made {made}")
    for name, count in sorted(verdict.counts.items()):
        if name not in ("problems", "notes"):
            data(f"  {count:>9}  {name}")
    for title, findings, count in (
        ("problem", verdict.problems, verdict.counts["problems"]),
        ("note", verdict.notes, verdict.counts["notes"]),
    ):
        for one in findings[:_SHOWN]:
            data(f"{title}  {one.code}  {one.about}: {one.sentence}")
        if count > _SHOWN:
            data(f"{title}  and {count - _SHOWN} more; --json has up to {len(findings)}")
    data(f"ledger digest {verdict.digest.hex()}")
    data("verdict: clean" if verdict.clean else f"verdict: {verdict.counts['problems']} problems")


def _state(one: LeaseLine, now_s: int) -> str:
    words = ["refunded" if one.refunded else "ended" if one.final else "open"]
    if is_unilateral(one, now_s):
        words.append("unilateral")
    elif one.signed_seq == one.seq:
        words.append("countersigned")
    return ", ".join(words)
