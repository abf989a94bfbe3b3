"""A gateway's books of use: what its donor side writes, what its borrower side signs, what others ask for.

Rules: nothing is taken whose donor has not signed it; nothing of our own is signed while others may hold more
of our chain than we do; a borrower signs the last receipt of a lease only after ``judge`` has found its
figure right, and disputes it with its own figure otherwise. Keys and policies are asked for at each call,
since both change while the agent runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.daemon.clocks import boot_time_s
from agent.ledger.checking import SignatureChecks
from agent.ledger.verifying import verify_chain
from agent.state.ledger_store import LedgerStore
from federation.errors import LedgerError, LedgerLockedError, ReceiptError
from federation.fairshare.usage import Usage
from federation.ledger.accept import Outcome
from federation.ledger.chain import Facts, Head
from federation.ledger.disputes import (
    Dispute,
    SignedStatement,
    decode_dispute,
    decode_resolution,
    dispute_holds,
    resolution_holds,
    sign_dispute,
)
from federation.ledger.exchange import Countersignature
from federation.ledger.form import decode
from federation.ledger.items import Evidence, Item, proves
from federation.ledger.merge import ledger_digest
from federation.ledger.own import OwnChain, begin, clock_moved_s, heard, may_write
from federation.ledger.receipt import Receipt, SignedReceipt
from federation.ledger.signing import BORROWER, Keys, sign, verifies
from federation.ledger.standing import LeaseLine, holdings, in_arrears
from federation.ledger.writing import Statement
from federation.limits import RECEIPT_PAGE
from federation.policy.policy import Policy

if TYPE_CHECKING:
    from sqlite_utils import Database

Judge = Callable[[Receipt], int | None]
"""Given a receipt that charges us: ``None`` if it is right, else what it should have charged, msgs."""


@dataclass(frozen=True, slots=True)
class Signing:
    """This site's name and its receipts key."""

    site: str
    key: Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Standings:
    """What ranking reads of the books, at one moment.

    Args:
        digest: of all heads.
        usage: of all receipts, as disputes and resolutions leave it.
        open_leases: those whose last receipt is not final.
        held: devices by account on them.
        arrears: borrowers that get no new leases.
        heard_at: by donor, when its own gateway was last heard to its end (Unix time); 0: never.
    """

    digest: bytes
    usage: Usage
    open_leases: tuple[LeaseLine, ...]
    held: Mapping[str, int]
    arrears: frozenset[str]
    heard_at: Mapping[str, float]


