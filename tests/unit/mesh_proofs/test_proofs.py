"""A client believes a key when enough servers signed the state that holds it, and nothing less."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.ledger.asof import AgreedStates
from services.base.ledger.rootwalk import shown_chain
from services.base.ledger.ticks import word_at
from services.kernel.errors import UnavailableError
from services.kernel.ids import b64u_decode, b64u_encode, node_id_of
from services.mesh.facts.envelope import sign_envelope
from services.mesh.facts.kinds import LOAD, STATE
from services.mesh.facts.payloads import LoadPayload, encode_payload
from services.mesh.proofs.claims import check_endpoint, check_server
from services.mesh.proofs.errors import RefusedError, UnprovenError
from services.mesh.proofs.making import naming_records, of_witnesses, proofs_value
from services.mesh.proofs.roots import Anchor, agreed_root
from services.mesh.proofs.shapes import proofs_from_value
from tests.fakes.rootlinks import rotate
from tests.fakes.thoroughness import examples
from tests.fakes.world import START_MS, World, curve_key, key_of

TICK_MS = START_MS + 20_000
NOW_MS = TICK_MS + 9_000
E1 = node_id_of(key_of("endpoint e1").public_key)


class Mesh:
    """Four servers, three of them witnesses, and an endpoint that is settled."""

    def __init__(self, *, rotated: bool = False, anew: bool = False) -> None:
        self.world = world = World(4)
        self.first = world.servers[0]
        world.change(self.first, witnesses=[one.id for one in world.servers[:3]])
        if rotated:
            world.write(self.first, rotate(world, "root 2"))
        if anew:
            again = [one.value() for one in world.charter.servers().values()]
            world.change(self.first, servers=again, witnesses=[one.id for one in world.servers[:3]])
        world.name_roster(self.first)
        invite_id, seed = world.invite(self.first, "e1")
        world.write(self.first, world.redeem("e1", invite_id, seed))
        world.write(self.first, world.assign(self.first, "e1", "10.64.0.10"))
        world.attest(self.first, len(self.first.entries), START_MS // 1000 + 1)
        self.fold = world.folded()
        self.word = word_at(self.fold, TICK_MS)
        self.state = AgreedStates().make(self.fold, self.word)

    def fact(self, number: int, *, word=None, issued_ms: int = NOW_MS - 3_000):
        return sign_envelope(
            self.world.servers[number].key,
            bytes.fromhex(self.world.mesh_id),
            kind=STATE,
            payload=(word or self.word).encode(),
            counter=TICK_MS,
            now_ms=issued_ms,
            lifetime_ms=60_000,
        )

    def shown(self, *numbers: int, facts=()):
        charter, number = self.fold.charter, self.word.roster_number
        facts = [*facts, *(self.fact(one) for one in numbers)]
        return proofs_value(
            self.state,
            [("roster", self.first.id), ("tree", E1)],
            chain=shown_chain(charter),
            roster=naming_records(charter, number),
            envelopes=of_witnesses(charter, number, facts),
        )

    def believe(self, value, *, signers: int = 0, now_ms: int = NOW_MS, roster_number: int = 0):
        shown = proofs_from_value(value)
        anchor = Anchor(mesh_id=self.world.mesh_id, roster_number=roster_number, chain=shown.chain)
        agreed = agreed_root(
            shown.records, shown.envelopes, anchor=anchor, signer_count=signers, now_ms=now_ms
        )
        return agreed, shown

    def check(self, value, **options) -> None:
        """Believe the server's two keys and what the peer list says of the endpoint."""
        agreed, shown = self.believe(value, **options)
        server = self.world.charter.server(self.first.id)
        check_server(
            agreed,
            shown.proof("roster", self.first.id),
            server_id=self.first.id,
            key=server.key,
            wireguard_key=server.wireguard_key,
        )
        check_endpoint(agreed, shown.proof("tree", E1), node_id=E1, shown=PEER)


PEER = {"name": "e1", "address": "10.64.0.10", "wireguard_key": curve_key("e1")}
MESH = Mesh()


def test_a_majority_of_the_witnesses_is_believed() -> None:
    MESH.check(MESH.shown(0, 2))
    agreed, _ = MESH.believe(MESH.shown(0, 1, 2))
    assert agreed.needed_count == 2
    assert set(agreed.signers) == {one.id for one in MESH.world.servers[:3]}


def test_a_roster_of_the_next_root_key_is_believed_by_the_chain_that_leads_to_it() -> None:
    mesh = Mesh(rotated=True)
    shown = mesh.shown(0, 2)
    mesh.check(shown)
    for chain in ([], shown["chain"][1:]):
        with pytest.raises(RefusedError) as caught:
            mesh.check({**shown, "chain": chain})
        assert caught.value.code == "roster_false"


