"""The verdict on an export: everything that anybody can check offline, from the registry's pin alone.

Checked, each with its count: the registry, back to the pin; the policies that it lists; each receipt's form,
both signatures, its place in its donor's chain, every rule of chains, its charge recomputed; that what a
device served is no longer than the time that has passed; that no donor charged more than its devices could
earn; contradictions; disputes and resolutions; signed requests in the log; that decisions name policies that
exist.

A *problem* is something that is false or contradicts itself. A *note* is what an honest ledger may have:
receipts that their borrower has not countersigned, disputes that nobody has resolved, chains of sites
without keys.

The lines come in the order of ``federation.ledger.export``. Signatures are checked by whatever ``submit``
is, so that a caller can use all cores; the rest is a pure function of the lines.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from federation.errors import ExportError, FederationError, ReceiptError
from federation.ledger.accept import Held, accept_page
from federation.ledger.chain import Chain, Facts
from federation.ledger.disputes import (
    decode_dispute,
    decode_resolution,
    dispute_holds,
    resolution_holds,
)
from federation.ledger.export import data_in, item_in, statement_in
from federation.ledger.form import decode
from federation.ledger.items import Item, contradiction, proves
from federation.ledger.request import SignedRequest, decode_request
from federation.ledger.signing import REQUEST, Keys, keys_of, verifies
from federation.ledger.verdict import Verdict, check_devices, check_earnings
from federation.limits import (
    COUNTERSIGN_INTERVALS,
    MAX_ROOT_ROTATIONS,
    RECEIPT_INTERVAL_S,
    RECEIPT_PAGE,
)
from federation.policy.file import read_policy
from federation.registry.cache import Cached
from federation.registry.membership import Membership

REQUEST_KIND: Final = "request"
"""The kind of a log line whose body is a signed request: ``body`` and ``signature`` (hex)."""
_AHEAD: Final = 4


class Pending(Protocol):
    """A check under way."""

    def result(self) -> bytes:
        """Wait for what was found of each item."""
        ...


Submit = Callable[[list[Item]], Pending]
OpenRegistry = Callable[[Mapping[int, bytes], Cached, float], Membership]


def audit(
    lines: Iterable[dict[str, Any]], open_registry: OpenRegistry, submit: Callable[[Keys], Submit]
) -> Verdict:
    """Return the verdict on an export.

    Args:
        lines: of ``read_lines``.
        open_registry: verifies the registry's files from the pin, as of a time.
        submit: given the keys, returns what checks a page of receipts.

    Raises:
        ExportError: the export cannot be read, or its registry not be believed.
    """
    return _Audit(open_registry, submit).run(lines)


class _Audit:
    def __init__(self, open_registry: OpenRegistry, submit: Callable[[Keys], Submit]) -> None:
        self.verdict = Verdict()
        self._open_registry = open_registry
        self._make_submit = submit
        self._roots: dict[int, bytes] = {}
        self._files = Cached()
        self._keys: Keys | None = None
        self._facts = Facts(0, {})
        self._submit: Submit | None = None
        self._page: list[Item] = []
        self._donor = ""
        self._work: deque[tuple[str, list[Item], Pending]] = deque()
        self._chains: dict[str, Chain] = {}
        self._signed: dict[tuple[str, str], int] = defaultdict(int)
        self._broken: set[str] = set()
        self._disputed: set[tuple[str, str]] = set()
        self._resolved: set[tuple[str, str]] = set()

    def run(self, lines: Iterable[dict[str, Any]]) -> Verdict:
        takers: dict[str, Callable[[dict[str, Any]], None]] = {
            "export": self._header,
            "root": self._root,
            "metadata": self._metadata,
            "document": self._document,
            "receipt": self._receipt,
            "set-aside": self._set_aside,
            "evidence": self._evidence,
            "dispute": self._dispute,
            "resolution": self._resolution,
            "log": self._log,
        }
        for line in lines:
            take = takers.get(line["type"])
            if take is None:
                self.verdict.counts["lines of unknown type"] += 1
                continue
            if line["type"] != "receipt":
                self._drain()
            take(line)
        self._drain()
        self._believe()
        self._conclude()
        return self.verdict

    # The registry's part.

    def _header(self, line: dict[str, Any]) -> None:
        site, made_at_s = line.get("site"), line.get("made_at_s")
        if not isinstance(site, str) or not isinstance(made_at_s, int):
            raise ExportError("the export does not say who made it, and when.", fix="ask for it again")
        self.verdict.site, self.verdict.made_at_s = site, made_at_s

    def _root(self, line: dict[str, Any]) -> None:
        version = line.get("version")
        if not isinstance(version, int) or len(self._roots) > MAX_ROOT_ROTATIONS:
            raise ExportError("the export has no usable chain of roots.", fix="ask for it again")
        self._roots[version] = data_in(line, "data")

    def _metadata(self, line: dict[str, Any]) -> None:
        self._files.roles[str(line.get("role"))] = data_in(line, "data")

    def _document(self, line: dict[str, Any]) -> None:
        self._files.documents[str(line.get("sha256"))] = data_in(line, "data")

    def _believe(self) -> Keys:
        if self._keys is not None:
            return self._keys
        verdict = self.verdict
        members = self._open_registry(self._roots, self._files, float(verdict.made_at_s))
        verdict.consortium = members.consortium
        verdict.counts["sites"] = len(members.sites)
        for about, sentence in members.faults.items():
            verdict.note("registry", about, sentence)
        policies = {}
        for text in members.policies:
            try:
                policies[text.digest] = read_policy(text.data, f"policy {text.version}").policy
            except FederationError as error:
                verdict.problem("policy", f"version {text.version}", error.message)
        verdict.counts["policies"] = len(policies)
        self._facts = Facts(verdict.made_at_s, policies)
        self._keys = keys_of(members)
        self._submit = self._make_submit(self._keys)
        return self._keys

    # Receipts.

    def _receipt(self, line: dict[str, Any]) -> None:
        self._believe()
        item = item_in(line)
        self.verdict.counts["receipts"] += 1
        try:
            donor = decode(item.body).donor
        except ReceiptError as error:
            self.verdict.problem("form", f"receipt {self.verdict.counts['receipts']}", error.message)
            return
        if donor != self._donor or len(self._page) == RECEIPT_PAGE:
            self._flush()
            self._donor = donor
        self._page.append(item)

    def _flush(self) -> None:
        if self._page:
            assert self._submit is not None
            self._work.append((self._donor, self._page, self._submit(self._page)))
            self._page = []
        while len(self._work) > _AHEAD:
            self._settle()

    def _drain(self) -> None:
        self._flush()
        while self._work:
            self._settle()

    def _settle(self) -> None:
        donor, items, pending = self._work.popleft()
        found = pending.result()
        if donor in self._broken:
            return
        chain = self._chains.get(donor, Chain(donor))
        outcome = accept_page(chain, items, found, self._facts, _NOTHING)
        self._chains[donor] = outcome.chain
        self.verdict.heads[donor] = outcome.chain.head
        self.verdict.counts["receipts that hold"] += len(outcome.taken)
        for signed, item in zip(outcome.taken, items, strict=False):
            receipt = signed.receipt
            if signed.borrower_signature:
                self.verdict.counts["countersigned"] += 1
                self._signed[donor, receipt.lease_id] = receipt.seq
            elif item.borrower_signature:
                about = f"{donor} {receipt.position}"
                self.verdict.problem("countersignature", about, f"{receipt.borrower} has not signed it.")
        if outcome.refusal is not None:
            self._broken.add(donor)
            position = outcome.chain.head.position + 1
            self.verdict.problem(outcome.refusal.code, f"{donor} {position}", outcome.refusal.sentence)
            if donor not in (self._keys.sites if self._keys is not None else {}):
                self.verdict.note("no-key", donor, "the registry has no such site, or no key of it.")
        for evidence in outcome.evidence:
            self.verdict.problem("contradiction", f"{donor} {evidence.position}", _TWO)

    def _set_aside(self, line: dict[str, Any]) -> None:
        item_in(line)
        self.verdict.counts["set aside"] += 1

    def _evidence(self, line: dict[str, Any]) -> None:
        keys = self._believe()
        self.verdict.counts["evidence"] += 1
        halves = [line.get("first"), line.get("second")]
        try:
            first, second = (item_in(half) if isinstance(half, dict) else Item(b"", b"") for half in halves)
            proof = contradiction(first, second)
        except ReceiptError:
            proof = None
        if proof is None or not proves(proof, keys):
            self.verdict.problem("evidence", "", "the export holds evidence that proves nothing.")
        else:
            self.verdict.problem("contradiction", f"{proof.donor} {proof.position}", _TWO)

    # What people say about receipts.

    def _dispute(self, line: dict[str, Any]) -> None:
        keys, signed = self._believe(), statement_in(line)
        self.verdict.counts["disputes"] += 1
        try:
            dispute = decode_dispute(signed.body)
        except ReceiptError as error:
            self.verdict.problem("dispute", "", error.message)
            return
        about = f"{dispute.donor} {dispute.lease_id}"
        chain = self._chains.get(dispute.donor)
        last = chain.leases.get(dispute.lease_id) if chain is not None else None
        if last is None:
            self.verdict.note("dispute", about, "it disputes a lease of which there is no receipt.")
            return
        self._disputed.add((dispute.donor, dispute.lease_id))
        if last.seq == dispute.seq and not dispute_holds(signed, last, keys):
            self.verdict.problem("dispute", about, "it is not its borrower's, or not lower than the receipt.")

    def _resolution(self, line: dict[str, Any]) -> None:
        keys, signed = self._believe(), statement_in(line)
        self.verdict.counts["resolutions"] += 1
        try:
            resolution = decode_resolution(signed.body)
        except ReceiptError as error:
            self.verdict.problem("resolution", "", error.message)
            return
        if resolution_holds(signed, keys):
            self._resolved.add((resolution.donor, resolution.lease_id))
        else:
            about = f"{resolution.donor} {resolution.lease_id}"
            self.verdict.problem("resolution", about, f"{resolution.auditor} has not signed it.")

    def _log(self, line: dict[str, Any]) -> None:
        keys, kind, body = self._believe(), line.get("kind"), data_in(line, "body")
        self.verdict.counts[f"log: {kind}"] += 1
        about = f"log {kind} at {line.get('at_s')}"
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            self.verdict.problem("log", about, "the line is no JSON object.")
        elif kind == REQUEST_KIND:
            self._request(fields, about, keys)
        else:
            policy = fields.get("policy", "")
            if policy and policy not in self._facts.policies:
                self.verdict.problem("log", about, "it was decided under a policy that was never published.")

    def _request(self, fields: dict[str, Any], about: str, keys: Keys) -> None:
        signed = statement_in(fields)
        try:
            request = decode_request(SignedRequest(signed.body, signed.signature).body)
        except ReceiptError as error:
            self.verdict.problem("request", about, error.message)
            return
        signers = keys.of(request.borrower, request.asked_at_s)
        if not verifies(signers, REQUEST, signed.body, signed.signature):
            self.verdict.problem("request", about, f"{request.borrower} has not signed it.")

    # Across receipts.

    def _conclude(self) -> None:
        now_s = self.verdict.made_at_s
        for donor, chain in sorted(self._chains.items()):
            last = sorted(chain.leases.values(), key=lambda one: one.position)
            self.verdict.counts["leases"] += len(last)
            check_devices(self.verdict, donor, last)
            check_earnings(self.verdict, donor, last, self._facts.policies)
            for receipt in last:
                self.verdict.charged[receipt.account] += receipt.charge_msgs
                late = now_s > receipt.to_s + COUNTERSIGN_INTERVALS * RECEIPT_INTERVAL_S
                if self._signed[donor, receipt.lease_id] < receipt.seq and late:
                    about = f"{donor} {receipt.lease_id}"
                    self.verdict.counts["unilateral leases"] += 1
                    self.verdict.note("unilateral", about, f"{receipt.borrower} has not countersigned it.")
        for donor, lease_id in sorted(self._disputed - self._resolved):
            self.verdict.note("open-dispute", f"{donor} {lease_id}", "the lower figure ranks.")


_NOTHING: Final = Held(lambda _: None, lambda *_: None)
_TWO: Final = "the donor has signed two receipts that cannot both be true."
