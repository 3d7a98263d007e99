"""What hardware is believed follows from the words of tier 1, whatever order they arrive in."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.authority.trust.enrolled import digest_of, enrolled_of, entry_in
from services.base.attestation.verified import Platform
from services.kernel.addr import default_ranges
from services.kernel.errors import SeipdError
from tests.fakes.thoroughness import examples
from tests.fakes.world import Server, World, shuffled

QUICK = examples(int(os.environ.get("SEIPD_MODEL_EXAMPLES", "100")))
AKS = [f"000b{number:02x}" + "ab" * 31 for number in range(3)]
PCR = "11" * 32


def entry(ak: int = 0, **registers: list[str]) -> dict:
    return {"platform": "tpm2", "hardware": AKS[ak], "registers": registers}


def say(world: World, by: int, about: int, what: dict, *, key=None):
    server = world.servers[by]
    server.hlc = max(one.hlc for one in world.servers)
    body = {"server": world.servers[about].id, **what}
    record = world.signed(key or server.key, "attestation.enroll", body)
    world.write(server, record)
    return record


def refusal(world: World, record) -> str | None:
    return world.folded().items_of([record.id])[0].refusal


def in_force(world: World, about: int):
    return enrolled_of(world.folded().state, world.servers[about].id)


def test_gov_01_one_of_three_changes_nothing_and_two_do() -> None:
    world = World(3)
    say(world, 2, 2, entry(2))
    assert in_force(world, 2) is None
    say(world, 0, 2, entry(0, pcr7=[PCR]))
    assert in_force(world, 2) is None
    say(world, 1, 2, entry(0, pcr7=[PCR]))
    found = in_force(world, 2)
    assert (found.platform, found.hardware) == (Platform.TPM2, AKS[0])
    assert found.registers == {"pcr7": {PCR}}
    say(world, 0, 2, entry(1))
    assert in_force(world, 2) == found
    say(world, 1, 2, entry(1))
    assert in_force(world, 2).hardware == AKS[1]


def test_in_a_mesh_with_one_of_tier_1_its_word_is_enough() -> None:
    rules = {"attestation": ["tpm2"], "checks": 100, "newcomers": 2}
    world = World(2, trust=rules)
    seen = {"checks": 0, "uptime_permille": None, "platform": None, "release": None}
    first = world.servers[0]
    world.change(first, witnesses=[first.id])
    for one in world.servers:
        one.hlc = max(other.hlc for other in world.servers)
        world.name_roster(one)
    founder = {"server": first.id, "tier": 1, "reasons": ["founder"], "evidence": seen}
    world.write(first, world.signed(first.key, "trust.verdict", founder))
    assert refusal(world, say(world, 1, 1, entry())) == "rejected_not_eligible"
    say(world, 0, 1, entry())
    assert in_force(world, 1).hardware == AKS[0]
    again = say(world, 0, 1, entry())
    assert refusal(world, again) == "no_change"


def test_where_nobody_is_in_tier_1_any_more_the_witnesses_say_what_is_good() -> None:
    rules = {"attestation": ["tpm2"], "checks": 100, "newcomers": 2}
    world = World(4, trust=rules)
    world.change(world.servers[0], witnesses=[one.id for one in world.servers[:3]])
    for one in world.servers:
        one.hlc = max(other.hlc for other in world.servers)
        world.name_roster(one)
    assert refusal(world, say(world, 3, 3, entry())) == "rejected_not_eligible"
    say(world, 0, 3, entry())
    assert in_force(world, 3) is None
    say(world, 1, 3, entry())
    assert in_force(world, 3).hardware == AKS[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"platform": "abacus"},
        {"hardware": None},
        {"hardware": "ab"},
        {"platform": "tdx", "hardware": None},
        {"registers": {"pcr7": []}},
        {"registers": {"pcr7": [PCR, PCR]}},
        {"registers": {"pcr7": ["AB" * 32]}},
        {"registers": {"PCR 7": [PCR]}},
        {"registers": {f"pcr{n}": [PCR] for n in range(25)}},
        {"more": 1},
    ],
)
def test_what_is_malformed_or_says_too_little_has_no_effect(wrong) -> None:
    world = World(1)
    assert refusal(world, say(world, 0, 0, entry() | wrong)) == "bad_field"
    assert in_force(world, 0) is None


def test_hardware_is_enrolled_for_servers_of_the_roster() -> None:
    world = World(1)
    stranger = {"server": "server-0000000000000000"}
    assert refusal(world, say(world, 0, 0, entry() | stranger)) == "rejected_scope"


def test_nobody_speaks_for_a_server_of_tier_1_but_itself() -> None:
    world = World(2)
    record = say(world, 0, 1, entry(), key=world.servers[1].key)
    assert refusal(world, record) == "rejected_not_eligible"


def test_a_confidential_guest_is_enrolled_by_what_it_measured() -> None:
    world = World(1)
    snp = {"platform": "sev-snp", "hardware": None, "registers": {"measurement": ["ab" * 48]}}
    say(world, 0, 0, snp)
    assert in_force(world, 0).registers == {"measurement": {"ab" * 48}}


def test_an_entry_that_nobody_holds_any_more_is_forgotten() -> None:
    world = World(3)
    for ak in range(3):
        say(world, 0, 1, entry(ak))
    held = world.folded().state.get("hardware", world.servers[1].id)
    assert list(held["entries"]) == [digest_of(entry(2))]


def test_who_names_an_old_roster_enrols_nothing_by_itself() -> None:
    world = World(1)
    alone, other = world.servers[0], Server("server 1")
    world.write(alone, world.add_server(other, (str(default_ranges().slice_at(4)),)))
    world.servers.append(other)
    other.hlc = alone.hlc
    world.name_roster(other)
    say(world, 1, 1, entry(1))
    assert refusal(world, say(world, 0, 0, entry(0))) == "rejected_stale"
    assert in_force(world, 0) is None


def withdraw(world: World, by: int, about: int, **more):
    server = world.servers[by]
    server.hlc = max(one.hlc for one in world.servers)
    body = {"server": world.servers[about].id, **more}
    record = world.signed(server.key, "attestation.withdraw", body)
    world.write(server, record)
    return record


def test_gov_01_more_than_half_withdraw_what_vouches_for_a_server() -> None:
    world = World(3)
    assert refusal(world, withdraw(world, 0, 2)) == "no_change"
    say(world, 0, 2, entry(0))
    say(world, 1, 2, entry(0))
    withdraw(world, 1, 2)
    assert in_force(world, 2).hardware == AKS[0]
    assert refusal(world, withdraw(world, 1, 2)) == "no_change"
    withdraw(world, 0, 2)
    assert in_force(world, 2) is None
    say(world, 2, 2, entry(0))
    assert in_force(world, 2) is None
    say(world, 1, 2, entry(0))
    assert in_force(world, 2).hardware == AKS[0]


def test_a_withdrawal_is_by_tier_1_of_a_server_and_says_nothing_else() -> None:
    world = World(2)
    say(world, 0, 1, entry())
    assert refusal(world, withdraw(world, 0, 1, reason="stolen")) == "bad_field"
    assert refusal(world, withdraw(world, 0, 0)) == "no_change"
    record = world.signed(world.servers[1].key, "attestation.withdraw", {"server": "server-x"})
    world.write(world.servers[1], record)
    assert refusal(world, record) is not None


def test_who_withdraws_takes_back_its_own_word_too() -> None:
    world = World(3)
    say(world, 0, 2, entry(0))
    withdraw(world, 0, 2)
    held = world.folded().state.get("hardware", world.servers[2].id)
    assert (held["entries"], held["in_force"]) == ({}, None)
    say(world, 1, 2, entry(0))
    assert in_force(world, 2) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(PCR),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys((*entry(), "server"), JSON)))
def test_any_body_is_an_entry_or_an_error_of_ours(body) -> None:
    with contextlib.suppress(SeipdError):
        _, found = entry_in({"server": "server-0000000000000000", **entry(), **body})
        assert set(found) == set(entry())
        assert entry_in({"server": "server-0000000000000000", **found})[1] == found


def by_hand(fold, world: World) -> dict[str, str]:
    """Count in the order of the fold, with nothing but a table of the newest words."""
    words: dict[str, dict[str, str]] = {one.id: {} for one in world.servers}
    agreed: dict[str, str] = {}
    for item in fold.settled_until(1 << 62):
        if item.record.kind == "attestation.enroll":
            about, ak = item.record.body["server"], item.record.body["hardware"]
            words[about][item.author] = ak
            if 2 * list(words[about].values()).count(ak) > len(world.servers):
                agreed[about] = ak
    return agreed


STEPS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 1), st.integers(0, 2)),
    min_size=3,
    max_size=30,
)


@QUICK
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_whatever_the_order_of_arrival_all_believe_the_same(steps, seed) -> None:
    world = World(4)
    for later, by, about, ak in steps:
        server = world.servers[by]
        server.hlc += later << 16
        body = {"server": world.servers[about].id, **entry(ak)}
        world.write(server, world.signed(server.key, "attestation.enroll", body))
    fold, whole = shuffled(world, seed), world.folded()
    assert fold.state.root() == whole.state.root()
    believed = {
        one.id: found.hardware
        for one in world.servers
        if (found := enrolled_of(whole.state, one.id)) is not None
    }
    assert believed == by_hand(whole, world)
