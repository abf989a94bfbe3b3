"""The books of this node as a reader sees them: from its files, whether its agent runs or not.

Nothing is changed, and no source is asked: members, keys and policies are those that the gateway has verified
last. A node that is no gateway keeps no books.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.errors import NotGatewayError
from agent.paths import Paths
from agent.site.config import SiteConfig
from agent.site.home import SiteHome
from agent.state import RegistryMarks, StateFile
from agent.state.ledger_store import LedgerStore
from federation.errors import FederationError, RegistryError
from federation.ledger.signing import Keys, keys_of
from federation.policy.file import read_policy
from federation.policy.policy import Policy
from federation.registry.client import RegistryClient
from federation.registry.membership import Membership


@dataclass(frozen=True, slots=True)
class Look:
    """Books, this node's place, and the folder of the registry that it has verified."""

    store: LedgerStore
    config: SiteConfig
    registry: Path
    file: StateFile

    async def membership(self, now_s: float) -> Membership:
        """Return the members as they were verified last.

        Raises:
            RegistryError: there are none.
        """
        client = None
        if self.config.registry_pin:
            client = RegistryClient(
                self.registry,
                root_pin=bytes.fromhex(self.config.registry_pin),
                sources=self.config.registry_sources,
                marks=RegistryMarks(self.file),
            )
        found = await asyncio.to_thread(client.load, now_s=now_s) if client is not None else None
        if found is None:
            raise RegistryError(
                "this node has no verified registry, and without its keys no receipt can be checked.",
                fix="start the gateway, and try again when `pyrdma-agent status` shows the registry",
            )
        return found


@asynccontextmanager
async def look(paths: Paths) -> AsyncIterator[Look]:
    """Open this node's books.

    Raises:
        NotGatewayError: it keeps none.
        StateError: its files cannot be read.
    """
    home = SiteHome(paths.site_dir)
    config = home.load() if home.exists else None
    if config is None or config.role != "gateway":
        raise NotGatewayError(
            "only a site's gateway keeps books of use, and this node is none.",
            fix="run this on the gateway, or name its directory with --state-dir",
        )
    file = await StateFile.look(paths.database)
    try:
        yield Look(LedgerStore(file), config, home.registry_cache, file)
    finally:
        await file.close()


def rules_of(membership: Membership) -> tuple[Keys, Mapping[str, Policy]]:
    """Return keys, and policies by digest, that members are held to; a policy that is none is left out."""
    policies = {}
    for text in membership.policies:
        try:
            policies[text.digest] = read_policy(text.data, f"policy {text.version}").policy
        except FederationError:
            continue
    return keys_of(membership), policies
