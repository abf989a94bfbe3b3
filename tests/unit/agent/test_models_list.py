"""The signed list of models: each one newer than the one before, and no harm to the folder it lies in."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from agent.site.config import SiteConfig
from agent.site.home import SiteHome
from agent.site.models_list import models_list_path, write_models_list
from agent.state import StateFile, Store

pytestmark = pytest.mark.asyncio
CONFIG = SiteConfig(
    site="uni-a",
    trust_domain="uni-a.example",
    node="gw",
    role="gateway",
    address="gw.uni-a.example:7443",
    listen="[::]:7443",
    gateway_node="gw",
    gateway_address="gw.uni-a.example:7443",
    join_address="gw.uni-a.example:7444",
    join_listen="[::]:7444",
)


async def test_a_list_is_newer_than_the_one_before(tmp_path: Path) -> None:
    """In the same second, after a clock was set back, and again by the clock when the file was damaged."""
    home = SiteHome(tmp_path / "site")
    home.create_gateway(CONFIG, now_s=time.time())
    path = models_list_path(home, CONFIG)
    file = await StateFile.open(tmp_path / "state.db")

    async def signed() -> int:
        await write_models_list(CONFIG, home, Store(file))
        return int(json.loads(path.read_bytes())["signed"]["version"])

    try:
        versions = [await signed() for _ in range(3)]
        assert versions == sorted(set(versions))
        ahead = json.loads(path.read_bytes())
        ahead["signed"]["version"] += 5000
        path.write_text(json.dumps(ahead))
        assert await signed() == ahead["signed"]["version"] + 1
        path.write_text("damaged")
        assert abs(await signed() - time.time()) < 60
    finally:
        await file.close()
    assert home.load() == CONFIG, "a folder with the list in it can be read by the next start"
