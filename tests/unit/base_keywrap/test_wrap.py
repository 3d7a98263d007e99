"""Sealed keys: what opens them, and what each kind of damage looks like to an operator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto import kdf
from services.base.keywrap.wrap import KeyUnwrapError, open_sealed, seal
from services.kernel import canonical
from services.kernel.errors import InputError

CHEAP = kdf.Argon2Cost(opslimit=1, memlimit_bytes=kdf.MIN_MEMLIMIT_BYTES)
UNLOCK, SECRET, PURPOSE = b"correct horse battery staple", b"\x07" * 32, "seipd/identity/v1"
RANDOM = bytes(range(40))
SEALED = seal(SECRET, unlock=UNLOCK, purpose=PURPOSE, random=RANDOM, cost=CHEAP)
HEADER = canonical.decode_object(SEALED)


def refused(data: bytes, *, unlock: bytes = UNLOCK, purpose: str = PURPOSE) -> KeyUnwrapError:
    with pytest.raises(KeyUnwrapError) as caught:
        open_sealed(data, unlock=unlock, purpose=purpose)
    assert caught.value.code == "key_unwrap_failed"
    assert caught.value.mend
    return caught.value


def test_what_was_sealed_opens_with_the_same_unlock_secret_and_purpose():
    assert open_sealed(SEALED, unlock=UNLOCK, purpose=PURPOSE) == SECRET
    assert SECRET not in SEALED
    assert UNLOCK not in SEALED


def test_the_default_cost_is_the_second_choice_of_rfc_9106():
    sealed = seal(SECRET, unlock=UNLOCK, purpose=PURPOSE, random=RANDOM)
    assert canonical.decode_object(sealed)["kdf"] == {
        "name": "argon2id",
        "opslimit": 3,
        "memlimit_bytes": 64 * 1024 * 1024,
    }
    assert open_sealed(sealed, unlock=UNLOCK, purpose=PURPOSE) == SECRET


@pytest.mark.parametrize("unlock", [b"", b"correct horse battery staplf", UNLOCK + b"\n"])
def test_sto_15_another_unlock_secret_is_refused(unlock: bytes):
    error = refused(SEALED, unlock=unlock)
    assert "unlock" in error.mend


def test_sto_15_a_key_in_another_keys_place_is_refused():
    refused(SEALED, purpose="seipd/session-key/v1")


@pytest.mark.parametrize(
    "costs",
    [
        {"opslimit": 11},
        {"opslimit": 2**40},
        {"opslimit": 0},
        {"memlimit_bytes": 2**28 + 1},
        {"memlimit_bytes": 2**50},
        {"memlimit_bytes": 0},
        {"opslimit": "3"},
        {"opslimit": True},
        {"name": "scrypt"},
    ],
)
def test_sto_15_huge_costs_are_refused_before_anything_is_derived(
    costs: dict, monkeypatch: pytest.MonkeyPatch
):
    def must_not_run(*_args: object, **_kwargs: object) -> bytes:
        pytest.fail("derived under a cost that is not allowed")

    monkeypatch.setattr(kdf.bindings, "crypto_pwhash_alg", must_not_run)
    refused(canonical.encode({**HEADER, "kdf": {**HEADER["kdf"], **costs}}))


@pytest.mark.parametrize("field", ["ct", "kdf", "nonce", "salt", "v"])
def test_sto_15_a_header_without_a_field_is_refused(field: str):
    refused(canonical.encode({name: value for name, value in HEADER.items() if name != field}))
    refused(canonical.encode({**HEADER, field: None}))


def test_sto_15_other_documents_are_refused():
    for data in (b"", b"[]", b"{}", b"\0" * 100, SEALED + b"\n", SEALED[:-2], b"x" * 20_000):
        refused(data)
    refused(canonical.encode({**HEADER, "v": 2}))
    refused(canonical.encode({**HEADER, "extra": 1}))


@given(st.integers(0, len(SEALED) - 1), st.integers(0, 7))
def test_sto_15_any_flipped_bit_is_noticed(position: int, bit: int):
    data = bytearray(SEALED)
    data[position] ^= 1 << bit
    refused(bytes(data))


@given(st.binary(max_size=300))
def test_sto_15_any_bytes_give_a_secret_or_key_unwrap_error(data: bytes):
    refused(data)


def test_sealing_asks_for_exactly_its_randomness_and_a_plain_purpose():
    for random in (RANDOM[:-1], RANDOM + b"x", b""):
        with pytest.raises(InputError):
            seal(SECRET, unlock=UNLOCK, purpose=PURPOSE, random=random, cost=CHEAP)
    for purpose in ("", "a\0b", "é"):
        with pytest.raises(InputError):
            seal(SECRET, unlock=UNLOCK, purpose=purpose, random=RANDOM, cost=CHEAP)


def test_fresh_randomness_gives_another_file():
    again = seal(SECRET, unlock=UNLOCK, purpose=PURPOSE, random=RANDOM[::-1], cost=CHEAP)
    assert again != SEALED
    assert open_sealed(again, unlock=UNLOCK, purpose=PURPOSE) == SECRET
