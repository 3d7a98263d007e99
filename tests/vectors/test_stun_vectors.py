"""RFC 5769, and packets that another library sent: what our codec makes of them."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest

from services.edge.stun.messages import (
    Attribute,
    decode_xor_address,
    encode,
    encode_xor_address,
    has_integrity,
    parse,
)
from services.kernel.errors import WireError
from tests.vectors.locate import vectors_dir

DOCUMENT: dict[str, Any] = orjson.loads((vectors_dir("stun") / "rfc5769.json").read_bytes())
CASES = {case["name"]: case for case in DOCUMENT["cases"]}
CAPTURED = sorted(vectors_dir("stun").glob("*.bin"))


def bytes_of(name: str) -> bytes:
    return bytes.fromhex(CASES[name]["hex"])


def key_of(name: str) -> bytes:
    if CASES[name]["integrity"] == "short-term":
        return str(DOCUMENT["short_term"]["password"]).encode()
    long = DOCUMENT["long_term"]
    text = f"{long['username']}:{long['realm']}:{long['password']}"
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


@pytest.mark.parametrize("name", CASES)
def test_a_message_of_the_rfc_holds_the_attributes_that_it_names(name: str) -> None:
    wanted = [
        (int(one["type"], 16), bytes.fromhex(one["value_hex"])) for one in CASES[name]["attributes"]
    ]
    message = parse(bytes_of(name))
    assert message.has_fingerprint is bool(CASES[name]["fingerprint_valid"])
    kept = [one for one in wanted if one[0] != Attribute.FINGERPRINT]
    assert list(message.attributes) == kept


@pytest.mark.parametrize("name", CASES)
def test_the_integrity_of_a_message_of_the_rfc_holds_with_its_key_alone(name: str) -> None:
    data = bytes_of(name)
    assert has_integrity(data, key_of(name))
    assert not has_integrity(data, b"another")


@pytest.mark.parametrize("name", ["respv4", "respv6"])
def test_the_mapped_address_of_a_response_is_read_and_written_as_in_the_rfc(name: str) -> None:
    message = parse(bytes_of(name))
    value = message.value(Attribute.XOR_MAPPED_ADDRESS)
    assert value is not None
    host, port = CASES[name]["xor_mapped_address"]
    assert decode_xor_address(value, message.transaction) == (host, port)
    assert encode_xor_address((host, port), message.transaction) == value


@pytest.mark.parametrize("name", CASES)
def test_stn_03_one_wrong_byte_in_a_message_of_the_rfc_is_noticed(name: str) -> None:
    data = bytearray(bytes_of(name))
    data[27] = 23 if data[27] != 23 else 24
    if CASES[name]["fingerprint_valid"]:
        with pytest.raises(WireError):
            parse(bytes(data))
    assert not has_integrity(bytes(data), key_of(name))


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: str(path.stem))
def test_what_another_library_sent_is_read_and_written_the_same(path: object) -> None:
    data = path.read_bytes()  # type: ignore[attr-defined]
    message = parse(data)
    padded_alike = encode(message)
    assert parse(padded_alike) == message
    if all(len(value) % 4 == 0 for _, value in message.attributes):
        assert padded_alike == data


def test_there_are_captured_packets() -> None:
    assert len(CAPTURED) == 4
