"""The JSON Schemas that editors read are the ones that the forms make."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from federation.policy import units
from federation.policy.form import schema_of

POLICIES = Path(__file__).parents[4] / "policies"


def test_the_committed_schemas_are_the_generated_ones() -> None:
    """``pyrdma-agent policy schema > policies/policy.schema.json`` changes nothing."""
    assert json.loads((POLICIES / "policy.schema.json").read_text()) == schema_of("policy")
    assert json.loads((POLICIES / "overlay.schema.json").read_text()) == schema_of("overlay")


def test_every_key_has_a_description() -> None:
    """An editor says what each key is for."""
    schema = schema_of("policy")
    for name, part in {"": schema, **schema["$defs"]}.items():
        for key, field in part.get("properties", {}).items():
            assert field.get("description") or "$ref" in field, f"{name}.{key}"


@pytest.mark.parametrize(
    ("pattern", "read", "texts"),
    [
        (units.DURATION_PATTERN, units.duration_s, ["10s", "5min", "4h", "7d", "0s"]),
        (units.SIZE_PATTERN, units.size_bytes, ["20GB", "1.5TB", "512MiB", "1B"]),
        (units.USE_PATTERN, units.use_msgs, ["500GPUh"]),
        (units.TIME_PATTERN, units.time_s, ["2027-01-01T06:00Z", "2027-01-01T06:00:30Z"]),
        (units.PERCENT_PATTERN, units.ratio_permille, ["10%", "12.5%"]),
    ],
)
def test_what_the_schema_allows_is_read(pattern: str, read: object, texts: list[str]) -> None:
    """The editor and the program agree on how figures are written."""
    assert callable(read)
    for text in texts:
        assert re.search(pattern, text)
        assert read(text) >= 0
    for text in ("10", "10 s", "5m", "20Gb", "2027-01-01", "10 %"):
        assert not re.search(pattern, text)
        if not (read is units.ratio_permille and text == "10"):
            with pytest.raises(units.UnitError):
                read(text)


@pytest.mark.parametrize("seconds", [0, 1, 59, 60, 90, 3600, 5400, 86400, 7 * 86400])
def test_durations_are_written_as_they_are_read(seconds: int) -> None:
    """There and back."""
    assert units.duration_s(units.write_duration(seconds)) == seconds


@pytest.mark.parametrize("nbytes", [1, 999, 1000, 1500, 20 * 10**9, 1_500_000_000_000, 123_456_789])
def test_sizes_are_written_as_they_are_read(nbytes: int) -> None:
    """There and back."""
    assert units.size_bytes(units.write_size(nbytes)) == nbytes
