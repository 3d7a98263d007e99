"""Reports on relays: two signatures, a ticket, and numbers that a session can have."""

from __future__ import annotations

import contextlib
import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.authority.relays.introductions import PREFIX, introduction_from_text
from services.authority.relays.usage import MAX_USAGE_BYTES, Usage, open_usage, signed_usage
from services.base.crypto.signatures import SigningKey
from services.edge.relaying.lifesigns import parse_lifesign
from services.edge.relaying.reports import (
    MAX_SKEW_MS,
    Granted,
    Reporter,
    check_report,
    parse_report,
    signed_report,
)
from services.kernel.errors import SeipdError, WireError
from services.kernel.ids import MeshId, b64u_encode

MESH = MeshId("ab" * 32)
NOW_MS = 1_800_000_000_000
ENDPOINT = SigningKey(hashlib.sha256(b"endpoint").digest())
RELAY = SigningKey(hashlib.sha256(b"relay").digest())
PARTY, PEER = bytes([1]) * 32, bytes([2]) * 32
RELAY_ID, SESSION_ID = bytes([7]) * 16, bytes([9]) * 16
GRANTED = Granted(
    relay_id=RELAY_ID,
    session_id=SESSION_ID,
    parties=frozenset({PARTY, PEER}),
    kbit_s=10_000,
)
REPORTER = Reporter(key=ENDPOINT.public_key, wireguard_key=PARTY)


def usage(signer=RELAY, **other) -> bytes:
    said = {
        "relay": RELAY_ID,
        "session": SESSION_ID,
        "party": PARTY,
        "from_bytes": 10_000,
        "to_bytes": 20_000,
        "started_ms": NOW_MS - 300_000,
        "told_ms": NOW_MS,
    }
    return signed_usage(signer, MESH, Usage(**{**said, **other}))


def value(signer=ENDPOINT, statement: bytes | None = None, **other):
    said = {
        "ticket": "AAAA",
        "usage": b64u_encode(usage() if statement is None else statement),
        "sent": 60,
        "answered": 59,
        "silent_s": 0,
        "duration_s": 300,
        "latency_ms": 30,
        "jitter_ms": 2,
        "rating": 100,
        "time_ms": NOW_MS,
    }
    return signed_report(signer, MESH, {**said, **other})


def code_of(said, *, reporter=REPORTER, granted=GRANTED, relay_key=RELAY.public_key) -> str | None:
    try:
        check_report(
            parse_report(said),
            MESH,
            reporter=reporter,
            granted=granted,
            relay_key=relay_key,
            now_ms=NOW_MS,
        )
    except SeipdError as error:
        return error.code
    return None


def test_a_report_with_both_signatures_counts() -> None:
    assert code_of(value()) is None
    assert parse_report(value()).session.rating == 1.0
    assert parse_report(value(rating=None)).session.rating is None


def test_rly_10_without_the_relays_signature_it_does_not() -> None:
    assert code_of(value(statement=b"")) == "bad_message"
    assert code_of(value(statement=usage(signer=ENDPOINT))) == "sig_invalid"
    bent = bytearray(usage())
    bent[-1] ^= 1
    assert code_of(value(statement=bytes(bent))) == "sig_invalid"


def test_rly_10_without_the_endpoints_signature_it_does_not() -> None:
    assert code_of({**value(), "answered": 58}) == "bad_signature"
    assert code_of(value(signer=RELAY)) == "not_your_session"
    foreign = Reporter(key=ENDPOINT.public_key, wireguard_key=bytes([3]) * 32)
    assert code_of(value(), reporter=foreign) == "not_your_session"


@pytest.mark.parametrize(
    "other",
    [{"session": bytes(16)}, {"relay": bytes(16)}, {"party": PEER}],
)
def test_rly_10_a_statement_is_for_one_session_of_one_party(other) -> None:
    assert code_of(value(statement=usage(**other))) == "not_your_session"


@pytest.mark.parametrize("name", ["from_bytes", "to_bytes", "started_ms", "told_ms"])
def test_rly_10_nothing_negative_has_a_spelling(name: str) -> None:
    with pytest.raises(WireError):
        usage(**{name: -1})
    body = msgspec.msgpack.encode([RELAY_ID, SESSION_ID, PARTY, -1, 0, 0, 0])
    signed = b"seipd/relay-usage/v1\0" + bytes.fromhex(MESH) + body
    with pytest.raises(WireError):
        open_usage(RELAY.sign(signed) + body, MESH, RELAY.public_key)


@pytest.mark.parametrize("name", ["sent", "answered", "silent_s", "duration_s", "jitter_ms"])
def test_rly_10_no_number_of_a_report_is_negative(name: str) -> None:
    assert code_of({**value(), name: -1}) == "bad_field"


@pytest.mark.parametrize(
    "other",
    [
        {"answered": 61},
        {"sent": 10_000},
        {"silent_s": 301},
        {"duration_s": 90_000, "sent": 60},
    ],
)
def test_rly_10_numbers_that_no_session_has_are_refused(other) -> None:
    assert code_of(value(**other)) == "implausible"


def test_rly_10_more_bytes_than_the_ticket_allowed_are_refused() -> None:
    assert code_of(value(statement=usage(to_bytes=10**12))) == "implausible"


def test_an_old_report_is_refused() -> None:
    assert code_of(value(time_ms=NOW_MS - MAX_SKEW_MS - 1)) == "bad_field"


def test_the_statement_has_one_spelling_and_keeps_its_size() -> None:
    huge = usage(from_bytes=2**53 - 1, to_bytes=2**53 - 1, told_ms=2**53 - 1)
    assert len(huge) <= MAX_USAGE_BYTES
    assert open_usage(huge, MESH, RELAY.public_key).to_bytes == 2**53 - 1
    with pytest.raises(WireError):
        open_usage(huge + b"\0", MESH, RELAY.public_key)
    with pytest.raises(WireError):
        usage(started_ms=5, told_ms=4)


@given(st.binary(max_size=MAX_USAGE_BYTES + 4))
def test_any_bytes_are_a_statement_or_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(SeipdError):
        open_usage(data, MESH, RELAY.public_key)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=8,
)


@given(json_values, st.sampled_from([*value()]))
def test_any_json_is_a_report_a_sign_of_life_or_an_error_of_ours(data, name: str) -> None:
    for read in (parse_report, parse_lifesign):
        for said in (data, {**value(), name: data}):
            with contextlib.suppress(SeipdError):
                read(said)


@given(st.text(max_size=100) | st.binary(max_size=200).map(lambda one: PREFIX + b64u_encode(one)))
def test_any_text_is_an_introduction_or_an_error_of_ours(text: str) -> None:
    with pytest.raises(SeipdError):
        introduction_from_text(text)
