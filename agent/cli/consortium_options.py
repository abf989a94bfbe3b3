"""Options and one guard that the commands of ``consortium`` have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from federation.registry.membership import Membership

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
registry_option = click.option("--registry", type=FOLDER, required=True, help="The registry's folder.")
keys_option = click.option(
    "--keys", type=FOLDER, required=True, help="The folder with your keys and the root-pin."
)


@contextmanager
def writing() -> Iterator[None]:
    """Turn a failure of the disk into a sentence.

    Raises:
        NodeError: a file cannot be written.
    """
    from agent.errors import NodeError

    try:
        yield
    except OSError as error:
        raise NodeError(
            f"{error.filename or 'a file'} cannot be written: {error.strerror or error}.",
            fix="make room, or choose a folder of your own; what was published before is as it was",
        ) from error


def read_registry(sources: Sequence[str], root_pin: str, *, now_s: float) -> Membership:
    """Return what a registry says, verified down to the pin, as a site reads it for the first time.

    Args:
        sources: folders and addresses, in the order in which they are asked.
        root_pin: in hex.
        now_s: Unix time.

    Raises:
        FederationInputError: the place or the pin is none.
        RegistryError: it cannot be read or believed.
    """
    import tempfile

    from federation.registry.client import RegistryClient
    from federation.registry.keys import parse_pin
    from federation.registry.marks import MemoryMarks

    with tempfile.TemporaryDirectory() as folder:
        client = RegistryClient(
            Path(folder), root_pin=parse_pin(root_pin), sources=sources, marks=MemoryMarks()
        )
        return client.refresh(now_s=now_s)
