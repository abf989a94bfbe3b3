"""The marks: versions, contents and times that never go back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import RegistryRollbackError
from federation.registry.marks import (
    CLOCK,
    Mark,
    MemoryMarks,
    advance,
    check,
    floor,
    line,
    refreshed_at,
)

STAMP = line("timestamp", ["k1"])


def marks(version: int, digest: str = "d", issued: int = 100) -> dict[str, Mark]:
    """Return the marks of one timestamp."""
    return {STAMP: Mark(STAMP, version, digest, issued)}


def test_the_first_registry_has_nothing_to_be_held_against() -> None:
    """No mark, no refusal: the pin has vouched for it."""
    check({}, marks(1))


def test_a_lower_version_is_refused() -> None:
    """In the sentence: which role, which versions."""
    with pytest.raises(RegistryRollbackError, match=r"timestamp has version 4, and version 5 was seen"):
        check(marks(5), marks(4))


def test_one_version_has_one_content() -> None:
    """Two contents of one version are two registries."""
    with pytest.raises(RegistryRollbackError, match="another content"):
        check(marks(5, "d"), marks(5, "e"))


def test_the_time_of_issue_does_not_go_back() -> None:
    """Not even under a higher version."""
    with pytest.raises(RegistryRollbackError, match="signed before"):
        check(marks(5, issued=200), marks(6, "e", issued=199))


def test_a_change_of_keys_begins_anew_but_not_in_time() -> None:
    """Whoever stole the old key may have counted to the end; an old signature stays old."""
    fresh = line("timestamp", ["k2"])
    check(marks(1 << 53, issued=200), {fresh: Mark(fresh, 3, "e", 200)})
    with pytest.raises(RegistryRollbackError, match="signed before"):
        check(marks(1 << 53, issued=200), {fresh: Mark(fresh, 3, "e", 199)})


def test_the_order_of_keys_does_not_matter() -> None:
    """The same keys are the same line."""
    assert line("targets", ["a", "b"]) == line("targets", ["b", "a"]) != line("targets", ["a"])


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from("de"), st.integers(0, 5)), max_size=12))
def test_what_was_accepted_is_never_undone(shown: list[tuple[int, str, int]]) -> None:
    """Whatever is shown in whatever order, the accepted ones never fall."""
    kept: dict[str, Mark] = {}
    for version, digest, issued in shown:
        new = marks(version, digest, issued)
        old = kept.get(STAMP)
        try:
            check(kept, new)
        except RegistryRollbackError:
            assert old is not None
            assert (
                version < old.version
                or issued < old.issued_at
                or (version == old.version and digest != old.digest)
            )
            continue
        assert old is None or (version >= old.version and issued >= old.issued_at)
        kept = advance(kept, new, now_s=10.0)


def test_no_time_before_the_last_refresh_is_believed() -> None:
    """A clock that was set back does not move the floor; a later refresh does."""
    kept = advance({}, marks(1, issued=100), now_s=5000.0)
    assert refreshed_at(kept) == 5000.0
    assert floor(kept, 10.0) == 5000.0
    assert floor(kept, 6000.0) == 6000.0
    assert advance(kept, marks(2, "e", 100), now_s=10.0)[CLOCK].issued_at == 5000


def test_no_time_before_the_last_signature_is_believed() -> None:
    """What was signed at a time shows that this time has come."""
    assert floor(marks(1, issued=700), 10.0) == 700.0


def test_before_the_first_refresh_there_is_none() -> None:
    """So nothing can be loaded from a cache that no refresh has written."""
    assert refreshed_at({}) is None
    assert floor({}, 7.0) == 7.0


def test_marks_in_memory_are_copies() -> None:
    """Nobody changes what is kept by changing what was read."""
    store = MemoryMarks()
    store.save(marks(1))
    store.load().clear()
    assert store.load() == marks(1)
