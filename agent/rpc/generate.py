"""Writes the stubs of ``pyrdma.proto``, or checks that the committed ones are up to date.

Run ``python -m agent.rpc.generate`` after a change of the protocol file; ``--check`` changes nothing and
exits with 1 when a committed file differs. Needs grpcio-tools, which only a development set-up installs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import import_module, resources
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PROTO = "agent/rpc/pyrdma.proto"
_STUBS = ("agent/rpc/pyrdma_pb2.py", "agent/rpc/pyrdma_pb2.pyi", "agent/rpc/pyrdma_pb2_grpc.py")


def generate() -> dict[str, str]:
    """Return the stubs' texts by path below the repository's root."""
    protoc = import_module("grpc_tools.protoc")
    include = resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as out:
        arguments = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
        status = protoc.main(["protoc", f"-I{_ROOT}", f"-I{include}", *arguments, _PROTO])
        if status != 0:
            raise SystemExit(f"protoc failed on {_PROTO} with status {status}")
        return {name: (Path(out) / name).read_text() for name in _STUBS}


def main() -> int:
    """Write or check the stubs; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 when a stub is out of date"
    )
    check = parser.parse_args().check
    stale = []
    for name, text in generate().items():
        path = _ROOT / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text)
            print(f"wrote {name}")
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run: python -m agent.rpc.generate", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