def test_rkc_05_certificates_of_the_key_before_are_good_until_its_window_ends() -> None:
    mesh = Mesh(rotated=True)
    closes_ms = mesh.world.charter.chain.generations[0].closes_ms
    late_ms = closes_ms - closes_ms % 20_000 + 40_000
    for one, is_good in ((mesh, False), (Mesh(rotated=True, anew=True), True)):
        one.word = msgspec.structs.replace(one.word, time_ms=late_ms)
        shown = one.shown(facts=[one.fact(at, issued_ms=late_ms) for at in (0, 1)])
        if is_good:
            one.believe(shown, now_ms=late_ms)
        else:
            with pytest.raises(RefusedError, match="window"):
                one.believe(shown, now_ms=late_ms)


def test_led_20_too_few_signers_and_one_of_them_twice_are_too_few() -> None:
    with pytest.raises(UnprovenError) as caught:
        MESH.check(MESH.shown(0))
    assert caught.value.code == "too_few_signers"
    with pytest.raises(UnprovenError):
        MESH.check(MESH.shown(0, 1), signers=3)
    MESH.check(MESH.shown(0), signers=1)
    with pytest.raises(RefusedError, match="counts once"):
        MESH.check(MESH.shown(0, facts=[MESH.fact(0, issued_ms=NOW_MS - 2_000)]))
    with pytest.raises(UnprovenError):
        MESH.check(MESH.shown())


@pytest.mark.parametrize(
    ("now_ms", "good"),
    [
        (TICK_MS + 60_000, True),
        (TICK_MS + 60_001, False),
        (NOW_MS - 13_000, True),
        (NOW_MS - 13_001, False),
    ],
)
def test_words_are_of_the_last_minute_and_ten_seconds_ahead_at_most(now_ms, good) -> None:
    value = MESH.shown(0, 1)
    if good:
        MESH.check(value, now_ms=now_ms)
        return
    with pytest.raises(UnprovenError) as caught:
        MESH.check(value, now_ms=now_ms)
    assert caught.value.code == "not_of_now"
    assert "clock" in caught.value.mend


def test_a_word_signed_long_before_its_tick_is_not_of_now() -> None:
    early = MESH.fact(1, issued_ms=NOW_MS - 61_000)
    with pytest.raises(UnprovenError):
        MESH.check(MESH.shown(0, facts=[early]))


def test_words_of_other_servers_and_on_other_states_are_refused() -> None:
    other = replace_root(MESH.word)
    with pytest.raises(RefusedError, match="not all on one state"):
        MESH.check(MESH.shown(0, facts=[MESH.fact(1, word=other)]))
    value = MESH.shown(0, 1)
    value["words"].append(b64u_encode(MESH.fact(3).encoded))
    with pytest.raises(RefusedError, match="no witness"):
        MESH.check(value)
    load = sign_envelope(
        MESH.world.servers[1].key,
        bytes.fromhex(MESH.world.mesh_id),
        kind=LOAD,
        payload=encode_payload(LoadPayload(cpu_permille=1, endpoints_count=1, version="1")),
        counter=1,
        now_ms=NOW_MS,
        lifetime_ms=60_000,
    )
    value["words"][-1] = b64u_encode(load.encoded)
    with pytest.raises(RefusedError):
        MESH.check(value)


def replace_root(word):
    import msgspec

    return msgspec.structs.replace(word, root=bytes(32))


def test_all_witnesses_may_agree_on_a_root_that_does_not_hold_the_key() -> None:
    word = replace_root(MESH.word)
    facts = [MESH.fact(number, word=word) for number in range(3)]
    with pytest.raises(RefusedError, match="does not lead to the root"):
        MESH.check(MESH.shown(facts=facts))


def test_a_roster_older_than_one_seen_before_is_refused() -> None:
    number = MESH.word.roster_number
    MESH.check(MESH.shown(0, 1), roster_number=number)
    with pytest.raises(RefusedError, match="was replaced"):
        MESH.check(MESH.shown(0, 1), roster_number=number + 1)


def test_the_roster_of_another_root_or_without_the_named_change_is_refused() -> None:
    with pytest.raises(RefusedError):
        MESH.believe({**MESH.shown(0, 1), "roster": []})
    value = MESH.shown(0, 1)
    with pytest.raises(RefusedError, match="not shown"):
        MESH.believe({**value, "roster": value["roster"][1:]})
    stranger = MESH.world.signed(key_of("other root"), "roster.change", {})
    for body in (MESH.fold.charter.records[-1].body, {}):
        forged = replace(stranger, body=body)
        signed = replace(
            forged,
            actor_sig=key_of("other root").sign(forged.signed_bytes(MESH.world.mesh_id)),
        )
        with pytest.raises(RefusedError):
            MESH.believe({**value, "roster": [*value["roster"], signed.value()]})


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"wireguard_key": curve_key("mallory")}, RefusedError, "key_differs"),
        ({"address": "10.64.0.11"}, UnprovenError, "unproven"),
        ({"name": "e2"}, UnprovenError, "unproven"),
    ],
)
def test_what_the_server_lists_is_compared_with_what_was_signed(changes, error, code) -> None:
    agreed, shown = MESH.believe(MESH.shown(0, 1))
    proof = shown.proof("tree", E1)
    with pytest.raises(error) as caught:
        check_endpoint(agreed, proof, node_id=E1, shown={**PEER, **changes})
    assert caught.value.code == code


