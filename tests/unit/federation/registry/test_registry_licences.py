"""Licences in signed lists of models: what a site says travels, and lists of older agents stay readable."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.errors import FederationInputError, RegistryError
from federation.limits import MAX_LICENCE_CHARS, MAX_SITE_MODELS
from federation.registry.membership import ModelBinding
from federation.registry.models import check_licence, read_models, sign_models
from federation.registry.tuf_api import Metadata, Targets

NOW = 1_700_000_000.0
KEY = Ed25519PrivateKey.generate()


def listed(bindings: dict[str, ModelBinding]) -> Targets:
    """A list as whoever reads the registry has it."""
    data = sign_models(KEY, "uni-a", bindings, version=1, now_s=NOW)
    signed: Any = Metadata.from_bytes(data).signed
    assert isinstance(signed, Targets)
    return signed


def test_a_licence_travels_with_its_model() -> None:
    """And a model without one has none."""
    bindings = {"a": ModelBinding("ab" * 32, 10, "apache-2.0"), "b": ModelBinding("cd" * 32, 10)}
    signed = listed(bindings)
    assert read_models("uni-a", signed) == {f"uni-a/{name}": one for name, one in bindings.items()}
    assert "licence" not in signed.targets["models/uni-a/b"].custom, "as older agents write and read it"


@pytest.mark.parametrize("licence", ["MIT", "all rights reserved", "", 5, None, ["mit"], "x" * 65, "mit\n"])
def test_a_list_with_a_licence_of_another_form_counts_for_nothing(licence: object) -> None:
    """Nothing of it is shown or matched; an empty one says nothing."""
    signed = listed({"a": ModelBinding("ab" * 32, 10, "mit")})
    signed.targets["models/uni-a/a"].custom["licence"] = licence
    if licence == "":
        assert read_models("uni-a", signed) == {"uni-a/a": ModelBinding("ab" * 32, 10)}
        return
    with pytest.raises(RegistryError, match="licence"):
        read_models("uni-a", signed)


def test_nothing_else_is_signed() -> None:
    """The site itself is told what a licence looks like."""
    for licence in ("MIT", "a b", "x" * (MAX_LICENCE_CHARS + 1)):
        with pytest.raises(FederationInputError, match="licence"):
            listed({"a": ModelBinding("ab" * 32, 10, licence)})


def test_what_people_write_becomes_the_form_of_lists() -> None:
    """Capitals and spaces around it are no other licence."""
    assert check_licence(" Apache-2.0 ") == "apache-2.0"
    assert check_licence("GPL-3.0+") == "gpl-3.0+"
    for text in ("", "-x", "a b", "l\x1b", "x" * (MAX_LICENCE_CHARS + 1)):
        with pytest.raises(FederationInputError):
            check_licence(text)


def test_a_full_list_of_long_names_and_licences_is_within_the_bound() -> None:
    """As many models as a site may list, each with the longest licence."""
    binding = ModelBinding("ab" * 32, 1 << 42, "x" * MAX_LICENCE_CHARS)
    assert len(listed({f"{'m' * 60}{at}": binding for at in range(MAX_SITE_MODELS)}).targets) == 256
