"""This site's donor and broker as its own nodes use them: the same interfaces, with the caller filled in."""

from __future__ import annotations

from collections.abc import Callable

from agent.daemon.faces import Emit, Heed, LeaseOffer, OfferRequest, Refusal, Wish, unheeded
from agent.daemon.pipes import Pipe
from agent.gateway.broker import SiteBroker
from agent.gateway.donor import LocalDonor
from agent.local.views import GrantedView, PlaceView


class OwnDonor:
    """This site as a donor for its own nodes."""

    def __init__(self, donor: LocalDonor) -> None:
        self.site = donor.site
        self._donor = donor

    def lends(self, lease_id: str, node: str) -> bool:
        """Say whether a node of this site holds a lease here, or held one of the last that ended."""
        return self._donor.lends(lease_id, self.site, node)

    async def ask_offer(self, request: OfferRequest, wait_s: float = 0.0) -> LeaseOffer | PlaceView | Refusal:
        """Ask for a device, or again for the request's place."""
        return await self._donor.ask_offer(request, self.site, wait_s)

    async def commit(self, offer_id: str, emit: Emit) -> GrantedView:
        """Take an offer and wait until the model answers."""
        return await self._donor.commit(offer_id, self.site, emit)

    async def renew(self, lease_id: str) -> float:
        """Renew a lease."""
        return await self._donor.renew(lease_id, self.site)

    async def release(self, lease_id: str, reason: str) -> str:
        """End a lease, or give an offer back."""
        return await self._donor.release(lease_id, reason, self.site)

    async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
        """Wait until a lease ends."""
        return await self._donor.attend(lease_id, self.site, heed)

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to its runner."""
        return await self._donor.connect(lease_id, self.site)


def _as_it_is(wish: Wish) -> Wish:
    return wish


class BrokerFor:
    """The broker as one node of this site uses it; a ``Broker``.

    Args:
        broker: the site's.
        node: which node.
        check: returns a wish with an account that the site may speak for, or raises AccountError.
    """

    def __init__(self, broker: SiteBroker, node: str, check: Callable[[Wish], Wish] = _as_it_is) -> None:
        self._broker = broker
        self._node = node
        self._check = check

    async def borrow(self, wish: Wish, emit: Emit) -> GrantedView:
        """Get a lease and wait until it answers."""
        return await self._broker.borrow(self._check(wish), self._node, emit)

    async def renew(self, lease_id: str) -> float:
        """Renew a lease."""
        return await self._broker.renew(lease_id, self._node)

    async def release(self, lease_id: str, reason: str) -> str:
        """End a lease."""
        return await self._broker.release(lease_id, reason, self._node)

    async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
        """Wait until it ends."""
        return await self._broker.attend(lease_id, self._node, heed)

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to its runner."""
        return await self._broker.connect(lease_id, self._node)
