"""The shipped policy and a small one, read from their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.policy.file import PolicyFile, read_policy

POLICIES = Path(__file__).parents[4] / "policies"


@pytest.fixture(scope="session")
def shipped() -> PolicyFile:
    """The policy that is shipped."""
    return read_policy((POLICIES / "consortium.yaml").read_bytes(), "consortium.yaml")
