"""The ledger's calls between gateways: what one answers of its books, and another's books as this one asks.

Whatever comes from a peer is held to bounds here; what it is worth is for the books, which believe signatures
alone. A peer whose answer is outside the bounds gave none.
"""

# ruff: noqa: N802, ARG002 - the protocol file names the methods, gRPC their arguments

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.errors import PeerNodeError, RequestError
from agent.ledger.books import LedgerBooks
from agent.limits import LEDGER_CALL_S, MAX_LEDGER_NOTES_BYTES
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import Context, answering
from agent.rpc.identity import caller
from agent.rpc.leasing import LeaseClient
from federation.errors import FederationError
from federation.identity.names import NodeIdentity, check_label
from federation.ledger.carbon import SignedCarbon
from federation.ledger.chain import Head
from federation.ledger.disputes import MAX_STATEMENT_BYTES, SignedStatement
from federation.ledger.exchange import Countersignature
from federation.ledger.items import Evidence, Item, contradiction
from federation.ledger.signing import SIGNATURE_BYTES
from federation.limits import (
    MAX_CARBON_BYTES,
    MAX_LEDGER_HEADS,
    MAX_RECEIPT_BYTES,
    RECEIPT_PAGE,
)
from pyrdma.errors import Error

_DIGEST_BYTES: Final = 32
_MAX_POSITION: Final = (1 << 40) - 1
"""The state file numbers a donor's receipts with 40 bits; a larger one would be another donor's."""


@dataclass(frozen=True, slots=True)
class LedgerDesk:
    """What this gateway answers from: its books, how a caller's site is called, and its carbon series."""

    books: LedgerBooks
    site_of: Callable[[NodeIdentity], str]
    carbon: Callable[[], SignedCarbon | None] = lambda: None


class LedgerCalls:
    """Answers other gateways; without books every call is refused."""

    _ledger: LedgerDesk | None

    async def LedgerHeads(self, request: pb.LedgerHeadsRequest, context: Context) -> pb.LedgerHeadsReply:
        """Say how far each donor's chain is known here."""
        async with answering(context, LEDGER_CALL_S):
            desk = self._desk()
            heads, store = await desk.books.heads(), desk.books.store
            notes = _notes_digest(await store.evidence(), await store.statements())
            reply = pb.LedgerHeadsReply(heads=[head_to(donor, heads[donor]) for donor in heads], notes=notes)
            carbon = await asyncio.to_thread(desk.carbon)
            if carbon is not None:
                reply.carbon.CopyFrom(pb.SignedStatement(body=carbon.body, signature=carbon.signature))
            return reply

    async def LedgerPage(self, request: pb.LedgerPageRequest, context: Context) -> pb.LedgerPageReply:
        """Give receipts of one donor."""
        async with answering(context, LEDGER_CALL_S):
            books = self._desk().books
            donor, after = check_label(request.donor, "site"), _check_position(request.after)
            limit = min(request.limit or RECEIPT_PAGE, RECEIPT_PAGE)
            return pb.LedgerPageReply(items=map(item_to, await books.page(donor, after, limit)))

    async def LedgerSignatures(
        self, request: pb.LedgerSignaturesRequest, context: Context
    ) -> pb.LedgerSignaturesReply:
        """Give the borrowers' signatures that are known here, of the receipts asked for."""
        async with answering(context, LEDGER_CALL_S):
            store = self._desk().books.store
            donor = check_label(request.donor, "site")
            _check_count(len(request.positions), "positions")
            known = await store.signatures(donor, list(map(_check_position, request.positions)))
            found = [Countersignature(donor, position, signature) for position, signature in known]
            return pb.LedgerSignaturesReply(signatures=map(signature_to, found))

    async def LedgerNotes(self, request: pb.LedgerNotesRequest, context: Context) -> pb.LedgerNotesReply:
        """Give evidence, disputes and resolutions."""
        async with answering(context, LEDGER_CALL_S):
            store = self._desk().books.store
            return notes_to(await store.evidence(), await store.statements())

    async def Countersign(self, request: pb.CountersignRequest, context: Context) -> pb.CountersignReply:
        """Take the caller's signatures on receipts that charge it."""
        async with answering(context, LEDGER_CALL_S):
            desk = self._desk()
            _check_count(len(request.signatures), "signatures")
            given = [signature_from(one) for one in request.signatures]
            taken = await desk.books.take_countersignatures(desk.site_of(caller()), given)
            return pb.CountersignReply(taken=taken)

    def _desk(self) -> LedgerDesk:
        if self._ledger is None:
            raise RequestError("this gateway keeps no ledger.", fix="upgrade it, or admit its receipts key")
        return self._ledger