def test_a_proof_of_another_endpoint_and_an_endpoint_that_is_not_there() -> None:
    agreed, shown = MESH.believe(MESH.shown(0, 1))
    other = node_id_of(key_of("endpoint e9").public_key)
    with pytest.raises(RefusedError):
        check_endpoint(agreed, shown.proof("tree", E1), node_id=other, shown=PEER)
    leaf, siblings = MESH.state.prove("tree", other)
    absent = replace(shown.proof("tree", E1), leaf=leaf, siblings=tuple(siblings))
    with pytest.raises(UnprovenError, match="not in the state"):
        check_endpoint(agreed, absent, node_id=other, shown=PEER)
    with pytest.raises(UnprovenError, match="no proof"):
        shown.proof("tree", other)


def test_a_server_with_another_key_and_one_that_is_none_are_refused() -> None:
    agreed, shown = MESH.believe(MESH.shown(0, 1))
    server = MESH.world.charter.server(MESH.first.id)
    proof = shown.proof("roster", server.server_id)
    for key, wireguard_key in ((bytes(32), server.wireguard_key), (server.key, bytes(32))):
        with pytest.raises(RefusedError, match="another in the state"):
            check_server(
                agreed,
                proof,
                server_id=server.server_id,
                key=key,
                wireguard_key=wireguard_key,
            )
    stranger = "server-0123456789abcdef"
    leaf, siblings = MESH.state.prove("roster", stranger)
    with pytest.raises(RefusedError, match="no server of the mesh any more"):
        check_server(
            agreed,
            replace(proof, leaf=leaf, siblings=tuple(siblings)),
            server_id=stranger,
            key=server.key,
            wireguard_key=server.wireguard_key,
        )


def test_the_state_of_another_tick_is_not_given_out() -> None:
    states = AgreedStates()
    assert states.make(MESH.fold, MESH.word) is states.make(MESH.fold, MESH.word)
    with pytest.raises(UnavailableError):
        states.make(MESH.fold, replace_root(MESH.word))
    root = MESH.fold.state.root()
    assert states.get(MESH.word).root() == MESH.word.root
    assert MESH.fold.state.root() == root


def strings(value, path=()):
    """Yield where every text and number of a JSON value stands."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from strings(one, (*path, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from strings(one, (*path, number))
    else:
        yield path


VALUE = json.loads(json.dumps(MESH.shown(0, 1)))
PLACES = [path for path in strings(VALUE) if path[-1] not in ("view",) or path[0] != "objects"]


def changed(one, data):
    if isinstance(one, int):
        return one ^ 1 << data.draw(st.integers(0, 20))
    if one is None or one == "":
        return "x"
    at = data.draw(st.integers(0, len(one) - 1))
    other = data.draw(st.sampled_from([c for c in "aB3_-{9" if c != one[at]]))
    return one[:at] + other + one[at + 1 :]


@given(data=st.data())
@examples(400)
def test_whatever_is_changed_in_what_is_shown_is_not_believed(data) -> None:
    value = copy.deepcopy(VALUE)
    path = data.draw(st.sampled_from(PLACES))
    holder = value
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = changed(holder[path[-1]], data)
    with pytest.raises((RefusedError, UnprovenError)):
        MESH.check(value)


@given(data=st.data())
@examples(400)
def test_whatever_bit_is_flipped_in_a_word_or_a_proof_is_not_believed(data) -> None:
    value = copy.deepcopy(VALUE)
    holders = [(value["words"], number) for number in range(len(value["words"]))]
    for one in value["objects"]:
        holders += [(one["siblings"], number) for number in range(len(one["siblings"]))]
    holder, number = data.draw(st.sampled_from(holders))
    raw = bytearray(b64u_decode(holder[number]))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit >> 3] ^= 1 << (bit & 7)
    holder[number] = b64u_encode(bytes(raw))
    with pytest.raises(RefusedError):
        MESH.check(value)


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
@examples(100)
def test_garbage_is_refused(value) -> None:
    for shown in (value, {"roster": value, "words": value, "objects": value}):
        with pytest.raises((RefusedError, UnprovenError)):
            MESH.check(shown)
