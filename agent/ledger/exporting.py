"""Writes an export of a gateway's books, and gives the verdict on one: files only, no network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO, Final

from agent.ledger.checking import SignatureChecks
from agent.state.ledger_store import LedgerStore
from federation.errors import ExportError
from federation.ledger.audit import Submit, audit
from federation.ledger.export import ExportWriter, Header, read_lines
from federation.ledger.offline import read_registry
from federation.ledger.signing import Keys
from federation.ledger.verdict import Verdict
from federation.limits import MAX_ROOT_BYTES, RECEIPT_PAGE
from federation.registry.cache import Cached, load_cache
from federation.registry.files import read_file

_ROOT: Final = re.compile(r"([1-9][0-9]{0,5})\.root\.json")


async def export_to(file: BinaryIO, store: LedgerStore, registry: Path, header: Header) -> int:
    """Write an export; return how many lines it has.

    Args:
        file: takes the bytes.
        store: the books.
        registry: the folder in which the registry's client keeps what it has verified.
        header: who exports, when, of which registry.

    Raises:
        ExportError: there is no registry there, without which nobody could check anything.
        OSError: the file cannot be written.
    """
    roots, cached = _registry_files(registry)
    writer = ExportWriter(file, header)
    writer.registry(roots, cached.roles, cached.documents.values())
    donors = [row.donor for row in await store.donors()]
    for donor in donors:
        after = 0
        while page := await store.page(donor, after, RECEIPT_PAGE):
            for item in page:
                writer.receipt(item)
            after += len(page)
    for donor in donors:
        after = 0
        while aside := await store.set_aside(donor, after):
            for _, item in aside:
                writer.receipt(item, set_aside=True)
            after = aside[-1][0]
    for evidence in await store.evidence():
        writer.evidence(evidence)
    for kind, statement in await store.statements():
        writer.statement(kind, statement)
    number = 0
    while lines := await store.logged(number):
        for _, line in lines:
            writer.log(line.kind, line.at_s, line.body)
        number = lines[-1][0]
    return writer.finish()


def audit_file(path: Path, pin: bytes) -> Verdict:
    """Return the verdict on an export.

    Args:
        path: the file.
        pin: SHA-256 of the registry's first root.

    Raises:
        ExportError: it cannot be read, or its registry not be believed.
    """
    pools: list[SignatureChecks] = []

    def submit(keys: Keys) -> Submit:
        pools.append(SignatureChecks(keys))
        return pools[-1].submit

    try:
        with path.open("rb", buffering=1 << 20) as file:
            return audit(
                read_lines(file),
                lambda roots, files, at_s: read_registry(roots, files, pin=pin, at_s=at_s),
                submit,
            )
    except OSError as error:
        raise ExportError(
            f"{path} cannot be read: {error.strerror or error}.", fix="name a file that you may read"
        ) from error
    finally:
        for pool in pools:
            pool.close()


def _registry_files(folder: Path) -> tuple[dict[int, bytes], Cached]:
    cached = load_cache(folder)
    try:
        roots = {
            int(found[1]): read_file(path, max_bytes=MAX_ROOT_BYTES)
            for path in (folder / "root_history").iterdir()
            if (found := _ROOT.fullmatch(path.name))
        }
    except OSError:
        roots = {}
    if not roots or "timestamp" not in cached.roles:
        raise ExportError(
            "this node has not read a registry yet, and nobody could check an export without one.",
            fix="start the gateway, and try again when `status` shows the registry",
        )
    return roots, cached
