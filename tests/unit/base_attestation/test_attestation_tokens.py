"""Tokens: one server's word on another, for five minutes and for one release alone."""

from __future__ import annotations

import pytest

from services.base.attestation.tokens import check_token, open_token, sign_token
from services.base.attestation.verified import Platform
from services.base.crypto.signatures import SigningKey
from services.kernel.errors import SeipdError
from tests.unit.base_attestation.quote_kit import unnoticed

MESH, SERVER, RELEASE, NONCE = b"m" * 32, b"s" * 32, b"r" * 32, b"n" * 32
VERIFIER = SigningKey(bytes(32))
NOW_MS = 1_800_000_000_000


def token(server_key: bytes = SERVER) -> bytes:
    return sign_token(
        VERIFIER,
        MESH,
        server_key=server_key,
        platform=Platform.TDX,
        measurement=RELEASE,
        nonce=NONCE,
        now_ms=NOW_MS,
    )


def code_of(data: bytes, **changes: object) -> str:
    wanted = {
        "server_key": SERVER,
        "measurement": RELEASE,
        "nonce": NONCE,
        "verifiers": {VERIFIER.public_key},
        "now_ms": NOW_MS,
    }
    try:
        check_token(open_token(data, MESH), **(wanted | changes))
    except SeipdError as error:
        return error.code
    return "good"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, "good"),
        ({"now_ms": NOW_MS + 299_999}, "good"),
        ({"now_ms": NOW_MS + 300_000}, "token_expired"),
        ({"now_ms": NOW_MS - 10_001}, "token_from_the_future"),
        ({"measurement": bytes(32)}, "token_other_measurement"),
        ({"server_key": bytes(32)}, "token_other_server"),
        ({"nonce": bytes(32)}, "token_wrong_nonce"),
        ({"verifiers": set()}, "token_unknown_verifier"),
    ],
)
def test_gos_27_a_token_says_what_it_says_and_only_now(
    change: dict[str, object], code: str
) -> None:
    assert code_of(token(), **change) == code


def test_gos_27_nobody_vouches_for_itself() -> None:
    own = token(VERIFIER.public_key)
    assert code_of(own, server_key=VERIFIER.public_key) == "token_unknown_verifier"


def test_gos_27_a_token_with_one_bit_changed_is_none() -> None:
    data = token()
    assert unnoticed(data, lambda altered: open_token(altered, MESH), count=len(data)) == []


def test_a_token_of_another_mesh_is_none() -> None:
    with pytest.raises(SeipdError) as caught:
        open_token(token(), bytes(32))
    assert caught.value.code == "sig_invalid"
