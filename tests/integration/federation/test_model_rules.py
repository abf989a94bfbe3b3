"""Rules on models at a real gateway: what the signed lists say an image is counts, whatever it is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from institutions import POLICY

RULES = """\
models:
  licences: [mit]
  rules:
    - id: north-only
      match: {{models: [north/secret]}}
      only_for: [/north]
"""


def publish(node: Any, folder: Path, name: str, *options: str) -> None:
    """Publish a folder under a name, as a person does."""
    done = node.cli("publish", str(folder), "--name", name, *options)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def sites(
    shared_federation: Any, two_sites: tuple[Any, Any], make_model: Callable[..., Path]
) -> tuple[Any, Any]:
    """North lends and has published three models; south borrows, and holds one of them under its own name."""
    north, south = two_sites
    secret, stated = make_model("secret", seed=1), make_model("stated", seed=2)
    (stated / "README.md").write_text("---\nlicense: MIT\n---\n# A model\n")
    publish(north, secret, "secret", "--licence", "MIT")
    publish(north, stated, "stated")
    publish(north, make_model("closed", seed=3), "closed", "--licence", "proprietary")
    publish(south, secret, "alias", "--licence", "mit")
    lists = [str(one.paths.site_dir / f"{one.site}.models.json") for one in (north, south)]
    shared_federation.sign(*(word for path in lists for word in ("--models", path)))
    shared_federation.policy(POLICY + RULES, north, south)
    return north, south


def test_a_model_that_is_permitted_runs(sites: tuple[Any, Any]) -> None:
    """Its folder states the licence that the policy allows, in capitals."""
    _, south = sites
    granted = south.run("north/stated", site="north")
    south.stop(granted.lease.id)


def test_a_licence_that_is_not_allowed_does_not_run(sites: tuple[Any, Any]) -> None:
    """The list of its site says what the borrower does not."""
    _, south = sites
    refused = south.cli("run", "north/closed", "--site", "north")
    assert refused.returncode != 0
    assert "models under proprietary may not run here" in refused.stderr, refused.stderr


@pytest.mark.parametrize("name", ["north/secret", "alias", "south/alias"])
def test_a_model_of_few_accounts_runs_for_nobody_else_under_any_name(
    sites: tuple[Any, Any], name: str
) -> None:
    """South has the same files under a name of its own, and in its own signed list: the rule still holds."""
    north, south = sites
    refused = south.cli("run", name, "--site", "north")
    assert refused.returncode != 0
    assert "north-only: north/secret may run for /north only" in refused.stderr, refused.stderr
    granted = north.run("secret", site="north")
    north.stop(granted.lease.id)


def test_files_that_nobody_lists_have_no_licence(
    sites: tuple[Any, Any], make_model: Callable[..., Path]
) -> None:
    """One byte more, and a name in no list yet: a policy with licences refuses what it knows nothing of."""
    _, south = sites
    publish(south, make_model("other", seed=4), "other", "--licence", "mit")
    refused = south.cli("run", "other", "--site", "north")
    assert refused.returncode != 0
    assert "an unnamed licence may not run here" in refused.stderr, refused.stderr
