"""``pyrdma-agent consortium policy``: versions of the policy and who signs them, in the registry."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.consortium_options import FILE, keys_option, read_registry, registry_option, writing
from agent.cli.options import Paths, json_option, paths_options

if TYPE_CHECKING:
    from federation.registry.policies import PolicyDraft


@click.group(short_help="Publish the consortium's policy; say who signs it.")
def policy() -> None:
    """Publish versions of the policy that all sites share, and say whose keys sign them.

    A version comes into force for everybody at the moment that it names. But for the first one, it is
    published as long before as the version before it demands (its notice, 24 h by default): time for each
    site to read it and to say no.
    """


@policy.command("publish", short_help="Sign a version of the policy and publish it.")
@click.argument("file", type=FILE)
@registry_option
@keys_option
@json_option
def publish_policy(*, file: Path, registry: Path, keys: Path, as_json: bool) -> None:
    """Publish the policy FILE, after its check; takes the policy keys.

    Its version is higher than all before, and its effective_at is when every site goes over to it. What is
    published is never taken back: a later version takes its place.
    """
    from agent.cli.consortium_text import said_policy
    from federation.registry.keys import load_keys, read_pin
    from federation.registry.policy_signing import PolicySigning

    draft = _draft(file)
    target = PolicySigning(registry, root_pin=read_pin(keys))
    with writing():
        published = target.publish(draft, load_keys(keys), now_s=time.time())
    said_policy(draft.version, draft.effective_at_s, published=published, registry=registry, as_json=as_json)


@policy.command("show", short_help="List the versions of a registry's policy, or print one.")
@click.argument("registry", metavar="REGISTRY|URL")
@click.option("--root-pin", required=True, metavar="PIN", help="What it is believed by.")
@click.option("--version", type=click.IntRange(min=1), help="Print this version's file.")
@json_option
def show_policy(*, registry: str, root_pin: str, version: int | None, as_json: bool) -> None:
    """List the policy's versions as a site reads them, verified down to the pin; print one with --version."""
    from agent.cli.consortium_text import list_policies, policies_document
    from agent.cli.output import data_json
    from agent.errors import RequestError

    now_s = time.time()
    membership = read_registry([registry], root_pin, now_s=now_s)
    if version is not None:
        found = [one for one in membership.policies if one.version == version]
        if not found:
            raise RequestError(f"this registry has no version {version} of a policy.", fix="list them first")
        _print_file(found[0].data)
    elif as_json:
        data_json(policies_document(membership, now_s=now_s))
    else:
        list_policies(membership, now_s=now_s)


@policy.command("keys", short_help="Make keys for policies that take the place of those before.")
@registry_option
@keys_option
@click.option("--signers", type=click.IntRange(1, 9), default=3, show_default=True, help="How many keys.")
@click.option(
    "--threshold",
    type=click.IntRange(1, 9),
    help="How many of them it takes to publish a policy.  [default: 2, or 1 of 1]",
)
@json_option
def policy_keys(*, registry: Path, keys: Path, signers: int, threshold: int | None, as_json: bool) -> None:
    """Make new policy keys; takes the membership keys.

    For a registry of before there were policies, for signers of their own after all, and when policy keys
    were lost or stolen: what is published is signed anew with the new ones, and the former count for nothing.
    """
    from agent.cli.consortium_text import say_changed
    from agent.cli.output import talk
    from federation.registry.keys import load_keys, make_keys, read_pin
    from federation.registry.policy_signing import PolicySigning
    from federation.registry.signing import RoleKeys

    needs = min(2, signers) if threshold is None else threshold
    if needs > signers:
        raise click.UsageError("a threshold is at most the number of its keys.")
    now_s = time.time()
    target = PolicySigning(registry, root_pin=read_pin(keys))
    present = load_keys(keys)
    target.check_members(present)
    names = [f"policy-{int(now_s)}-{at + 1}" for at in range(signers)]
    with writing():
        made = tuple(make_keys(keys, names).values())
        published = target.replace_keys(RoleKeys(made, needs), present, now_s=now_s)
    say_changed("", published=published, registry=registry, as_json=as_json)
    talk(f"{', '.join(names)} sign policies now, {needs} of {signers}; former policy keys count for nothing.")
    talk("Move each to who holds it, with a copy of the file root-pin, and delete it here.")


