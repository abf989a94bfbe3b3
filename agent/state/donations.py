"""How this node's owner lends each of its devices, as it outlives the agent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.devices.settings import DeviceSettings, Will
from agent.state.file import StateFile, put

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlite_utils import Database


class Donations:
    """The settings of devices; every method raises ``StateError`` when the file fails."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    async def load(self) -> dict[str, DeviceSettings]:
        """Return the settings of every device that its owner ever changed."""
        rows = await self._file.read(lambda db: list(db.table("devices").rows))
        return {row["id"]: _settings(row) for row in rows}

    async def save(self, settings: Mapping[str, DeviceSettings]) -> None:
        """Keep the settings of these devices."""

        def change(db: Database) -> None:
            for device, one in settings.items():
                row = {
                    "id": device,
                    "will": str(one.will),
                    "draining": int(one.draining),
                    "only_idle": int(one.only_idle),
                    "hours": json.dumps(one.hours),
                    "headroom_bytes": one.headroom_bytes,
                }
                put(db, "devices", "id", row)

        await self._file.write(change)


def _settings(row: dict[str, Any]) -> DeviceSettings:
    return DeviceSettings(
        will=Will(row["will"]),
        draining=bool(row["draining"]),
        only_idle=bool(row["only_idle"]),
        hours=tuple(json.loads(row["hours"])),
        headroom_bytes=row["headroom_bytes"],
    )