class LedgerClient(LeaseClient):
    """Another gateway's books (``federation.ledger.exchange.LedgerPeer``); calls may raise PeerNodeError."""

    def __init__(self, site: str, stub: Callable[[], object]) -> None:
        super().__init__(site, stub, own=False)
        self._site = site
        self._notes_of: tuple[bytes, pb.LedgerNotesReply] | None = None
        self._said_notes = b""
        self._carbon: SignedCarbon | None = None

    @property
    def carbon(self) -> SignedCarbon | None:
        """The site's carbon series as it came with its heads, unread; ``None``: it sends none."""
        return self._carbon

    @property
    def site(self) -> str:
        """The peer's site."""
        return self._site

    async def heads(self) -> Mapping[str, Head]:
        """Ask how far it knows each donor's chain."""
        answer = await self._ask(self._stub().LedgerHeads(pb.LedgerHeadsRequest(), timeout=LEDGER_CALL_S))
        with self._reading():
            if len(answer.heads) > MAX_LEDGER_HEADS:
                raise RequestError(f"at most {MAX_LEDGER_HEADS} heads are read.")
            self._said_notes = bytes(answer.notes)
            self._carbon = _carbon_from(answer)
            return dict(head_from(one) for one in answer.heads)

    async def page(self, donor: str, after_position: int, limit: int) -> list[Item]:
        """Ask for receipts of a donor after a position."""
        request = pb.LedgerPageRequest(donor=donor, after=after_position, limit=limit)
        answer = await self._ask(self._stub().LedgerPage(request, timeout=LEDGER_CALL_S))
        with self._reading():
            if len(answer.items) > limit:
                raise RequestError(f"at most {limit} receipts were asked for.")
            return [item_from(one) for one in answer.items]

    async def signatures(self, donor: str, positions: Sequence[int]) -> list[Countersignature]:
        """Ask for borrowers' signatures on receipts of a donor, at most ``RECEIPT_PAGE``."""
        request = pb.LedgerSignaturesRequest(donor=donor, positions=positions)
        answer = await self._ask(self._stub().LedgerSignatures(request, timeout=LEDGER_CALL_S))
        with self._reading():
            _check_count(len(answer.signatures), "signatures")
            found = [signature_from(one) for one in answer.signatures]
            wanted = set(positions)
            if any(one.donor != donor or one.position not in wanted for one in found):
                raise RequestError("signatures came that nobody asked for.")
            return found

    async def countersign(self, signatures: list[Countersignature]) -> int:
        """Give it our signatures on receipts that charge us; return how many were new to it."""
        request = pb.CountersignRequest(signatures=map(signature_to, signatures))
        answer = await self._ask(self._stub().Countersign(request, timeout=LEDGER_CALL_S))
        return min(int(answer.taken), len(signatures))

    async def evidence(self) -> list[Evidence]:
        """Ask for the contradictions that it knows; what is none is passed over."""
        answer = await self._notes()
        with self._reading():
            pairs = [(item_from(one.first), item_from(one.second)) for one in answer.evidence]
            found = []
            for first, second in pairs:
                proof = contradiction(first, second)
                if proof is not None:
                    found.append(proof)
            return found

    async def statements(self) -> list[tuple[str, SignedStatement]]:
        """Ask for the disputes and resolutions that it knows."""
        answer = await self._notes()
        with self._reading():
            disputes = [("dispute", statement_from(one)) for one in answer.disputes]
            return [*disputes, *(("resolution", statement_from(one)) for one in answer.resolutions)]

    async def _notes(self) -> pb.LedgerNotesReply:
        # Both parts come in one message, and mostly nothing has changed since the round before.
        if self._notes_of is None or self._notes_of[0] != self._said_notes or not self._said_notes:
            request = pb.LedgerNotesRequest()
            answer = await self._ask(self._stub().LedgerNotes(request, timeout=LEDGER_CALL_S))
            self._notes_of = (self._said_notes, answer)
        return self._notes_of[1]

    def _reading(self) -> _Reading:
        return _Reading(self.name)


