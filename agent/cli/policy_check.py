"""``policy check | fmt | test | schema``: what a file must pass before anybody signs it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.options import json_option
from agent.cli.policy_files import (
    STDIN,
    consortium_option,
    file_type,
    load,
    read_bytes,
    say_problems,
    shown_name,
)

if TYPE_CHECKING:
    from federation.policy.cases import Outcome
    from federation.policy.problems import Problem

_files = click.argument("files", nargs=-1, required=True, type=file_type)


@click.command(short_help="Say what is wrong with policy files.")
@_files
@consortium_option
@click.option("--replaces", type=file_type, help="The version in force: check number and notice against it.")
@click.option(
    "--output-format",
    type=click.Choice(["full", "concise", "json", "github"]),
    default="full",
    show_default=True,
    help="With carets, one a line, one JSON object, or annotations for GitHub.",
)
@json_option
def check(
    *, files: tuple[str, ...], consortium: str | None, replaces: str | None, output_format: str, as_json: bool
) -> int:
    """Check policy FILES and overlays; all problems of all files are told, each with its place.

    Exit code 0: all good; 1: one of them may not follow the version in force; 2: a file is invalid.
    """
    from agent.cli.output import data_json, talk
    from agent.error_table import ExitCode
    from federation.policy.in_force import check_successor
    from federation.policy.problems import PolicyProblemsError, documents, render

    found: list[Problem] = []
    faults: list[str] = []
    form = "json" if as_json else output_format
    for file in files:
        try:
            loaded = load(file, consortium)
        except PolicyProblemsError as error:
            found += error.problems
            continue
        if replaces is not None and loaded.kind == "consortium":
            why = check_successor(load(replaces).policy, loaded.policy, int(time.time()))
            faults += [f"{shown_name(file)}: {one}" for one in why]
    if form == "json":
        data_json({"schema": 1, "files": list(files), "problems": documents(found), "faults": faults})
    elif form == "full":
        say_problems(tuple(found))
    else:
        for problem in found:
            click.echo(render([problem], "", "github" if form == "github" else "concise"))
    for fault in faults:
        talk(f"error: {fault}.")
    if found:
        talk(f"{len(found)} problem{'s' if len(found) > 1 else ''} in {len(files)} file(s).")
        return ExitCode.USAGE
    if faults:
        return ExitCode.FAILED
    talk(f"{', '.join(shown_name(file) for file in files)}: no problems.")
    return ExitCode.OK


@click.command(short_help="Lay out policy files in the one way.")
@_files
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit code 1 if something would.")
def fmt(*, files: tuple[str, ...], only_check: bool) -> int:
    """Lay out policy FILES; comments and meaning stay. ``-`` reads stdin and writes stdout."""
    from agent.cli.output import talk
    from agent.error_table import ExitCode
    from federation.policy.formatting import format_policy
    from federation.policy.problems import PolicyProblemsError

    changed = 0
    for file in files:
        data = read_bytes(file)
        try:
            written = format_policy(data, shown_name(file))
        except PolicyProblemsError as error:
            say_problems(error.problems)
            return ExitCode.USAGE
        if file == STDIN and not only_check:
            click.echo(written.decode(), nl=False)
        elif written != data:
            changed += 1
            if not only_check:
                _replace(Path(file), written)
            talk(f"{shown_name(file)}: {'would be' if only_check else 'was'} laid out anew.")
    return ExitCode.FAILED if only_check and changed else ExitCode.OK


@click.command(short_help="Run the tests inside policy files.")
@_files
@consortium_option
@json_option
def test(*, files: tuple[str, ...], consortium: str | None, as_json: bool) -> int:
    """Run the tests that stand in policy FILES and overlays.

    A test that names an account, a site, a purpose or a rule that there is not is an error of the file
    (exit code 2), never a pass. Exit code 1: a test failed.
    """
    from agent.cli.output import data, data_json, talk
    from agent.error_table import ExitCode
    from federation.policy.cases import run_cases
    from federation.policy.problems import PolicyProblemsError, shown

    outcomes: list[Outcome] = []
    for file in files:
        try:
            loaded = load(file, consortium)
        except PolicyProblemsError as error:
            say_problems(error.problems)
            return ExitCode.USAGE
        outcomes += run_cases(loaded.cases, loaded.policy)
    failed = [outcome for outcome in outcomes if outcome.faults]
    if as_json:
        tests = [
            {"name": one.case.name, "where": str(one.case.where), "faults": list(one.faults)}
            for one in outcomes
        ]
        data_json({"schema": 1, "tests": tests, "passed": len(outcomes) - len(failed), "failed": len(failed)})
    else:
        for one in failed:
            data(f"FAILED {one.case.where}: {shown(one.case.name)}")
            for fault in one.faults:
                data(f"  {fault}")
        data(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    if not outcomes:
        talk("there are no tests in these files; docs/admin.md says how to write them.")
    return ExitCode.FAILED if failed else ExitCode.OK


@click.command(short_help="Print the JSON Schema of policy files.")
@click.option("--overlay", is_flag=True, help="That of a donor's overlay.")
def schema(*, overlay: bool) -> None:
    """Print the JSON Schema that editors complete and check policy files with."""
    from agent.cli.output import data_json
    from federation.policy.form import schema_of

    data_json(schema_of("overlay" if overlay else "policy"))


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old or the new one."""
    from agent.errors import RequestError

    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_bytes(data)
        beside.chmod(path.stat().st_mode & 0o777)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RequestError(f"{path} cannot be written: {error.strerror or error}.") from error
