"""What an audit found, and the checks that go across all receipts of a donor.

These checks need no chain: whoever has the last receipt of each lease can repeat them by hand.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from federation.ledger.chain import Head
from federation.ledger.form import devices_of
from federation.ledger.merge import ledger_digest
from federation.ledger.receipt import Receipt
from federation.policy.policy import PER_MILLE, Policy

MAX_FINDINGS: Final = 1000
"""Findings that are told one by one; the count goes on."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem or note: a word for programs, whom it is about, a sentence."""

    code: str
    about: str
    sentence: str


@dataclass(slots=True)
class Verdict:
    """What was found.

    Args:
        site: who made the export.
        made_at_s: when, as it says.
        consortium: of the registry.
        counts: of everything that was looked at, by name.
        problems: false or contradictory; the first ``MAX_FINDINGS`` of them.
        notes: what an honest ledger may have.
        charged: by account, msgs of the leases' last receipts.
        heads: how far each chain holds.
    """

    site: str = ""
    made_at_s: int = 0
    consortium: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    charged: Counter[str] = field(default_factory=Counter)
    heads: dict[str, Head] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.counts["problems"]

    @property
    def digest(self) -> bytes:
        """The digest of the ledger as far as it holds."""
        return ledger_digest(self.heads)

    def problem(self, code: str, about: str, sentence: str) -> None:
        """Note that something is wrong."""
        self.counts["problems"] += 1
        if len(self.problems) < MAX_FINDINGS:
            self.problems.append(Finding(code, about, sentence))

    def note(self, code: str, about: str, sentence: str) -> None:
        """Note what an honest ledger may have."""
        self.counts["notes"] += 1
        if len(self.notes) < MAX_FINDINGS:
            self.notes.append(Finding(code, about, sentence))


def check_devices(verdict: Verdict, donor: str, last: Sequence[Receipt]) -> None:
    """Compare what each device served with the time that has passed, apart from the rules of chains."""
    served: dict[str, int] = defaultdict(int)
    spans: dict[str, tuple[int, int]] = {}
    for receipt in last:
        for device in devices_of(receipt):
            served[device] += receipt.busy_ms
            from_s, to_s = spans.get(device, (receipt.from_s, receipt.to_s))
            spans[device] = (min(from_s, receipt.from_s), max(to_s, receipt.to_s))
    verdict.counts["devices"] += len(served)
    for device, (from_s, to_s) in sorted(spans.items()):
        if served[device] > (to_s - from_s) * 1000:
            sentence = f"it served {served[device] // 1000} s within {to_s - from_s} s."
            verdict.problem("device-time", f"{donor} {device}", sentence)


def check_earnings(
    verdict: Verdict, donor: str, last: Sequence[Receipt], policies: Mapping[str, Policy]
) -> None:
    """Compare what a donor charged with its devices times the time, at the highest price of its policies."""
    if not last:
        return
    rates: dict[str, int] = {}
    for receipt in last:
        policy = policies[receipt.policy]
        factor = max((one.factor_permille for one in policy.purposes.values()), default=PER_MILLE)
        rate = policy.device_classes.get(receipt.device_class, PER_MILLE) * max(factor, PER_MILLE)
        for device in devices_of(receipt):
            rates[device] = max(rates.get(device, 0), rate)
    passed_s = max(one.to_s for one in last) - min(one.from_s for one in last)
    most = sum(rates.values()) * passed_s * 1000 // PER_MILLE**2
    charged = sum(one.charge_msgs for one in last)
    if charged > most:
        verdict.problem("earnings", donor, f"it charged {charged} msgs; its devices could earn {most}.")
