"""Who is believed by an X.509-SVID, and who is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from services.base.spiffe.bundle import Bundle, parse_bundle
from services.base.spiffe.ids import SpiffeError, SpiffeId, parse_spiffe_id
from services.base.spiffe.svid import parse_svid, verify_svid
from tests.fakes.spiffe_ca import HOUR, SpiffeCa, signing_usage

CA = SpiffeCa()
NOW = datetime.now(UTC)


def refusal(issued, bundle: Bundle | None = None, now: datetime = NOW) -> str:
    with pytest.raises(SpiffeError) as caught:
        verify_svid(parse_svid(issued.chain_pem), bundle or CA.bundle(), now=now)
    return caught.value.code


def test_an_svid_of_the_trust_domain_is_believed() -> None:
    svid = parse_svid(CA.svid("/server/a").chain_pem)
    assert verify_svid(svid, CA.bundle(), now=NOW) == SpiffeId("mesh.example", "/server/a")
    named = parse_svid(CA.svid("/server/a", dns=["signer.mesh.example"]).chain_pem)
    assert str(verify_svid(named, CA.bundle(), now=NOW)) == "spiffe://mesh.example/server/a"


def test_one_below_an_intermediate_authority_is_believed_with_its_chain_alone() -> None:
    issued = SpiffeCa(above=CA).svid()
    assert verify_svid(parse_svid(issued.chain_pem), CA.bundle(), now=NOW)
    without = type(issued)(issued.certificate, issued.key)
    assert refusal(without) == "untrusted_svid"


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["spiffe://mesh.example/a", "spiffe://mesh.example/b"],
        ["spiffe://mesh.example/a", "https://mesh.example/a"],
        ["https://mesh.example/a"],
        ["spiffe://mesh.example"],
        ["spiffe://mesh.example/a/"],
        ["spiffe://MESH.example/a"],
        ["spiffe://mesh.example/../x"],
        ["spiffe://mesh.example/a%2fb"],
        ["spiffe://mesh.example:443/a"],
        ["spiffe://me@mesh.example/a"],
        ["spiffe://mesh.example/a?b"],
        ["SPIFFE://mesh.example/a"],
    ],
)
def test_sgn_01_names_that_are_not_one_good_name_are_refused(uris) -> None:
    assert refusal(CA.svid(uris=uris)) in {"bad_svid", "bad_spiffe_id"}


def test_sgn_01_a_name_is_believed_by_its_own_trust_domain_alone() -> None:
    other = SpiffeCa("other.example")
    both = Bundle(
        trust_domain="mesh.example",
        authorities=(CA.own.certificate, other.own.certificate),
    )
    assert refusal(other.svid(), both) == "untrusted_svid"
    # An authority of another domain that issues a name of ours.
    assert refusal(other.svid(uris=["spiffe://mesh.example/server/a"])) == "untrusted_svid"


def test_time_bounds_an_svid() -> None:
    issued = CA.svid(lifetime=(-HOUR, HOUR))
    assert refusal(issued, now=NOW + timedelta(hours=2)) == "untrusted_svid"
    assert refusal(issued, now=NOW - timedelta(hours=2)) == "untrusted_svid"


@pytest.mark.parametrize(
    "changes",
    [
        {"key": ec.generate_private_key(ec.SECP384R1())},
        {"key": rsa.generate_private_key(65537, 2048)},
        {"usage": signing_usage()},
        {"extended": [ExtendedKeyUsageOID.CLIENT_AUTH]},
        {"extended": [ExtendedKeyUsageOID.SERVER_AUTH]},
    ],
)
def test_a_leaf_that_is_not_one_of_p256_for_peers_is_refused(changes) -> None:
    assert refusal(CA.svid(**changes)) in {"bad_svid", "untrusted_svid"}


def test_an_authority_does_not_stand_for_a_workload() -> None:
    assert refusal(CA.own) in {"bad_svid"}


def test_a_bundle_without_keys_revokes_everybody() -> None:
    empty = parse_bundle(CA.bundle_json(keys=False), trust_domain="mesh.example")
    assert refusal(CA.svid(), empty) == "untrusted_svid"
    full = parse_bundle(CA.bundle_json(), trust_domain="mesh.example")
    assert verify_svid(parse_svid(CA.svid().chain_pem), full, now=NOW)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[1]}', b'{"keys":[],"keys":[]}',
        b'{"keys":[],"spiffe_sequence":-1}', b'{"keys":[],"spiffe_sequence":true}',
        b'{"keys":[{"use":"x509-svid"}]}', b'{"keys":[{"use":"x509-svid","x5c":["!"]}]}',
        b'{"keys":[{"use":"x509-svid","x5c":["AAAA"]}]}',
        b'{"keys":[{"use":"x509-svid","x5c":[]}]}',
        b'{"keys":[' + b",".join([b"{}"] * 300) + b"]}",
    ],
)  # fmt: skip
def test_a_bundle_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(SpiffeError):
        parse_bundle(data, trust_domain="mesh.example")


def test_keys_for_other_uses_are_passed_over() -> None:
    data = b'{"keys":[{"use":"dkim"},{"kty":"RSA"},{"use":"jwt-svid","kid":"a"}]}'
    assert parse_bundle(data, trust_domain="mesh.example").authorities == ()


@given(st.text(max_size=40) | st.text(max_size=20).map(lambda tail: f"spiffe://mesh/{tail}"))
def test_an_id_has_one_spelling(text: str) -> None:
    try:
        found = parse_spiffe_id(text)
    except SpiffeError:
        return
    assert str(found) == text


@given(st.binary(max_size=200))
def test_any_bytes_are_an_svid_or_a_refusal(data: bytes) -> None:
    with pytest.raises(SpiffeError):
        parse_svid(data)
