"""``pyrdma-agent init``."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.options import Paths, json_option, paths_options


@click.command(short_help="Make this node the first of a new site, its gateway.")
@click.option("--site", required=True, help="The site's name in the consortium, such as uni-a.")
@click.option(
    "--trust-domain",
    required=True,
    metavar="DOMAIN",
    help="A DNS name below your institution's own; each node is named below it.",
)
@click.option("--address", required=True, metavar="HOST:PORT", help="Where other machines dial this node.")
@click.option("--node", help="This node's name.  [default: the host's name]")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where to listen; the enrolment port is on the same host.  [default: everywhere]",
)
@click.option(
    "--join-address",
    metavar="HOST:PORT",
    help="Where nodes dial that want to join.  [default: the address, next port]",
)
@click.option(
    "--registry",
    "registries",
    multiple=True,
    metavar="FOLDER|URL",
    help="Where the consortium's registry can be read; several are tried in order.",
)
@click.option("--root-pin", default="", metavar="HEX", help="What the consortium's registry is believed by.")
@click.option("--region", default="", help="For people and for the choice of donors.")
@click.option(
    "--request",
    "request_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the request to the consortium.  [default: SITE.request.json]",
)
@json_option
@paths_options
def init(
    *,
    site: str,
    trust_domain: str,
    address: str,
    node: str | None,
    listen: str | None,
    join_address: str | None,
    registries: tuple[str, ...],
    root_pin: str,
    region: str,
    request_file: Path | None,
    as_json: bool,
    paths: Paths,
) -> None:
    """Make a site: its CA, this node as its gateway, and the request to the consortium to admit it.

    The CA's key stays on this node; keep a backup of its state directory. Done again with the same values, it
    writes the request again and changes nothing else, but that a site of before there were receipts gets its
    key for them: have it admitted again then.
    """
    import socket

    from agent.cli.output import data, data_json, talk
    from agent.cli.places import label_of, make_site, next_port, place_of_registry, same_host
    from agent.cli.schema import site_document
    from agent.errors import NodeError
    from agent.site.config import SiteConfig, default_listen
    from agent.site.home import SiteHome
    from agent.site.request import site_request
    from federation.identity.keys import fingerprint, spki_sha256
    from federation.registry.files import write_file

    name = node or label_of(socket.gethostname())
    joins_at = join_address or next_port(address)
    listens = listen or default_listen(address)
    config = SiteConfig(
        site=site,
        trust_domain=trust_domain,
        node=name,
        role="gateway",
        address=address,
        listen=listens,
        gateway_node=name,
        gateway_address=address,
        join_address=joins_at,
        join_listen=same_host(listens, joins_at),
        registry_sources=tuple(map(place_of_registry, registries)),
        registry_pin=root_pin.lower(),
        region=region,
    )
    home = SiteHome(paths.site_dir)
    made = make_site(paths, home, config)
    talk(
        f"{site} is made; {name} is its gateway." if made else f"{site} was made before; nothing was changed."
    )
    target = request_file or Path(f"{site}.request.json")
    try:
        write_file(target.absolute(), site_request(home, config))
    except OSError as error:
        raise NodeError(
            f"the request {target} cannot be written: {error.strerror or error}.",
            fix="repeat this command with --request and a file that can",
        ) from error
    shown = fingerprint(spki_sha256(home.site_authority().certificate.public_key()))
    receipts = fingerprint(spki_sha256(home.receipts_key().public_key()))
    if as_json:
        data_json(site_document(config, changed=made, fingerprint=shown, request=str(target)))
        return
    data(f"fingerprint  {shown}")
    data(f"request      {target}")
    talk(f"next: hand {target} to the consortium's signers, and read the fingerprint to them by phone")
    talk(f"the signers see the site's receipts key as well: {receipts}")
    talk("next: pyrdma-agent serve")
    talk("next, for each node: pyrdma-agent invite create --node NAME > invite.txt")
