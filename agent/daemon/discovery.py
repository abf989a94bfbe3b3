"""Who is heard of inside a site, over mDNS: this node by others, others by this node.

Where that cannot be, the log says so and all else goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack

from agent.site.home import SiteConfig
from federation.discovery.hints import Claim, Hints, Role
from federation.discovery.mdns import Announcer, Browser
from federation.errors import FederationError

_log = logging.getLogger(__name__)


async def announce(site: SiteConfig, role: Role, interfaces: Sequence[str], ending: AsyncExitStack) -> None:
    """Announce this node on the interfaces, until ``ending``; on none it does not."""
    if not interfaces:
        return
    host, _, port = site.address.rpartition(":")
    claim = Claim(site.trust_domain, site.node, role)
    try:
        announcer = await Announcer.start(claim, host=host, port=int(port), interfaces=interfaces)
    except FederationError as error:
        _log.warning("this node does not announce itself: %s", error.message)
        return
    ending.push_async_callback(announcer.close)


async def browse(hints: Hints, interfaces: Sequence[str], ending: AsyncExitStack) -> None:
    """Note in ``hints`` who announces itself on the interfaces, until ``ending``; on none nobody is heard."""
    if not interfaces:
        return
    try:
        browser = await Browser.start(hints, interfaces=interfaces)
    except FederationError as error:
        _log.warning("nodes cannot be heard of here: %s", error.message)
        return
    ending.push_async_callback(browser.close)
