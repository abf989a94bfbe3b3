"""How weights find their way between and inside institutions, and which names stand for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.errors import AmbiguousModelError, UnknownModelError
from agent.local.views import GrantedView, NoteView
from federation.errors import NotAdmittedError

MIB = 1 << 20
ROOM = ("--memory-mib", "2048")
Say = Callable[[GrantedView, bytes], bytes]
Until = Callable[..., Any]
MakeModel = Callable[..., Path]


@dataclass(frozen=True)
class Two:
    """North with a gateway and a node, south with the same; ``together`` is their consortium."""

    together: Any
    n1: Any
    n2: Any
    s1: Any
    s2: Any

    def signed(self) -> None:
        """Have the consortium take in north's list of models, and south read it."""
        models = self.n1.state / "site" / "north.models.json"
        self.together.sign("--models", str(models))
        self.s1.call(lambda client: client.refresh())


@pytest.fixture(scope="module")
def sites(shared_federation: Any) -> Two:
    """Start both institutions, for all tests of this module."""
    n1 = shared_federation.found(shared_federation.node("n1", "north"), *ROOM)
    s1 = shared_federation.found(shared_federation.node("s1", "south"), *ROOM)
    n2 = shared_federation.join(n1, shared_federation.node("n2", "north"), *ROOM)
    s2 = shared_federation.join(s1, shared_federation.node("s2", "south"), *ROOM)
    shared_federation.acquaint(n1, s1)
    return Two(shared_federation, n1, n2, s1, s2)


@pytest.fixture(autouse=True)
def _free_afterwards(sites: Two, until: Until) -> Any:
    """After each test every lease is given back and every device is idle."""
    yield
    for node in (sites.n1, sites.n2, sites.s1, sites.s2):
        for lease in node.leases():
            if not lease.borrower:
                node.stop(lease.id)
    for gateway in (sites.n1, sites.s1):
        until(lambda gateway=gateway: set(gateway.device_states().values()) == {"idle"}, "devices are idle")


def test_the_way_between_sites_is_taken_once(
    sites: Two, make_model: MakeModel, say: Say, until: Until
) -> None:
    """A model that nobody in the site has comes to its gateway, and on to its node, each byte once."""
    image = sites.n1.publish(make_model("far", nbytes=80 * MIB, seed=1), "far")
    granted = sites.n1.run("far", site="south", node="s2")
    assert granted.start.verified
    assert [(one.name, one.bytes) for one in granted.start.sources] == [("s1", image.total_bytes)]
    assert say(granted, b"hello") == b"hello|end"
    assert granted.lease.donor == "south/s2"
    until(
        lambda: sites.s1.pulls(image.image_id) == [{"north": image.total_bytes}],
        "the gateway has pulled each byte once, from the other site",
    )
    assert sites.s2.pulls(image.image_id) == [{"s1": image.total_bytes}]
    assert sites.n1.pulls(image.image_id) == sites.n2.pulls(image.image_id) == []
    on_gateway = sites.n1.run("far", site="south", node="s1")
    assert (on_gateway.start.lane, on_gateway.start.verified) == ("resident", True)
    assert len(sites.s1.pulls(image.image_id)) == 1


def test_two_starts_at_once_share_one_way(sites: Two, make_model: MakeModel, say: Say, until: Until) -> None:
    """The gateway's device and its node's wait for the same bytes; they cross between the sites once."""
    image = sites.n1.publish(make_model("both", nbytes=48 * MIB, seed=2), "both")
    run = ("run", "both", "--site", "south", "--node")
    with sites.n1.cli_started(*run, "s1") as one, sites.n1.cli_started(*run, "s2") as other:
        said = [start.communicate(timeout=60)[0] for start in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), said
    until(
        lambda: sites.s1.pulls(image.image_id) == [{"north": image.total_bytes}],
        "the gateway has pulled each byte once",
    )
    assert sites.s2.pulls(image.image_id) == [{"s1": image.total_bytes}]


def test_an_image_on_a_node_goes_through_its_gateway(sites: Two, make_model: MakeModel, say: Say) -> None:
    """Whatever the node published runs in the other site, which has spoken to the gateway alone."""
    image = sites.n2.publish(make_model("deep", nbytes=40 * MIB, seed=3), "deep")
    granted = sites.n2.run("deep", site="south", node="s1")
    assert say(granted, b"hello") == b"hello|end"
    assert say(granted, b"key") == granted.api_key.encode() + b"|end"
    assert sites.s1.lease(granted.lease.id).borrower == "north/n2"
    assert sites.n1.pulls(image.image_id) == [{"n2": image.total_bytes}]
    assert sites.s1.pulls(image.image_id) == [{"north": image.total_bytes}]


def test_a_start_that_is_killed_on_the_way_leaves_nothing(
    sites: Two, make_model: MakeModel, until: Until
) -> None:
    """The caller goes while the weights come; the devices are free again, and the next start works."""
    sites.n1.publish(make_model("gone", nbytes=100 * MIB, seed=4), "gone")
    with sites.n1.cli_started("run", "gone", "--site", "south", "--node", "s2"):
        until(lambda: sites.s1.device_states()["s2"] == "leased", "it has begun")
    until(lambda: sites.s1.device_states()["s2"] == "idle", "the device is free again")
    until(lambda: not sites.s2.leases(), "nothing runs there")
    assert [one.reason for one in sites.n1.leases(ended=True) if one.model == "gone"] in (
        [],
        ["the request was called off"],
    )
    assert sites.n1.run("gone", site="south", node="s2").start.verified


