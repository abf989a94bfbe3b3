"""The site's signed list of models, as a file for whoever publishes the consortium's registry.

It names what was published on the gateway's own node, under the names that it has there; each publication
signs it anew, under a higher version. It lies among keys, so it is its owner's alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from agent.errors import StateError
from agent.site.home import SiteConfig, SiteHome
from agent.state import Store
from federation.registry.files import write_file
from federation.registry.membership import ModelBinding
from federation.registry.models import sign_models


def models_list_path(home: SiteHome, config: SiteConfig) -> Path:
    """Return where the list lies."""
    return home.folder / f"{config.site}.models.json"


async def write_models_list(config: SiteConfig, home: SiteHome, store: Store) -> None:
    """Sign the list as the names stand now.

    Raises:
        StateError: it cannot be written.
        FederationInputError: there are more names than a list may have.
    """
    bindings = {}
    for record in await store.names():
        manifest = await store.manifest(record.image_id)
        if record.folder and manifest is not None and "/" not in record.name:
            size = manifest.layout.total_bytes
            bindings[record.name] = ModelBinding(record.image_id.hex(), size, record.licence)
    now_s = time.time()
    path = models_list_path(home, config)
    version = max(int(now_s), _version(path) + 1)  # clocks are set back, and two may publish in one second
    data = sign_models(home.models_key(), config.site, bindings, version=version, now_s=now_s)
    try:
        await asyncio.to_thread(write_file, path, data, mode=0o600)
    except OSError as error:
        raise StateError(
            f"the list of models could not be written: {error.strerror}.", fix="free space on its disk"
        ) from error


def _version(path: Path) -> int:
    try:
        return int(json.loads(path.read_bytes())["signed"]["version"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0  # there is none yet, or what is there was damaged
