"""The hex dumps in the protocol's pages, read out of the pages themselves."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.base.crypto.agreement import shared_secret, x25519_public
from services.base.crypto.kdf import hkdf_sha256
from services.base.crypto.session import SessionCipher
from services.base.crypto.signatures import SigningKey, verify
from services.base.ledger.checkpoint import verify_checkpoint
from services.base.ledger.feed import feed_origin
from services.base.ledger.note import NoteVerifier, cosignature_input, parse_note
from services.base.ledger.ticks import StateWord, decode_word
from services.kernel.errors import WireError
from services.kernel.ids import b64u_decode, server_id_of
from services.mesh.facts.envelope import open_envelope
from services.mesh.facts.kinds import ADDRESS6, CHALLENGE, LOAD, RELEASE
from services.mesh.facts.payloads import (
    Address6Payload,
    Challenge,
    ChallengePayload,
    LoadPayload,
    ReleasePayload,
    decode_payload,
)
from services.mesh.gossip import messages as wire
from services.mesh.gossip.codec import (
    Box,
    Hello,
    HelloAck,
    ack_signed_bytes,
    decode,
    encode_ack,
    encode_hello,
    hello_signed_bytes,
)
from services.mesh.gossip.summary import SetSummary
from services.mesh.membership import messages as members
from services.mesh.membership.alive import decode_alive, sign_alive

if TYPE_CHECKING:
    from services.mesh.gossip.messages import Message

_PAGES = Path(__file__).resolve().parents[2] / "docs" / "protocol"
_DUMP = re.compile(r"^```hex ([A-Z0-9_]+)\n((?:[0-9a-f]+\n)+)```$", re.MULTILINE)

MESH = hashlib.sha256(b"a mesh").digest()
A = SigningKey(bytes(range(32)))
B = SigningKey(bytes(range(32, 64)))
A_EPHEMERAL = bytes(range(64, 96))
B_EPHEMERAL = bytes(range(96, 128))
A_ID, B_ID = server_id_of(A.public_key), server_id_of(B.public_key)
A_RAW, B_RAW = wire.raw_id(A_ID), wire.raw_id(B_ID)
TIME_MS = 1_700_000_000_000


def _dumps() -> dict[str, bytes]:
    found = [
        dump
        for page in sorted(_PAGES.glob("*.md"))
        for dump in _DUMP.findall(page.read_text("utf-8"))
    ]
    names = [name for name, _ in found]
    assert len(set(names)) == len(names), "a dump has a name of its own"
    return {name: bytes.fromhex(text) for name, text in found}


DUMPS = _dumps()


def _root(entries: list[bytes]) -> bytes:
    """Return the RFC 6962 root, written down as the standard does."""
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    half = 1
    while 2 * half < len(entries):
        half *= 2
    below = _root(entries[:half]) + _root(entries[half:])
    return hashlib.sha256(b"\x01" + below).digest()


ROOT = _root([b"entry %d" % number for number in range(7)])


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8, key=MESH).digest()


def _sums(key: bytes, value: bytes) -> bytes:
    """Return the 64 sums of a set with one member, as the page says and not as the code does."""
    sums = [bytes(8)] * 64
    sums[key[0] % 64] = _hash(key + value)
    return b"".join(sums)


FEED_SUMS = _sums(A_RAW, (1).to_bytes(4) + (7).to_bytes(8) + ROOT)
FACT_SUMS = _sums(A_RAW + bytes([LOAD]), TIME_MS.to_bytes(8))


SUSPICION = members.Suspicion(subject=A_RAW, incarnation=1_699_999_999, reporter=B_RAW)
LINE = wire.decode_message(DUMPS["COSIGN"]).line  # type: ignore[union-attr]  # checked below
CHECKPOINT = wire.decode_message(DUMPS["ENTRIES"]).checkpoint  # type: ignore[union-attr]

MESSAGES: dict[str, Message] = {
    "DIGEST": wire.Digest(
        feeds=(
            wire.FeedSize(server=A_RAW, epoch=1, size=7, root=ROOT[:8]),
            wire.FeedSize(server=B_RAW, epoch=0, size=0, root=bytes(8)),
        ),
        asks=True,
    ),
    "PULL": wire.Pull(server=A_RAW, epoch=1, start=5, stop=2**53 - 1),
    "ENTRIES": wire.Entries(
        server=A_RAW,
        epoch=1,
        start=5,
        size=7,
        entries=(b"entry 5", b"entry 6"),
        checkpoint=CHECKPOINT,
        last=True,
    ),
    "PEERS": wire.Peers(facts=(DUMPS["LOAD_FACT"],)),
    "COSIGN": wire.Cosign(server=A_RAW, epoch=1, size=7, line=LINE),
    "COSIGNED": wire.Cosigned(server=A_RAW, epoch=1, size=7),
    "PING": members.Ping(seq=1, rumours=(SUSPICION,)),
    "ACK": members.Ack(seq=1, rumours=(DUMPS["ALIVE"],)),
    "PING_REQ": members.PingReq(seq=2**32 - 1, target=A_RAW, rumours=()),
    "NACK": members.Nack(seq=2**32 - 1, rumours=()),
    "RUMOURS": members.Rumours(rumours=(SUSPICION, DUMPS["ALIVE"])),
    "SUMMARY": wire.Summary(feeds=_hash(FEED_SUMS), facts=_hash(FACT_SUMS)),
    "BUCKETS": wire.Buckets(about=wire.ABOUT_FEEDS, hashes=FEED_SUMS),
    "FACTS": wire.FactCounters(
        facts=(
            wire.FactCounter(key=A_RAW + bytes([1]), counter=TIME_MS),
            wire.FactCounter(key=B_RAW + bytes([0]), counter=0),
        ),
        asks=True,
    ),
}


def test_the_pages_dump_every_message_and_datagram_that_there_is() -> None:
    kinds = {type(wire.decode_message(DUMPS[name])) for name in MESSAGES}
    assert kinds == set(wire.Message.__args__)
    others = {
        "HELLO",
        "HELLO_ACK",
        "KEYS",
        "BOX",
        "ALIVE",
        "LOAD_FACT",
        "RELEASE_FACT",
        "CHALLENGE_FACT",
        "ADDRESS6_FACT",
        "STATE_WORD",
    }
    assert set(DUMPS) == MESSAGES.keys() | others


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_says_what_the_page_says_and_has_one_spelling(name: str) -> None:
    assert wire.decode_message(DUMPS[name]) == MESSAGES[name]
    assert wire.encode_message(MESSAGES[name]) == DUMPS[name]


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_cut_short_or_drawn_out_is_none(name: str) -> None:
    for data in (DUMPS[name][:-1], DUMPS[name] + b"\x00"):
        with pytest.raises(WireError):
            wire.decode_message(data)


def test_the_hello_is_the_initiators() -> None:
    hello = decode(DUMPS["HELLO"])
    assert isinstance(hello, Hello)
    assert hello == Hello(
        sender_index=0x11121314,
        sender=A.public_key,
        receiver=B.public_key,
        ephemeral=x25519_public(A_EPHEMERAL),
        time_ms=TIME_MS,
        signature=A.sign(hello_signed_bytes(hello, MESH)),
    )
    assert encode_hello(hello) == DUMPS["HELLO"]


def test_the_ack_answers_that_very_hello() -> None:
    ack = decode(DUMPS["HELLO_ACK"])
    assert isinstance(ack, HelloAck)
    assert ack == HelloAck(
        receiver_index=0x11121314,
        sender_index=0x21222324,
        sender=B.public_key,
        ephemeral=x25519_public(B_EPHEMERAL),
        time_ms=TIME_MS + 20,
        signature=B.sign(ack_signed_bytes(ack, MESH, DUMPS["HELLO"])),
    )
    assert encode_ack(ack) == DUMPS["HELLO_ACK"]


@pytest.mark.parametrize(
    ("secret", "public"),
    [
        (A_EPHEMERAL, x25519_public(B_EPHEMERAL)),
        (B_EPHEMERAL, x25519_public(A_EPHEMERAL)),
    ],
)
def test_both_ends_derive_the_keys_and_the_box_opens(secret: bytes, public: bytes) -> None:
    transcript = hashlib.sha256(DUMPS["HELLO"] + DUMPS["HELLO_ACK"]).digest()
    keys = hkdf_sha256(
        shared_secret(secret, public),
        salt=MESH,
        info=b"seipd/gossip-keys/v1\0" + transcript,
        length=64,
    )
    assert keys == DUMPS["KEYS"]
    box = decode(DUMPS["BOX"])
    assert isinstance(box, Box)
    assert (box.receiver_index, box.counter) == (0x21222324, 0)
    responder = SessionCipher(keys[32:], keys[:32])
    assert responder.decrypt(0, box.ciphertext, aad=box.header) == DUMPS["SUMMARY"]
    initiator = SessionCipher(keys[:32], keys[32:])
    sealed = initiator.encrypt(0, DUMPS["SUMMARY"], aad=box.header)
    assert box.header + sealed == DUMPS["BOX"]


def test_the_checkpoint_is_signed_by_the_author_and_by_the_witness() -> None:
    origin = feed_origin(MESH.hex(), A_ID, 1)  # type: ignore[arg-type]  # a mesh id is its hex
    assert CHECKPOINT is not None
    verifier = NoteVerifier(name=origin, public_key=A.public_key)
    checkpoint = verify_checkpoint(CHECKPOINT, verifier, origin)
    assert (checkpoint.size, checkpoint.root) == (7, ROOT)
    witness, time_s, signature = LINE.decode().split(" ")
    assert (witness, time_s) == (B_ID, str(TIME_MS // 1000))
    signed = cosignature_input(parse_note(CHECKPOINT).text, int(time_s))
    assert verify(B.public_key, signed, b64u_decode(signature))


def test_the_code_hashes_sets_as_the_page_says() -> None:
    feeds = SetSummary(MESH)
    feeds.put(B_RAW, b"another feed")
    feeds.put(A_RAW, (1).to_bytes(4) + (7).to_bytes(8) + ROOT)
    feeds.put(B_RAW, None)
    assert (feeds.packed, feeds.total) == (FEED_SUMS, _hash(FEED_SUMS))


def test_the_sign_of_life_is_the_subjects_own() -> None:
    alive = decode_alive(DUMPS["ALIVE"])
    assert (alive.server, alive.incarnation, alive.issued_ms) == (A_RAW, 1_700_000_000, TIME_MS)
    assert alive.is_signed_by(A.public_key, MESH)
    assert not alive.is_signed_by(B.public_key, MESH)
    again = sign_alive(A, MESH, server=A_RAW, incarnation=1_700_000_000, issued_ms=TIME_MS)
    assert again.encoded == DUMPS["ALIVE"]


def test_the_fact_tells_the_load_of_its_signer() -> None:
    fact = open_envelope(DUMPS["LOAD_FACT"], MESH)
    assert (fact.kind, fact.server_id) == (LOAD, A_ID)
    assert (fact.counter, fact.issued_ms, fact.expires_ms) == (TIME_MS, TIME_MS, TIME_MS + 120_000)
    assert decode_payload(fact.payload, LoadPayload) == LoadPayload(
        cpu_permille=730, endpoints_count=12, version="0.3.1", protocol=2
    )


def test_the_fact_tells_what_its_signer_runs() -> None:
    fact = open_envelope(DUMPS["RELEASE_FACT"], MESH)
    assert (fact.kind, fact.server_id) == (RELEASE, A_ID)
    assert (fact.issued_ms, fact.expires_ms) == (TIME_MS, TIME_MS + 4 * 3_600_000)
    assert decode_payload(fact.payload, ReleasePayload) == ReleasePayload(
        version="0.3.1",
        platform="linux-x86_64",
        python="3.11.2",
        measurement=hashlib.sha256(b"a release").digest(),
    )


def test_the_fact_tells_what_a_ca_will_look_for() -> None:
    fact = open_envelope(DUMPS["CHALLENGE_FACT"], MESH)
    assert (fact.kind, fact.server_id) == (CHALLENGE, A_ID)
    assert (fact.issued_ms, fact.expires_ms) == (TIME_MS, TIME_MS + 900_000)
    assert decode_payload(fact.payload, ChallengePayload).challenges == (
        Challenge(name=f"{A_ID}.eu-west.seip", digest=hashlib.sha256(b"a token").digest()),
    )


def test_the_fact_tells_where_its_signer_is_over_ipv6() -> None:
    fact = open_envelope(DUMPS["ADDRESS6_FACT"], MESH)
    assert (fact.kind, fact.server_id) == (ADDRESS6, A_ID)
    assert (fact.issued_ms, fact.expires_ms) == (TIME_MS, TIME_MS + 4 * 3_600_000)
    assert decode_payload(fact.payload, Address6Payload).host == "2001:db8::b"


def test_the_word_on_the_state_says_what_the_page_says() -> None:
    word = StateWord(
        time_ms=TIME_MS,
        roster_number=3,
        roster_hash=hashlib.sha256(b"a roster").digest(),
        feeds_hash=hashlib.sha256(b"feeds").digest(),
        root=ROOT,
    )
    assert decode_word(DUMPS["STATE_WORD"]) == word
    assert word.encode() == DUMPS["STATE_WORD"]
