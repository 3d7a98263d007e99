"""Which relay two endpoints are sent to: near both, not loaded, of good name."""

from __future__ import annotations

import dataclasses
import uuid

from hypothesis import given
from hypothesis import strategies as st

from services.edge.relaying import finding
from services.edge.relaying.finding import Finder, Relay, way_km
from services.kernel.regions import PLACES


def relay(number: int, region: str = "eu-west", **other) -> Relay:
    return Relay(
        relay_id=str(uuid.UUID(int=number)),
        key=bytes(32),
        box=bytes(32),
        host="198.51.100.7",
        host6="",
        port=9103,
        region=region,
        **other,
    )


def regions_of(found) -> list[str]:
    return [one.relay.region for one in found]


def test_the_nearest_relay_lies_between_the_two() -> None:
    finder = Finder(relay(number, region) for number, region in enumerate(PLACES))
    assert regions_of(finder.nearest(["eu-west"], limit=1)) == ["eu-west"]
    assert regions_of(finder.nearest(["eu-west", "eu-central"], limit=2)) in (
        ["eu-central", "eu-west"],
        ["eu-west", "eu-central"],
    )
    far = finder.nearest(["us-east", "eu-central"], limit=len(PLACES))
    assert regions_of(far)[-1] in ("oc-south", "ap-southeast", "ap-northeast", "ap-east")
    assert [one.cost_ms for one in far] == sorted(one.cost_ms for one in far)
    assert far[0].distance_km is not None
    assert far[0].distance_km <= 7000


def test_load_and_a_bad_name_send_one_elsewhere_and_distance_still_counts() -> None:
    loaded = relay(1, load_permille=900)
    doubtful = relay(2, reputation=0.4)
    plain = relay(3)
    sydney = relay(4, "oc-south")
    finder = Finder([loaded, doubtful, plain, sydney])
    found = finder.nearest(["eu-west"], limit=4)
    assert [one.relay for one in found] == [plain, loaded, doubtful, sydney]


def test_who_is_suspended_down_or_full_is_not_found() -> None:
    bad = [
        relay(1, reputation=0.29),
        relay(2, is_up=False),
        relay(3, load_permille=1000),
    ]
    finder = Finder([*bad, relay(4, reputation=0.3)])
    found = finder.nearest(["eu-west"], limit=9)
    assert [one.relay.relay_id for one in found] == [relay(4).relay_id]
    assert [one.why_not for one in bad] == ["suspended", "down", "full"]
    assert len(finder.all()) == 4


def test_excluded_ones_are_passed_over() -> None:
    finder = Finder([relay(1), relay(2), relay(3)])
    excluded = {relay(1).relay_id, relay(2).relay_id}
    found = finder.nearest(["eu-west"], limit=2, excluded=excluded)
    assert [one.relay.relay_id for one in found] == [relay(3).relay_id]


def test_a_region_without_a_place_serves_its_own_and_comes_last_for_others() -> None:
    finder = Finder([relay(1, "campus"), relay(2, "oc-south")])
    assert regions_of(finder.nearest(["campus"], limit=2)) == ["campus", "oc-south"]
    assert regions_of(finder.nearest(["eu-west"], limit=2)) == ["oc-south", "campus"]
    assert finder.nearest(["eu-west"], limit=2)[1].distance_km is None
    assert regions_of(finder.nearest([None], limit=2)) != []


def test_what_changes_is_seen_at_the_next_search() -> None:
    finder = Finder([relay(1), relay(2)])
    finder.put(relay(1, reputation=0.1))
    assert [one.relay for one in finder.nearest(["eu-west"], limit=2)] == [relay(2)]
    finder.put(relay(1))
    finder.remove(relay(2).relay_id)
    finder.remove(relay(2).relay_id)
    assert [one.relay for one in finder.nearest(["eu-west"], limit=2)] == [relay(1)]
    finder.put(relay(1, "us-west"))
    assert regions_of(finder.nearest(["eu-west"], limit=2)) == ["us-west"]


