"""What is sealed to an identity opens with it, for one purpose in one context."""

from __future__ import annotations

import pytest

from services.base.crypto.aead import DecryptError
from services.base.crypto.agreement import generate_x25519, x25519_public
from services.base.crypto.sealing import (
    SEALED_OVERHEAD_BYTES,
    curve_private,
    curve_public,
    open_sealed_for,
    seal_for,
)
from services.base.crypto.signatures import generate_signing_key
from services.kernel.errors import InputError

PURPOSE = "seipd/share-seal/v1"


def test_an_identity_opens_what_was_sealed_to_it() -> None:
    key = generate_signing_key()
    assert x25519_public(curve_private(key.seed)) == curve_public(key.public_key)
    sealed = seal_for(curve_public(key.public_key), b"share", purpose=PURPOSE, context=b"c")
    assert len(sealed) == len(b"share") + SEALED_OVERHEAD_BYTES
    opened = open_sealed_for(curve_private(key.seed), sealed, purpose=PURPOSE, context=b"c")
    assert opened == b"share"


def test_it_opens_for_no_other_key_purpose_or_context_and_not_when_changed() -> None:
    private, public = generate_x25519()
    sealed = seal_for(public, b"share", purpose=PURPOSE, context=b"c")
    changed = bytes([sealed[0] ^ 1]) + sealed[1:]
    tries = [
        (generate_x25519()[0], sealed, PURPOSE, b"c"),
        (private, sealed, "seipd/other/v1", b"c"),
        (private, sealed, PURPOSE, b"d"),
        (private, changed, PURPOSE, b"c"),
        (private, sealed[:-1], PURPOSE, b"c"),
        (private, b"", PURPOSE, b"c"),
        (private, bytes(100), PURPOSE, b"c"),
    ]
    for key, data, purpose, context in tries:
        with pytest.raises(DecryptError):
            open_sealed_for(key, data, purpose=purpose, context=context)


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"short"])
def test_keys_that_protect_nothing_are_refused(key: bytes) -> None:
    with pytest.raises(InputError) as caught:
        seal_for(key, b"x", purpose=PURPOSE, context=b"")
    assert caught.value.code == "bad_key"
    with pytest.raises(InputError) as caught:
        curve_public(key)
    assert caught.value.code == "bad_key"
