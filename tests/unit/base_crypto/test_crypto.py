"""What callers see of the crypto wrappers: refusals, round trips, and secrets that don't print."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from services.base.crypto import aead, agreement, kdf, signatures
from services.kernel.errors import InputError, SeipdError

SEED = bytes(range(32))
SMALL_ORDER_KEYS = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
ORDER = 2**252 + 27742317777372353535851937790883648493


def test_a_signature_verifies_for_its_key_and_message_only():
    key, other = signatures.SigningKey(SEED), signatures.generate_signing_key()
    signature = key.sign(b"hello")
    assert len(signature) == 64
    assert VerifyKey(key.public_key).verify(b"hello", signature) == b"hello"
    assert signatures.verify(key.public_key, b"hello", signature)
    assert not signatures.verify(key.public_key, b"hell0", signature)
    assert not signatures.verify(other.public_key, b"hello", signature)


@pytest.mark.parametrize("text", SMALL_ORDER_KEYS)
def test_a_key_of_small_order_verifies_nothing(text: str):
    # R = the neutral point and S = 0 satisfy the bare equation for such keys at times.
    forged = bytes([1]) + bytes(63)
    for number in range(48):
        assert not signatures.verify(bytes.fromhex(text), b"forged %d" % number, forged)


def test_a_scalar_that_is_not_reduced_is_refused():
    key = signatures.SigningKey(SEED)
    signature = key.sign(b"m")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    assert not signatures.verify(
        key.public_key, b"m", signature[:32] + scalar.to_bytes(32, "little")
    )


@given(st.binary(max_size=80), st.binary(max_size=20), st.binary(max_size=80))
def test_verify_answers_no_to_any_garbage(public_key: bytes, message: bytes, signature: bytes):
    assert signatures.verify(public_key, message, signature) is False


def test_verify_or_raise_names_what_was_signed():
    key = signatures.SigningKey(SEED)
    signatures.verify_or_raise(key.public_key, b"m", key.sign(b"m"), what="the roster")
    with pytest.raises(signatures.BadSignatureError, match="the roster") as caught:
        signatures.verify_or_raise(key.public_key, b"x", key.sign(b"m"), what="the roster")
    assert caught.value.code == "sig_invalid"


def test_a_signing_key_prints_its_public_half_only():
    key = signatures.SigningKey(SEED)
    for text in (repr(key), str(key), f"{key}"):
        assert SEED.hex() not in text
        assert repr(SEED) not in text
        assert "public_key" in text
    with pytest.raises(InputError, match="32 bytes"):
        signatures.SigningKey(SEED[:31])


def test_x25519_both_sides_share_one_secret():
    (a_private, a_public), (b_private, b_public) = (
        agreement.generate_x25519(),
        agreement.generate_x25519(),
    )
    assert agreement.shared_secret(a_private, b_public) == agreement.shared_secret(
        b_private, a_public
    )
    assert a_private[0] & 7 == 0
    assert a_private[31] >> 6 == 1
    with pytest.raises(InputError):
        agreement.shared_secret(a_private[:31], b_public)


def test_a_sealed_box_opens_for_its_owner_only():
    private_key, public_key = agreement.generate_x25519()
    other_private, _ = agreement.generate_x25519()
    sealed = agreement.seal_box(public_key, b"for you")
    assert agreement.open_box(private_key, sealed) == b"for you"
    with pytest.raises(aead.DecryptError):
        agreement.open_box(other_private, sealed)
    with pytest.raises(aead.DecryptError):
        agreement.open_box(private_key, sealed[:-1])


def test_nothing_is_sealed_for_a_key_of_small_order():
    with pytest.raises(InputError) as caught:
        agreement.seal_box(bytes(32), b"secret")
    assert caught.value.code == "bad_key"


@given(st.binary(max_size=120))
def test_open_box_gives_plaintext_or_decrypt_error(sealed: bytes):
    with pytest.raises(aead.DecryptError):
        agreement.open_box(bytes(31) + b"\x40", sealed)


@pytest.mark.parametrize(
    ("decrypt", "nonce_bytes"),
    [
        (aead.xchacha20_decrypt, 24),
        (aead.chacha20_decrypt, 12),
        (aead.aes256gcm_decrypt, 12),
    ],
)
@given(data=st.binary(max_size=64), aad=st.binary(max_size=8))
def test_decrypt_gives_decrypt_error_for_garbage_of_any_length(
    decrypt, nonce_bytes: int, data: bytes, aad: bytes
):
    with pytest.raises(aead.DecryptError) as caught:
        decrypt(bytes(32), bytes(nonce_bytes), data, aad)
    assert caught.value.code == "decrypt_failed"


def test_associated_data_is_authenticated():
    key, nonce = bytes(32), bytes(24)
    box = aead.xchacha20_encrypt(key, nonce, b"m", b"purpose one")
    with pytest.raises(aead.DecryptError):
        aead.xchacha20_decrypt(key, nonce, box, b"purpose two")


def test_argon2id_agrees_with_another_implementation():
    derived = kdf.argon2id(b"password", salt=b"somesaltsomesalt", opslimit=2, memlimit=64 * 1024)
    openssl = Argon2id(
        salt=b"somesaltsomesalt", length=32, iterations=2, lanes=1, memory_cost=64
    ).derive(b"password")
    assert derived == openssl


@pytest.mark.parametrize(
    ("opslimit", "memlimit"),
    [(0, 8192), (11, 8192), (2**32, 8192), (-1, 8192), (1, 8191), (1, 2**28 + 1), (1, 2**62)],
)
def test_sto_15_argon2id_refuses_costs_beyond_the_caps_before_running(opslimit: int, memlimit: int):
    with pytest.raises(InputError, match="argon2id"):
        kdf.argon2id(b"p", salt=bytes(16), opslimit=opslimit, memlimit=memlimit)


def test_argon2id_refuses_other_lengths():
    for arguments in (
        {"salt": bytes(15)},
        {"salt": bytes(16), "length": 15},
        {"salt": bytes(16), "length": 65},
    ):
        with pytest.raises(InputError):
            kdf.argon2id(b"p", opslimit=1, memlimit=8192, **arguments)
    with pytest.raises(InputError, match="passphrase"):
        kdf.argon2id(bytes(4097), salt=bytes(16), opslimit=1, memlimit=8192)


def test_hkdf_refuses_lengths_out_of_range():
    for length in (0, -1, 8161):
        with pytest.raises(InputError):
            kdf.hkdf_sha256(b"ikm", salt=b"", info=b"", length=length)
    assert len(kdf.hkdf_sha256(b"ikm", salt=b"", info=b"", length=8160)) == 8160


def test_hmac_is_of_sha256():
    pad = bytes([0x36] * 64)
    inner = hashlib.sha256(pad + b"m").digest()
    outer = hashlib.sha256(bytes([0x5C] * 64) + inner).digest()
    assert kdf.hmac_sha256(b"", b"m") == outer


def test_every_refusal_is_of_the_one_family():
    for error in (aead.DecryptError, signatures.BadSignatureError):
        assert issubclass(error, SeipdError)
