"""What strangers, replayers and broken networks can do to a server: nothing but make it count."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto.agreement import generate_x25519
from services.kernel.errors import WireError
from services.mesh.gossip.codec import (
    ACK_BYTES,
    HELLO_BYTES,
    MAX_DATAGRAM_BYTES,
    MAX_PLAINTEXT_BYTES,
    Box,
    Hello,
    HelloAck,
    ack_signed_bytes,
    decode,
    encode_ack,
    encode_hello,
    hello_signed_bytes,
)
from services.mesh.gossip.counters import Count
from services.mesh.gossip.messages import (
    Buckets,
    Cosign,
    Cosigned,
    Digest,
    Entries,
    FactCounter,
    FactCounters,
    Peers,
    Pull,
    Summary,
    decode_message,
    encode_message,
)
from services.mesh.gossip.session import HANDSHAKE_TIMEOUT_S
from services.mesh.membership.messages import Ack, Nack, Ping, PingReq, Rumours, Suspicion
from tests.fakes.thoroughness import examples
from tests.unit.mesh_gossip.gossip_kit import MESH_ID, START_MS, Host, World, id_of, key_of
from tests.unit.mesh_gossip.packets_kit import ADDRESS, RAW, box_from, receive, silent, size_of

# The order of the Ed25519 group: S + L is the same scalar in another spelling.
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


MESSAGES = [
    Digest(feeds=(size_of(RAW, 300),), asks=True),
    Pull(server=RAW, epoch=1, start=0, stop=2**53 - 1),
    Entries(
        server=RAW, epoch=1, start=3, size=5, entries=(b"a", b"bc"), checkpoint=b"n", last=True
    ),
    Peers(facts=(b"fact",)),
    Cosign(server=RAW, epoch=1, size=5, line=b"line"),
    Cosigned(server=RAW, epoch=1, size=5),
    Ping(seq=2**32 - 1, rumours=(Suspicion(subject=RAW, incarnation=3, reporter=RAW), bytes(88))),
    Ack(seq=0, rumours=()),
    PingReq(seq=1, target=RAW, rumours=()),
    Nack(seq=2, rumours=()),
    Rumours(rumours=()),
    Summary(feeds=RAW, facts=RAW),
    Buckets(about=1, hashes=bytes(512)),
    FactCounters(facts=(FactCounter(key=RAW + b"\0", counter=7),), asks=True),
]


def hello_to(receiver: str, sender: str = "ann", *, time_ms: int = START_MS, **changes) -> bytes:
    key = key_of(sender)
    fields = {
        "sender_index": 7,
        "sender": key.public_key,
        "receiver": key_of(receiver).public_key,
        "ephemeral": generate_x25519()[1],
        "time_ms": time_ms,
    }
    hello = Hello(**(fields | changes))
    return encode_hello(hello)[:-64] + key.sign(hello_signed_bytes(hello, MESH_ID))


def flipped(data: bytes):
    for position in range(len(data) * 8):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        yield bytes(changed)


def fresh_ack() -> tuple[Host, bytes]:
    """Return a server that waits for the answer to its HELLO, and that answer."""
    world = World("ann", "bob")
    ann, bob = world["ann"], world["bob"]
    hello = ann.node.sessions.begin(bob.id, bob.public, ann.now())
    (answer,) = receive(bob, hello, ann.public)
    return ann, answer.data


def test_gos_01_every_truncation_and_bit_flip_of_a_hello_is_met_with_silence():
    host = World("ann", "bob")["bob"]
    good = hello_to("bob")
    assert all(silent(host, good[:length]) for length in range(len(good)))
    assert all(silent(host, changed) for changed in flipped(good))
    assert silent(host, good + b"\0")
    assert len(receive(host, good)) == 1


def test_gos_01_every_truncation_and_bit_flip_of_an_ack_is_met_with_silence():
    ann, ack = fresh_ack()
    bob = ann.world["bob"].public
    assert all(silent(ann, ack[:length], bob) for length in range(len(ack)))
    assert all(silent(ann, changed, bob) for changed in flipped(ack))
    assert silent(ann, ack + b"\0", bob)
    assert receive(ann, ack, bob)


def test_gos_01_every_truncation_and_bit_flip_of_a_box_is_met_with_silence(pair):
    bob, source = pair["bob"], pair["ann"].public
    good = box_from(pair, "ann", "bob", Ping(seq=1, rumours=()))
    assert all(silent(bob, good[:length], source) for length in range(len(good)))
    assert all(silent(bob, changed, source) for changed in flipped(good))
    assert silent(bob, good + b"\0", source)
    assert len(receive(bob, good, source)) == 1


@given(data=st.binary(max_size=1300) | st.binary(max_size=1200).map(lambda tail: b"sg\x01" + tail))
@examples(300)
def test_gos_01_any_bytes_are_a_packet_or_a_wire_error(data):
    try:
        packet = decode(data)
    except WireError:
        return
    assert isinstance(packet, Hello | HelloAck | Box)


@given(data=st.binary(max_size=200))
@examples(300)
def test_gos_01_any_plaintext_is_a_message_or_a_wire_error(data):
    try:
        message = decode_message(data)
    except WireError:
        return
    assert encode_message(message) == data


def test_gos_06_a_message_in_another_spelling_is_refused():
    assert decode_message(b"\x93\x07\x05\x90") == Ping(seq=5, rumours=())
    for spelling in (b"\x92\x07\xcc\x05", b"\xdc\x00\x02\x07\x05", b"\x92\x07\xce\0\0\0\x05"):
        with pytest.raises(WireError):
            decode_message(spelling)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_gos_01_a_message_survives_its_encoding_and_its_damage_is_harmless(message, pair):
    data = encode_message(message)
    assert decode_message(data) == message
    session = pair["ann"].node.sessions.current(id_of("bob"))
    for changed in [*flipped(data), *(data[:length] for length in range(len(data)))]:
        receive(pair["bob"], session.seal(changed), pair["ann"].public)
    pair["ann"].append(b"still here")
    pair.run_until(pair.agree, at_most_s=15)


def test_gos_02_a_datagram_over_the_limit_is_dropped():
    host = World("ann", "bob")["bob"]
    for length in (MAX_DATAGRAM_BYTES + 1, 2048, 65507):
        assert silent(host, b"sg\x01\x03" + bytes(length - 4))
    assert host.node.counters[Count.DROPPED_TOO_LARGE] == 3


def test_gos_02_nothing_over_the_limit_is_ever_sent():
    world = World("ann", "bob", "cid", loss=0.1)
    world.introduce()
    for step in range(10):
        world["ann"].append(*(bytes([step]) * size for size in (1, 150, 999, 1000, 40)))
        world.run(1)
    world.run_until(world.agree, at_most_s=20)
    assert max(len(data) for _, data, _ in world.sent) <= MAX_DATAGRAM_BYTES


def test_gos_04_a_hello_counts_once_also_after_a_restart_and_only_for_its_receiver():
    world = World("ann", "bob", "cid")
    hello = hello_to("bob")
    assert receive(world["bob"], hello)
    assert silent(world["bob"], hello)
    assert silent(world["bob"], hello, ("198.51.100.9", 9102))
    assert silent(world["cid"], hello)
    assert world["cid"].node.counters[Count.DROPPED_NOT_FOR_US] == 1
    remembered = world["bob"].node.sessions.newest_hello_ms
    world["bob"].restart()
    world["bob"].node.sessions.newest_hello_ms.update(remembered)
    assert silent(world["bob"], hello)
    older = hello_to("bob", time_ms=START_MS - 1)
    assert silent(world["bob"], older)
    assert world["bob"].node.counters[Count.DROPPED_REPLAY] == 2


def test_gos_04_a_box_counts_once_from_its_address_within_the_window(pair):
    bob, source = pair["bob"], pair["ann"].public
    box = box_from(pair, "ann", "bob", Ping(seq=1, rumours=()))
    assert silent(bob, box, ("198.51.100.9", 9102))
    assert bob.node.counters[Count.DROPPED_WRONG_ADDRESS] == 1
    assert receive(bob, box, source)
    assert silent(bob, box, source)
    for nonce in range(1100):
        receive(bob, box_from(pair, "ann", "bob", Ping(seq=nonce, rumours=())), source)
    assert silent(bob, box, source)
    bob.restart()
    assert silent(bob, box, source)
    assert silent(pair["ann"], box, bob.public)


def test_gos_04_an_ack_answers_one_hello_from_the_address_that_was_greeted():
    ann, ack = fresh_ack()
    assert silent(ann, ack, ("198.51.100.9", 9102))
    assert receive(ann, ack, ann.world["bob"].public)
    assert silent(ann, ack, ann.world["bob"].public)


def test_gos_04_an_ack_to_the_hello_of_an_earlier_life_is_refused():
    ann, ack = fresh_ack()
    bob = ann.world["bob"]
    ann.restart()
    again = ann.node.sessions.begin(bob.id, bob.public, ann.now())
    # The same dice give the same index, so that only the signature can tell the two apart.
    assert decode(again).sender_index == decode(ack).receiver_index
    assert silent(ann, ack, bob.public)
    assert ann.node.counters[Count.DROPPED_BAD_SIGNATURE] == 1


def test_gos_05_malleated_signatures_and_keys_of_small_order_are_refused():
    world = World("ann", "bob")
    good = hello_to("bob")
    scalar = int.from_bytes(good[-32:], "little") + GROUP_ORDER
    assert silent(world["bob"], good[:-32] + scalar.to_bytes(32, "little"))
    for small_order in (bytes(32), b"\x01" + bytes(31)):
        assert silent(world["bob"], hello_to("bob", ephemeral=small_order))
    assert world["bob"].node.counters[Count.DROPPED_BAD_SIGNATURE] == 3
    identity = b"\x01" + bytes(31)
    world.roster[id_of("ann")] = identity
    forged = Hello(
        sender_index=1,
        sender=identity,
        receiver=key_of("bob").public_key,
        ephemeral=generate_x25519()[1],
        time_ms=START_MS,
        signature=identity + bytes(32),
    )
    assert silent(world["bob"], encode_hello(forged))
    assert receive(world["bob"], good) == []


def test_gos_05_an_ack_signed_by_another_server_of_the_mesh_is_refused():
    world = World("ann", "bob", "eve")
    ann, bob, eve = (world[name] for name in ("ann", "bob", "eve"))
    data = ann.node.sessions.begin(bob.id, bob.public, ann.now())
    ack = HelloAck(
        receiver_index=decode(data).sender_index,
        sender_index=1,
        sender=bob.key.public_key,
        ephemeral=generate_x25519()[1],
        time_ms=START_MS,
    )
    signature = eve.key.sign(ack_signed_bytes(ack, MESH_ID, data))
    assert silent(ann, encode_ack(ack)[:-64] + signature, bob.public)
    assert ann.node.counters[Count.DROPPED_BAD_SIGNATURE] == 1


def test_gos_07_strangers_and_other_meshes_leave_no_trace():
    world = World("ann", "bob")
    assert silent(world["bob"], hello_to("bob", sender="mallory"))
    assert world["bob"].node.counters[Count.DROPPED_UNKNOWN_SENDER] == 1
    key = key_of("ann")
    hello = decode(hello_to("bob"))
    signature = key.sign(hello_signed_bytes(hello, bytes(32)))
    assert silent(world["bob"], encode_hello(hello)[:-64] + signature)
    assert world["bob"].node.sessions.newest_hello_ms == {}


def test_gos_08_a_box_of_a_removed_server_is_dropped_before_it_is_opened(pair):
    box = box_from(pair, "ann", "bob", Ping(seq=1, rumours=()))
    del pair.roster[id_of("ann")]
    assert silent(pair["bob"], box, pair["ann"].public)
    assert pair["bob"].node.counters[Count.DROPPED_UNKNOWN_SENDER] == 1
    assert pair["bob"].node.sessions.current(id_of("ann")) is None


def test_a_handshake_that_is_not_finished_in_time_is_void():
    ann, ack = fresh_ack()
    bob = ann.world["bob"]
    effects = receive(ann, ack, bob.public)
    bob.node.sessions.expire(HANDSHAKE_TIMEOUT_S + 0.1)
    assert silent(bob, effects[0].data, ann.public)
    late, late_ack = fresh_ack()
    late.node.sessions.expire(HANDSHAKE_TIMEOUT_S + 0.1)
    assert silent(late, late_ack, bob.public)


def test_a_session_ends_after_a_quarter_of_an_hour(pair):
    box = box_from(pair, "ann", "bob", Ping(seq=1, rumours=()))
    sessions = pair["bob"].node.sessions
    sessions.expire(pair.now_s + 800)
    assert sessions.current(id_of("ann"))
    sessions.expire(pair.now_s + 901)
    assert sessions.current(id_of("ann")) is None
    assert silent(pair["bob"], box, pair["ann"].public)


def test_gos_11_nobody_gets_more_bytes_than_it_sent_before_it_is_proven():
    assert ACK_BYTES <= HELLO_BYTES
    world = World("ann", "bob")
    bob = world["bob"]
    bob.append(*(b"." * 900 for _ in range(50)))
    answers = [receive(bob, hello_to("bob", time_ms=START_MS + n), ADDRESS) for n in range(20)]
    assert all(sum(len(one.data) for one in sent) <= HELLO_BYTES for sent in answers)
    world.sent.clear()
    world.run(HANDSHAKE_TIMEOUT_S + 5)
    assert [to for sender, _, to in world.sent if sender == "bob"] == []


def test_gos_11_a_flood_of_forged_hellos_costs_so_many_checks_a_second_and_passes():
    world = World("ann", "bob")
    bob = world["bob"]
    good = hello_to("bob")
    forged = good[:-1] + bytes([good[-1] ^ 1])
    assert all(silent(bob, forged) for _ in range(2500))
    assert bob.node.counters[Count.DROPPED_BAD_SIGNATURE] == 2000
    assert bob.node.counters[Count.DROPPED_RATE_LIMITED] == 500
    assert silent(bob, hello_to("bob"))
    world.run(0.1)
    assert len(receive(bob, hello_to("bob"))) == 1


def test_gos_12_errors_are_never_answered_with_errors(pair):
    rng = random.Random(4)  # noqa: S311 (failures repeat)
    ann, bob = pair["ann"], pair["bob"]
    for _ in range(500):
        data = b"sg\x01" + bytes([rng.randrange(1, 4)]) + rng.randbytes(rng.randrange(1200))
        assert silent(bob, data, ann.public)
        assert silent(ann, data, bob.public)


def test_the_largest_message_fills_a_datagram_and_one_byte_more_is_refused():
    fixed = len(encode_message(Cosign(server=RAW, epoch=1, size=5, line=b"x" * 300))) - 300
    line = b"x" * (MAX_PLAINTEXT_BYTES - fixed)
    assert len(encode_message(Cosign(server=RAW, epoch=1, size=5, line=line))) == 1168
    with pytest.raises(WireError):
        encode_message(Cosign(server=RAW, epoch=1, size=5, line=line + b"x"))
