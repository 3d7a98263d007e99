"""What a server tells of its relay and of others: bounded, in order, fit for a datagram."""

from __future__ import annotations

import msgspec
import pytest

from services.kernel.errors import WireError
from services.mesh.facts.payloads import (
    MAX_PAYLOAD_BYTES,
    MAX_RELAY_VOICES,
    RelayPayload,
    RelayVoice,
    decode_payload,
    encode_payload,
)

VOICE = [bytes(8), bytes(8), 1, 2, 3, None]
HEAD = [bytes(32), 9103, "2001:db8::7", 5, 120]


def voice(number: int, **other) -> RelayVoice:
    said = {"uptime": 1000, "delivery": 1000, "evenness": 1000, "rating": 1000}
    return RelayVoice(relay=bytes([number]) * 8, voice=bytes([255]) * 8, **{**said, **other})


def test_the_largest_fits_its_payload() -> None:
    largest = RelayPayload(
        box=bytes(32),
        port=65_279,
        host6="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        sessions_count=2**32 - 1,
        load_permille=100_000,
        voices=tuple(voice(number) for number in range(MAX_RELAY_VOICES)),
    )
    data = encode_payload(largest)
    assert len(data) <= MAX_PAYLOAD_BYTES
    assert decode_payload(data, RelayPayload) == largest


def test_a_server_without_a_relay_still_tells_of_others() -> None:
    said = RelayPayload(
        box=bytes(32), port=0, host6="", sessions_count=0, load_permille=0, voices=(voice(1),)
    )
    assert decode_payload(encode_payload(said), RelayPayload) == said


@pytest.mark.parametrize(
    "fields",
    [
        [*HEAD[:4], 120],
        [bytes(31), *HEAD[1:], []],
        [HEAD[0], 70_000, *HEAD[2:], []],
        [*HEAD[:2], "192.0.2.7", 5, 120, []],
        [*HEAD[:2], "fe80::1", 5, 120, []],
        [*HEAD[:2], "2001:DB8::7", 5, 120, []],
        [*HEAD[:3], -1, 120, []],
        [*HEAD, [VOICE, VOICE]],
        [*HEAD, [[bytes([2]) * 8, *VOICE[1:]], VOICE]],
        [*HEAD, [[bytes(8), bytes(3), 1, 2, 3, None]]],
        [*HEAD, [[bytes(8), b"", 1001, 2, 3, None]]],
        [*HEAD, [[bytes(8), b"", -1, 2, 3, None]]],
        [*HEAD, [[bytes([n]) * 8, b"", 1, 2, 3, 4] for n in range(MAX_RELAY_VOICES + 1)]],
    ],
)
def test_rly_10_what_is_no_such_fact_is_refused(fields: list) -> None:
    with pytest.raises(WireError):
        decode_payload(msgspec.msgpack.encode(fields), RelayPayload)
