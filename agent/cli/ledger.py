"""``pyrdma-agent ledger``: what a gateway's books say, whether they hold, and a copy for an auditor."""

from __future__ import annotations

import time
from pathlib import Path

import click

from agent.cli.options import Paths, json_option, paths_options


@click.group(short_help="Look at, check and export the books of use.")
def ledger() -> None:
    """Look at, check and export the gateway's books: the signed receipts of all donors that it knows.

    All of it works on the gateway's own files, whether its agent runs or not, and changes nothing.
    """


@ledger.command(short_help="List leases as their last receipts say.")
@click.option("--account", default="", help="Of this account and what is below it.")
@click.option("--donor", default="", help="At this site.")
@click.option("--lease", "lease_id", default="", help="This lease alone.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    help="At most so many, newest first.",
)
@json_option
@paths_options
def show(*, account: str, donor: str, lease_id: str, limit: int, as_json: bool, paths: Paths) -> None:
    """List leases, heads of chains and contradictions.

    A lease is unilateral when its borrower has not countersigned within an hour: its charge stands, and
    after a day that borrower gets no new leases.
    """
    import asyncio

    from agent.cli.ledger_text import show_document, show_text
    from agent.cli.output import data_json
    from agent.ledger.looking import look
    from agent.state.ledger_rows import DonorRow
    from federation.ledger.items import Evidence
    from federation.ledger.standing import LeaseLine

    async def read() -> tuple[list[LeaseLine], list[DonorRow], list[Evidence]]:
        async with look(paths) as books:
            store = books.store
            lines = await store.leases(account=account, donor=donor, lease_id=lease_id, limit=limit)
            return lines, await store.donors(), await store.evidence()

    lines, donors, evidence = asyncio.run(read())
    now_s = int(time.time())
    if as_json:
        data_json(show_document(lines, donors, evidence, now_s=now_s))
    else:
        show_text(lines, donors, evidence, now_s=now_s)


@ledger.command(short_help="Check every receipt of the books anew.")
@json_option
@paths_options
def verify(*, as_json: bool, paths: Paths) -> int:
    """Check every receipt: form, both signatures, chains, rules, and the charge by its policy.

    Exit code 1 if one does not hold.
    """
    import asyncio

    from agent.cli.ledger_text import verify_document, verify_text
    from agent.cli.output import data_json
    from agent.ledger.checking import SignatureChecks
    from agent.ledger.looking import look, rules_of
    from agent.ledger.verifying import verify_chain
    from federation.ledger.accept import Outcome
    from federation.ledger.chain import Facts

    async def check() -> tuple[dict[str, Outcome], int]:
        now_s = time.time()
        async with look(paths) as books:
            keys, policies = rules_of(await books.membership(now_s))
            facts = Facts(int(now_s), policies)
            with SignatureChecks(keys) as checks:
                donors = await books.store.donors()
                found = {
                    row.donor: await verify_chain(books.store, row.donor, checks, facts) for row in donors
                }
            return found, len(await books.store.evidence())

    started_s = time.monotonic()
    found, contradictions = asyncio.run(check())
    took_s = time.monotonic() - started_s
    if as_json:
        data_json(verify_document(found, contradictions, took_s=took_s))
    else:
        verify_text(found, contradictions, took_s=took_s)
    return int(contradictions > 0 or any(outcome.refusal is not None for outcome in found.values()))


@ledger.command(short_help="Write the books into a file for an auditor.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
@paths_options
def export(*, file: Path, as_json: bool, paths: Paths) -> None:
    """Write FILE: the registry, all receipts, contradictions, disputes, and what was asked and decided.

    Whoever has it and the registry's pin can check it with ``pyrdma-agent audit``, without being a member.
    """
    import asyncio
    import os

    from agent.cli.output import data_json, talk
    from agent.errors import NodeError
    from agent.ledger.exporting import export_to
    from agent.ledger.looking import look
    from federation.ledger.export import Header

    draft = file.with_name(f".{file.name}.part")

    async def write() -> tuple[int, str]:
        async with look(paths) as books:
            config = books.config
            header = Header(config.site, int(time.time()), config.registry_pin)
            with draft.open("wb", buffering=1 << 20) as out:
                lines = await export_to(out, books.store, books.registry, header)
                out.flush()
                os.fsync(out.fileno())
            return lines, config.registry_pin

    try:
        lines, pin = asyncio.run(write())
        draft.replace(file)
    except OSError as error:
        raise NodeError(
            f"{file} cannot be written: {error.strerror or error}.", fix="make room for it"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    if as_json:
        data_json({"schema": 1, "file": str(file), "lines": lines, "pin": pin})
    talk(f"{file} has {lines} lines.")
    talk(f"check it with: pyrdma-agent audit {file} --root {pin}")
