"""``pyrdma-agent policy replay``: what a policy, or warm starts, would have made of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from agent.cli.options import json_option

if TYPE_CHECKING:
    from agent.replay.report import Table
    from agent.replay.summary import Summary
    from agent.replay.trace import Job
    from agent.replay.world import DonorSpec
    from federation.policy.policy import Policy

_file = click.Path(path_type=Path, dir_okay=False, exists=True)
_new_file = click.Path(path_type=Path, dir_okay=False)
_DEFAULT_JOBS: Final = 20_000


@click.command(short_help="Replay a trace of jobs under one policy, or two.")
@click.argument("policies", type=_file, nargs=-1, metavar="[A.yaml] [B.yaml]")
@click.option("--trace", type=_file, help="The trace to replay: CSV, or Helios' cluster_log.csv.")
@click.option(
    "--helios", is_flag=True, help="The trace is a Helios log; a job that waited there for long is a guest."
)
@click.option("--accounts", type=_file, help="With --helios: lines VC,ACCOUNT that say whose a cluster is.")
@click.option("--sha256", metavar="HEX", help="Refuse a trace whose SHA-256 is another one.")
@click.option(
    "--generate", metavar="SEED[:JOBS]", help=f"Make a trace instead, of {_DEFAULT_JOBS:,} jobs unless said."
)
@click.option("--write-trace", type=_new_file, help="Write the trace that was read or made as CSV.")
@click.option(
    "--donors",
    "donors_text",
    metavar="SITE=DEVICES[xNODE],...",
    help="Who lends; guessed from the trace else.",
)
@click.option(
    "--start",
    "starts",
    multiple=True,
    metavar="NAME=TIME",
    help="What a guest's start costs, such as disk=600s; several are compared.  [default: warm=1.5s]",
)
@click.option("--lag", metavar="TIME", default="1m", show_default=True, help="How late others' books arrive.")
@click.option(
    "--patience",
    metavar="TIME",
    default="2h",
    show_default=True,
    help="How long guests wait until they give up.",
)
@click.option("--plot", type=_new_file, help="Draw a picture: a file that ends in .svg or .png.")
@json_option
def replay(
    *,
    policies: tuple[Path, ...],
    trace: Path | None,
    helios: bool,
    accounts: Path | None,
    sha256: str | None,
    generate: str | None,
    write_trace: Path | None,
    donors_text: str | None,
    starts: tuple[str, ...],
    lag: str,
    patience: str,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Replay a trace with the decisions that donors really make, and say who gains and who loses.

    Each policy is replayed with each start cost; without a policy all institutions of the trace share alike.
    The trace is a CSV of jobs; docs/replay.md describes its columns, and what the figures mean.
    """
    from agent.cli.output import data_json, talk
    from agent.errors import RequestError
    from agent.replay.report import document
    from agent.replay.run import replay_all
    from agent.replay.world import WARM, donors_of, parse_donors, parse_start
    from agent.text import parse_duration

    if len(policies) > 2:
        raise click.UsageError("name one policy, or two to compare")
    if (trace is None) is (generate is None):
        raise click.UsageError("say which trace: --trace FILE, or --generate SEED")
    if helios and trace is None:
        raise click.UsageError("--helios says what --trace is")
    if plot is not None:
        from agent.replay.plot import check_plot

        check_plot(plot)
    costs = [parse_start(one) for one in starts] or [WARM]
    lag_s, patience_s = parse_duration(lag), parse_duration(patience)
    jobs, donors = _jobs(trace, helios=helios, accounts=accounts, sha256=sha256, generate=generate)
    if donors_text is not None:
        donors = parse_donors(donors_text)
    if not jobs:
        raise RequestError("the trace has no job.", fix="name another one")
    donors = donors or donors_of(jobs)
    if write_trace is not None:
        _write(jobs, write_trace)
    named = _policies(policies, jobs)
    talk(_said(jobs, donors))
    summaries = replay_all(jobs, donors, named, costs, lag_s=lag_s, patience_s=patience_s, said=talk)
    if plot is not None:
        from agent.replay.plot import draw

        draw(summaries, plot)
        talk(f"the picture is in {plot}")
    if as_json:
        data_json(document(summaries))
    else:
        _print(summaries)