relays = st.lists(
    st.builds(
        lambda region, load, reputation, up: (region, load, reputation, up),
        st.sampled_from([*PLACES, "campus"]),
        st.integers(0, 1000),
        st.floats(0, 1),
        st.booleans(),
    ),
    max_size=30,
)


@given(relays, st.sampled_from([*PLACES, "campus"]), st.sampled_from([*PLACES, None]))
def test_the_search_finds_what_looking_at_all_of_them_finds(told, one_end, other_end) -> None:
    made = [
        relay(number, region, load_permille=load, reputation=reputation, is_up=up)
        for number, (region, load, reputation, up) in enumerate(told)
    ]

    def cost(one: Relay) -> float:
        ways = [way_km(one.region, end) for end in (one_end, other_end)]
        far = sum(finding.UNKNOWN_KM if way is None else way for way in ways)
        return far / finding.KM_A_MS + one.penalty_ms

    expected = sorted(cost(one) for one in made if not one.why_not)[:3]
    found = Finder(made).nearest([one_end, other_end], limit=3)
    assert all(abs(a - b.cost_ms) < 1e-6 for a, b in zip(expected, found, strict=True))


def test_a_search_looks_at_few_relays_of_many(monkeypatch) -> None:
    """Ten thousand relays in a region more: the search makes as many steps as it returns."""
    finder = Finder(relay(number, list(PLACES)[number % 15]) for number in range(10_000))
    pops = []
    real = finding.heapq.heappop
    monkeypatch.setattr(finding.heapq, "heappop", lambda heap: pops.append(1) or real(heap))
    assert len(finder.nearest(["eu-west", "us-east"], limit=2)) == 2
    assert len(pops) <= 3


def test_a_better_relay_never_costs_more() -> None:
    base = relay(1, load_permille=500, reputation=0.6)
    assert dataclasses.replace(base, load_permille=400).penalty_ms < base.penalty_ms
    assert dataclasses.replace(base, reputation=0.7).penalty_ms < base.penalty_ms


FOUR, SIX, BOTH = (4,), (6,), (4, 6)


def test_who_has_ipv4_alone_is_sent_to_no_relay_with_ipv6_alone() -> None:
    """Though it is the nearest, and though another is far."""
    only6 = relay(1)
    only6 = dataclasses.replace(only6, host="", host6="2001:db8::7")
    near, far = relay(2, "eu-central"), relay(3, "oc-south")
    dual = dataclasses.replace(relay(4, "us-east"), host6="2001:db8::8")
    finder = Finder([only6, near, far, dual])

    def found(*versions) -> list[Relay]:
        return [one.relay for one in finder.nearest(["eu-west", None], limit=2, versions=versions)]

    assert found(FOUR, BOTH) == [near, dual]
    assert found(SIX, BOTH) == [only6, dual]
    assert found(FOUR, SIX)[0] == dual
    assert found(BOTH, BOTH) == found(BOTH, ()) == found() == [only6, near]


def test_what_is_not_known_to_be_reached_is_better_than_nothing() -> None:
    finder = Finder([dataclasses.replace(relay(1), host="", host6="2001:db8::7")])
    assert len(finder.nearest(["eu-west"], limit=2, versions=[FOUR, FOUR])) == 1


def test_a_directory_of_relays_that_are_not_reached_is_not_searched_whole() -> None:
    looked = []

    class Counted(Relay):
        def is_reached_by(self, versions) -> bool:
            looked.append(self.relay_id)
            return super().is_reached_by(versions)

    finder = Finder(
        Counted(**{one: getattr(relay(n), one) for one in Relay.__slots__}) for n in range(500)
    )
    assert len(finder.nearest(["eu-west"], limit=2, versions=[SIX])) == 2
    assert len(looked) == finding.MAX_UNREACHABLE
