"""What a gateway remembers of the last days to publish it: waits and reclaims. Nothing here decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.limits import MAX_HISTORY_ROWS
from agent.openness.statistics import KEPT_S, Reclaim, Wait
from agent.state import StateFile

if TYPE_CHECKING:
    from sqlite_utils import Database


class History:
    """The last days of one gateway. Methods raise ``StateError``."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    async def add_wait(self, wait: Wait) -> None:
        """Keep the wait of a request that was granted; what is too old is forgotten."""
        row: dict[str, object] = {
            "at": wait.at_s,
            "waited_s": wait.waited_s,
            "device_class": wait.device_class,
            "band": wait.band,
            "classes": " ".join(wait.classes),
        }
        await self._file.write(lambda db: _add(db, "waits", row, wait.at_s))

    async def add_reclaim(self, reclaim: Reclaim) -> None:
        """Keep how fast a device went back."""
        row: dict[str, object] = {"at": reclaim.at_s, "seconds": reclaim.seconds}
        await self._file.write(lambda db: _add(db, "reclaims", row, reclaim.at_s))

    async def waits(self, since_s: float) -> list[Wait]:
        """Return the waits since a Unix time."""
        rows = await self._file.read(lambda db: list(db.table("waits").rows_where("at >= ?", [since_s])))
        return [
            Wait(row["at"], row["waited_s"], row["device_class"], row["band"], tuple(row["classes"].split()))
            for row in rows
        ]

    async def reclaims(self, since_s: float) -> list[Reclaim]:
        """Return the reclaims since a Unix time."""
        rows = await self._file.read(lambda db: list(db.table("reclaims").rows_where("at >= ?", [since_s])))
        return [Reclaim(row["at"], row["seconds"]) for row in rows]


def _add(db: Database, table: str, row: dict[str, object], now_s: float) -> None:
    db.execute(f"DELETE FROM {table} WHERE at < ?", [now_s - KEPT_S])  # noqa: S608 - our own words
    db.execute(  # a clock that jumps back must not let it grow for ever
        f"DELETE FROM {table} WHERE rowid <= (SELECT max(rowid) FROM {table}) - {MAX_HISTORY_ROWS}"  # noqa: S608
    )
    db.table(table).insert(row)
