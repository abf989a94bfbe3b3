"""One round with another gateway: pull what it has more of, settle what differs, sign what charges us.

Rules: everything that comes is checked here as if the peer were hostile; what one donor's chain does to a
round is that chain's matter, the others go on. Pages are asked for and checked ahead, and written in order.
First comes our own chain: whether the peer holds receipts of ours that we lost.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.ledger.books import Judge, LedgerBooks
from agent.ledger.checking import SignatureChecks
from agent.ledger.verifying import PAGES_AHEAD
from federation.errors import FederationError, ReceiptError
from federation.ledger.chain import Head, Refusal
from federation.ledger.exchange import Compare, LedgerPeer, Pull, halve, plan_round
from federation.ledger.form import decode
from federation.ledger.items import UNSIGNED, Item, check_item, contradiction
from federation.limits import MAX_LEDGER_EVIDENCE, RECEIPT_PAGE


@dataclass(slots=True)
class Round:
    """What one round with a peer has done.

    Args:
        receipts: how many were new.
        refused: by donor, why its next receipt was not taken.
        parked: the same for what may be taken later.
        evidence: contradictions that were new.
        signed: receipts that we countersigned.
    """

    receipts: int = 0
    refused: dict[str, Refusal] = field(default_factory=dict)
    parked: dict[str, Refusal] = field(default_factory=dict)
    evidence: int = 0
    signed: int = 0


async def sync_from(
    peer: LedgerPeer, books: LedgerBooks, *, judge: Judge | None = None, now: Callable[[], float]
) -> Round:
    """Bring what a peer holds into our books; return what was done.

    Args:
        peer: the other gateway.
        books: ours.
        judge: says whether a receipt that charges us is right; ``None``: nothing is signed in this round.
        now: Unix time.

    Raises:
        ReceiptError: the peer answers against the protocol.
    """
    done = Round()
    theirs = await peer.heads()
    await _settle_own(peer, books, theirs.get(books.site))
    for evidence in (await peer.evidence())[: MAX_LEDGER_EVIDENCE * max(1, len(books.keys.sites))]:
        done.evidence += await books.import_evidence(evidence)
    rows = {row.donor: row for row in await books.store.donors()}
    plan = plan_round(
        {donor: row.head for donor, row in rows.items()},
        theirs,
        {donor: row.forked_at for donor, row in rows.items() if row.forked_at is not None},
        frozenset(books.keys.sites),
    )
    with SignatureChecks(books.keys) as checks:
        for pull in plan.pulls:
            await _pull(peer, books, pull, checks, done)
    for compare in plan.compares:
        await _settle_fork(peer, books, compare, done)
    await _fetch_signatures(peer, books, theirs)
    for kind, statement in await peer.statements():
        try:
            await books.import_statement(kind, statement)
        except FederationError:
            continue  # one bad statement says nothing of the others
    if peer.site in theirs and peer.site not in done.refused and peer.site not in done.parked:
        await books.store.heard(peer.site, now_s=now())
    await _settle_own(peer, books, theirs.get(books.site))
    if judge is not None:
        made = await books.sign_due(judge)
        if made:
            await peer.countersign(made)
        done.signed = len(made)
    return done


async def _fetch_signatures(peer: LedgerPeer, books: LedgerBooks, theirs: Mapping[str, Head]) -> None:
    """Ask for signatures that were made after we took the receipts."""
    wanted: dict[str, list[int]] = defaultdict(list)
    for line in await books.store.all_unsigned():
        known = theirs.get(line.donor)
        # A borrower has signed nothing that it does not have; ours we sign ourselves.
        if line.borrower != books.site and known is not None and line.position <= known.position:
            wanted[line.donor].append(line.position)
    for donor, positions in wanted.items():
        for at in range(0, len(positions), RECEIPT_PAGE):
            await books.import_signatures(await peer.signatures(donor, positions[at : at + RECEIPT_PAGE]))


async def _settle_own(peer: LedgerPeer, books: LedgerBooks, theirs: Head | None) -> None:
    head = (await books.heads()).get(books.site, Head())
    proof = None
    if theirs is not None and theirs.position > head.position:
        page = await peer.page(books.site, theirs.position - 1, 1)
        proof = page[0] if page else None
    await books.confirm_own(theirs, proof)


async def _pull(
    peer: LedgerPeer, books: LedgerBooks, pull: Pull, checks: SignatureChecks, done: Round
) -> None:
    work: deque[tuple[list[Item], asyncio.Task[bytes]]] = deque()
    after, more = pull.after, True
    try:
        while more or work:
            while more and len(work) < PAGES_AHEAD:
                items = await peer.page(pull.donor, after, RECEIPT_PAGE)
                if len(items) > RECEIPT_PAGE:
                    raise ReceiptError(f"{peer.site} sends more than {RECEIPT_PAGE} receipts at once.")
                after += len(items)
                more = bool(items) and after < pull.upto
                if items:
                    work.append((items, asyncio.create_task(checks.check(items))))
            if not work:
                return
            items, task = work.popleft()
            outcome = await books.import_page(pull.donor, items, found=await task)
            done.receipts += len(outcome.taken)
            done.evidence += len(outcome.evidence)
            refusal = outcome.refusal
            if refusal is None:
                continue
            if refusal.parked:
                done.parked[pull.donor] = refusal
            else:
                done.refused[pull.donor] = refusal
            if refusal.code == "previous" and outcome.chain.head.position:
                compare = Compare(pull.donor, outcome.chain.head.position)
                await _settle_fork(peer, books, compare, done)
            return
    finally:
        for _, task in work:
            task.cancel()


async def _settle_fork(peer: LedgerPeer, books: LedgerBooks, compare: Compare, done: Round) -> None:
    """Find the lowest position at which the peer holds another receipt than we, and keep both as evidence."""
    low, high = 0, compare.position
    found = None
    at: int | None = high
    while at is not None:
        ours = await books.store.item(compare.donor, at)
        page = await peer.page(compare.donor, at - 1, 1)
        if ours is None or not page or check_item(page[0], books.keys) <= UNSIGNED:
            return  # nothing signed contradicts us: the peer's word is worth nothing
        theirs = page[0]
        if (decode(theirs.body).donor, decode(theirs.body).position) != (compare.donor, at):
            return
        if theirs.body == ours.body:
            low = at
        else:
            high, found = at, contradiction(ours, theirs)
        at = halve(low, high)
        if found is None:
            return
    if found is not None:
        done.evidence += await books.import_evidence(found)
