"""The rules of a chain, and what attackers get past them: nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import LedgerError, ReceiptError
from federation.ledger.accept import Held, Outcome, accept, accept_page
from federation.ledger.chain import Chain, Facts
from federation.ledger.form import decode
from federation.ledger.items import Item, check_items, proves
from federation.ledger.pricing import charge_of_receipt
from federation.ledger.signing import KeyOfSite, Keys, public_of
from federation.ledger.writing import Statement, next_receipt
from federation.limits import LEDGER_CLOCK_LEAD_S, RECEIPT_PAGE


class Taker:
    """Somebody who takes receipts of one donor."""

    def __init__(self, kit: Any, donor: str = "north") -> None:
        self.kit, self.chain = kit, Chain(donor)
        self.held: dict[int, Item] = {}

    def take(self, *items: Item, keys: Keys | None = None, facts: Facts | None = None) -> Outcome:
        held = Held(self.held.get, self._numbered)
        found = check_items(items, keys or self.kit.keys)
        outcome = accept_page(self.chain, items, found, facts or self.kit.facts, held)
        self.chain = outcome.chain
        for one in outcome.taken:
            self.held[one.receipt.position] = Item(one.body, one.donor_signature, one.borrower_signature)
        return outcome

    def refuses(self, item: Item, code: str) -> Outcome:
        """Assert that an item is refused with a code, and that nothing changes by it."""
        before = (self.chain.head, dict(self.chain.leases), dict(self.held))
        outcome = self.take(item)
        assert outcome.refusal is not None
        assert outcome.refusal.code == code
        assert outcome.taken == ()
        assert (self.chain.head, dict(self.chain.leases), dict(self.held)) == before
        return outcome

    def _numbered(self, lease_id: str, seq: int) -> Item | None:
        for item in self.held.values():
            receipt = decode(item.body)
            if (receipt.lease_id, receipt.seq) == (lease_id, seq):
                return item
        return None


@pytest.fixture
def taker(kit: Any) -> Taker:
    """One that holds nothing yet."""
    return Taker(kit)


def test_an_honest_chain_is_taken(north: Any, taker: Taker) -> None:
    """Each receipt once, in order."""
    outcome = taker.take(*north.items)
    assert outcome.refusal is None
    assert len(outcome.taken) == len(north.items)
    assert taker.chain.head == north.chain.head


def test_ten_thousand_replays_change_nothing(north: Any, taker: Taker) -> None:
    """A receipt that is held already is taken again without effect, also when it comes 10,000 times."""
    taker.take(*north.items)
    head = taker.chain.head
    for item in north.items[:2]:
        found = check_items((item,), taker.kit.keys) * RECEIPT_PAGE
        for _ in range(5):
            held = Held(taker.held.get, taker._numbered)
            outcome = accept_page(taker.chain, (item,) * RECEIPT_PAGE, found, taker.kit.facts, held)
            assert (outcome.taken, outcome.refusal, outcome.evidence) == ((), None, ())
            assert outcome.chain.head == head


def test_another_order_is_refused(north: Any, taker: Taker) -> None:
    """What does not follow what is held waits for what is before it."""
    taker.refuses(north.items[1], "position")
    taker.take(north.items[0])
    taker.refuses(north.items[2], "position")


def test_a_page_ends_at_its_first_bad_receipt(north: Any, taker: Taker) -> None:
    """What is before it is taken, what is after it is not looked at."""
    bad = north.items[2]._replace(donor_signature=bytes(64))
    outcome = taker.take(north.items[0], north.items[1], bad, north.items[3])
    assert outcome.refusal is not None
    assert outcome.refusal.code == "signature"
    assert (len(outcome.taken), taker.chain.head.position) == (2, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"donor": "west"},
        {"borrower": "west"},
        {"position": 3},
        {"previous": bytes(32)},
        {"lease_id": "lease-9"},
        {"seq": 9},
        {"account": "/west/nlp"},
        {"purpose": "safety"},
        {"device": "gpu01/cuda:7"},
        {"device_class": "cpu"},
        {"from_s": 1_800_000_001},
        {"to_s": 1_800_001_201},
        {"busy_ms": 1_200_001},
        {"charge_msgs": 3_000_001},
        {"discount_ms": 1},
        {"energy_wh": 1},
        {"egress_bytes": 1},
        {"final": True},
        {"refunded": True},
        {"policy": "cd" * 32},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_edited_field_breaks_the_signature(
    north: Any, taker: Taker, kit: Any, changes: dict[str, Any]
) -> None:
    """Whoever edits any field of a signed receipt has an unsigned one, whatever the field."""
    taker.take(north.items[0])
    item = north.items[1]
    edited = kit.resigned(item, decode(item.body), **changes)
    taker.refuses(Item(edited.body, item.donor_signature), "form" if "donor" in changes else "signature")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"previous": bytes(32)}, "previous"),
        ({"seq": 3}, "sequence"),
        ({"seq": 1}, "sequence"),
        ({"lease_id": "lease-9"}, "sequence"),
        ({"borrower": "west"}, "changed"),
        ({"account": "/south/other"}, "changed"),
        ({"purpose": "safety"}, "changed"),
        ({"device": "gpu01/cuda:7"}, "changed"),
        ({"device": "gpu01/cuda:0,gpu01/cuda:1"}, "changed"),
        ({"device_class": "cpu"}, "changed"),
        ({"from_s": 1_799_999_000}, "changed"),
        ({"to_s": 1_800_000_500, "busy_ms": 500_000, "charge_msgs": 1_250_000}, "decreasing"),
        ({"busy_ms": 500_000, "charge_msgs": 1_250_000}, "decreasing"),
        ({"charge_msgs": 3_000_001}, "charge"),
        ({"charge_msgs": 2_999_999}, "charge"),
        ({"discount_ms": 1}, "charge"),
        ({"discount_ms": 600_001, "charge_msgs": 2_249_998}, "busy"),
        ({"busy_ms": 1_200_001}, "busy"),
        ({"discount_ms": 1_200_001}, "busy"),
        ({"policy": "cd" * 32}, "policy"),
        ({"refunded": True, "charge_msgs": 0}, "refund"),
        ({"refunded": True, "final": True}, "refund"),
        ({"refunded": True, "final": True, "charge_msgs": 0}, "refund"),
    ],
    ids=str,
)
def test_a_donor_that_signs_what_breaks_a_rule_is_refused(
    north: Any, taker: Taker, kit: Any, changes: dict[str, Any], code: str
) -> None:
    """A true signature does not help: each rule has its refusal."""
    taker.take(north.items[0])
    item = north.items[1]
    taker.refuses(kit.resigned(item, decode(item.body), **changes), code)


def test_figures_that_fall_are_refused(kit: Any, taker: Taker) -> None:
    """Energy, egress and discount are cumulative; a counter that was there does not vanish."""
    writer = kit.writer()
    taker.take(writer.write(energy_wh=5, egress_bytes=5, discount_ms=5))
    item = writer.write(to_s=1200, energy_wh=6, egress_bytes=6, discount_ms=6)
    for changes in ({"energy_wh": 4}, {"energy_wh": None}, {"egress_bytes": 4}, {"discount_ms": 4}):
        taker.refuses(kit.resigned(item, decode(item.body), **changes), "decreasing")
    assert taker.take(item).refusal is None


def test_an_end_does_not_move_back_nor_a_refund_lower_the_count(kit: Any, taker: Taker) -> None:
    """Also where the charge would not show it."""
    writer = kit.writer()
    taker.take(writer.write(to_s=600, busy_ms=300_000))
    item = writer.write(to_s=700, busy_ms=300_000)
    taker.refuses(kit.resigned(item, decode(item.body), to_s=kit.start_s + 599), "decreasing")
    refund = {"busy_ms": 299_999, "charge_msgs": 0, "refunded": True, "final": True}
    taker.refuses(kit.resigned(item, decode(item.body), **refund), "decreasing")


def test_after_the_last_receipt_of_a_lease_there_is_none(north: Any, taker: Taker, kit: Any) -> None:
    """A final receipt ends it; its id is not used again."""
    taker.take(*north.items)
    last = decode(north.items[3].body)
    more = {"position": 5, "previous": north.chain.head.digest}
    taker.refuses(kit.item_for(replace(last, seq=4, **more)), "sequence")
    taker.refuses(kit.item_for(replace(last, seq=1, **more)), "sequence")


def test_a_revoked_key_signs_nothing(north: Any, taker: Taker, kit: Any) -> None:
    """Nor does one that the registry never named, nor another site's."""
    keys = kit.keys_for("north", "south", revoked=("north",))
    outcome = taker.take(north.items[0], keys=keys)
    assert outcome.refusal is not None
    assert outcome.refusal.code == "signature"
    outcome = taker.take(north.items[0], keys=kit.keys_for("south"))
    assert outcome.refusal is not None
    taker.refuses(kit.item_for(decode(north.items[0].body), key=kit.key_of("west")), "signature")


