"""``python -m agent.runner.check FOLDER``: could a runner serve this folder? Asked before it is published.

Goes the way of a runner as far as it goes without weights: builds the class, compares every name, shape and
element type, computes what no image holds, reads the tokenizer. Runs in the sandbox, because config and
tokenizer files come from strangers. Prints one JSON line, ``{"ok": true, "architecture": ...}`` or ``{"ok":
false, "code", "message", "fix"}``; the exit status is 0 or 1.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pyrdma import sandbox
from pyrdma.errors import Error, InputError, LocalError
from pyrdma.image import FolderScan, TensorSpan, scan_folder
from pyrdma.limits import MIB

_CHUNK_BYTES: Final = 4 * MIB


def check_folder(folder: Path) -> str:
    """Refuse a folder that a runner could not serve; return its architecture.

    Raises:
        ImageFormatError: the folder is no image at all.
        BindingError: its weights do not bind exactly, or need conversion while they are loaded.
    """
    import torch

    from agent.runner import adapter
    from agent.runner.pooling import Pooling
    from pyrdma.tensors import plan_binding, refuse_unequal

    adapter.quiet()
    scan = scan_folder(folder)
    spans = scan.layout.tensors
    names = [span.name for span in spans]
    model = adapter.build_on_meta(folder, spans)
    adapter.refuse_conversion(model, names)
    plan = plan_binding(model, spans, ignore=adapter.ignored_names(model, names))
    for first, *others in plan.twins:
        for other in others:
            if any(one != two for one, two in zip(_chunks(scan, first), _chunks(scan, other), strict=True)):
                refuse_unequal(first.name, other.name)
    adapter.compute_rest(model, torch.device("cpu"))
    adapter.load_generation_config(model, folder)
    adapter.load_tokenizer(folder)
    Pooling.of_folder(folder)
    return type(model).__name__


def main(arguments: list[str]) -> int:
    """Check one folder and print the answer; return the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m agent.runner.check FOLDER\n")
        return 2
    folder = Path(arguments[0]).absolute()
    try:
        sandbox.enter(sandbox.Confinement(packages=("agent", "pyrdma"), readable=tuple(_places(folder))))
        os.environ.update(HF_HUB_OFFLINE="1", HOME="/tmp")  # noqa: S108 - private to the sandbox
        answer = {"ok": True, "architecture": check_folder(folder)}
    except Error as error:
        answer = {"ok": False, "code": error.code, "message": error.message, "fix": error.fix}
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a line
        broken = LocalError(f"the check broke ({type(error).__name__}: {error}).")
        answer = {"ok": False, "code": broken.code, "message": broken.message, "fix": ""}
    print(json.dumps(answer), flush=True)
    return 0 if answer["ok"] else 1


def _places(folder: Path) -> Iterator[Path]:
    """Yield the folder and, where its files are links, what they point to: a hub's cache is made of links."""
    try:
        entries = [folder, *folder.iterdir()]
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read ({error.strerror}).", fix="name a folder with a model"
        ) from error
    yield folder
    yield from (entry.resolve() for entry in entries if entry.is_symlink() and entry.exists())


def _chunks(scan: FolderScan, span: TensorSpan) -> Iterator[bytes]:
    """Yield a tensor's bytes from its file, a few MiB at a time."""
    if not span.nbytes:
        return
    segment = next(each for each in scan.segments if 0 <= span.offset - each.offset < each.nbytes)
    with segment.path.open("rb") as file:
        file.seek(segment.file_offset + span.offset - segment.offset)
        left = span.nbytes
        while left:
            chunk = file.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise InputError(
                    f"{segment.path.name} became shorter while it was read.", fix="publish it again"
                )
            left -= len(chunk)
            yield chunk


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
