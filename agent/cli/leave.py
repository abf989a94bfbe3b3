"""``pyrdma-agent leave``."""

from __future__ import annotations

import click

from agent.cli.options import Paths, json_option, paths_options


@click.command(short_help="Leave the site, or put a node out of it.")
@click.option("--node", help="At the gateway: the node that is put out.")
@click.option("--confirm", metavar="SITE", help="The site's name, instead of the question.")
@json_option
@paths_options
def leave(*, node: str | None, confirm: str | None, as_json: bool, paths: Paths) -> None:
    """Leave the site: this node's key and certificate are removed. The agent must not run.

    With --node, at the gateway and while its agent runs: put another node out; it gets no new certificate, is
    refused from its next call on, and its leases end.
    """
    from agent.cli.leaving import leave_here, put_out, site_of
    from agent.cli.output import data, data_json
    from agent.cli.schema import left_document
    from agent.site.home import SiteHome

    home = SiteHome(paths.site_dir)
    site, here = site_of(home)
    if node is not None:
        sentence = put_out(node, site, confirm, paths)
    else:
        sentence = leave_here(home, site, confirm, paths)
    if as_json:
        data_json(left_document(site, node or here, sentence))
    else:
        data(sentence)
