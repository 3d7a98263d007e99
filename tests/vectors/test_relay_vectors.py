"""The dumps in docs/protocol/relay.md are what the code writes and reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.base.crypto.agreement import x25519_public
from services.base.crypto.signatures import SigningKey
from services.edge.relay import messages
from services.edge.relay.keys import box_private_key
from services.edge.relay.messages import (
    Allocate,
    Allocated,
    Bound,
    Code,
    Error,
    State,
    ToSession,
    Used,
    Verb,
)
from services.edge.relay.tickets import check_signature, parse_ticket, sign_ticket

PAGE = Path(__file__).parents[2] / "docs/protocol/relay.md"
_DUMP = re.compile(r"^```relay ([A-Z]+)\n((?:[0-9a-f]+\n)+)```$", re.MULTILINE)
DUMPS = {name: bytes.fromhex(text) for name, text in _DUMP.findall(PAGE.read_text())}

MESH = bytes([9]) * 32
A, B = bytes(range(1, 33)), bytes(range(33, 65))
BOX = box_private_key(bytes([7]) * 32)
AGREED = messages.agreed_key(
    A, other=x25519_public(BOX), endpoint=x25519_public(A), relay=x25519_public(BOX)
)
SESSION = bytes(range(100, 132))
INDEX, TOKEN, NONCE = bytes([0, 0, 0, 2]), bytes(range(1, 9)), bytes(range(24))

TO_SESSION = {
    verb.name: ToSession(verb=verb, counter=counter, token=TOKEN)
    for verb, counter in ((Verb.BIND, 6), (Verb.HEARTBEAT, 7), (Verb.TEARDOWN, 8), (Verb.USAGE, 9))
}


def test_every_message_is_shown_once():
    assert sorted(DUMPS) == sorted(
        ["TICKET", "AGREED", "ALLOCATE", "ALLOCATED", "BOUND", "USED", "ERROR", *TO_SESSION]
    )


def test_the_ticket():
    ticket = sign_ticket(
        SigningKey(bytes(range(32))),
        MESH,
        relay_id=bytes(range(16)),
        box_key=x25519_public(BOX),
        nonce=bytes(range(16, 32)),
        keys=(x25519_public(A), x25519_public(B)),
        now_ms=1_800_000_000_000,
        lifetime_ms=900_000,
        rate_kbits=20_000,
        customer=bytes(range(32, 48)),
    )
    assert DUMPS["TICKET"] == ticket
    check_signature(parse_ticket(ticket), ticket, MESH)


def test_the_agreed_key_is_the_relays_too():
    theirs = messages.agreed_key(
        BOX, other=x25519_public(A), endpoint=x25519_public(A), relay=x25519_public(BOX)
    )
    assert DUMPS["AGREED"] == AGREED == theirs


def test_allocate_and_its_answer():
    asked = Allocate(key=x25519_public(A), counter=5, ticket=DUMPS["TICKET"])
    assert DUMPS["ALLOCATE"] == messages.seal_allocate(AGREED, asked, nonce=NONCE)
    assert messages.open_allocate(AGREED, DUMPS["ALLOCATE"]) == asked
    answer = Allocated(
        counter=5,
        index=INDEX,
        data_port=9104,
        token=TOKEN,
        left_ms=900_000,
        session_key=SESSION,
    )
    assert DUMPS["ALLOCATED"] == messages.seal_allocated(AGREED, answer, nonce=NONCE)
    assert messages.open_allocated(AGREED, DUMPS["ALLOCATED"]) == answer


@pytest.mark.parametrize("name", sorted(TO_SESSION))
def test_what_is_said_to_a_session(name):
    message = TO_SESSION[name]
    assert DUMPS[name] == messages.seal_to_session(SESSION, INDEX, message, nonce=NONCE)
    assert messages.open_to_session(SESSION, DUMPS[name]) == message
    assert messages.index_of(DUMPS[name]) == INDEX


def test_what_a_session_answers():
    bound = Bound(counter=6, state=State.TOGETHER, token=TOKEN)
    used = Used(counter=9, statement=bytes(range(8)))
    error = Error(counter=7, code=Code.REVOKED)
    assert DUMPS["BOUND"] == messages.seal_bound(SESSION, bound, nonce=NONCE)
    assert DUMPS["USED"] == messages.seal_used(SESSION, used, nonce=NONCE)
    assert DUMPS["ERROR"] == messages.seal_error(SESSION, error, nonce=NONCE)
    answers = {"BOUND": bound, "USED": used, "ERROR": error}
    for name, message in answers.items():
        assert messages.open_answer(SESSION, DUMPS[name]) == message
