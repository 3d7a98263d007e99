"""Records and entries: one form, strictly read, signed for one mesh."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto.signatures import SigningKey, verify
from services.kernel import canonical
from services.kernel.errors import InputError, TooLargeError, WireError
from services.kernel.hlc import Hlc
from services.kernel.ids import MeshId, b64u_encode
from services.kernel.records import (
    MAX_RECORD_BYTES,
    BadRecordError,
    Entry,
    Record,
    decode_entry,
    decode_record,
    parse_module,
)

KEY = SigningKey(bytes([9]) * 32)
MESH, OTHER = (MeshId(hashlib.sha256(name).hexdigest()) for name in (b"one", b"two"))
DOMAIN = "domain:01234567-89ab-4def-8123-456789abcdef"


def record(**changed) -> Record:
    fields = {
        "kind": "tree.create",
        "id": "0f" * 16,
        "module": "platform",
        "not_after": 1_800_000_000_000,
        "body": {"name": "acme", "parent": None},
        "actor": KEY.public_key,
        "actor_sig": bytes(64),
        **changed,
    }
    bare = Record(**fields)
    return dataclasses.replace(bare, actor_sig=KEY.sign(bare.signed_bytes(MESH)))


GOOD = record()
VALUE = GOOD.value()


def changed(**fields: object) -> bytes:
    return canonical.encode({**VALUE, **fields})


def test_a_record_comes_back_and_its_signature_holds():
    again = decode_record(GOOD.encode())
    assert again == GOOD
    assert verify(again.actor, again.signed_bytes(MESH), again.actor_sig)


def test_the_signature_covers_mesh_and_every_field():
    assert not verify(KEY.public_key, GOOD.signed_bytes(OTHER), GOOD.actor_sig)
    others = {
        "kind": "tree.remove",
        "id": "0e" * 16,
        "module": DOMAIN,
        "not_after": 1,
        "body": {},
        "actor": bytes(32),
    }
    for name, value in others.items():
        other = dataclasses.replace(GOOD, **{name: value})
        assert not verify(KEY.public_key, other.signed_bytes(MESH), GOOD.actor_sig), name


def test_signed_bytes_begin_with_their_purpose_and_the_mesh():
    signed = GOOD.signed_bytes(MESH)
    prefix = b"seipd/record/v1\0" + bytes.fromhex(MESH)
    assert signed.startswith(prefix)
    assert canonical.decode_canonical(signed[len(prefix) :]) == {
        name: value for name, value in VALUE.items() if name != "actor_sig"
    }


@pytest.mark.parametrize("field", sorted(VALUE))
def test_a_record_without_a_field_or_with_it_of_another_type_is_refused(field: str):
    without = canonical.encode({name: value for name, value in VALUE.items() if name != field})
    wrong_types = [value for value in (None, [], {}, "", 7, True) if value != VALUE[field]]
    for data in (without, *(changed(**{field: value}) for value in wrong_types)):
        if data == canonical.encode({**VALUE, "body": {}}):
            continue
        if field == "not_after" and canonical.decode_object(data).get(field) == 7:
            continue
        with pytest.raises(BadRecordError):
            decode_record(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"extra": 1},
        {"hlc": "0" * 16},
        {"v": 2},
        {"v": True},
        {"kind": "Tree.create"},
        {"kind": "tree"},
        {"kind": "tree.create.more"},
        {"kind": "tree.create\n"},
        {"id": "0F" * 16},
        {"id": "0f" * 15},
        {"module": "domain:"},
        {"module": "platform "},
        {"module": DOMAIN.upper()},
        {"not_after": -1},
        {"not_after": 2**48},
        {"not_after": True},
        {"body": []},
        {"actor": b64u_encode(bytes(31))},
        {"actor": VALUE["actor"] + "="},
        {"actor_sig": b64u_encode(bytes(63))},
    ],
)
def test_a_record_out_of_form_is_refused(fields: dict):
    with pytest.raises(BadRecordError):
        decode_record(changed(**fields))


def test_an_unknown_version_has_a_code_of_its_own():
    with pytest.raises(BadRecordError) as caught:
        decode_record(changed(v=2))
    assert caught.value.code == "unknown_version"


def test_a_record_in_another_spelling_is_refused():
    for data in (GOOD.encode() + b"\n", GOOD.encode().replace(b'"v":1', b'"v": 1'), b"[]", b"1"):
        with pytest.raises(WireError):
            decode_record(data)


def test_a_record_has_at_most_16_kib():
    room = MAX_RECORD_BYTES - len(record(body={"x": ""}).encode())
    assert decode_record(record(body={"x": "a" * room}).encode())
    with pytest.raises(TooLargeError):
        decode_record(record(body={"x": "a" * (room + 1)}).encode())


def test_an_entry_comes_back():
    entry = Entry(hlc=Hlc(1 << 62), record=GOOD)
    assert decode_entry(entry.encode()) == entry


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"hlc": "0" * 16},
        {"record": VALUE},
        {"hlc": 1, "record": VALUE},
        {"hlc": "0" * 15, "record": VALUE},
        {"hlc": "F" * 16, "record": VALUE},
        {"hlc": "0" * 16, "record": None},
        {"hlc": "0" * 16, "record": VALUE, "extra": 1},
        {"hlc": "0" * 16, "record": {**VALUE, "extra": 1}},
    ],
)
def test_an_entry_out_of_form_is_refused(value: object):
    with pytest.raises(BadRecordError):
        decode_entry(canonical.encode(value))


@given(st.binary(max_size=200))
def test_any_bytes_give_a_record_or_wire_error(data: bytes):
    for decode in (decode_record, decode_entry):
        with pytest.raises(WireError):
            decode(data)


@given(st.integers(0, len(GOOD.encode()) - 1), st.integers(1, 255))
def test_any_flipped_bits_break_form_or_signature(position: int, flip: int):
    data = bytearray(GOOD.encode())
    data[position] ^= flip
    try:
        other = decode_record(bytes(data))
    except WireError:
        return
    assert not verify(KEY.public_key, other.signed_bytes(MESH), other.actor_sig)


def test_modules_are_platform_or_a_domain():
    assert parse_module("platform") == "platform"
    assert parse_module(DOMAIN) == DOMAIN
    for text in ("", "domain", "domain:x", "Domain:" + DOMAIN[7:], DOMAIN + "\n"):
        with pytest.raises(InputError):
            parse_module(text)
