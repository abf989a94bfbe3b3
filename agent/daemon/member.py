"""This node as a member of its site when another node is the gateway: it reports, and carries out orders.

Rules: a report goes out every ``REPORT_EVERY_S``, and at once when a lease has ended; the gateway answers how
long each lease still has. Only the gateway's orders get here (``agent.site.trust``); what only a gateway can
do is refused by name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

from agent.daemon.faces import Emit, Gateway, Heed, Order, Wish, unheeded
from agent.daemon.leases import Leases
from agent.daemon.pipes import Pipe
from agent.daemon.reporting import Reporting
from agent.daemon.reports import LeaseEnd, Report
from agent.errors import NotGatewayError, RequestError
from agent.local.federation_views import FederationView
from agent.local.people_views import UsageView
from agent.local.queue_views import QueueView
from agent.local.views import GrantedView
from federation.identity.names import NodeIdentity


class Member:
    """A node that is not its site's gateway.

    Args:
        gateway: how the gateway is asked.
        describe: returns this node's word on itself, given the leases that ended lately.
        running: the leases that run here; ``None`` where nothing is donated.
        gateway_name: for sentences.
        unreached: told when the gateway took no report, so that it is looked for elsewhere.
    """

    def __init__(
        self,
        gateway: Gateway,
        describe: Callable[[tuple[LeaseEnd, ...]], Awaitable[Report]],
        running: Leases | None,
        gateway_name: str,
        unreached: Callable[[], None],
    ) -> None:
        self._gateway = gateway
        self._running = running
        self._gateway_name = gateway_name
        self._reporting = Reporting(describe, gateway.report, running, unreached)

    def start(self) -> None:
        """Begin to report."""
        self._reporting.start()

    async def close(self) -> None:
        """Stop reporting."""
        await self._reporting.close()

    async def stop_lending(self) -> None:
        """End what runs here, and tell the gateway."""
        await self._reporting.last_word()

    async def leave_site(self) -> None:
        """Have the gateway strike this node off its list."""
        await self._gateway.leave()

    async def report_now(self) -> None:
        """Tell the gateway at once what is here now."""
        await self._reporting.now()

    async def federation(self) -> FederationView:
        """Return what the gateway says of the site and the consortium."""
        return await self._gateway.federation()

    async def ask_usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Return what the gateway says that accounts have used."""
        return await self._gateway.usage(accounts)

    async def ask_queue(self) -> QueueView:
        """Return what the gateway says that waits at this site."""
        return await self._gateway.queue()

    # --- what the gateway orders --------------------------------------------------------------------------

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        """Run a lease here."""
        if self._running is None:
            raise RequestError("this node donates nothing.", fix="name another node")
        return await self._running.start_runner(order, emit)

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        """End a lease that runs here."""
        if self._running is not None:
            await self._running.stop_runner(lease_id, reason)

    async def notice_runner(self, lease_id: str, left_s: float, reason: str) -> None:
        """Tell a runner here that it will be stopped."""
        if self._running is not None:
            self._running.notice(lease_id, left_s, reason)

    async def withdraw_notice(self, lease_id: str) -> None:
        """Tell a runner here that the gateway does not stop it after all."""
        if self._running is not None:
            self._running.withdraw(lease_id)

    async def connect(self, lease_id: str, who: NodeIdentity) -> Pipe:
        """Open a connection to a runner here, for the gateway."""
        if self._running is None or who.node != self._gateway_name:
            self._refuse()
        return await self._running.connect(lease_id)

    # --- what only a gateway can do -----------------------------------------------------------------------

    async def queue(self) -> QueueView:
        """Refuse: nodes ask the gateway."""
        self._refuse()

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Refuse: nodes ask the gateway."""
        del accounts
        self._refuse()

    async def report(self, report: Report, who: NodeIdentity) -> dict[str, float]:
        """Refuse."""
        del report, who
        self._refuse()

    async def renew_certificate(self, csr: bytes, who: NodeIdentity) -> bytes:
        """Refuse."""
        del csr, who
        self._refuse()

    async def leave(self, who: NodeIdentity) -> None:
        """Refuse."""
        del who
        self._refuse()

    async def borrow(self, wish: Wish, who: NodeIdentity, emit: Emit) -> GrantedView:
        """Refuse."""
        del wish, who, emit
        self._refuse()

    async def renew(self, lease_id: str, who: NodeIdentity) -> float:
        """Refuse."""
        del lease_id, who
        self._refuse()

    async def release(self, lease_id: str, reason: str, who: NodeIdentity) -> str:
        """Refuse."""
        del lease_id, reason, who
        self._refuse()

    async def attend(self, lease_id: str, who: NodeIdentity, heed: Heed = unheeded) -> str:
        """Refuse."""
        del lease_id, who, heed
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotGatewayError(
            "this node is not the gateway of its site.", fix=f"ask its gateway, {self._gateway_name}"
        )