def test_a_former_key_counts_up_to_its_end(north: Any, taker: Taker, kit: Any) -> None:
    """Receipts that end before the key was replaced are good, later ones are not."""
    until_s = kit.start_s + 600
    former = KeyOfSite(public_of(kit.key_of("north")), until_s)
    keys = Keys({"north": (KeyOfSite(public_of(kit.key_of("new"))), former)})
    outcome = taker.take(*north.items, keys=keys)
    assert len(outcome.taken) == 1
    assert outcome.refusal is not None
    assert outcome.refusal.code == "signature"


def test_two_leases_on_one_device_do_not_overlap(kit: Any, taker: Taker) -> None:
    """Neither does a lease begin before the one before it ended, nor does that one go on afterwards."""
    writer = kit.writer()
    first = decode(writer.write(to_s=600).body)
    taker.take(*writer.items)
    start_s = kit.start_s
    new = replace(first, position=2, previous=writer.chain.head.digest, lease_id="lease-2")
    taker.refuses(
        kit.item_for(
            replace(new, from_s=start_s + 599, to_s=start_s + 1199, device="gpu00/cuda:0,gpu01/cuda:0",
                    charge_msgs=3_000_000)
        ),
        "overlap",
    )  # fmt: skip
    writer.write("lease-2", from_s=start_s + 700, to_s=1300, busy_ms=600_000)
    taker.take(*writer.items)
    late = replace(first, position=3, previous=writer.chain.head.digest, seq=2)
    taker.refuses(kit.item_for(replace(late, to_s=start_s + 701)), "overlap")
    assert taker.take(kit.item_for(replace(late, to_s=start_s + 700, final=True))).refusal is None


