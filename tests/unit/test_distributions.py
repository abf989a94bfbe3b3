"""The two wheels of this repository: what is in each, and that they belong together."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from agent import __version__

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("folder", "packages"), [("pyrdma", {"pyrdma"}), (".", {"agent", "federation", "tui"})]
)
def test_a_wheel_holds_its_packages_and_nothing_else(folder: str, packages: set[str], tmp_path: Path) -> None:
    """The library's wheel has no agent in it, the agent's no library, tests or benchmarks; all are typed."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT / folder, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == packages
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    assert not [name for name in names if "/./" in name or name.endswith(("pyproject.toml", ".pyc"))]
    files = (path for package in packages for path in (ROOT / package).rglob("*.py"))
    sources = {str(path.relative_to(ROOT)) for path in files}
    assert sources == {name for name in names if name.endswith(".py")}


def test_both_have_one_version_and_the_agent_asks_for_exactly_this_library() -> None:
    """A library and an agent of different versions never come together by accident."""
    library = tomllib.loads((ROOT / "pyrdma/pyproject.toml").read_text())["project"]
    application = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert library["version"] == application["version"] == __version__
    every = [application["dependencies"], *application["optional-dependencies"].values()]
    wanted = [one for group in every for one in group if one.startswith("pyrdma")]
    assert wanted
    assert all(one.endswith(f"=={__version__}") for one in wanted)


def test_every_dependency_says_why() -> None:
    """A line without a reason is a dependency that nobody can judge."""
    for file in ("pyproject.toml", "pyrdma/pyproject.toml"):
        for line in (ROOT / file).read_text().splitlines():
            text = line.strip()
            if text.startswith('"') and any(mark in text for mark in (">=", "==")):
                assert "#" in text or "pyrdma[" in text, text
