"""A node's certificate, renewed in time for as long as the agent runs; what fails is tried again."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from agent.limits import CERTIFICATE_AGAIN_S
from agent.site.certificates import next_renewal_s
from agent.site.home import SiteConfig
from agent.site.keyring import Keyring
from federation.errors import FederationError
from federation.identity.authority import make_csr
from federation.identity.keys import key_from_pem
from pyrdma.errors import Error

_log = logging.getLogger(__name__)

Renewing = Callable[[bytes], Awaitable[bytes]]
"""Given a certificate request, returns a new certificate."""


async def renew_always(site: SiteConfig, keyring: Keyring, renewing: Renewing) -> None:
    """Renew the certificate of a node whenever it is due; ends when it is cancelled."""
    here = f"{site.site}/{site.node}"
    while True:
        due_s = next_renewal_s(*keyring.validity(), jitter=random.uniform(-1, 1))  # noqa: S311 - no secret
        await asyncio.sleep(max(0.0, due_s - time.time()))
        csr = make_csr(key_from_pem(keyring.current().key), site.identity)
        try:
            keyring.replace(await renewing(csr))
            _log.info("the certificate of %s has been renewed", here)
        except (Error, FederationError) as error:
            _log.error("the certificate of %s could not be renewed: %s", here, error.message)
            await asyncio.sleep(CERTIFICATE_AGAIN_S)
