"""The key and the request of a join that has not ended yet, kept so that a second try is the same join.

The site answers the same request again with the same certificate. A node that was killed, or whose connection
broke, between the site's decision and its own note of it would else have used up its invite for nothing.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.errors import StateError
from agent.limits import MAX_SITE_FILE_BYTES
from federation.errors import IdentityError
from federation.identity.authority import make_csr
from federation.identity.invite import Invite
from federation.identity.keys import key_from_pem, key_to_pem, new_key
from federation.identity.names import NodeIdentity
from federation.registry.files import read_file, write_file

_KEY: Final = "node.key"
_REQUEST: Final = "node.csr"
_INVITE: Final = "invite"


@dataclass(frozen=True, slots=True)
class JoinDraft:
    """A node's new key (PEM) and its certificate request (DER)."""

    folder: Path
    key_pem: bytes = field(repr=False)
    csr: bytes

    @classmethod
    def begin(cls, folder: Path, invite: Invite) -> JoinDraft:
        """Return the draft for an invite: the one that an interrupted join has left, else a new one.

        Raises:
            StateError: the folder cannot be written.
        """
        return _kept(folder, invite) or _new(folder, invite)

    def end(self) -> None:
        """Forget the draft."""
        forget_draft(self.folder)


def forget_draft(folder: Path) -> None:
    """Forget what an interrupted join has left."""
    shutil.rmtree(folder, ignore_errors=True)


def _kept(folder: Path, invite: Invite) -> JoinDraft | None:
    try:
        # The invite's id is written last: with it, the other two are whole.
        if read_file(folder / _INVITE, max_bytes=MAX_SITE_FILE_BYTES) != invite.token_id:
            return None
        key_pem = read_file(folder / _KEY, max_bytes=MAX_SITE_FILE_BYTES)
        key_from_pem(key_pem)
        return JoinDraft(folder, key_pem, read_file(folder / _REQUEST, max_bytes=MAX_SITE_FILE_BYTES))
    except (OSError, IdentityError):
        return None


def _new(folder: Path, invite: Invite) -> JoinDraft:
    key = new_key()
    draft = JoinDraft(folder, key_to_pem(key), make_csr(key, NodeIdentity(invite.trust_domain, invite.node)))
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        for name, data in ((_KEY, draft.key_pem), (_REQUEST, draft.csr), (_INVITE, invite.token_id)):
            write_file(folder / name, data, mode=0o600)
    except OSError as error:
        raise StateError(
            f"the folder {folder} cannot be written: {error.strerror or error}.",
            fix="free space on its disk, and make its directory writable for the user that runs the agent",
        ) from error
    return draft