def test_a_receipt_from_the_future_is_parked(north: Any, taker: Taker, kit: Any) -> None:
    """Beyond the skew it waits for our clock; it is no offence, and taken as it is later."""
    first = decode(north.items[0].body)
    early = Facts(first.to_s - LEDGER_CLOCK_LEAD_S - 1, kit.facts.policies)
    outcome = taker.take(north.items[0], facts=early)
    assert outcome.refusal is not None
    assert (outcome.refusal.code, outcome.refusal.parked, outcome.evidence) == ("future", True, ())
    assert taker.take(north.items[0], facts=Facts(early.now_s + 1, kit.facts.policies)).refusal is None


def test_an_unknown_policy_is_parked(north: Any, taker: Taker, kit: Any) -> None:
    """Until the policy is known here nobody can say what the charge is."""
    outcome = taker.take(north.items[0], facts=Facts(kit.now_s, {}))
    assert outcome.refusal is not None
    assert (outcome.refusal.code, outcome.refusal.parked) == ("policy", True)


def test_a_lease_has_bounds(kit: Any, taker: Taker) -> None:
    """It does not end before it begins, nor last longer than the policy's longest."""
    writer = kit.writer()
    first = decode(writer.write().body)
    taker.refuses(kit.item_for(replace(first, to_s=first.from_s - 1, busy_ms=0, charge_msgs=0)), "interval")
    taker.refuses(kit.item_for(replace(first, from_s=first.to_s - 8 * 86400)), "interval")


def test_a_refund_is_for_leases_that_their_donor_cut_short(kit: Any, taker: Taker) -> None:
    """Final, free of charge, before the least run time: the one charge that may fall."""
    writer = kit.writer()
    writer.write(to_s=600)
    writer.write(to_s=890, final=True, refunded=True)
    assert decode(writer.items[1].body).charge_msgs == 0
    assert taker.take(*writer.items).refusal is None


@pytest.mark.parametrize(
    "changes",
    [
        {"refunded": True, "charge_msgs": 0},
        {"refunded": True, "final": True},
        {"refunded": True, "final": True, "charge_msgs": 1},
    ],
)
def test_a_refund_is_final_and_free(kit: Any, taker: Taker, changes: dict[str, Any]) -> None:
    """Also for a lease that may be refunded."""
    item = kit.writer().write(to_s=600)
    taker.refuses(kit.resigned(item, decode(item.body), **changes), "refund")


def test_no_more_time_has_the_discount_than_was_counted(kit: Any, taker: Taker) -> None:
    """Even if the charge is what the policy would make of such figures."""
    item = kit.writer().write(to_s=600)
    more = replace(decode(item.body), discount_ms=700_000)
    taker.refuses(kit.item_for(replace(more, charge_msgs=charge_of_receipt(more, kit.policy))), "busy")


def test_two_receipts_for_one_position_are_evidence(north: Any, taker: Taker, kit: Any) -> None:
    """Both are kept, whoever came first; anybody can check the proof, and an edited one proves nothing."""
    taker.take(*north.items)
    other = kit.resigned(north.items[1], decode(north.items[1].body), egress_bytes=7)
    outcome = taker.refuses(other, "position")
    (evidence,) = outcome.evidence
    assert (evidence.donor, evidence.kind, evidence.position) == ("north", "position", 2)
    assert {evidence.first.body, evidence.second.body} == {other.body, north.items[1].body}
    assert proves(evidence, kit.keys)
    assert not proves(replace(evidence, position=1), kit.keys)
    assert not proves(replace(evidence, first=evidence.second), kit.keys)
    assert not proves(replace(evidence, donor="west"), kit.keys)
    unsigned = evidence.first._replace(donor_signature=bytes(64))
    assert not proves(replace(evidence, first=unsigned), kit.keys)


