"""What a gateway has sent of images to other sites, day by day of the site's own time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.limits import EGRESS_DAYS_KEPT
from agent.state.file import StateFile, put

if TYPE_CHECKING:
    from sqlite_utils import Database


class EgressDays:
    """The counts; every method raises ``StateError`` when the file fails."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    async def sent_bytes(self, day: str) -> int:
        """Return the count of a day, ``YYYY-MM-DD``."""
        row = await self._file.read(
            lambda db: db.execute("SELECT sent_bytes FROM egress WHERE day = ?", [day]).fetchone()
        )
        return int(row[0]) if row else 0

    async def set(self, day: str, sent_bytes: int) -> None:
        """Write the count of a day; the last ``EGRESS_DAYS_KEPT`` days are kept."""

        def change(db: Database) -> None:
            put(db, "egress", "day", {"day": day, "sent_bytes": sent_bytes})
            db.execute(
                "DELETE FROM egress WHERE day NOT IN (SELECT day FROM egress ORDER BY day DESC LIMIT ?)",
                [EGRESS_DAYS_KEPT],
            )

        await self._file.write(change)