class LedgerBooks:
    """The books of one gateway. Use ``await LedgerBooks.of(...)``.

    Methods raise ``StateError`` when the file fails.
    """

    def __init__(
        self,
        store: LedgerStore,
        signing: Signing,
        *,
        keys: Callable[[], Keys],
        policies: Callable[[], Mapping[str, Policy]],
        own: OwnChain,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = boot_time_s,
    ) -> None:
        self.store = store
        self._signing = signing
        self._keys = keys
        self._policies = policies
        self._own = own
        self._clock = clock
        self._monotonic = monotonic
        self._anchor_s = clock() - monotonic()

    @classmethod
    async def of(
        cls,
        store: LedgerStore,
        signing: Signing,
        *,
        keys: Callable[[], Keys],
        policies: Callable[[], Mapping[str, Policy]],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = boot_time_s,
    ) -> LedgerBooks:
        """Return the books in a store.

        Args:
            store: where they are kept.
            signing: this site.
            keys: returns all sites' keys as the registry has them now.
            policies: returns the policies by digest, former ones as well.
            clock: Unix time.
            monotonic: a clock that only goes forward, also while the machine sleeps.
        """
        own = begin(remembered=await store.remembered(signing.site), now_s=monotonic())
        return cls(store, signing, keys=keys, policies=policies, own=own, clock=clock, monotonic=monotonic)

    @property
    def site(self) -> str:
        """This site."""
        return self._signing.site

    @property
    def keys(self) -> Keys:
        """All sites' keys as they are now."""
        return self._keys()

    @property
    def own(self) -> OwnChain:
        """How sure we are of our own chain."""
        return self._own

    def facts(self) -> Facts:
        """Return what the rules need beyond the chains."""
        return Facts(int(self._clock()), self._policies())

    def append_in(self, db: Database, statement: Statement, policy: Policy) -> SignedReceipt:
        """Write our next receipt within a transaction of the caller's, in the state file's thread.

        Args:
            db: the transaction.
            statement: what was measured of a lease so far.
            policy: the one that the lease began under.

        Raises:
            LedgerLockedError: others may hold more of our chain; state it again later, with more time on it.
            LedgerError: the lease has had its last receipt, or the statement breaks a rule.
        """
        self._check_writable()
        return self.store.append_in(db, self.site, statement, policy, self._signing.key)

    async def append(self, statement: Statement, policy: Policy) -> SignedReceipt:
        """Write our next receipt; errors as ``append_in``."""
        self._check_writable()
        return await self.store.append(self.site, statement, policy, self._signing.key)

    async def heads(self) -> dict[str, Head]:
        """Return how far each donor's chain is known here."""
        return await self.store.heads()

    async def page(self, donor: str, after_position: int, limit: int = RECEIPT_PAGE) -> list[Item]:
        """Return a page for a peer."""
        return await self.store.page(donor, max(0, after_position), max(1, limit))

    async def import_page(self, donor: str, items: Sequence[Item], *, found: bytes | None = None) -> Outcome:
        """Take a page from a peer; ``found`` is what was found of its signatures, if that is known already.

        Raises:
            ReceiptError: the page is too long.
        """
        if len(items) > RECEIPT_PAGE:
            raise ReceiptError(f"a page has at most {RECEIPT_PAGE} receipts.")
        if found is None:
            with SignatureChecks(self.keys) as checks:
                found = await checks.check(items)
        return await self.store.take(donor, items, found, self.facts(), now_s=self._clock())

    async def import_evidence(self, evidence: Evidence) -> bool:
        """Keep evidence from a peer if it proves something new; return whether it does."""
        return proves(evidence, self.keys) and await self.store.put_evidence(evidence, now_s=self._clock())

    async def import_statement(self, kind: str, signed: SignedStatement) -> bool:
        """Keep a dispute or resolution from a peer if it holds; return whether it is new.

        Raises:
            ReceiptError: it is none.
            LedgerError: there are too many of its lease.
        """
        if kind == "resolution":
            resolution = decode_resolution(signed.body)
            if not resolution_holds(signed, self.keys):
                return False
            return await self.store.put_statement(kind, resolution.donor, resolution.lease_id, signed)
        dispute = decode_dispute(signed.body)
        item = await self.store.numbered(dispute.donor, dispute.lease_id, dispute.seq)
        if kind != "dispute" or item is None or not dispute_holds(signed, decode(item.body), self.keys):
            return False
        return await self.store.put_statement(kind, dispute.donor, dispute.lease_id, signed)

    async def take_countersignatures(self, borrower: str, given: Sequence[Countersignature]) -> int:
        """Take a borrower's signatures on receipts that charge it; return how many were new.

        What is not its own, or does not verify, is passed over.

        Args:
            borrower: who brings them, as its certificate says.
            given: at most ``RECEIPT_PAGE``.

        Raises:
            ReceiptError: there are too many.
        """
        if len(given) > RECEIPT_PAGE:
            raise ReceiptError(f"at most {RECEIPT_PAGE} signatures come at once.")
        return sum([await self._sign_held(one, borrower) for one in given])

    async def import_signatures(self, given: Sequence[Countersignature]) -> int:
        """Take borrowers' signatures from a peer, whoever they are of; return how many were new.

        What does not verify is passed over.

        Raises:
            ReceiptError: there are too many.
        """
        if len(given) > RECEIPT_PAGE:
            raise ReceiptError(f"at most {RECEIPT_PAGE} signatures come at once.")
        return sum([await self._sign_held(one, None) for one in given])

    async def unsigned_of(self, borrower: str, *, limit: int = RECEIPT_PAGE) -> list[LeaseLine]:
        """Return the leases whose last receipt a borrower has still to sign, oldest first."""
        return await self.store.unsigned(borrower, limit=limit)

    async def sign_due(self, judge: Judge) -> list[Countersignature]:
        """Sign, or dispute, the last receipt of each lease that charges us; return the signatures.

        The signatures are kept here as well: whoever pulls from us gets them too.
        """
        made = []
        for line in await self.unsigned_of(self.site):
            item = await self.store.item(line.donor, line.position)
            if item is None or item.borrower_signature:
                continue
            receipt = decode(item.body)
            right = judge(receipt)
            if right is None:
                signature = sign(self._signing.key, BORROWER, item.body)
                await self.store.countersign(line.donor, [(line.position, signature)])
                made.append(Countersignature(line.donor, line.position, signature))
            elif right < receipt.charge_msgs:
                await self._dispute(receipt, right)
        return made

    async def confirm_own(self, theirs: Head | None, proof: Item | None) -> OwnChain:
        """Note what a peer says of our own chain; return how sure we are of it now."""
        head = (await self.heads()).get(self.site, Head())
        self._own = heard(self._own, head, theirs, proof, self.keys, donor=self.site)
        return self._own

    async def standings(self) -> Standings:
        """Return what ranking reads."""
        now_s = int(self._clock())
        donors = await self.store.donors()
        open_leases = tuple(await self.store.open_leases())
        return Standings(
            digest=ledger_digest({row.donor: row.head for row in donors}),
            usage=(await self.store.usage()).add_all(await self.store.corrections()),
            open_leases=open_leases,
            held=holdings(open_leases),
            arrears=in_arrears(await self.store.unanswered(), now_s),
            heard_at={row.donor: row.heard_at for row in donors},
        )

    async def verify_all(self) -> dict[str, Outcome]:
        """Check everything held here anew: each donor's chain, both signatures, each rule and charge.

        Returns:
            For each donor the outcome at the end of its chain; a refusal says what is wrong and where.
        """
        facts, found = self.facts(), dict[str, Outcome]()
        with SignatureChecks(self.keys) as checks:
            for row in await self.store.donors():
                found[row.donor] = await verify_chain(self.store, row.donor, checks, facts)
        return found

    async def _sign_held(self, given: Countersignature, borrower: str | None) -> int:
        item = await self.store.item(given.donor, given.position)
        if item is None or item.borrower_signature:
            return 0
        receipt = decode(item.body)
        signers = self.keys.of(receipt.borrower, receipt.to_s)
        if borrower not in (None, receipt.borrower):
            return 0
        if not verifies(signers, BORROWER, item.body, given.signature):
            return 0
        return await self.store.countersign(given.donor, [(given.position, given.signature)])

    async def _dispute(self, receipt: Receipt, charge_msgs: int) -> None:
        dispute = Dispute(
            donor=receipt.donor,
            borrower=self.site,
            lease_id=receipt.lease_id,
            seq=receipt.seq,
            charge_msgs=charge_msgs,
            reason="the borrower's own books say less",
            at_s=int(self._clock()),
        )
        try:
            signed = sign_dispute(self._signing.key, dispute)
            await self.store.put_statement("dispute", receipt.donor, receipt.lease_id, signed)
        except LedgerError:
            return  # disputed often enough; what was said before stands

    def _check_writable(self) -> None:
        moved_s = clock_moved_s(self._anchor_s, unix_s=self._clock(), forward_s=self._monotonic())
        if moved_s:
            raise LedgerLockedError(
                f"this machine's clock has moved by {moved_s} s since the agent started, and signs no "
                "receipts before it is right.",
                fix="set the clock by NTP; if it was wrong at the start, start the agent again",
            )
        alone = not self.keys.sites.keys() - {self.site}
        if may_write(self._own, self._monotonic(), alone=alone):
            return
        if self._own.state == "locked":
            raise LedgerLockedError(
                f"other sites hold receipts of ours up to {self._own.position}, and this node's state ends "
                "before: it was restored from an older copy.",
                fix="let the gateway reach a site that it lent to; it pulls its own receipts back by itself",
            )
        raise LedgerLockedError(
            "no other gateway has said yet how far it knows our chain.", fix="wait, it is asked for"
        )