def test_two_receipts_for_one_number_of_a_lease_are_evidence(north: Any, taker: Taker, kit: Any) -> None:
    """Also when they stand at different places of the chain."""
    taker.take(*north.items[:2])
    again = replace(decode(north.items[1].body), position=3, previous=taker.chain.head.digest, egress_bytes=9)
    (evidence,) = taker.refuses(kit.item_for(again), "sequence").evidence
    assert (evidence.kind, evidence.position) == ("sequence", 3)
    assert proves(evidence, kit.keys)


def test_what_nobody_signed_is_no_evidence(north: Any, taker: Taker, kit: Any) -> None:
    """Else anybody could end a donor's chain."""
    taker.take(*north.items)
    other = kit.resigned(north.items[1], decode(north.items[1].body), egress_bytes=7)
    assert taker.refuses(other._replace(donor_signature=bytes(64)), "signature").evidence == ()


def test_a_chain_that_has_forked_takes_nothing_more(north: Any, taker: Taker) -> None:
    """From the contradiction on."""
    found = check_items(north.items, taker.kit.keys)
    held = Held(lambda _: None, lambda *_: None)
    outcome = accept_page(taker.chain, north.items, found, taker.kit.facts, held, forked_at=3)
    assert len(outcome.taken) == 2
    assert outcome.refusal is not None
    assert outcome.refusal.code == "forked"


def test_a_countersignature_may_come_later(north: Any, taker: Taker, kit: Any) -> None:
    """A receipt that is held and comes again with its borrower's signature brings that along."""
    taker.take(*(item._replace(borrower_signature=b"") for item in north.items))
    outcome = taker.take(*north.items)
    assert [at for at, _ in outcome.countersigned] == [1, 2, 3, 4]
    assert accept(
        Chain("north"), north.items[0], kit.keys, kit.facts, Held(lambda _: None, lambda *_: None)
    ).taken


def test_a_page_has_a_bound(north: Any, taker: Taker) -> None:
    """More receipts than a page has are refused unread."""
    with pytest.raises(ReceiptError):
        taker.take(*[north.items[0]] * (RECEIPT_PAGE + 1))


def test_a_lease_that_had_its_last_receipt_gets_no_other(north: Any, kit: Any) -> None:
    """The writer itself refuses."""
    statement = Statement(
        lease_id="lease-1", borrower="south", account="/south", purpose="research", device=("gpu01/cuda:0",),
        device_class="h100", from_s=0, to_s=1, busy_ms=0,
    )  # fmt: skip
    with pytest.raises(LedgerError):
        next_receipt(north.chain, statement, kit.policy)


MEASURES = st.tuples(
    st.integers(-100, 4000),
    st.integers(0, 5_000_000),
    st.integers(0, 5_000_000),
    st.none() | st.integers(0, 99),
    st.integers(0, 99),
    st.booleans(),
    st.booleans(),
    st.sampled_from(("a", "b", "c")),
    st.integers(0, 1),
)


@given(st.lists(MEASURES, max_size=12))
@settings(max_examples=60)
def test_whatever_is_measured_becomes_receipts_that_all_take(kit: Any, measures: list[Any]) -> None:
    """Clocks that jump, counters that fall, leases that change devices: what is written keeps every rule."""
    writer, ended = kit.writer(), set()
    free_s = [kit.start_s, kit.start_s]
    for to_s, busy_ms, discount_ms, energy_wh, egress_bytes, final, refunded, lease, device in measures:
        last = writer.chain.leases.get(lease)
        if lease in ended:
            continue
        holder = writer.chain.holders.get(f"gpu01/cuda:{device}")
        if last is None and holder is not None:
            free_s[device] = writer.chain.leases[holder].to_s
        writer.write(
            lease, to_s=to_s, busy_ms=busy_ms, discount_ms=discount_ms, energy_wh=energy_wh,
            egress_bytes=egress_bytes, final=final, refunded=refunded, device=(f"gpu01/cuda:{device}",),
            from_s=free_s[device], signed=False,
        )  # fmt: skip
        if final:
            ended.add(lease)
    outcome = Taker(kit).take(*writer.items)
    assert outcome.refusal is None
    assert len(outcome.taken) == len(writer.items)
    # What anybody can check: a device's counted time is at most the time that has passed.
    for device in ("gpu01/cuda:0", "gpu01/cuda:1"):
        leases = [one for one in outcome.chain.leases.values() if one.device == device]
        if leases:
            passed_s = max(one.to_s for one in leases) - min(one.from_s for one in leases)
            assert sum(one.busy_ms for one in leases) <= passed_s * 1000
