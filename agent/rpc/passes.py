"""A pass in a call's metadata: how a caller shows it, and how it is read."""

from __future__ import annotations

from typing import Any, Final

from agent.people.passes import MAX_PASS_CHARS
from agent.rpc.errors import Context

METADATA: Final = "pyrdma-pass"


def shown_pass(context: Context) -> str:
    """Return the pass that a call shows; empty when it shows none."""
    metadata: Any = context.invocation_metadata()  # the stubs know no iteration of it
    found = [value for key, value in metadata or () if key == METADATA and isinstance(value, str)]
    return found[0][:MAX_PASS_CHARS] if len(found) == 1 else ""


def with_pass(text: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata that shows a pass."""
    return ((METADATA, text),) if text else ()
