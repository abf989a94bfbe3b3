"""The tokens of a site in its gateway's state file. Nothing here decides."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from agent.errors import RequestError
from agent.limits import MAX_TOKENS
from agent.state.file import StateFile, put
from agent.state.records import TokenRecord

if TYPE_CHECKING:
    from sqlite_utils import Database


class TokenStore:
    """Tokens by their ids; every method raises ``StateError`` when the file fails."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    async def add(self, record: TokenRecord, *, now_s: float) -> None:
        """Keep a new token; those whose time is over are forgotten.

        Raises:
            RequestError: its name is taken, or there are ``MAX_TOKENS``.
        """

        def change(db: Database) -> None:
            db.execute("DELETE FROM tokens WHERE expires_at <= ?", [now_s])
            names = [row["name"] for row in db.table("tokens").rows]
            if record.name in names:
                raise RequestError(
                    f"there is a token {record.name} already.",
                    fix=f"choose another name, or: pyrdma-agent token revoke {record.name}",
                )
            if len(names) >= MAX_TOKENS:
                raise RequestError(f"this site has {MAX_TOKENS} tokens already.", fix="revoke one first")
            put(db, "tokens", "token_id", asdict(record))

        await self._file.write(change)

    async def get(self, token_id: bytes) -> TokenRecord | None:
        """Return a token."""
        rows = await self._file.read(
            lambda db: list(db.table("tokens").rows_where("token_id = ?", [token_id]))
        )
        return TokenRecord(**rows[0]) if rows else None

    async def list(self, *, now_s: float) -> tuple[TokenRecord, ...]:
        """Return the tokens that may be used, by name."""
        rows = await self._file.read(
            lambda db: [*db.table("tokens").rows_where("expires_at > ?", [now_s], order_by="name")]
        )
        return tuple(TokenRecord(**row) for row in rows)

    async def used(self, token_id: bytes, *, now_s: float) -> None:
        """Note that a token was used."""
        await self._file.write(
            lambda db: db.execute("UPDATE tokens SET used_at = ? WHERE token_id = ?", [now_s, token_id])
        )

    async def remove(self, name: str) -> bool:
        """Forget a token; return whether there was one."""
        return await self._file.write(
            lambda db: bool(db.execute("DELETE FROM tokens WHERE name = ?", [name]).rowcount)
        )
