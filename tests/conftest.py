"""What unit and integration tests share: a generated model of several pieces, and what a skip means.

A plain machine may skip what needs root or a Debian package. Where everything is installed
(``PYRDMA_NO_SKIPS``), a skip is a failure: a test that never runs proves nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no bug: an example may take its time, the test as a whole has its limit.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

# Started in the background of a script, the suite would hand on that Ctrl-C is ignored; programs under test
# are to be told by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests are no packages: a module that several of them share is imported by its file's name alone.
SHARED = {
    ".": ("waiting",),
    "integration": ("cache_pulls",),
    "integration/agent": ("enrolment_gateway", "gateway_world"),
    "integration/federation": ("institutions", "site_nodes"),
    "integration/labs": ("fault_proxy", "namespaces"),
    "unit/agent": ("borrowing_node", "lending_node"),
    "unit/federation/registry": ("registry_attacks",),
    "unit/gateway": ("borrowing_gateway", "donor_site", "lease_steps", "trials"),
}
for folder, modules in SHARED.items():
    pytest.register_assert_rewrite(*modules)
    sys.path.append(str(Path(__file__).parent / folder))

MIB = 1 << 20


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("PYRDMA_NO_SKIPS") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _write_model(folder: Path, nbytes: int, seed: int) -> Path:
    folder.mkdir(parents=True)
    content = random.Random(seed)
    sizes = {"body": nbytes - 1001, "tail": 1001}
    header: dict[str, object] = {}
    at = 0
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for size in sizes.values():
            file.write(content.randbytes(size))
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    return folder


@pytest.fixture(scope="session")
def write_model() -> Callable[[Path, int, int], Path]:
    """A function that writes a model of so many bytes of random weights, by seed, into a new folder."""
    return _write_model


@pytest.fixture(scope="session")
def model_of_six_pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 83 MiB and a bit: five whole pieces and a short one, over two extents."""
    return _write_model(tmp_path_factory.mktemp("model") / "six", 83 * MIB + 12_345, seed=6)


@pytest.fixture(scope="session")
def count_descriptors() -> Callable[[], int]:
    """A function that counts the open descriptors of this process."""
    return lambda: len(list(Path("/proc/self/fd").iterdir()))