class _Reading:
    """Turns what is outside the bounds into an error of the peer."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Error | FederationError):
            raise PeerNodeError(
                f"the peer {self._peer} sent books that cannot be read: {error.message}"
            ) from error


def head_to(donor: str, head: Head) -> pb.LedgerHead:
    """Return the message of a head."""
    return pb.LedgerHead(donor=donor, position=head.position, digest=head.digest)


def head_from(message: pb.LedgerHead) -> tuple[str, Head]:
    """Return a donor and its head. Raises Error, FederationError."""
    if len(message.digest) != _DIGEST_BYTES:
        raise RequestError(f"a digest has {_DIGEST_BYTES} bytes.")
    return check_label(message.donor, "site"), Head(_check_position(message.position), bytes(message.digest))


def item_to(item: Item) -> pb.LedgerItem:
    """Return the message of a receipt."""
    return pb.LedgerItem(
        body=item.body, donor_signature=item.donor_signature, borrower_signature=item.borrower_signature
    )


def item_from(message: pb.LedgerItem) -> Item:
    """Return a receipt, unread. Raises RequestError."""
    if not 0 < len(message.body) <= MAX_RECEIPT_BYTES or len(message.donor_signature) != SIGNATURE_BYTES:
        raise RequestError(f"a receipt has 1 to {MAX_RECEIPT_BYTES} bytes and its donor's signature.")
    if len(message.borrower_signature) not in (0, SIGNATURE_BYTES):
        raise RequestError(f"a signature has {SIGNATURE_BYTES} bytes.")
    return Item(bytes(message.body), bytes(message.donor_signature), bytes(message.borrower_signature))


def signature_to(one: Countersignature) -> pb.Countersignature:
    """Return the message of a borrower's signature."""
    return pb.Countersignature(donor=one.donor, position=one.position, signature=one.signature)


def signature_from(message: pb.Countersignature) -> Countersignature:
    """Return a borrower's signature. Raises Error, FederationError."""
    if len(message.signature) != SIGNATURE_BYTES:
        raise RequestError(f"a signature has {SIGNATURE_BYTES} bytes.")
    donor, position = check_label(message.donor, "site"), _check_position(message.position)
    return Countersignature(donor, position, bytes(message.signature))


def statement_from(message: pb.SignedStatement) -> SignedStatement:
    """Return a dispute or resolution, unread. Raises RequestError."""
    if not 0 < len(message.body) <= MAX_STATEMENT_BYTES or len(message.signature) != SIGNATURE_BYTES:
        raise RequestError(f"a statement has 1 to {MAX_STATEMENT_BYTES} bytes and a signature.")
    return SignedStatement(bytes(message.body), bytes(message.signature))


def _carbon_from(message: pb.LedgerHeadsReply) -> SignedCarbon | None:
    if not message.HasField("carbon"):
        return None
    carbon = message.carbon
    if len(carbon.body) > MAX_CARBON_BYTES or len(carbon.signature) != SIGNATURE_BYTES:
        raise RequestError(f"a carbon series has at most {MAX_CARBON_BYTES} bytes and a signature.")
    return SignedCarbon(bytes(carbon.body), bytes(carbon.signature))


def notes_to(
    evidence: Iterable[Evidence], statements: Iterable[tuple[str, SignedStatement]]
) -> pb.LedgerNotesReply:
    """Return the message of what is known beside receipts, as far as one message holds it."""
    reply = pb.LedgerNotesReply()
    left = MAX_LEDGER_NOTES_BYTES
    for one in evidence:
        left -= len(one.first.body) + len(one.second.body) + 4 * SIGNATURE_BYTES
        if left < 0:
            return reply
        reply.evidence.append(pb.LedgerEvidence(first=item_to(one.first), second=item_to(one.second)))
    for kind, signed in statements:
        left -= len(signed.body) + 2 * SIGNATURE_BYTES
        if left < 0:
            return reply
        message = pb.SignedStatement(body=signed.body, signature=signed.signature)
        (reply.disputes if kind == "dispute" else reply.resolutions).append(message)
    return reply


def _notes_digest(evidence: Iterable[Evidence], statements: Iterable[tuple[str, SignedStatement]]) -> bytes:
    return hashlib.sha256(notes_to(evidence, statements).SerializeToString(deterministic=True)).digest()


def _check_position(position: int) -> int:
    if position > _MAX_POSITION:
        raise RequestError("a position is a number that a chain can reach.")
    return int(position)


def _check_count(count: int, what: str) -> None:
    if count > RECEIPT_PAGE:
        raise RequestError(f"at most {RECEIPT_PAGE} {what} come at once.")
