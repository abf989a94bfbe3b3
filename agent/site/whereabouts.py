"""Where this site's gateway may be reached: where it was when this node joined, else where mDNS hints say.

A hint is an address and nothing more: whoever answers there must show the gateway's certificate.
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
        self._tried = 0

    def target(self) -> Target:
        """Return whom to dial now."""
        known = self._trust.own_gateway()
        addresses = list(dict.fromkeys((known.address, *self._hinted())))
        return self._trust.own_node(known.identity.node, addresses[self._tried % len(addresses)])

    def unreached(self) -> None:
        """Try the next address next time."""
        self._tried += 1
