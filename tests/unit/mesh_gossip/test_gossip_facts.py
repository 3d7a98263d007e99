"""Facts that servers sign about themselves: what is taken, kept, told, and what never is."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto.signatures import SigningKey
from services.kernel.errors import InputError, SeipdError, WireError
from services.kernel.ids import raw_server_id
from services.mesh.facts.book import BURST, REFILL_S, FactBook
from services.mesh.facts.envelope import (
    MAX_FACT_BYTES,
    fact_key,
    open_envelope,
    parse_envelope,
    sign_envelope,
)
from services.mesh.facts.kinds import (
    ADDRESS,
    ADDRESS6,
    CHALLENGE,
    KINDS,
    LATENCY,
    LINKS,
    LOAD,
    PORTS,
    RELAY,
    RELEASE,
    STATE,
)
from services.mesh.facts.payloads import (
    Address6Payload,
    AddressPayload,
    Challenge,
    ChallengePayload,
    Latency,
    LatencyPayload,
    LinksPayload,
    LoadPayload,
    PortsPayload,
    RelayPayload,
    ReleasePayload,
    decode_payload,
    encode_payload,
)
from services.mesh.gossip.codec import MAX_PLAINTEXT_BYTES
from services.mesh.gossip.directory import pack_facts
from services.mesh.gossip.facthashes import FactHashes
from tests.fakes.thoroughness import examples
from tests.unit.mesh_gossip.gossip_kit import MESH_ID, START_MS, id_of, key_of

MINUTE_MS = 60_000
BUSY = LoadPayload(cpu_permille=730, endpoints_count=12, version="0.3.1", protocol=2)
FAR = LatencyPayload(latencies=(Latency(server=raw_server_id(id_of("bob")), round_trip_ms=84),))
PLACE = AddressPayload(
    host="203.0.113.5", gossip_port=9102, http_port=9100, wireguard_port=51940, region="eu-west"
)
INSTALLED = ReleasePayload(
    version="0.3.1", platform="linux-x86_64", python="3.11.2", measurement=bytes(range(32))
)
SAID = {
    ADDRESS: encode_payload(PLACE),
    LOAD: encode_payload(BUSY),
    STATE: b"any bytes",
    LATENCY: encode_payload(FAR),
    LINKS: encode_payload(LinksPayload(servers=(raw_server_id(id_of("bob")),))),
    RELEASE: encode_payload(INSTALLED),
    CHALLENGE: encode_payload(
        ChallengePayload(challenges=(Challenge(name="ann.eu-west.seip", digest=bytes(32)),))
    ),
    PORTS: encode_payload(
        PortsPayload(private_http=9101, stun=3478, relay=9103, dns=53, hole_punch=0)
    ),
    RELAY: encode_payload(
        RelayPayload(
            box=bytes(32), port=9103, host6="", sessions_count=3, load_permille=4, voices=()
        )
    ),
    ADDRESS6: encode_payload(Address6Payload(host="2001:db8::b")),
}


def fact_of(name, kind=LOAD, *, counter=1, now_ms=START_MS, lifetime_ms=MINUTE_MS, payload=None):
    return sign_envelope(
        key_of(name),
        MESH_ID,
        kind=kind,
        payload=SAID[kind] if payload is None else payload,
        counter=counter,
        now_ms=now_ms,
        lifetime_ms=lifetime_ms,
    )


def by_hand(name, *fields) -> bytes:
    """Return an envelope that is well signed, whatever it says."""
    return signed(name, msgspec.msgpack.encode(list(fields)))


def signed(name, body: bytes) -> bytes:
    return key_of(name).sign(b"seipd/fact/v1\0" + MESH_ID + body) + body


@pytest.fixture
def book() -> FactBook:
    roster = {id_of(name): key_of(name).public_key for name in ("ann", "bob")}
    return FactBook(mesh_id=MESH_ID, key_of=roster.get)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_whoever_knows_the_mesh_can_open_a_fact(kind):
    told = fact_of("ann", kind)
    fact = open_envelope(told.encoded, MESH_ID)
    assert fact == told
    assert (fact.server_id, fact.kind, fact.payload) == (id_of("ann"), kind, SAID[kind])
    with pytest.raises(SeipdError):
        open_envelope(told.encoded, bytes(32))


def test_the_fact_in_the_protocol_document_is_the_one_that_it_describes():
    page = Path(__file__).parents[3] / "docs/protocol/gossip.md"
    section = page.read_text(encoding="utf-8").split("\nA load of 73 %")[1]
    section = section.split("```")[1]
    dump = bytes.fromhex("".join(re.findall(r"(?m)^([0-9a-f]{16,})$", section)))
    fact = open_envelope(dump, MESH_ID)
    assert fact.key == SigningKey(bytes(range(32))).public_key
    assert (fact.counter, fact.issued_ms, fact.expires_ms) == (
        START_MS,
        START_MS,
        START_MS + 120_000,
    )
    assert decode_payload(fact.payload, LoadPayload) == BUSY


def test_a_fact_says_what_was_measured():
    assert decode_payload(fact_of("ann").payload, LoadPayload) == BUSY
    assert decode_payload(fact_of("ann", LATENCY).payload, LatencyPayload) == FAR


def test_gos_01_every_truncation_and_bit_flip_is_refused(book):
    good = fact_of("ann").encoded
    damaged = [good[:length] for length in range(len(good))] + [good + b"\0"]
    for position in range(len(good) * 8):
        changed = bytearray(good)
        changed[position // 8] ^= 1 << position % 8
        damaged.append(bytes(changed))
    for data in damaged:
        with pytest.raises(SeipdError):
            book.learn(data, now_ms=START_MS)
    assert book.all() == ()
    assert book.learn(good, now_ms=START_MS)


@given(
    data=st.one_of(
        st.binary(max_size=MAX_FACT_BYTES + 8),
        st.builds(
            lambda kind, payload: msgspec.msgpack.encode([kind, bytes(32), 1, 0, 5, payload]),
            st.sampled_from(sorted(KINDS)),
            st.one_of(
                st.binary(max_size=64),
                st.lists(st.one_of(st.text(), st.integers(0, 70_000), st.binary())).map(
                    msgspec.msgpack.encode
                ),
            ),
        ),
    )
)
@examples(300)
def test_gos_01_any_bytes_are_a_fact_or_refused(data):
    for one in (data, bytes(64) + data):
        with contextlib.suppress(WireError):
            assert parse_envelope(one).encoded == one


def test_gos_06_a_well_signed_fact_in_another_spelling_is_refused(book):
    key = key_of("ann").public_key
    fields = [LOAD, key, 1, START_MS, START_MS + 5, SAID[LOAD]]
    body = msgspec.msgpack.encode(fields)
    longer_number = body.replace(b"\x96\x01", b"\x96\xcc\x01", 1)
    float_payload = SAID[LOAD].replace(b"\x0c", b"\xcc\x0c", 1)
    for data in (
        signed("ann", longer_number),
        signed("ann", body + b"\xc0"),
        by_hand("ann", *fields, 0),
        by_hand("ann", *fields[:5], float_payload),
    ):
        with pytest.raises(WireError):
            book.learn(data, now_ms=START_MS)
    assert book.learn(signed("ann", body), now_ms=START_MS)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (LOAD, b""),
        (LOAD, SAID[LATENCY]),
        (LOAD, msgspec.msgpack.encode([100_001, 0, "1"])),
        (LOAD, msgspec.msgpack.encode([0, -1, "1"])),
        (LOAD, msgspec.msgpack.encode([0, 0, "1" * 33])),
        (LOAD, msgspec.msgpack.encode([0, 0, "\x1b[2J"])),
        (LOAD, msgspec.msgpack.encode([0, 0, "1\n"])),
        (LOAD, msgspec.msgpack.encode([0, 0, "1", 0])),
        (STATE, bytes(257)),
        (LATENCY, msgspec.msgpack.encode([[[bytes(7), 1]]])),
        (LATENCY, msgspec.msgpack.encode([[[bytes(8), 1], [bytes(8), 1]]])),
        (LATENCY, msgspec.msgpack.encode([[[bytes([n]) * 8, 1] for n in range(17)]])),
        (RELEASE, msgspec.msgpack.encode(["1.0.0", "linux", "3", bytes(31)])),
        (RELEASE, msgspec.msgpack.encode(["1.0.0", "linux", "3\n", bytes(32)])),
        (RELEASE, msgspec.msgpack.encode(["1.0.0", "Linux", "3", bytes(32)])),
        (RELEASE, msgspec.msgpack.encode(["1.0.0", "linux", "3", "a" * 32])),
        (ADDRESS, msgspec.msgpack.encode(["224.0.0.1", 1, 1, 1, "eu-west"])),
    ],
)
def test_what_says_something_else_than_its_kind_is_refused(book, kind, payload):
    key = key_of("ann").public_key
    with pytest.raises(WireError):
        book.learn(by_hand("ann", kind, key, 1, START_MS, START_MS + 5, payload), now_ms=START_MS)
    with pytest.raises(InputError):
        fact_of("ann", kind, payload=payload)


def test_the_largest_of_each_kind_goes_into_a_datagram():
    largest = {
        STATE: bytes(256),
        LATENCY: encode_payload(
            LatencyPayload(
                latencies=tuple(
                    Latency(server=bytes([n]) * 8, round_trip_ms=60_000) for n in range(16)
                )
            )
        ),
        LOAD: encode_payload(
            LoadPayload(cpu_permille=100_000, endpoints_count=2**32 - 1, version="v" * 32)
        ),
    }
    facts = [
        fact_of("ann", kind, payload=payload, counter=2**53 - 1).encoded
        for kind, payload in largest.items()
    ]
    messages = pack_facts(facts)
    assert [fact for message in messages for fact in message.facts] == facts
    assert all(sum(map(len, one.facts)) <= MAX_PLAINTEXT_BYTES for one in messages)


def test_a_kind_that_is_unknown_here_is_refused_by_name(book):
    key = key_of("ann").public_key
    with pytest.raises(WireError) as caught:
        book.learn(by_hand("ann", 77, key, 1, START_MS, START_MS + 5, b""), now_ms=START_MS)
    assert caught.value.code == "unknown_kind"


def test_gos_10_the_newest_counter_wins_whatever_the_order_and_each_kind_for_itself(book):
    for kind in (LOAD, STATE):
        facts = [fact_of("ann", kind, counter=n) for n in (3, 1, 4, 2)]
        news = [book.learn(fact.encoded, now_ms=START_MS) is not None for fact in facts]
        assert news == [True, False, True, False]
    assert {fact.counter for fact in book.all()} == {4}
    assert len(book.all()) == 2


def test_gos_09_a_fact_holds_from_its_time_until_it_expires(book):
    fact = fact_of("ann")
    with pytest.raises(WireError):
        book.learn(fact.encoded, now_ms=START_MS - 30_001)
    assert book.learn(fact.encoded, now_ms=START_MS - 30_000)
    assert book.valid(LOAD, START_MS + MINUTE_MS - 1) == {id_of("ann"): fact}
    assert book.valid(LOAD, START_MS + MINUTE_MS) == {}
    with pytest.raises(WireError):
        book.learn(fact_of("ann", counter=2).encoded, now_ms=START_MS + MINUTE_MS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_fact_holds_longer_than_its_kind_may(book, kind):
    most_ms = KINDS[kind].max_lifetime_ms
    key = key_of("ann").public_key
    for lifetime_ms in (most_ms + 1, 0):
        with pytest.raises(InputError):
            fact_of("ann", kind, lifetime_ms=lifetime_ms)
        fields = [kind, key, 1, START_MS, START_MS + lifetime_ms, SAID[kind]]
        with pytest.raises(WireError):
            book.learn(by_hand("ann", *fields), now_ms=START_MS)
    assert book.learn(fact_of("ann", kind, lifetime_ms=most_ms).encoded, now_ms=START_MS)


def test_gos_17_a_stranger_says_nothing(book):
    with pytest.raises(WireError) as caught:
        book.learn(fact_of("mallory").encoded, now_ms=START_MS)
    assert caught.value.code == "unknown_server"
    assert book.all() == ()


def test_gos_16_who_signs_a_thousand_a_second_is_not_listened_to(book):
    taken, refused = 0, set()
    for counter in range(1, 1001):
        try:
            news = book.learn(fact_of("ann", counter=counter).encoded, now_ms=START_MS)
        except WireError as error:
            refused.add(error.code)
        else:
            taken += news is not None
    assert (taken, refused) == (BURST, {"rate_limited"})
    assert book.learn(fact_of("bob").encoded, now_ms=START_MS)
    assert book.learn(fact_of("ann", STATE).encoded, now_ms=START_MS)
    later_ms = START_MS + int(REFILL_S * 1000)
    assert book.learn(fact_of("ann", counter=1001).encoded, now_ms=later_ms)


def test_gos_05_forged_facts_do_not_use_up_what_their_victim_may_say(book):
    for counter in range(1, 100):
        good = fact_of("ann", counter=counter).encoded
        with pytest.raises(SeipdError):
            book.learn(bytes(64) + good[64:], now_ms=START_MS)
    assert book.learn(fact_of("ann").encoded, now_ms=START_MS)


def test_who_leaves_the_roster_is_forgotten(book):
    for name in ("ann", "bob"):
        book.learn(fact_of(name).encoded, now_ms=START_MS)
    book.keep_only({id_of("bob")})
    assert book.valid(LOAD, START_MS).keys() == {id_of("bob")}


def hashes() -> FactHashes:
    one = FactHashes(MESH_ID)
    one.set_servers([raw_server_id(id_of(name)) for name in ("ann", "bob")])
    return one


def test_hashes_are_equal_while_a_fact_is_under_way_and_after():
    here, there = hashes(), hashes()
    for one in (here, there):
        one.put(fact_of("ann", counter=1), START_MS)
        one.advance(START_MS + 20_000)
    first = here.hashes.total
    assert first != hashes().hashes.total
    fresh = fact_of("ann", counter=2, now_ms=START_MS + 21_000)
    here.put(fresh, START_MS + 21_000)
    assert here.hashes.total == there.hashes.total == first
    there.put(fresh, START_MS + 23_000)
    for one in (here, there):
        one.advance(START_MS + 29_999)
        assert one.hashes.total == first
        one.advance(START_MS + 30_000)
    assert here.hashes.total == there.hashes.total != first


def test_whoever_missed_a_fact_has_other_hashes_once_it_has_settled():
    here, there = hashes(), hashes()
    here.put(fact_of("ann"), START_MS)
    for one in (here, there):
        one.advance(START_MS + 20_000)
    assert here.hashes.total != there.hashes.total
    key = fact_key(id_of("ann"), LOAD)
    assert (here.counter(key), there.counter(key)) == (1, 0)


def test_an_expired_fact_leaves_the_hashes_but_its_counter_stays_known():
    here = hashes()
    empty = here.hashes.total
    here.put(fact_of("ann"), START_MS)
    here.advance(START_MS + 20_000)
    assert here.hashes.total != empty
    here.advance(START_MS + MINUTE_MS + 10_000)
    assert here.hashes.total == empty
    assert here.counter(fact_key(id_of("ann"), LOAD)) == 1


def test_facts_of_strangers_and_of_unknown_kinds_are_not_wished_for():
    here = hashes()
    assert here.counter(fact_key(id_of("mallory"), LOAD)) is None
    assert here.counter(fact_key(id_of("ann"), 77)) is None
    assert here.counter(fact_key(id_of("ann"), LOAD)) == 0
