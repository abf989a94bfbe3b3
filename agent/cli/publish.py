"""``pyrdma-agent publish``."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.options import Paths, json_option, paths_options, timeout_option
from agent.limits import LONG_CALL_S
from agent.local.views import NoteView, ProgressView, PublishedView


@click.command(short_help="Make a model folder an image that nodes can start from.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The name that the model is started by.")
@click.option(
    "--licence", default="", help="Its SPDX id, such as apache-2.0; by default what README.md states."
)
@timeout_option(LONG_CALL_S)
@json_option
@paths_options
def publish(folder: Path, name: str, licence: str, timeout_s: float, *, as_json: bool, paths: Paths) -> None:
    """Read the safetensors model in FOLDER into this node's donated memory and bind a NAME to it.

    The folder is checked first; pickle files are never read. The same files give the same image id on every
    machine. The folder is read again when the image has left memory, so keep it. Policies may allow some
    licences only: the site's signed list of models says this one's to all donors.
    """
    import asyncio

    from agent.cli.output import data, data_json, talk
    from agent.cli.progress import TransferBar
    from agent.cli.schema import published_document
    from agent.local.client import AgentClient
    from agent.text import format_size

    async def work() -> tuple[PublishedView, list[str]]:
        notes: list[str] = []
        done: PublishedView | None = None
        async with AgentClient(paths, change=True) as client:
            with TransferBar(f"reading {name}", quiet=as_json) as bar:
                async for event in client.publish(folder, name, licence=licence, timeout_s=timeout_s):
                    match event:
                        case NoteView(text):
                            notes.append(text)
                            bar.note(text)
                        case ProgressView():
                            bar.show(event)
                        case PublishedView():
                            done = event
        assert done is not None, "the agent's last event is the outcome"
        return done, notes

    done, notes = asyncio.run(work())
    if as_json:
        data_json(published_document(done, notes))
        return
    if done.replaced:
        talk(f"{name} stood for the image {done.replaced[:12]} before; running leases keep it.")
    data(f"{name}@{done.image_id}")
    talk(
        f"{format_size(done.total_bytes)} in {done.pieces} pieces,"
        f" checked, read and digested in {done.seconds:.1f} s."
    )
    talk(f"licence: {done.licence or 'none is stated'}")
    talk(f"next: pyrdma-agent run {name}")
