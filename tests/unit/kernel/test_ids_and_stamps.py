"""Identifiers have one spelling each; stamps only grow."""

from __future__ import annotations

import base64
import hashlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from services.kernel import hlc, ids
from services.kernel.errors import InputError

KEY = bytes(range(32))

CANONICAL = [
    (ids.parse_server_id, "server-0123456789abcdef"),
    (ids.parse_mesh_id, "0123456789abcdef" * 4),
    (ids.parse_uuid, "01234567-89ab-8def-8123-456789abcdef"),
    (ids.parse_record_id, "0123456789abcdef" * 2),
    (ids.parse_hostname, "laptop-1"),
    (ids.parse_label, "eu-west"),
    (ids.parse_domain, "mesh.example.org"),
    (hlc.parse_hlc, "0123456789abcdef"),
    (ids.parse_decimal, "10"),
]


@pytest.mark.parametrize(("parse", "text"), CANONICAL)
def test_an_id_has_one_spelling(parse, text: str):
    assert parse(text) is not None
    aliases = [
        text.upper(),
        text + "\n",
        " " + text,
        text + " ",
        text + "\0",
        text[:-1] + "é",
        "{" + text + "}",
        text.replace("1", "\uff11"),  # full width, which int() takes
        text.replace("1", "\u0661"),
        "",
    ]
    for alias in aliases:
        if alias != text:
            with pytest.raises(InputError):
                parse(alias)


@given(st.binary(max_size=70))
def test_base64url_comes_back(data: bytes):
    text = ids.b64u_encode(data)
    assert text == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert ids.b64u_decode(text) == data


@given(st.text(max_size=12) | st.text("AQgw-_=+/ \n", max_size=12))
def test_base64url_has_one_spelling(text: str):
    try:
        data = ids.b64u_decode(text)
    except InputError:
        return
    assert ids.b64u_encode(data) == text


@pytest.mark.parametrize("text", ["AA==", "AB", "A", "+/8", "A A", "AA\n", "ÄÄ", "\ud800"])
def test_base64url_in_another_spelling_is_refused(text: str):
    with pytest.raises(InputError):
        ids.b64u_decode(text)


def test_keys_and_signatures_have_their_lengths():
    assert ids.parse_key(ids.b64u_encode(KEY)) == KEY
    assert ids.parse_signature(ids.b64u_encode(KEY * 2)) == KEY * 2
    for size in (0, 31, 33, 64):
        with pytest.raises(InputError) as caught:
            ids.parse_key(ids.b64u_encode(bytes(size)))
        assert caught.value.code == "bad_key"
    for size in (0, 63, 65):
        with pytest.raises(InputError) as caught:
            ids.parse_signature(ids.b64u_encode(bytes(size)))
        assert caught.value.code == "bad_signature"


@pytest.mark.parametrize("high_bit", [0, 0x80])
@pytest.mark.parametrize("point", sorted(ids._LOW_ORDER_POINTS))
def test_a_wireguard_key_of_small_order_is_refused(point: bytes, high_bit: int):
    key = point[:31] + bytes([point[31] | high_bit])
    with pytest.raises(InputError) as caught:
        ids.parse_wireguard_key(ids.b64u_encode(key))
    assert caught.value.code == "bad_key"
    with pytest.raises(Exception, match="library error"):  # libsodium thinks so too
        bindings.crypto_scalarmult(KEY, key)


def test_ids_follow_from_keys():
    digest = hashlib.sha256(KEY).hexdigest()
    assert ids.server_id_of(KEY) == "server-" + digest[:16]
    assert ids.parse_server_id(ids.server_id_of(KEY))
    assert ids.mesh_id_of(KEY) == digest
    node_id = ids.node_id_of(KEY)
    assert ids.parse_uuid(node_id) == node_id
    parsed = uuid.UUID(node_id)
    assert parsed.version == 8
    assert parsed.variant == uuid.RFC_4122
    assert ids.node_id_of(KEY[::-1]) != node_id
    assert uuid.UUID(ids.new_uuid(KEY[:16])).version == 4


@pytest.mark.parametrize(
    "text",
    [
        "-a",
        "a-",
        "a.b",
        "a_b",
        "x" * 64,
        "Laptop",
        "xn--caf-dma",
        "ab--cd",
        "localhost",
        "ns1",
        "ns9",
        "private",
        "www",
        "café",
    ],
)
def test_a_bad_hostname_is_refused_by_name(text: str):
    with pytest.raises(InputError) as caught:
        ids.parse_hostname(text)
    assert caught.value.code == "bad_name"
    assert caught.value.mend


@pytest.mark.parametrize(
    "text", ["example", "example.org.", ".org", "a..b", "Example.org", "a.b/c", "x" * 199 + ".o"]
)
def test_a_bad_domain_is_refused(text: str):
    with pytest.raises(InputError):
        ids.parse_domain(text)


@pytest.mark.parametrize("text", ["007", "+1", "-1", " 1", "1_0", "\u0661", "0x1", "1.0", "1" * 17])
def test_a_number_in_another_spelling_is_refused(text: str):
    with pytest.raises(InputError):
        ids.parse_decimal(text)


@given(st.text(max_size=40))
def test_any_text_gives_an_id_of_the_same_spelling_or_input_error(text: str):
    for parse, _ in CANONICAL:
        try:
            value = parse(text)
        except InputError:
            continue
        if parse is hlc.parse_hlc:
            assert hlc.format_hlc(value) == text
        else:
            assert str(value) == text


@given(st.integers(0, 2**63), st.integers(0, 2**47))
def test_a_stamp_always_grows_and_is_never_behind_the_clock(last: int, now_ms: int):
    stamp = hlc.next_hlc(hlc.Hlc(last), now_ms)
    assert stamp > last
    assert hlc.hlc_ms(stamp) >= now_ms
    assert stamp == last + 1 or hlc.hlc_ms(stamp) == now_ms


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_the_order_of_stamps_is_the_order_of_their_text(left: int, right: int):
    texts = hlc.format_hlc(hlc.Hlc(left)), hlc.format_hlc(hlc.Hlc(right))
    assert (left < right) == (texts[0] < texts[1])
    assert hlc.parse_hlc(texts[0]) == left


def test_a_full_counter_runs_over_into_the_milliseconds():
    last = hlc.Hlc((5 << 16) | 0xFFFF)
    assert hlc.hlc_ms(hlc.next_hlc(last, 5)) == 6
