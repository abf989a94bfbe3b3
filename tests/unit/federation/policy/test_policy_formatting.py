"""``policy fmt``: one layout, comments kept, meaning kept, nothing changes the second time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import PolicyFileError
from federation.policy.formatting import format_policy
from federation.policy.problems import PolicyProblemsError
from federation.policy.tree import read_tree

POLICIES = Path(__file__).parents[4] / "policies"
FILES = sorted([*POLICIES.glob("*.yaml"), *(POLICIES / "examples").glob("*.yaml")])
LINES = (POLICIES / "consortium.yaml").read_text().split("\n")[:60]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_files_are_laid_out(path: Path) -> None:
    """What we ship is what ``fmt`` writes, schema line included."""
    data = path.read_bytes()
    assert format_policy(data, path.name) == data
    schema = data.split(b"\n", 1)[0].decode().partition("$schema=")[2]
    assert (path.parent / schema).exists()


def test_layout_is_made_uniform_and_comments_stay() -> None:
    """Indentation, braces, spaces and the line for editors."""
    untidy = (
        b"# head\nversion:   1   # the first\naccounts:\n    uni-a :\n        weight: 2\n"
        b"deny:\n- id: x\n  reason: 'no'\n\n# end\n"
    )
    assert format_policy(untidy, "p").decode() == (
        "# yaml-language-server: $schema=policy.schema.json\n"
        "# head\n"
        "version: 1     # the first\n"
        "accounts:\n"
        "  uni-a:\n"
        "    weight: 2\n"
        "deny:\n"
        "  - id: x\n"
        "    reason: 'no'\n"
        "\n"
        "# end\n"
    )


def test_an_overlay_gets_its_own_schema() -> None:
    """The editor completes what an overlay may say."""
    assert b"$schema=overlay.schema.json\n" in format_policy(b"kind: overlay\n", "o")


def test_what_cannot_be_read_is_refused() -> None:
    """With its place, and nothing is written."""
    with pytest.raises(PolicyProblemsError):
        format_policy(b"a: &x [1]\nb: *x\n", "p")


@pytest.mark.parametrize(
    "text", ["---\n", "- a\n", "x\n", "reason: >-\n\n\n  a\n\n\n\n  b\n", "a: |+2\n\n  b\n"]
)
def test_what_the_layout_cannot_do_is_refused(text: str) -> None:
    """It is laid out with the same values, or refused; never half."""
    written = laid_out(text.encode())
    assert written is None or read_tree(written, "p").root == read_tree(text.encode(), "p").root


def test_many_lines_of_text_stay() -> None:
    """A folded reason is a folded reason."""
    text = "# yaml-language-server: $schema=policy.schema.json\n---\nreason: >\n  long\n  text\nb: 1\n"
    written = format_policy(text.encode(), "p")
    assert read_tree(written, "p").root == {"reason": "long text\n", "b": 1}


@st.composite
def untidy_files(draw: st.DrawFn) -> bytes:
    """The head of the shipped file with blank lines, comments and lost lines in odd places."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(1, len(lines) - 1))
        extra = draw(st.sampled_from(["", "# a comment", "      # far in", None]))
        if extra is None:
            del lines[at]
        else:
            lines.insert(at, extra)
    return "\n".join(lines).encode()


def laid_out(data: bytes) -> bytes | None:
    """The file as it is laid out, or nothing where it is refused."""
    try:
        return format_policy(data, "p")
    except PolicyFileError:
        return None


@settings(max_examples=12, deadline=None)
@given(untidy_files())
def test_formatting_is_idempotent_and_keeps_values_and_comments(data: bytes) -> None:
    """Doing it again changes nothing; no value and no comment is lost."""
    written = laid_out(data)
    if written is None:
        return
    assert format_policy(written, "p") == written
    assert read_tree(written, "p").root == read_tree(data, "p").root
    assert written.count(b"# a comment") == data.count(b"# a comment")
    assert written.count(b"# far in") == data.count(b"# far in")
