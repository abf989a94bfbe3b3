"""What a donor knows of others' use: late, not through a partition, and then in one go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.replay.alike import alike
from agent.replay.books import WEEK_START_S, Books, Charged
from agent.replay.tally import Tally
from agent.replay.trace import Job
from agent.replay.world import DonorSpec, Partition, World
from federation.fairshare.decay import decay_table, epoch_of
from federation.fairshare.freshness import Split, freeze, is_fresh
from federation.fairshare.standing import OpenLease, Standing, standing_of
from federation.fairshare.usage import Usage, by_node, charge_deltas

DONORS = (DonorSpec("north", 4), DonorSpec("south", 4))
POLICY = alike(
    [Job(0.0, "/a", 1, 1.0, "research", False, "a"), Job(0.0, "/b", 1, 1.0, "research", False, "b")]
)


def lease(name: str = "l1", from_s: float = 0.0) -> Charged:
    return Charged(name, "/a", "research", 2, from_s, 0.0)


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


class Plain:
    """The same books by the ledger's own values, from nothing each time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.written: dict[str, list[tuple[float, Charged, int, bool]]] = {
            one.site: [] for one in world.donors
        }
        self.as_of = {one.site: {two.site: 0.0 for two in world.donors} for one in world.donors}
        self.split: dict[str, Split | None] = dict.fromkeys(self.written)
        self.fresh: dict[str, tuple[int, Usage]] = {}

    def usage(self, source: str, until_s: float) -> tuple[Usage, dict[str, OpenLease]]:
        usage, opened, last = Usage(), {}, {}
        for now_s, lease, charge, final in self.written[source]:
            if now_s > until_s:
                continue
            to_s = WEEK_START_S + int(now_s)
            before = last.get(lease.lease_id)
            from_s = WEEK_START_S + int(lease.from_s)
            usage = usage.add_all(charge_deltas(lease.account, from_s, to_s, charge, before))
            last[lease.lease_id] = (to_s, charge)
            believed_s = int(3 * (self.world.receipt_s + self.world.lag_s))
            opened[lease.lease_id] = OpenLease(
                lease.account, lease.devices, 1000 * lease.devices, to_s, to_s + believed_s
            )
            if final:
                del opened[lease.lease_id]
        return usage, opened

    def standing(self, donor: str, now_s: float) -> Standing:
        epoch, table = epoch_of(int(WEEK_START_S + now_s)), decay_table(7 * 86400, 10)
        usage, leases = Usage(), []
        for source, as_of_s in self.as_of[donor].items():
            if source == donor:
                reached_s = now_s
            elif any(one.parts(donor, source, now_s) for one in self.world.partitions):
                reached_s = as_of_s
            else:
                reached_s = max(as_of_s, now_s - self.world.lag_s)
            self.as_of[donor][source] = reached_s
            theirs, opened = self.usage(source, reached_s)
            usage = usage.add_all(
                (account, at, msgs) for account, of in theirs.buckets.items() for at, msgs in of.items()
            )
            leases += [] if source == donor else opened.values()
        own, _ = self.usage(donor, now_s)
        age_s = max(0, int(now_s - min(self.as_of[donor].values())))
        if is_fresh(age_s):
            self.fresh[donor], self.split[donor] = (epoch, own), None
        elif self.split[donor] is None and donor in self.fresh:
            self.split[donor] = freeze(*self.fresh[donor], table)
        return standing_of(
            POLICY,
            epoch,
            usage=usage,
            open_leases=leases,
            donated={"gpu": self.world.devices},
            oldest_head_age_s=age_s,
            last_split=self.split[donor],
            local=own,
        )


def nonzero(of: dict[str, int]) -> dict[str, int]:
    return {node: amount for node, amount in of.items() if amount}


RECEIPTS = st.lists(
    st.tuples(
        st.sampled_from(("north", "south", "west")),
        st.sampled_from(("l1", "l2", "l3")),
        st.sampled_from(("end", "refund", "goes on", "goes on")),
        st.integers(1, 700),
        st.booleans(),
    ),
    max_size=40,
)


@given(RECEIPTS, st.sampled_from((0.0, 60.0, 1200.0)), st.booleans())
def test_standings_are_those_of_the_ledger(
    receipts: list[tuple[str, str, str, int, bool]], lag_s: float, parted: bool
) -> None:
    """Whatever was written where, late or behind a partition: the figures are ``standing_of``'s."""
    cut = Partition(2000.0, 6000.0, (frozenset({"north"}), frozenset({"south", "west"})))
    where = (*DONORS, DonorSpec("west", 3))
    world = World(donors=where, lag_s=lag_s, partitions=(cut,) if parted else ())
    books, plain = Books(world, POLICY), Plain(world)
    now_s, names = 0.0, {}
    for donor, slot, how, more_s, look in receipts:
        now_s += more_s
        began = names.setdefault((donor, slot), (f"{slot}-{now_s}", now_s - more_s))
        lease = Charged(began[0], f"/{slot[1]}/x", "research", int(slot[1]), began[1], 0.0)
        if how in ("end", "refund"):
            del names[(donor, slot)]
        charge = books.write(donor, lease, now_s, final=how != "goes on", refunded=how == "refund")
        plain.written[donor].append((now_s, lease, charge, how != "goes on"))
        for site in plain.written if look else ():
            mine, theirs = books.standing(site, now_s), plain.standing(site, now_s)
            assert nonzero({**mine.usage}) == nonzero({**theirs.usage})
            assert nonzero({**mine.ever}) == nonzero({**theirs.ever})
            assert (mine.split, mine.local, mine.weights) == (theirs.split, theirs.local, theirs.weights)
            assert mine.holdings == theirs.holdings
            assert (mine.epoch, mine.oldest_head_age_s) == (theirs.epoch, theirs.oldest_head_age_s)


@given(
    st.lists(st.tuples(st.sampled_from(("/a", "/b/c")), st.integers(50, 300), st.integers(-5, 10**12))),
    st.integers(40, 500),
    st.integers(0, 300),
)
def test_a_tally_is_as_use_is(deltas: list[tuple[str, int, int]], epoch: int, since: int) -> None:
    """Sums, what lies ahead, what the window has left behind, and who has nothing left."""
    table = decay_table(86400 // 8, 10)
    tally = Tally(50)
    tally.add(deltas)
    plain = Usage().add_all(deltas).within(epoch, table).since(since)
    assert by_node(tally.decayed(epoch, table, since=since)) == plain.totals(epoch, table)