def _jobs(
    trace: Path | None, *, helios: bool, accounts: Path | None, sha256: str | None, generate: str | None
) -> tuple[Sequence[Job], tuple[DonorSpec, ...]]:
    """Return the jobs, and the donors if the trace is made with them."""
    from agent.cli.output import talk
    from agent.errors import RequestError, TraceError
    from agent.limits import MAX_TRACE_JOBS
    from agent.replay.generate import DEFAULT
    from agent.replay.generate import generate as made
    from agent.replay.helios import check_sha256, open_accounts, open_helios
    from agent.replay.trace import open_trace
    from agent.replay.world import DonorSpec

    if generate is not None:
        seed, _, count = generate.partition(":")
        if not seed.isdecimal() or len(seed) > 18 or not (count or "1").isdecimal() or len(count) > 9:
            raise RequestError(f"'{generate[:40]}' is no seed.", fix="write SEED or SEED:JOBS, as in 7:20000")
        number = int(count or _DEFAULT_JOBS)
        if not 1 <= number <= MAX_TRACE_JOBS:
            raise RequestError(f"a trace has 1 to {MAX_TRACE_JOBS} jobs.", fix="ask for another number")
        donors = tuple(DonorSpec(one.name, one.devices) for one in DEFAULT if one.devices)
        return list(made(int(seed), number)), donors
    assert trace is not None
    if helios:
        known = None if accounts is None else open_accounts(accounts)
        log = open_helios(trace, sha256=sha256, accounts=known)
        talk(f"left out: {log.without_gpu:,} jobs without a GPU, {log.never_ran:,} that never ran")
        return log.jobs, ()
    if sha256 is not None:
        try:
            check_sha256(trace, sha256)
        except OSError as error:
            raise TraceError(f"{trace} cannot be read: {error}.", fix="name a file that can") from error
    return list(open_trace(trace)), ()


def _write(jobs: Sequence[Job], path: Path) -> None:
    from agent.cli.output import talk
    from agent.errors import RequestError
    from agent.replay.trace import write_trace

    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            count = write_trace(jobs, file)
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error}.", fix="name another file") from error
    talk(f"{count:,} jobs are in {path}")


def _policies(paths: Sequence[Path], jobs: Sequence[Job]) -> list[tuple[str, Policy]]:
    from agent.replay.alike import alike

    if not paths:
        return [("all alike", alike(jobs))]
    from agent.errors import RequestError
    from federation.limits import MAX_POLICY_BYTES
    from federation.policy.file import read_policy

    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    found = []
    for name, path in zip(names, paths, strict=True):
        try:
            with path.open("rb") as file:
                text = file.read(MAX_POLICY_BYTES + 1)
        except OSError as error:
            raise RequestError(f"{path} cannot be read: {error}.", fix="name a file that can") from error
        found.append((name, read_policy(text, str(path)).policy))
    return found


def _said(jobs: Sequence[Job], donors: Sequence[DonorSpec]) -> str:
    days = (jobs[-1].submit_s - jobs[0].submit_s) / 86400
    devices = sum(one.devices for one in donors)
    own = sum(job.local for job in jobs)
    return (
        f"{len(jobs):,} jobs over {days:.1f} days, {own:,} of them their owners' own; "
        f"{devices:,} devices at {len(donors)} sites"
    )


def _print(summaries: Sequence[Summary]) -> None:
    from agent.cli.output import data, table
    from agent.replay.report import groups, overview, owners

    def show(figures: Table) -> None:
        if figures[1]:
            table(*figures)
            data("")

    show(overview(summaries))
    show(groups(summaries, lambda one: one.institutions, "institution"))
    show(groups(summaries, lambda one: one.classes, "class"))
    show(groups(summaries, lambda one: one.sizes, "by devices owned"))
    show(owners(summaries))
