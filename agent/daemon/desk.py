"""Where a node knows its people: which account a caller uses, whose a lease is, what accounts have used.

Rules: who calls is settled before; what a caller says of itself is an account, and only among its own. One
person cannot end another's lease; the agent's own user and root can end any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from agent.daemon.faces import Wish
from agent.errors import BusyError, NotAllowedError, Reported
from agent.limits import MAX_LEASES_PER_USER
from agent.local.people_views import AccountUsageView, NewTokenView, TokenView, UsageView, WhoAmIView
from agent.people.model import BELOW, Who
from agent.people.roster import Roster
from agent.state import Store


class AccountPlace(Protocol):
    """What a site says of accounts and tokens."""

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Return what accounts of the site have used."""

    async def create_token(self, name: str, account: str, lifetime_s: float) -> NewTokenView:
        """Make a token for a laptop; the gateway alone can."""

    async def tokens(self) -> tuple[TokenView, ...]:
        """Return the tokens that may be used; the gateway alone can."""

    async def revoke_token(self, name: str) -> tuple[TokenView, ...]:
        """End a token; return those that are left. The gateway alone can."""


class Desk:
    """The people of one node.

    Args:
        roster: who may use which accounts.
        store: the node's books.
        place: the node's place in a site, as it is now; raises NotGatewayError where there is none.
        borrowed: returns whose an open borrowed lease is, if it is one.
    """

    def __init__(
        self,
        roster: Roster,
        store: Store,
        place: Callable[[], AccountPlace],
        borrowed: Callable[[str], str | None],
    ) -> None:
        self._roster = roster
        self._store = store
        self._place = place
        self._borrowed = borrowed

    @property
    def owner(self) -> Who:
        """The agent's own user."""
        return self._roster.owner

    async def admit(self, wish: Wish, who: Who) -> Wish:
        """Return a caller's wish with the account that is charged.

        Raises:
            AccountError, FederationInputError: the caller may not use the account, or has none.
            BusyError: it has too many leases.
        """
        account = await self._roster.account_for(who, wish.account)
        open_leases = [] if who.owner else await self._store.leases(include_ended=False)
        if sum(one.who == who.key for one in open_leases) >= MAX_LEASES_PER_USER:
            raise BusyError(
                f"you have {MAX_LEASES_PER_USER} leases on this node already.",
                fix="end one with: pyrdma-agent stop LEASE",
            )
        return replace(wish, account=account)

    async def refuse_strangers(self, lease_id: str, who: Who) -> None:
        """Do nothing if a lease is the caller's to end, or is nowhere.

        Raises:
            NotAllowedError: it is another person's.
        """
        if who.owner:
            return
        whose = self._borrowed(lease_id)
        if whose is None:
            record = await self._store.lease(lease_id)
            if record is None:
                return
            whose = record.who
        if whose != who.key:
            raise NotAllowedError(
                f"the lease {lease_id[:32]} is another person's.",
                fix="see whose leases there are with: pyrdma-agent leases",
            )

    async def whoami(self, who: Who) -> WhoAmIView:
        """Return a caller as this node knows it, with the classes that the policy gives its account."""
        accounts = await self._roster.accounts(who)
        classes: tuple[str, ...] = ()
        notice = self._roster.fault
        if accounts.default and self._roster.site:
            try:
                said = await self._place().usage((accounts.default,))
                classes = next((one.classes for one in said.accounts), ())
            except Reported as error:
                notice = notice or f"the classes of your account are not known now: {error.message}"
        return WhoAmIView(
            who=who.key,
            name=who.name,
            admin=who.owner,
            site=self._roster.site,
            account=accounts.default,
            accounts=accounts.allowed,
            classes=classes,
            notice=notice,
        )

    async def usage(self, who: Who, accounts: tuple[str, ...]) -> UsageView:
        """Return what a caller's accounts have used, or those of them that are named.

        Raises:
            AccountError, FederationInputError: an account is not the caller's.
        """
        own = await self._roster.accounts(who)
        named = [await self._roster.account_for(who, one) for one in accounts]
        asked = tuple(named) or tuple(one for one in own.allowed if not one.endswith(BELOW))
        if not self._roster.site:
            rows = tuple(AccountUsageView(one) for one in asked)
            return UsageView(rows, "this node is of no site: nothing is charged")
        return await self._place().usage(asked)

    async def create_token(self, name: str, account: str, lifetime_s: float) -> NewTokenView:
        """Make a token for a laptop, under an account that the agent's own user may name."""
        account = await self._roster.account_for(self.owner, account)
        return await self._place().create_token(name, account, lifetime_s)

    async def tokens(self) -> tuple[TokenView, ...]:
        """Return the tokens that may be used."""
        return await self._place().tokens()

    async def revoke_token(self, name: str) -> tuple[TokenView, ...]:
        """End a token; return those that are left."""
        return await self._place().revoke_token(name)
