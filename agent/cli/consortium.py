"""``pyrdma-agent consortium``: the registry's own signers, and whoever wants to look at one."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from agent.cli.consortium_options import FILE, FOLDER, keys_option, read_registry, registry_option, writing
from agent.cli.consortium_policy import policy
from agent.cli.options import json_option


@click.group(short_help="Make and sign a consortium's registry.")
def consortium() -> None:
    """Make and sign the registry that says which sites belong to a consortium, and under which CAs.

    A registry is a folder that any web server can serve as it is. Sign it again with ``publish`` at least
    every three days: one that nobody signs expires.
    """


@consortium.command(short_help="Make a registry without sites, and its keys.")
@click.argument("registry", type=FOLDER)
@click.option("--name", required=True, help="The consortium's name, such as eu-lab.")
@click.option("--keys", type=FOLDER, required=True, help="Where to write the keys.")
@click.option("--root-keys", type=click.IntRange(1, 9), default=1, show_default=True, help="How many.")
@click.option(
    "--root-threshold",
    type=click.IntRange(1, 9),
    default=1,
    show_default=True,
    help="How many of them it takes to change other keys.",
)
@click.option("--membership-keys", type=click.IntRange(1, 9), default=1, show_default=True, help="How many.")
@click.option(
    "--membership-threshold",
    type=click.IntRange(1, 9),
    default=1,
    show_default=True,
    help="How many of them it takes to admit or remove a site.",
)
@click.option(
    "--policy-signers",
    type=click.IntRange(1, 9),
    help="How many keys of their own sign policies.  [default: the membership keys do]",
)
@click.option(
    "--policy-threshold",
    type=click.IntRange(1, 9),
    help="How many of them it takes to publish a policy.  [default: 2, or 1 of 1]",
)
@json_option
def init(
    *,
    registry: Path,
    name: str,
    keys: Path,
    root_keys: int,
    root_threshold: int,
    membership_keys: int,
    membership_threshold: int,
    policy_signers: int | None,
    policy_threshold: int | None,
    as_json: bool,
) -> None:
    """Make the folder REGISTRY and its keys, and print the root pin.

    The pin is what sites believe the registry by: give it to them on another way than the registry itself.
    Move the root, membership and policy keys to those who hold them, each with a copy of the file root-pin;
    the online key stays where the registry is published.
    """
    from agent.cli.consortium_text import made_document
    from agent.cli.output import data, data_json, talk
    from federation.errors import FederationInputError
    from federation.identity.names import check_label
    from federation.registry.keys import make_keys, write_pin
    from federation.registry.repository import Consortium
    from federation.registry.signing import RoleKeys

    roots = [f"root-{at + 1}" for at in range(root_keys)]
    members = [f"membership-{at + 1}" for at in range(membership_keys)]
    policies = [f"policy-{at + 1}" for at in range(policy_signers or 0)]
    if policy_threshold is not None and policy_signers is None:
        raise click.UsageError("--policy-threshold counts keys of --policy-signers; give both.")
    policy_needs = policy_threshold or min(2, policy_signers or 1)
    if (registry / "metadata").exists():
        raise FederationInputError(f"{registry} holds a registry already.", fix="choose another folder")
    if (
        root_threshold > root_keys
        or membership_threshold > membership_keys
        or policy_needs > (policy_signers or 1)
    ):
        raise click.UsageError("a threshold is at most the number of its keys.")
    check_label(name, "consortium")
    with writing():
        made = make_keys(keys, [*roots, *members, *policies, "online"])
        new = Consortium.init(
            registry,
            name,
            root=RoleKeys(tuple(made[each] for each in roots), root_threshold),
            membership=RoleKeys(tuple(made[each] for each in members), membership_threshold),
            policy=RoleKeys(tuple(made[each] for each in policies), policy_needs) if policies else None,
            online=made["online"],
            now_s=time.time(),
        )
        write_pin(keys, new.root_pin)
    if as_json:
        data_json(made_document(name, new.root_pin, registry=registry, keys=keys))
    else:
        data(new.root_pin.hex())
    talk(f"{name} is made; its registry is {registry}, its keys are in {keys}: keep copies of both.")
    talk("On stdout is the root pin: give it to the sites.")
    talk(f"next: pyrdma-agent consortium admit SITE.request.json --registry {registry} --keys {keys}")


@consortium.command(short_help="Enter a site, or its new document.")
@click.argument("request", type=FILE)
@registry_option
@keys_option
@click.option("--replace", is_flag=True, help="The site is a member and gets another trust domain or CA.")
@click.option("--yes", is_flag=True, help="The fingerprint was compared; do not ask.")
@json_option
def admit(*, request: Path, registry: Path, keys: Path, replace: bool, yes: bool, as_json: bool) -> None:
    """Enter the site that wrote the file REQUEST with ``pyrdma-agent init``.

    What it asks for is shown first. Call the site, and let them read the fingerprint of their CA to you: a
    file that came by mail proves nothing about who wrote it.
    """
    from agent.cli.consortium_text import describe, say_changed
    from agent.cli.output import talk
    from agent.errors import RequestError
    from federation.limits import MAX_SITE_REQUEST_BYTES
    from federation.registry.files import read_file
    from federation.registry.keys import load_keys, read_pin
    from federation.registry.repository import Consortium
    from federation.registry.request import decode_request

    try:
        asked = decode_request(read_file(request, max_bytes=MAX_SITE_REQUEST_BYTES))
    except OSError as error:
        raise RequestError(f"{request} cannot be read: {error.strerror or error}.") from error
    target = Consortium(registry, root_pin=read_pin(keys))
    signers = load_keys(keys)
    present = [site for site in target.sites() if site.site == asked.document.site]
    describe(asked.document, present[0] if present else None)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(
                "nobody is there to compare the fingerprint: add --yes if it was compared."
            )
        if not click.confirm("Did the site read the same fingerprint to you?", err=True):
            raise RequestError("the site was not admitted; nothing was changed.")
    with writing():
        published = target.admit(asked, signers, now_s=time.time(), replace=replace)
    say_changed(asked.document.site, published=published, registry=registry, as_json=as_json)
    if published:
        talk(f"{asked.document.site} is a member from each site's next refresh on.")


@consortium.command(short_help="Remove a site.")
@click.argument("site")
@registry_option
@keys_option
@click.option("--confirm", metavar="SITE", help="The site's name again, instead of being asked for it.")
@json_option
def remove(*, site: str, registry: Path, keys: Path, confirm: str | None, as_json: bool) -> None:
    """Remove SITE: no other site speaks to it any more, each from its next refresh on."""
    from agent.cli.confirm import confirm_by_name
    from agent.cli.consortium_text import say_changed
    from federation.registry.keys import load_keys, read_pin
    from federation.registry.repository import Consortium

    target = Consortium(registry, root_pin=read_pin(keys))
    signers = load_keys(keys)
    confirm_by_name(f"{site} and what it lends and borrows leave the consortium.", site, confirm)
    with writing():
        published = target.remove(site, signers, now_s=time.time())
    say_changed(site, published=published, registry=registry, as_json=as_json)


@consortium.command(short_help="Sign the registry anew; take in sites' lists of models.")
@registry_option
@keys_option
@click.option(
    "--models", type=FILE, multiple=True, help="A site's signed list, SITE.models.json; can be repeated."
)
@click.option(
    "--new-online-key", is_flag=True, help="Replace a lost or stolen online key; takes the root keys."
)
@json_option
def publish(
    *, registry: Path, keys: Path, models: tuple[Path, ...], new_online_key: bool, as_json: bool
) -> None:
    """Sign anew which files are the newest, with the online key. Let a timer do it every six hours.

    The members and the root are signed again too in the last third of their lives (90 and 365 days), when
    enough of their keys are in the folder.
    """
    from agent.cli.consortium_text import say_changed
    from agent.cli.output import talk
    from agent.errors import RequestError
    from federation.limits import MAX_SITE_LIST_BYTES
    from federation.registry.files import read_file
    from federation.registry.keys import load_keys, make_keys, read_pin
    from federation.registry.repository import Consortium

    try:
        lists = [read_file(path, max_bytes=MAX_SITE_LIST_BYTES) for path in models]
    except OSError as error:
        raise RequestError(f"a list of models cannot be read: {error.strerror or error}.") from error
    now_s = time.time()
    target = Consortium(registry, root_pin=read_pin(keys))
    signers = load_keys(keys)
    with writing():
        if new_online_key:
            name = f"online-{int(now_s)}"
            online = make_keys(keys, [name])[name]
            target.replace_online(signers, online, now_s=now_s)
            talk(f"{name}.pem is the online key now; the former counts for nothing.")
            signers = (*signers, online)
        target.publish(signers, now_s=now_s, models=lists)
    say_changed("", published=True, registry=registry, as_json=as_json)


@consortium.command(short_help="Read a registry as a site reads it.")
@click.argument("registry", metavar="REGISTRY|URL")
@click.option("--root-pin", required=True, metavar="PIN", help="What it is believed by.")
@json_option
def show(*, registry: str, root_pin: str, as_json: bool) -> None:
    """Read the registry at REGISTRY, verified down to the pin, and list its sites and models."""
    from agent.cli.consortium_text import list_members, registry_document
    from agent.cli.output import data_json

    membership = read_registry([registry], root_pin, now_s=time.time())
    if as_json:
        data_json(registry_document(membership))
    else:
        list_members(membership)


consortium.add_command(policy)
