"""Signed files: damage, exchange and rollback are noticed, and never taken for emptiness."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.base.crypto.signatures import SigningKey
from services.base.storage import envelope, files
from services.kernel import canonical
from services.kernel.errors import CorruptError, NotFoundError
from services.kernel.ids import MeshId, b64u_encode

if TYPE_CHECKING:
    from pathlib import Path

KEY, RETIRED = SigningKey(bytes([1]) * 32), SigningKey(bytes([2]) * 32)
MESH = MeshId(hashlib.sha256(b"mesh").hexdigest())
OTHER_MESH = MeshId(hashlib.sha256(b"other").hexdigest())
NAME = "ipam/allocations.json"
VALUE = {"10.64.0.10": "node", "count": 1}
GOOD = envelope.wrap(NAME, VALUE, KEY, MESH, 7)


def unwrap(data: bytes, **changed) -> envelope.Envelope:
    arguments = {"name": NAME, "keys": {KEY.public_key}, "mesh_id": MESH, **changed}
    return envelope.unwrap(data, **arguments)


def code_of(data: bytes, **changed) -> str:
    with pytest.raises(CorruptError) as caught:
        unwrap(data, **changed)
    assert caught.value.path == changed.get("name", NAME)
    return caught.value.code


def test_a_signed_file_is_read_back():
    assert unwrap(GOOD) == envelope.Envelope(value=VALUE, version=7, key=KEY.public_key)
    assert canonical.encode(canonical.decode(GOOD)) == GOOD


def test_sto_06_a_file_put_in_anothers_place_is_refused():
    other = envelope.wrap("tree/nodes/x.json", VALUE, KEY, MESH, 7)
    assert code_of(other) == "sig_invalid"
    assert code_of(GOOD, name="tree/nodes/x.json") == "sig_invalid"


def test_sto_06_name_and_version_are_signed():
    for changed in ({"name": "tree/nodes/x.json"}, {"version": 8}, {"value": {}}):
        forged = canonical.encode({**canonical.decode_object(GOOD), **changed})
        name = changed.get("name", NAME)
        assert code_of(forged, name=name) == "sig_invalid"


def test_sto_06_a_retired_key_and_another_mesh_are_refused():
    assert code_of(envelope.wrap(NAME, VALUE, RETIRED, MESH, 7)) == "sig_invalid"
    assert code_of(GOOD, mesh_id=OTHER_MESH) == "sig_invalid"
    claimed = {**canonical.decode_object(GOOD), "key": b64u_encode(RETIRED.public_key)}
    assert (
        code_of(canonical.encode(claimed), keys={KEY.public_key, RETIRED.public_key})
        == "sig_invalid"
    )


def test_sto_07_an_older_file_put_back_is_refused():
    assert unwrap(GOOD, min_version=7).version == 7
    assert code_of(GOOD, min_version=8) == "rollback_detected"


DAMAGED = {
    "empty": b"",
    "truncated": GOOD[:-1],
    "half": GOOD[: len(GOOD) // 2],
    "nul-filled": bytes(len(GOOD)),
    "not utf-8": b"\xff\xfe" + GOOD,
    "array": b"[]",
    "number": b"7",
    "string": b'"file"',
    "object": b"{}",
    "another spelling": GOOD.replace(b",", b", ", 1),
    "more fields": canonical.encode({**canonical.decode_object(GOOD), "extra": 1}),
    "wrong type": canonical.encode({**canonical.decode_object(GOOD), "version": "7"}),
    "boolean version": canonical.encode({**canonical.decode_object(GOOD), "version": True}),
    "bad key": canonical.encode({**canonical.decode_object(GOOD), "key": "AA"}),
    "bad signature": canonical.encode({**canonical.decode_object(GOOD), "sig": "AA=="}),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_sto_05_a_damaged_file_is_moved_aside_and_never_taken_for_empty(
    tmp_path: Path, damage: str
):
    path = tmp_path / "allocations.json"
    files.write_atomic(path, DAMAGED[damage])

    def load() -> envelope.Envelope:
        return envelope.load(path, name=NAME, keys={KEY.public_key}, mesh_id=MESH, now_ms=1234)

    with pytest.raises(CorruptError) as caught:
        load()
    assert caught.value.code == "corrupt"
    aside = tmp_path / "allocations.json.corrupt-1234"
    assert aside.read_bytes() == DAMAGED[damage]
    assert aside.name in caught.value.mend
    with pytest.raises(CorruptError, match="moved aside"):  # the second start refuses as well
        load()
    files.write_atomic(path, GOOD)
    assert load().value == VALUE


def test_a_file_that_never_was_is_not_found(tmp_path: Path):
    with pytest.raises(NotFoundError):
        envelope.load(
            tmp_path / "none.json", name=NAME, keys={KEY.public_key}, mesh_id=MESH, now_ms=1
        )


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_corrupt_error(data: bytes):
    with pytest.raises(CorruptError):
        unwrap(data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_any_flipped_bits_are_noticed(position: int, flip: int):
    data = bytearray(GOOD)
    data[position] ^= flip
    with pytest.raises(CorruptError):
        unwrap(bytes(data))
