"""Where this site's gateway may be reached: where it was when this node joined, else where mDNS hints say.

A hint is an address and nothing more: whoever answers there must show the gateway's certificate. An address
that works is kept, whatever else is heard meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.site.trust import Target, Trust


class Whereabouts:
    """The gateway's address to use now.

    Args:
        trust: who the gateway is.
        hinted: returns the addresses that were heard of, best first.
    """

    def __init__(self, trust: Trust, hinted: Callable[[], tuple[str, ...]]) -> None:
        self._trust = trust
        self._hinted = hinted
        self._address = trust.own_gateway().address

    def target(self) -> Target:
        """Return whom to dial now."""
        return self._trust.own_node(self._trust.own_gateway().identity.node, self._address)

    def unreached(self) -> None:
        """Try the next address next time."""
        addresses = list(dict.fromkeys((self._trust.own_gateway().address, *self._hinted())))
        tried = addresses.index(self._address) if self._address in addresses else -1
        self._address = addresses[(tried + 1) % len(addresses)]
