"""Documents are held to the code: what they link to, name and promise to exist does."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from agent.cli.main import cli

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)")
CODE = re.compile(r"`([^`\n]+)`")
OUR_PATH = re.compile(
    r"(?:pyrdma|federation|agent|tui|tests|benchmarks|docs)/[\w./-]*\w/?|(?:pyrdma|federation|agent|tui)/"
)
# Put together here, or this file would hold what it looks for.
FORBIDDEN = {
    "a path of one machine": re.compile(rb"(?<![\w.])/" + rb"work/"),
    "a package registry's host": re.compile(
        rb"py" + rb"pi\.(?:org|nvidia\.com|python\.org)|python" + rb"hosted\.org|pytorch\." + rb"org/whl"
    ),
}


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files that are in the repository, or will be with the next commit."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
        text=True,
    )
    found = (ROOT / name for name in sorted(set(listed.stdout.split("\0"))) if name)
    return tuple(path for path in found if path.is_file())


def documents() -> list[Path]:
    """Return the Markdown files of the repository."""
    return [path for path in tracked() if path.suffix == ".md"]


def commands(group: click.Group, name: str = "pyrdma-agent") -> Iterator[tuple[str, click.Command]]:
    """Yield every command as it is typed, groups' own commands included."""
    context = click.Context(group)
    for each in group.list_commands(context):
        command = group.get_command(context, each)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {each}")
        else:
            yield f"{name} {each}", command


def options() -> set[str]:
    """Return every option of every command."""
    every = [cli, *(command for _, command in commands(cli))]
    given = (one for command in every for one in command.params)
    return {"--help"} | {text for one in given for text in (*one.opts, *one.secondary_opts)}


def test_relative_links_resolve() -> None:
    """Whatever a document links to inside the repository is there."""
    broken = []
    for document in documents():
        for target in LINK.findall(FENCE.sub("", document.read_text())):
            if re.match(r"[a-z]+:", target) or target.startswith("#"):
                continue
            if not (document.parent / unquote(target.partition("#")[0])).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []


def test_every_command_has_a_line_in_the_documents() -> None:
    """A command that exists is in a guide, or the README."""
    paths = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    text = "\n".join(path.read_text() for path in paths)
    assert [name for name, _ in commands(cli) if not re.search(rf"{name}\b", text)] == []


def test_every_command_says_what_it_does() -> None:
    """A command has help, and so has each of its options."""
    silent = [name for name, command in commands(cli) if not command.help or not command.get_short_help_str()]
    silent += [
        f"{name} {one.opts[0]}"
        for name, command in commands(cli)
        for one in command.params
        if isinstance(one, click.Option) and not one.help
    ]
    assert silent == []


@pytest.mark.parametrize(
    "name", ["docs/auditors.md", "docs/operator.md", "docs/consortium.md", "docs/researcher.md"]
)
def test_guides_name_only_what_exists(name: str) -> None:
    """Each command and option in a guide is one of the program's."""
    text = (ROOT / name).read_text()
    names = {name for name, _ in commands(cli)}
    named = set(re.findall(r"pyrdma-agent (?:--\w+ )*([a-z]+)\b", text))
    first_words = {name.split()[1] for name in names}
    assert named - first_words == set()
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - options() == set()


@pytest.mark.parametrize("name", ["docs/ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_paths_that_documents_name_exist(name: str) -> None:
    """A path of ours in backticks is a file or folder of the repository."""
    spans = CODE.findall(FENCE.sub("", (ROOT / name).read_text()))
    paths = [word for span in spans for word in span.split() if OUR_PATH.fullmatch(word)]
    assert len(paths) > 3
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_decision_records_are_complete() -> None:
    """Records are numbered without a gap, and each says context, options, outcome and cost."""
    records = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [path.name[:4] for path in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    for path in records:
        titles = re.findall(r"^## (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
        assert titles == ["Context", "Options", "Outcome", "What it costs"], path.name


def test_nothing_of_one_machine_is_in_the_repository() -> None:
    """No file holds a path of somebody's machine or the host of a package registry."""
    found = []
    for path in tracked():
        name, content = path.relative_to(ROOT), path.read_bytes()
        found += [f"{name}: {what}" for what, words in FORBIDDEN.items() if words.search(content)]
    assert found == []
