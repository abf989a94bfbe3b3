"""``pyrdma-agent join``."""

from __future__ import annotations

import click

from agent.cli.options import Paths, json_option, paths_options


@click.command(short_help="Make this node one of a site, with an invite.")
@click.option("--invite-file", metavar="FILE|-", help="The invite's file, or - to read it from stdin.")
@click.option("--invite", "invite_text", help="The invite itself; other users of this machine can see it.")
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Where other machines dial this node.  [default: its address on the way to the gateway, port 7443]",
)
@click.option("--listen", metavar="HOST:PORT", help="Where to listen.  [default: everywhere, same port]")
@json_option
@paths_options
def join(
    *,
    invite_file: str | None,
    invite_text: str | None,
    address: str | None,
    listen: str | None,
    as_json: bool,
    paths: Paths,
) -> None:
    """Join the site that the invite is of, under the name that it says.

    The server is checked against the invite's CA before anything is sent; the invite's secret is never sent.
    An interrupted join can be repeated with the same invite.
    """
    import asyncio

    from agent.cli.joining import authority_fingerprint, join_site, present_place, read_invite
    from agent.cli.output import data, data_json, talk
    from agent.cli.schema import site_document
    from agent.daemon.lock import state_locked
    from agent.site.home import SiteHome

    invite = read_invite(invite_file, invite_text)
    home = SiteHome(paths.site_dir)
    present = present_place(home, invite)
    if present is not None:
        place = present
        talk("This node has joined already; nothing was changed, and the invite was not used.")
    else:
        with state_locked(paths):
            place = asyncio.run(join_site(invite, home, paths, address=address, listen=listen))
    if as_json:
        shown = authority_fingerprint(invite)
        data_json(site_document(place, changed=present is None, fingerprint=shown))
        return
    data(f"you are {place.node} at {place.site}")
    talk("next: pyrdma-agent serve")