def test_a_gateway_that_starts_again_reads_its_folders_for_others(
    sites: Two, make_model: MakeModel, say: Say, until: Until
) -> None:
    """What it published is in no memory any more; other sites and its own nodes can run it all the same."""
    image = sites.n1.publish(make_model("kept", nbytes=20 * MIB, seed=13), "kept")
    other = sites.n1.publish(make_model("kept-too", seed=14), "kept-too")
    assert sites.n1.end() == 0
    sites.n1.launch(*ROOM)
    sites.together.acquaint(sites.n1, sites.s1)
    until(lambda: sites.n1.device_states() == {"n1": "idle", "n2": "idle"}, "both nodes are heard")
    granted = sites.s2.run("kept", node="s2")
    assert granted.lease.image_id == image.image_id
    assert say(granted, b"hello") == b"hello|end"
    assert sites.s1.pulls(image.image_id) == [{"north": image.total_bytes}]
    assert sites.n2.run("kept-too", node="n2").lease.image_id == other.image_id


# --- names ------------------------------------------------------------------------------------------------


def notes(asker: Any, model: str, **place: str) -> tuple[str, list[str]]:
    """Start a model; return its image and the notes."""
    events, granted = asker.run_events(model, **place)
    asker.stop(granted.lease.id)
    return granted.lease.image_id, [one.text for one in events if isinstance(one, NoteView)]


def test_a_name_of_another_site_means_what_its_list_says(sites: Two, make_model: MakeModel) -> None:
    """Before the list is signed its gateway is asked, which is said; afterwards the list alone decides."""
    first = sites.n1.publish(make_model("named", seed=5), "named").image_id
    assert notes(sites.s1, "named") == (first, [])
    image, said = notes(sites.s2, "north/named")
    assert image == first
    assert said == ["north/named is not in north's signed list yet; its gateway says what it is"]
    sites.signed()
    assert notes(sites.s2, "north/named") == (first, [])
    assert notes(sites.n2, "north/named") == (first, []), "its own site may be named as well"
    second = sites.n1.publish(make_model("named", seed=6), "named").image_id
    assert notes(sites.s2, "north/named") == (first, []), "until the new list is signed"
    sites.signed()
    assert notes(sites.s2, "north/named") == (second, [])
    assert notes(sites.s2, f"north/named@{first}")[0] == first


def test_an_id_says_which_image_is_meant(sites: Two, make_model: MakeModel) -> None:
    """Whatever the name stands for by now, wherever the image is left; one that nobody has is refused."""
    old = sites.n1.publish(make_model("moved", seed=7), "moved").image_id
    assert notes(sites.n1, "moved", site="south", node="s1")[0] == old
    new = sites.n1.publish(make_model("moved", seed=8), "moved").image_id
    for node in (sites.n1, sites.s2):
        assert notes(node, "moved")[0] == new
        assert notes(node, f"moved@{new}")[0] == new
        assert notes(node, f"moved@{old}")[0] == old, "south has it yet"
        with pytest.raises(UnknownModelError):
            node.run(f"moved@{'0' * 64}")


def test_the_own_name_comes_first(sites: Two, make_model: MakeModel) -> None:
    """A bare name is this site's if it has it, on whichever node; the other site's needs its name."""
    north = sites.n1.publish(make_model("same", seed=9), "same").image_id
    south = sites.s2.publish(make_model("same", seed=10), "same").image_id
    assert notes(sites.n2, "same", site="south")[0] == north
    assert notes(sites.n2, "south/same")[0] == south
    assert notes(sites.s2, "same")[0] == south
    assert notes(sites.s2, "north/same")[0] == north


def test_a_name_that_means_nothing_is_refused_in_a_sentence(sites: Two) -> None:
    """An unknown model, an unknown model of a known site, and an unknown site."""
    with pytest.raises(UnknownModelError) as refused:
        sites.s2.run("nobody-has-it")
    assert "nobody-has-it" in refused.value.message
    with pytest.raises(UnknownModelError) as refused:
        sites.s2.run("north/nobody-has-it")
    assert refused.value.message.startswith("north has no model north/nobody-has-it")
    with pytest.raises(NotAdmittedError) as unknown:
        sites.s2.run("west/nobody-has-it")
    assert unknown.value.message == "the registry known here has no site west."


def test_a_name_that_two_sites_have_is_ambiguous(sites: Two, make_model: MakeModel) -> None:
    """A third institution knows neither; it is told both images, and either can be named."""
    east = sites.together.found(sites.together.node("e1", "east"))
    sites.together.acquaint(sites.n1, sites.s1, east)
    north = sites.n1.publish(make_model("twice", seed=11), "twice").image_id
    south = sites.s1.publish(make_model("twice", seed=12), "twice").image_id
    with pytest.raises(AmbiguousModelError) as refused:
        east.run("twice")
    assert north in refused.value.fix
    assert south in refused.value.fix
    assert notes(east, f"twice@{south}")[0] == south
    assert notes(east, "north/twice")[0] == north