@policy.command("auditors", short_help="Say whose resolutions of disputes count.")
@registry_option
@keys_option
@click.option(
    "--auditor",
    "named",
    type=(str, FILE),
    multiple=True,
    metavar="NAME KEY.pem",
    help="An auditor, and the Ed25519 public key that signs the resolutions; can be repeated.",
)
@json_option
def set_auditors(*, registry: Path, keys: Path, named: tuple[tuple[str, Path], ...], as_json: bool) -> None:
    """Name all auditors that count from now on; takes the policy keys. Without any, nobody's word counts."""
    from agent.cli.consortium_text import say_changed
    from agent.cli.output import talk
    from agent.errors import RequestError
    from federation.limits import MAX_KEY_PEM_CHARS
    from federation.registry.files import read_file
    from federation.registry.keys import load_keys, read_pin
    from federation.registry.membership import Auditor
    from federation.registry.policy_signing import PolicySigning

    try:
        auditors = [
            Auditor(name, read_file(path, max_bytes=MAX_KEY_PEM_CHARS).decode("ascii"))
            for name, path in named
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"an auditor's key cannot be read: {error}.") from error
    target = PolicySigning(registry, root_pin=read_pin(keys))
    with writing():
        published = target.set_auditors(auditors, load_keys(keys), now_s=time.time())
    say_changed("", published=published, registry=registry, as_json=as_json)
    talk(f"auditors: {', '.join(one.name for one in auditors) or 'none'}")


@policy.command("opt-out", short_help="Lend nothing under a version that is to come.")
@click.argument("version", type=click.IntRange(min=1))
@click.option("--undo", is_flag=True, help="Lend under it after all; at any time.")
@json_option
@paths_options
def opt_out(*, version: int, undo: bool, as_json: bool, paths: Paths) -> None:
    """Have this site lend nothing while VERSION of the policy is in force; at its gateway.

    It can be said until the version comes into force. The running agent takes it over within seconds.
    """
    from agent.cli.output import data, data_json, talk
    from agent.cli.schema import SCHEMA
    from agent.errors import NotGatewayError
    from agent.site.home import SiteHome
    from agent.site.opting_out import read_opted_out, write_opted_out
    from agent.site.policy_in_force import known_versions, read_versions
    from federation.errors import FederationInputError

    config = SiteHome(paths.site_dir).load()
    if config.role != "gateway" or not config.registry_sources:
        raise NotGatewayError("only the gateway of a site in a consortium lends under a policy.")
    opted_out = read_opted_out(paths.state_dir)
    if undo:
        opted_out -= {version}
    else:
        now_s = time.time()
        membership = read_registry(config.registry_sources, config.registry_pin, now_s=now_s)
        versions = read_versions(membership.policies, membership.consortium, {})
        known = known_versions(versions.values(), opted_out)
        if version not in known.versions:
            raise FederationInputError(
                f"the registry has no version {version} of the policy that can be read here.",
                fix="see the versions with: pyrdma-agent consortium policy show",
            )
        opted_out = known.opt_out(version, int(now_s)).opted_out
    write_opted_out(paths.state_dir, opted_out)
    if as_json:
        data_json({"schema": SCHEMA, "site": config.site, "opted_out": sorted(opted_out)})
    else:
        data(str(version))
    talk(f"{config.site} lends {'as before' if undo else 'nothing'} while version {version} is in force.")


def _draft(file: Path) -> PolicyDraft:
    """Return a file's version, once it holds and its own tests pass."""
    from agent.errors import RequestError
    from federation.limits import MAX_POLICY_BYTES
    from federation.policy.cases import run_cases
    from federation.policy.file import read_policy
    from federation.registry.files import read_file
    from federation.registry.policies import PolicyDraft

    try:
        content = read_file(file, max_bytes=MAX_POLICY_BYTES)
    except OSError as error:
        raise RequestError(f"{file} cannot be read: {error.strerror or error}.") from error
    found = read_policy(content, str(file))
    failed = [one for one in run_cases(found.cases, found.policy) if one.faults]
    if failed:
        first = failed[0]
        raise RequestError(
            f"{first.case.where}: the test {first.case.name!r} fails: {'; '.join(first.faults)}.",
            fix=f"see all of them with: pyrdma-agent policy test {file}",
        )
    policy = found.policy
    return PolicyDraft(policy.name, policy.version, policy.effective_at_s, policy.notice_s, content)


def _print_file(content: bytes) -> None:
    from agent.cli.output import data

    if sys.stdout.isatty():  # whatever signers wrote moves no cursor
        for line in content.decode("utf-8", "replace").splitlines():
            data(line)
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
