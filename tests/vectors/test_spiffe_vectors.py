"""SPIFFE ids, X.509-SVIDs and bundles as go-spiffe tries them."""

from __future__ import annotations

import pytest

from services.base.spiffe.bundle import parse_bundle
from services.base.spiffe.ids import SpiffeError, parse_spiffe_id
from services.base.spiffe.svid import parse_svid
from services.kernel import canonical
from tests.vectors.locate import vectors_dir

FOLDER = vectors_dir("spiffe")
IDS = canonical.decode_object((FOLDER / "spiffe-id.json").read_bytes())
CASES = canonical.decode_object((FOLDER / "x509svid" / "cases.json").read_bytes())["cases"]
# This one is about the private key beside the certificate, which no peer ever shows.
ABOUT_KEYS = {"corrupt-key"}


def test_every_good_id_is_taken_apart() -> None:
    assert len(IDS["valid"]) == 112
    for row in IDS["valid"]:
        found = parse_spiffe_id(row["id"])
        assert (found.trust_domain, found.path) == (row["trust_domain"], row["path"])
        assert str(found) == row["id"]


def test_every_bad_id_is_refused() -> None:
    assert len(IDS["invalid"]) == 427
    for row in IDS["invalid"]:
        with pytest.raises(SpiffeError):
            parse_spiffe_id(row["id"])


@pytest.mark.parametrize("name", sorted(set(CASES) - ABOUT_KEYS))
def test_svids(name: str) -> None:
    path = FOLDER / "x509svid" / name
    data = (path if path.exists() else path.with_suffix(".pem")).read_bytes()
    if CASES[name] is None:
        assert str(parse_svid(data).spiffe_id).startswith("spiffe://example.org/")
        return
    with pytest.raises(SpiffeError) as caught:
        parse_svid(data)
    assert caught.value.code == "bad_svid"


@pytest.mark.parametrize(
    ("name", "authorities", "sequence"),
    [("valid_1", 1, None), ("valid_2", 1, 1), ("valid_with_wit", 1, 1)],
)
def test_good_bundles(name: str, authorities: int, sequence: int | None) -> None:
    data = (FOLDER / "bundle" / f"spiffebundle_{name}.json").read_bytes()
    bundle = parse_bundle(data, trust_domain="domain.test")
    assert (len(bundle.authorities), bundle.sequence) == (authorities, sequence)


@pytest.mark.parametrize("name", ["missing_kid", "multiple_x509", "no_keys"])
def test_bad_bundles(name: str) -> None:
    data = (FOLDER / "bundle" / f"spiffebundle_{name}.json").read_bytes()
    with pytest.raises(SpiffeError) as caught:
        parse_bundle(data, trust_domain="domain.test")
    assert caught.value.code == "bad_bundle"
