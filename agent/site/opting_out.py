"""Under which versions of the policy this site lends nothing: a file in the agent's state directory.

The command that writes it says whether that is still in time (``federation.policy.in_force``); the running
agent looks at the file every few seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from agent.errors import StateError
from federation.errors import FederationInputError
from federation.registry.documents import parse_object
from federation.registry.files import read_file, write_file

_FILE: Final = "policy-opted-out.json"
_MAX_BYTES: Final = 16 << 10


def read_opted_out(folder: Path) -> frozenset[int]:
    """Return the versions; none without a file.

    Raises:
        StateError: the file cannot be read.
    """
    try:
        data = read_file(folder / _FILE, max_bytes=_MAX_BYTES)
        listed = parse_object(data, max_bytes=_MAX_BYTES, what=_FILE)["opted_out"]
        return frozenset(one for one in listed if type(one) is int)
    except FileNotFoundError:
        return frozenset()
    except (OSError, FederationInputError, KeyError, TypeError) as error:
        raise StateError(
            f"{folder / _FILE} cannot be read: {error}.", fix="remove it, and opt out again"
        ) from error


def write_opted_out(folder: Path, versions: frozenset[int]) -> None:
    """Keep the versions in place of those before.

    Raises:
        StateError: they cannot be written; those before stay.
    """
    data = json.dumps({"schema": 1, "opted_out": sorted(versions)}).encode()
    try:
        write_file(folder / _FILE, data, mode=0o600)
    except OSError as error:
        raise StateError(
            f"{folder / _FILE} cannot be written: {error.strerror or error}.", fix="free space on its disk"
        ) from error
