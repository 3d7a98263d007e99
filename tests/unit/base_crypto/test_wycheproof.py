"""The vectors of Project Wycheproof: good ones agree byte for byte, bad ones are refused."""

from __future__ import annotations

import pytest

from services.base.crypto import aead, agreement, kdf, signatures
from services.kernel import canonical
from services.kernel.errors import InputError
from tests.vectors.locate import vectors_dir

AEADS = {
    "aes_gcm_test.json": (aead.aes256gcm_encrypt, aead.aes256gcm_decrypt, 96),
    "chacha20_poly1305_test.json": (aead.chacha20_encrypt, aead.chacha20_decrypt, 96),
    "xchacha20_poly1305_test.json": (aead.xchacha20_encrypt, aead.xchacha20_decrypt, 192),
}


def groups(name: str) -> list[dict]:
    data = canonical.decode_object((vectors_dir("wycheproof") / name).read_bytes())
    return data["testGroups"]


def unhex(test: dict, *names: str) -> list[bytes]:
    return [bytes.fromhex(test[name]) for name in names]


def test_ed25519_every_case_is_judged_as_published():
    seen = {"valid": 0, "invalid": 0}
    for group in groups("ed25519_test.json"):
        public_key = bytes.fromhex(group["publicKey"]["pk"])
        for test in group["tests"]:
            message, signature = unhex(test, "msg", "sig")
            good = signatures.verify(public_key, message, signature)
            assert good == (test["result"] == "valid"), test
            seen[test["result"]] += 1
    assert seen == {"valid": 88, "invalid": 63}


def test_x25519_agrees_and_refuses_every_all_zero_secret():
    agreed = refused = 0
    for test in groups("x25519_test.json")[0]["tests"]:
        private_key, public_key, shared = unhex(test, "private", "public", "shared")
        if "ZeroSharedSecret" in test["flags"]:
            with pytest.raises(InputError) as caught:
                agreement.shared_secret(private_key, public_key)
            assert caught.value.code == "bad_key"
            refused += 1
        else:
            assert agreement.shared_secret(private_key, public_key) == shared, test
            agreed += 1
    assert agreed + refused == 518
    assert refused > 20


@pytest.mark.parametrize("name", AEADS)
def test_aead_every_case_is_judged_as_published(name: str):
    encrypt, decrypt, nonce_bits = AEADS[name]
    opened = refused = 0
    for group in groups(name):
        for test in group["tests"]:
            key, nonce, aad, message, text, tag = unhex(
                test, "key", "iv", "aad", "msg", "ct", "tag"
            )
            if group["keySize"] != 256 or group["ivSize"] != nonce_bits:
                with pytest.raises(InputError):
                    decrypt(key, nonce, text + tag, aad)
            elif test["result"] == "valid":
                assert decrypt(key, nonce, text + tag, aad) == message
                assert encrypt(key, nonce, message, aad) == text + tag
                opened += 1
            else:
                with pytest.raises(aead.DecryptError):
                    decrypt(key, nonce, text + tag, aad)
                refused += 1
    assert opened > 30
    assert refused > 10


def test_hkdf_sha256_every_case_is_judged_as_published():
    seen = {"valid": 0, "invalid": 0}
    for group in groups("hkdf_sha256_test.json"):
        for test in group["tests"]:
            ikm, salt, info, okm = unhex(test, "ikm", "salt", "info", "okm")
            seen[test["result"]] += 1
            if test["result"] == "valid":
                assert kdf.hkdf_sha256(ikm, salt=salt, info=info, length=test["size"]) == okm
            else:
                with pytest.raises(InputError):
                    kdf.hkdf_sha256(ikm, salt=salt, info=info, length=test["size"])
    assert seen["valid"] > 80
    assert seen["invalid"] > 0


def test_hmac_sha256_every_case_is_judged_as_published():
    seen = {"valid": 0, "invalid": 0}
    for group in groups("hmac_sha256_test.json"):
        for test in group["tests"]:
            key, message, tag = unhex(test, "key", "msg", "tag")
            computed = kdf.hmac_sha256(key, message)[: group["tagSize"] // 8]
            assert kdf.constant_time_equal(computed, tag) == (test["result"] == "valid"), test
            seen[test["result"]] += 1
    assert min(seen.values()) > 50
