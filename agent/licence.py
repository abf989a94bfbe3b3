"""The licence that a model's folder states of itself, in the front matter of its README.md.

Read where it stands simply, ``license: apache-2.0`` on a line of its own, as model hubs write it; anything
else (a list, a name in another form) is no statement. It is the publisher's word, not a finding.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from federation.errors import FederationInputError
from federation.registry.models import check_licence

MAX_README_BYTES: Final = 64 << 10
"""The front matter stands at the beginning; what a folder's file has behind it is not read."""
_STATED: Final = re.compile(r"licen[sc]e:\s*(?P<quote>[\"']?)(?P<name>[^\s\"'#]+)(?P=quote)\s*(#.*)?")


def licence_in(folder: Path) -> str:
    """Return the licence in lower case; empty where the folder states none."""
    try:
        with (folder / "README.md").open("rb") as file:
            lines = file.read(MAX_README_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    if not lines or lines[0].rstrip() != "---":
        return ""
    for line in lines[1:]:
        if line.rstrip() == "---":
            break
        stated = _STATED.fullmatch(line.rstrip())
        if stated is not None:
            try:
                return check_licence(stated["name"])
            except FederationInputError:
                return ""
    return ""
