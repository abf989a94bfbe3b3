"""The accounts that this site's nodes may name, and what they have used, as the gateway knows it.

Rules: the gateway believes its own nodes about who asks, but only among the site's own accounts: those of
the institution that is called as the site, and those that the policy lets the site speak for (sponsored
ones). What an account has used comes from the ledger's receipts where there is one, else from the gateway's
own book of leases, and the answer says which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from agent.daemon.faces import Wish
from agent.errors import AccountError
from agent.local.people_views import UsageView
from federation.fairshare.accounts import check_account, institution
from federation.policy.permit import may_speak_for
from federation.policy.policy import Policy


class UsageBooks(Protocol):
    """Where use is written down."""

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Return what accounts have used; each with all that is below it."""


class SiteAccounts:
    """One site's accounts.

    Args:
        site: its name.
        policy: returns the policy in force, if there is one.
        books: where use is written down.
    """

    def __init__(self, site: str, policy: Callable[[], Policy | None], books: UsageBooks) -> None:
        self._site = site
        self._policy = policy
        self.books = books

    def checked(self, wish: Wish) -> Wish:
        """Return a node's wish with the account that is charged; without one it is the site's own.

        Raises:
            AccountError, FederationInputError: the site may not speak for the account.
        """
        if not wish.account:
            return replace(wish, account=f"/{self._site}")
        self._refuse_others(check_account(wish.account))
        return wish

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Return what accounts have used.

        Raises:
            AccountError: an account is another site's.
        """
        for one in accounts:
            self._refuse_others(one)
        return await self.books.usage(accounts)

    def _refuse_others(self, account: str) -> None:
        policy = self._policy()
        own = institution(account) == self._site
        if not own and (policy is None or not may_speak_for(policy, self._site, account)):
            raise AccountError(
                f"{self._site} may not speak for the account {account}.",
                fix=f"name one below /{self._site}; others are sponsored in the policy",
            )
