"""AWS's own test suite of Signature Version 4: the signer's requests, and the double's check."""

from __future__ import annotations

import pytest

from seipd.signerd.providers.sigv4 import (
    TOKEN_HEADER,
    Credentials,
    ServicePlace,
    authorization,
    canonical_request,
    string_to_sign,
)
from tests.fakes.fake_kms import signature_is_good
from tests.vectors.locate import vectors_dir

FOLDER = vectors_dir("aws-sigv4")
CASES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
PLACE = ServicePlace(region="us-east-1", service="service")


def case_of(name: str) -> tuple[str, dict[str, str], bytes, dict[str, str]]:
    texts = {
        kind: (FOLDER / name / f"{name}.{kind}").read_text(encoding="utf-8")
        for kind in ("req", "creq", "sts", "authz")
    }
    head, _, body = texts["req"].partition("\n\n")
    first, *lines = head.split("\n")
    headers = {line.partition(":")[0]: line.partition(":")[2] for line in lines if line}
    if name == "get-vanilla-with-session-token":
        # As in the suite's runner: the token is that of the credentials, and signed.
        found = [line for line in texts["creq"].split("\n") if "security-token:" in line]
        headers[TOKEN_HEADER] = found[0].partition(":")[2]
    return first.split(" ")[0], headers, body.encode(), texts


def test_all_eleven_cases_are_there() -> None:
    assert len(CASES) == 11


@pytest.mark.parametrize("name", CASES)
def test_it_is_signed_as_aws_signs_it(name: str) -> None:
    method, headers, body, texts = case_of(name)
    _, request = canonical_request(method, headers, body)
    assert request == texts["creq"]
    scope = "20150830/us-east-1/service/aws4_request"
    assert string_to_sign(headers["X-Amz-Date"], scope, request) == texts["sts"]
    credentials = Credentials(access_key_id="AKIDEXAMPLE", secret_access_key=SECRET)
    signed = authorization(method, headers, body, credentials=credentials, place=PLACE)
    assert signed == texts["authz"]


@pytest.mark.parametrize("name", CASES)
def test_the_double_accepts_what_aws_signed_and_nothing_altered(name: str) -> None:
    method, headers, body, texts = case_of(name)
    authz = texts["authz"]
    assert signature_is_good(method, headers, body, authz, SECRET)
    assert not signature_is_good(method, headers, body + b" ", authz, SECRET)
    assert not signature_is_good(method, headers, body, authz, SECRET + "x")
    assert not signature_is_good(method, headers, body, authz[:-1] + "x", SECRET)
    altered = headers | {"Host": "evil.amazonaws.com"}
    assert not signature_is_good(method, altered, body, authz, SECRET)
