"""The tlog-proof format as transparency-dev/formats tests it, and where the text is stricter."""

import base64
import json

import pytest

from services.base.ledger.proof import ProofFormatError, TlogProof, parse_proof
from tests.vectors.locate import vectors_dir

CASES = json.loads((vectors_dir("tlog-proof") / "formats-tlog-proof.json").read_text())
BAD = CASES["unmarshal_errors"] + CASES["spec_requires_reject_go_accepts"]


@pytest.mark.parametrize("case", CASES["marshal"], ids=lambda case: case["name"])
def test_a_proof_reads_and_writes_the_same(case):
    proof = TlogProof(
        index=case["index"],
        hashes=tuple(base64.b64decode(one) for one in case["hashes"]),
        checkpoint=case["checkpoint"].encode(),
        extra=base64.b64decode(case["extra_b64"]) if case["extra_b64"] else None,
    )
    assert proof.encode() == case["want"].encode()
    assert parse_proof(case["want"].encode()) == proof


@pytest.mark.parametrize("case", BAD, ids=lambda case: case["name"])
def test_a_malformed_proof_is_refused(case):
    with pytest.raises(ProofFormatError):
        parse_proof(case["proof"].encode())
