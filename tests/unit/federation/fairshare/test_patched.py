"""Collections that never change, against plain ones."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from federation.fairshare.patched import Patched, Place, Siblings, ahead_of, patched, replaced, siblings_of

KEYS = st.integers(0, 120).map(str)
CHANGES = st.lists(st.dictionaries(KEYS, st.one_of(st.none(), st.integers(1, 9)), max_size=12), max_size=30)
PLACES = st.lists(st.integers(0, 400), max_size=300, unique=True)


def _place(rank: int) -> Place:
    return (rank // 3, rank % 2, b"", f"/{rank}", 1 + rank % 4)


def _flat(siblings: Siblings) -> list[Place]:
    return [place for _, places in siblings for place in places]


@settings(max_examples=60)
@given(st.dictionaries(KEYS, st.integers(1, 9), max_size=60), CHANGES)
def test_a_map_is_what_its_changes_made_of_it(
    base: dict[str, int], changes: list[dict[str, int | None]]
) -> None:
    """Entries, length and membership agree with a plain map's; versions before a change stay as they were."""
    versions: list[tuple[Patched[int], dict[str, int]]] = [(patched(base), base)]
    for change in changes:
        latest, known = versions[-1]
        after = {key: value for key, value in {**known, **change}.items() if value is not None}
        versions.append((latest.with_changes(change), after))
    for version, known in versions:
        assert dict(version) == known
        assert len(version) == len(known)
        assert all((str(key) in version) is (str(key) in known) for key in range(121))
        assert all(version.get(str(key)) == known.get(str(key)) for key in range(121))


def test_a_block_that_grows_is_split() -> None:
    """However many come to one end."""
    siblings: Siblings = ()
    for rank in range(0, 1200, 3):
        siblings = replaced(siblings, None, _place(rank))
    assert len(_flat(siblings)) == 400
    assert max(len(places) for _, places in siblings) <= 96


@settings(max_examples=60)
@given(PLACES, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=60))
def test_siblings_stay_sorted_in_blocks(ranks: list[int], moves: list[tuple[int, int]]) -> None:
    """Moving, adding and removing leave what sorting anew would; blocks stay small and count rightly."""
    siblings = siblings_of(sorted(map(_place, ranks))) if ranks else ()
    known = set(ranks)
    for before, after in moves:
        gone = _place(before) if before in known else None
        known.discard(before)
        come = _place(after) if after not in known else None
        known.add(after)
        siblings = replaced(siblings, gone, come)
    ordered = sorted(map(_place, known))
    assert _flat(siblings) == ordered
    assert all(0 < len(places) <= 96 for _, places in siblings)
    count = 0
    for place in ordered:
        assert ahead_of(siblings, place) == count
        count += place[4]
