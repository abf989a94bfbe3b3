"""The one way in which a policy file is laid out: ``policy fmt``.

Rules: comments, order and quotes stay, the values are the same after it, and doing it again changes nothing.
Line 1 names the JSON Schema for editors. A file need not be a valid policy, but readable YAML within bounds.
"""

from __future__ import annotations

import io
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from federation.errors import PolicyFileError
from federation.policy.file import kind_of
from federation.policy.problems import PolicyProblemsError, Problem
from federation.policy.tree import read_tree

MODELINE: Final = "# yaml-language-server: $schema="
_WIDTH: Final = 1 << 16  # lines are broken by people alone
_MAX_ROUNDS: Final = 4


def format_policy(data: bytes, file: str) -> bytes:
    """Return the file as it is laid out.

    Raises:
        PolicyProblemsError: it is no YAML that policies use.
        PolicyFileError: it could not be laid out without a change of meaning.
    """
    tree = read_tree(data, file)
    if not isinstance(tree.root, dict):
        raise PolicyProblemsError([Problem(tree.value(()).where, "here is no policy", "name: value, ...")])
    text = data.decode().replace("\r\n", "\n")
    if not text.startswith(MODELINE):
        name = "overlay" if kind_of(tree) == "overlay" else "policy"
        text = f"{MODELINE}{name}.schema.json\n{text}"
    for _ in range(_MAX_ROUNDS):  # a comment may move once more when the lines around it have moved
        again = _laid_out(text, file)
        if again == text:
            break
        text = again
    else:
        raise PolicyFileError(
            f"{file} has no stable layout.", fix="move comments to lines of their own, then format it again"
        )
    if read_tree(text.encode(), file).root != tree.root:
        raise PolicyFileError(
            f"{file} would change its meaning; it was left as it is.", fix="report this file"
        )
    return text.encode()


def _laid_out(text: str, file: str) -> str:
    try:
        return _written(text)
    except (YAMLError, TypeError, ValueError, LookupError) as error:  # texts over many lines
        raise PolicyFileError(
            f"{file} cannot be laid out: {type(error).__name__}.",
            fix="write each text on one line, in quotes",
        ) from error


def _written(text: str) -> str:
    yaml = YAML(typ="rt", pure=True)
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = _WIDTH
    yaml.preserve_quotes = True
    written = io.StringIO()
    yaml.serialize(yaml.compose(text), written)
    lines = [line.rstrip() for line in written.getvalue().split("\n")]
    return "\n".join(lines).rstrip("\n") + "\n"
