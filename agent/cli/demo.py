"""``pyrdma-agent demo``."""

from __future__ import annotations

import click

from agent.cli.options import json_option


@click.command(short_help="Institutions on this machine: warm-start a real model across them.")
@click.option("--size", default="2GB", show_default=True, help="Size of the generated checkpoint.")
@click.option("--keep", is_flag=True, help="Leave everything running and print what to try.")
@click.option("--tui", "watch", is_flag=True, help="End in the terminal UI on the living federation.")
@json_option
def demo(size: str, *, keep: bool, watch: bool, as_json: bool) -> int:
    """Found institutions, publish a real model in one, warm-start it on another's nodes, show the figures.

    Everything that the demo starts ends with it, also on Ctrl-C, unless --keep is given.
    """
    from agent.demo.main import run_demo
    from agent.text import parse_size

    return run_demo(size_bytes=parse_size(size), keep=keep, watch=watch, as_json=as_json)
