"""The examples of RFC 4034 and RFC 8080: tags, DS and signatures."""

from __future__ import annotations

from base64 import b64decode

import pytest

from services.base.crypto.signatures import SigningKey
from services.edge.dns.wire import Type
from services.kernel.dnsdata import parse_data
from services.kernel.dnsnames import name_of
from services.kernel.dnssec import (
    Validity,
    dnskey_data,
    ds_data,
    key_tag,
    rrsig_head,
    signed_bytes,
)
from tests.vectors.locate import vectors_dir

EXAMPLE = name_of("example.com")
# RFC 8080 section 6.1: seed, public key, tag, digest of the DS, signature of the MX set.
ED25519 = (
    (
        "ODIyNjAzODQ2MjgwODAxMjI2NDUxOTAyMDQxNDIyNjI=",
        "l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=",
        3613,
        "3aa5ab37efce57f737fc1627013fee07bdf241bd10f3b1964ab55c78e79a304b",
        "oL9krJun7xfBOIWcGHi7mag5/hdZrKWw15jPGrHpjQeRAvTdszaPD+QLs3fx8A4M3e23mRZ9VrbpMngwcrqNAg==",
    ),
    (
        "DSSF3o0s0f+ElWzj9E/Osxw8hLpk55chkmx0LYN5WiY=",
        "zPnZ/QwEe7S8C5SPz2OfS5RR40ATk2/rYnE9xHIEijs=",
        35217,
        "401781b934e392de492ec77ae2e15d70f6575a1c0bc59c5275c04ebe80c6614c",
        "zXQ0bkYgQTEFyfLyi9QoiY6D8ZdYo4wyUhVioYZXFdT410QPRITQSqJSnzQoSm5poJ7gD7AQR0O7KuI5k2pcBg==",
    ),
)


@pytest.mark.parametrize(("section", "tag"), [("2.3", 2642), ("5.4", 60485)])
def test_the_tag_of_a_key_of_rfc_4034(section: str, tag: int) -> None:
    text = (vectors_dir("dns-hickory") / f"rfc4034-{section}.rdata").read_text()
    flags, protocol, algorithm, key = text.split()
    data = int(flags).to_bytes(2, "big") + bytes([int(protocol), int(algorithm)]) + b64decode(key)
    assert key_tag(data) == tag


@pytest.mark.parametrize(("seed", "public", "tag", "digest", "signature"), ED25519)
def test_tag_ds_and_signature_of_a_key_of_rfc_8080(
    seed: str, public: str, tag: int, digest: str, signature: str
) -> None:
    key = SigningKey(b64decode(seed))
    assert key.public_key == b64decode(public)
    data = dnskey_data(key.public_key, is_entry_point=True)
    assert key_tag(data) == tag
    assert ds_data(EXAMPLE, data) == tag.to_bytes(2, "big") + b"\x0f\x02" + bytes.fromhex(digest)
    validity = Validity(inception_s=1438207200, expiration_s=1440021600)
    head = rrsig_head(EXAMPLE, Type.MX, 3600, validity, tag=tag, apex=EXAMPLE)
    mx = parse_data("MX", "10 mail.example.com")
    assert key.sign(signed_bytes(head, EXAMPLE, [mx])) == b64decode(signature)
