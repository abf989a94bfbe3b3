"""``pyrdma-agent demo``."""

from __future__ import annotations

import click

from agent.cli.options import json_option


@click.command(short_help="Two nodes on this machine: warm-start a real model between them.")
@click.option("--size", default="2GB", show_default=True, help="Size of the generated checkpoint.")
@click.option("--keep", is_flag=True, help="Leave everything running and print what to try.")
@json_option
def demo(size: str, *, keep: bool, as_json: bool) -> int:
    """Publish a real model on one node, warm-start it on another over UCX, and show the figures.

    Everything that the demo starts ends with it, also on Ctrl-C, unless --keep is given.
    """
    from agent.demo.main import run_demo
    from agent.text import parse_size

    return run_demo(size_bytes=parse_size(size), keep=keep, as_json=as_json)
