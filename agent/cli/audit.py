"""``pyrdma-agent audit``: a verdict on an export, offline, without membership and without an agent."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.options import json_option


@click.command(short_help="Check an export of a ledger, offline.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--root", "pin", required=True, metavar="PIN", help="The registry's root pin, from the consortium itself."
)
@json_option
def audit(*, file: Path, pin: str, as_json: bool) -> int:
    """Check FILE, which ``pyrdma-agent ledger export`` wrote, from the registry's root pin alone.

    Exit codes: 0 nothing is wrong, 1 problems were found, 2 the file cannot be read or its registry not be
    believed. Take the pin from the consortium, not from whoever made the file.
    """
    from agent.cli.ledger_text import verdict_document, verdict_text
    from agent.cli.output import data_json
    from agent.ledger.exporting import audit_file
    from federation.registry.keys import parse_pin

    verdict = audit_file(file, parse_pin(pin))
    if as_json:
        data_json(verdict_document(verdict))
    else:
        verdict_text(verdict)
    return 0 if verdict.clean else 1
