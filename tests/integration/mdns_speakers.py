"""A node on the local network as a process: ``python mdns_speakers.py announce|browse INTERFACE DOMAIN ...``.

``announce INTERFACE DOMAIN NODE HOST PORT`` writes ``announced`` and says goodbye when its input ends.
``browse INTERFACE DOMAIN NODE`` writes the first address that it hears of the node. Where they cannot, both
write the error's code and sentence.
"""

from __future__ import annotations

import asyncio
import sys

from federation.discovery.hints import Claim, Hints, Role
from federation.discovery.mdns import Announcer, Browser
from federation.errors import FederationError


async def announce(interface: str, domain: str, node: str, host: str, port: str) -> None:
    """Announce a node until the input ends."""
    claim = Claim(domain, node, Role.NODE)
    announcer = await Announcer.start(claim, host=host, port=int(port), interfaces=[interface])
    await announcer._saying  # three times: from here on only questions bring the node up again
    print("announced", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await announcer.close()


async def browse(interface: str, domain: str, node: str) -> None:
    """Write the first address that is heard of a node."""
    hints = Hints(domain)
    browser = await Browser.start(hints, interfaces=[interface])
    while not hints.addresses(domain, node):
        await asyncio.sleep(0.02)
    print(*hints.addresses(domain, node), flush=True)
    await browser.close()


try:
    asyncio.run({"announce": announce, "browse": browse}[sys.argv[1]](*sys.argv[2:]))
except FederationError as error:
    print(error.code, error, flush=True)
