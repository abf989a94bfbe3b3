"""The licence that a folder states of its model: read where it stands simply, else nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.licence import MAX_README_BYTES, licence_in


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0"),
        ("---\ntags:\n- x\nlicence: 'MIT'   # kind people\n---\n", "mit"),
        ('---\r\nlicense: "llama3.1"\r\n---\r\n', "llama3.1"),
        ("---\nlicense: apache-2.0\n", "apache-2.0"),
        ("# A model\nlicense: mit\n", ""),
        ("---\ntags: x\n---\nlicense: mit\n", ""),
        ("---\n  license: mit\n---\n", ""),
        ("---\nlicense: [mit, apache-2.0]\n---\n", ""),
        ("---\nlicense:\n- mit\n---\n", ""),
        ("---\nlicense: all rights reserved\n---\n", ""),
        (f"---\nlicense: {'x' * 65}\n---\n", ""),
        ("---\nlicense_name: own\n---\n", ""),
        ("---\nlicense: m\x1b[2Jit\n---\n", ""),
        (f"---\nx: {'y' * MAX_README_BYTES}\nlicense: mit\n---\n", ""),
        ("", ""),
    ],
)
def test_what_a_readme_states(tmp_path: Path, text: str, licence: str) -> None:
    """One word on a line of the front matter, whatever is around it."""
    (tmp_path / "README.md").write_text(text, newline="")
    assert licence_in(tmp_path) == licence


def test_a_folder_without_a_readme_states_nothing(tmp_path: Path) -> None:
    """Nor does one whose file is no text."""
    assert licence_in(tmp_path) == ""
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\xfe\n---\n")
    assert licence_in(tmp_path) == ""
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").mkdir()
    assert licence_in(tmp_path) == ""
