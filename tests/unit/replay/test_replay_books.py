"""What a donor knows of others' use: late, not through a partition, and then in one go."""

from __future__ import annotations

from agent.replay.alike import alike
from agent.replay.books import Books, Charged
from agent.replay.trace import Job
from agent.replay.world import DonorSpec, Partition, World

DONORS = (DonorSpec("north", 4), DonorSpec("south", 4))
POLICY = alike(
    [Job(0.0, "/a", 1, 1.0, "research", False, "a"), Job(0.0, "/b", 1, 1.0, "research", False, "b")]
)


def lease(name: str = "l1", from_s: float = 0.0) -> Charged:
    return Charged(name, "/a", "research", "a", "n/gpu00", 2, from_s, 0.0)


def used(books: Books, donor: str, now_s: float) -> int:
    return books.standing(donor, now_s).usage.get("/a", 0)


def test_a_donor_knows_its_own_receipts_at_once_and_others_late() -> None:
    """A use ranks at its donor from its receipt on, elsewhere after the lag."""
    books = Books(World(donors=DONORS, lag_s=100.0), POLICY)
    assert books.write("north", lease(), 600.0, final=True) == 2 * 600 * 1000
    assert used(books, "north", 600.0) > 0
    assert used(books, "south", 699.0) == 0
    assert used(books, "south", 700.0) == used(books, "north", 700.0)


def test_an_open_lease_elsewhere_is_believed_to_go_on() -> None:
    """It counts as held, and as used past its last receipt, until its last one has come."""
    books = Books(World(donors=DONORS, lag_s=0.0), POLICY)
    books.write("north", lease(), 600.0)
    first = books.standing("south", 600.0)
    assert first.holdings == {"/a": 2}
    assert used(books, "south", 1200.0) > 1.5 * first.usage["/a"]
    assert books.standing("north", 600.0).holdings == {}
    books.write("north", lease(), 1200.0, final=True)
    assert books.standing("south", 1200.0).holdings == {}


def test_books_do_not_pass_a_partition_and_come_in_one_go_after_it() -> None:
    """Meanwhile they grow old, past a quarter of an hour the frozen split rules; then all is known."""
    cut = Partition(500.0, 5000.0, (frozenset({"north"}), frozenset({"south"})))
    books = Books(World(donors=DONORS, lag_s=0.0, partitions=(cut,)), POLICY)
    assert not books.standing("south", 400.0).stale
    books.write("north", lease(), 600.0, final=True)
    standing = books.standing("south", 4900.0)
    assert standing.stale
    assert standing.oldest_head_age_s == 4500
    assert standing.usage.get("/a", 0) == 0
    healed = books.standing("south", 5000.0)
    assert not healed.stale
    assert healed.usage == books.standing("north", 5000.0).usage


def test_a_refunded_lease_is_charged_nothing() -> None:
    """What was written of it before is taken back."""
    books = Books(World(donors=DONORS, lag_s=0.0), POLICY)
    books.write("north", lease(), 600.0)
    assert books.write("north", lease(), 700.0, final=True, refunded=True) == 0
    assert used(books, "south", 700.0) <= 0
