"""``pyrdma-agent carbon``: this site's carbon intensity, hour by hour, for the choice among offers."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.options import Paths, json_option, paths_options


@click.group(short_help="Say how much carbon this site's power costs, hour by hour.")
def carbon() -> None:
    """Say how much carbon this site's power costs, hour by hour; at its gateway.

    Where the consortium's policy gives it a weight, borrowers prefer offers of sites with less. It never
    keeps anybody from anything.
    """


@carbon.command("set", short_help="Sign a series of hours and tell it to the other sites.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--source", required=True, help="Where the figures are from, for people.")
@json_option
@paths_options
def set_series(*, file: Path, source: str, as_json: bool, paths: Paths) -> None:
    """Sign the hours in FILE, in place of those before.

    A line is an hour and its grams of CO2 equivalent per kWh, such as 2026-03-01T14:00Z,312. Other sites
    have it within two minutes.
    """
    import time

    from agent.cli.output import data, data_json, talk
    from agent.cli.schema import SCHEMA
    from agent.errors import NotGatewayError, RequestError
    from agent.ledger.carbon import MAX_CARBON_FILE_BYTES, read_hours, write_carbon
    from agent.site.home import SiteHome
    from federation.ledger.carbon import sign_carbon
    from federation.registry.files import read_file

    home = SiteHome(paths.site_dir)
    config = home.load()
    if config.role != "gateway":
        raise NotGatewayError("only the gateway of a site signs for it.", fix=f"go to {config.gateway_node}")
    try:
        text = read_file(file, max_bytes=MAX_CARBON_FILE_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{file} cannot be read: {error}.") from error
    series = read_hours(text, config.site, source, now_s=time.time())
    write_carbon(paths.state_dir, sign_carbon(home.receipts_key(), series))
    if as_json:
        fields = {"site": series.site, "from_s": series.from_s, "hours": len(series.g_per_kwh)}
        data_json({"schema": SCHEMA, **fields, "source": source})
    else:
        data(str(len(series.g_per_kwh)))
    talk(f"{len(series.g_per_kwh)} hours are signed; other sites have them within two minutes.")


@carbon.command(short_help="Show the hours that this site tells the others.")
@json_option
@paths_options
def show(*, as_json: bool, paths: Paths) -> None:
    """Print the signed hours, a line each as ``set`` reads them. What other sites tell is in: nodes."""
    import time
    from datetime import UTC, datetime

    from agent.cli.output import data, data_json, talk
    from agent.cli.schema import SCHEMA
    from agent.errors import NotGatewayError, RequestError
    from agent.ledger.carbon import read_carbon
    from agent.site.home import SiteHome
    from federation.ledger.carbon import HOUR_S, carbon_of, open_carbon
    from federation.ledger.signing import KeyOfSite, Keys, public_of

    home = SiteHome(paths.site_dir)
    config = home.load()
    if config.role != "gateway":
        raise NotGatewayError("only the gateway of a site signs for it.", fix=f"go to {config.gateway_node}")
    signed = read_carbon(paths.state_dir)
    if signed is None:
        raise RequestError("this site tells no hours.", fix="sign some with: pyrdma-agent carbon set FILE")
    series = open_carbon(signed, Keys({config.site: (KeyOfSite(public_of(home.receipts_key())),)}))
    now = carbon_of(series, int(time.time()))
    if as_json:
        fields = {"site": series.site, "source": series.source, "from_s": series.from_s}
        data_json({"schema": SCHEMA, **fields, "g_per_kwh": list(series.g_per_kwh), "now_g_per_kwh": now})
        return
    for at, grams in enumerate(series.g_per_kwh):
        if grams is not None:
            data(f"{datetime.fromtimestamp(series.from_s + at * HOUR_S, UTC):%Y-%m-%dT%H:%MZ},{grams}")
    talk(f"from {series.source}; this hour: {'no figure' if now is None else f'{now} g per kWh'}.")
