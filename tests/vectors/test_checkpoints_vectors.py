"""Checkpoints and cosignatures that others signed."""

import base64
import json

import pytest

from services.base.crypto.signatures import BadSignatureError
from services.base.ledger.checkpoint import (
    CheckpointError,
    parse_checkpoint,
    verify_checkpoint,
    verify_cosignature,
)
from services.base.ledger.merkle import leaf_hash
from services.base.ledger.note import (
    KeyKind,
    cosignature_input,
    cosignature_time_s,
    parse_note,
    parse_vkey,
)
from tests.vectors.locate import vectors_dir

SUMDB = json.loads((vectors_dir("tlog-checkpoint") / "go-sumdb-tree.json").read_text())
SIGSUM = json.loads((vectors_dir("tlog-checkpoint") / "sigsum-issue99.json").read_text())
COSIGNED = json.loads((vectors_dir("tlog-cosignature") / "c2sp-examples.json").read_text())
SKYLIGHT = vectors_dir("tlog-witness") / "sunlight-skylight"


def test_the_text_of_a_tree_head_reads_and_writes_the_same():
    want = SUMDB["tree_note"]
    checkpoint = parse_checkpoint(want["text"])
    assert checkpoint.size == want["size"]
    assert checkpoint.root == leaf_hash(SUMDB["record_hash"]["data"].encode())
    assert checkpoint.text() == want["text"]


@pytest.mark.parametrize("text", SUMDB["bad"][1:])
def test_a_malformed_tree_head_is_refused(text):
    with pytest.raises(CheckpointError):
        parse_checkpoint(text)


def test_a_checkpoint_of_another_log_is_refused():
    real = SUMDB["real_checkpoint"]
    with pytest.raises(CheckpointError):
        verify_checkpoint(real["note"].encode(), parse_vkey(real["vkey"]), "another log")


def test_a_real_checkpoint_whose_origin_is_not_the_name_of_its_key():
    real = SUMDB["real_checkpoint"]
    verifier = parse_vkey(real["vkey"])
    assert verifier.name == "sum.golang.org"
    checkpoint = verify_checkpoint(real["note"].encode(), verifier, "go.sum database tree")
    assert checkpoint.size == 35225469


@pytest.mark.parametrize("case", SIGSUM["cases"], ids=lambda case: case["name"])
def test_a_sigsum_checkpoint(case):
    verifier = parse_vkey(case["vkey"])
    if case["ok"]:
        assert verify_checkpoint(case["note"].encode(), verifier, verifier.name).size == 10
    else:
        with pytest.raises(BadSignatureError):
            verify_checkpoint(case["note"].encode(), verifier, verifier.name)


def test_the_cosigned_example_of_the_specification():
    note = parse_note(COSIGNED["cosigned_checkpoint"].encode())
    log_line, witness_line = note.signatures
    assert log_line.name == parse_checkpoint(note.text).origin
    assert cosignature_time_s(witness_line) == COSIGNED["timestamp"]
    assert (
        cosignature_input(note.text, COSIGNED["timestamp"])
        == COSIGNED["signed_message_ed25519"].encode()
    )


@pytest.mark.parametrize(
    ("keys", "folder"),
    [
        ("witness/witness.v0.json", "witness"),
        ("witness2/witness.v0.json", "witness2"),
        ("witness/mirror/mirror.v0.json", "witness/mirror"),
    ],
)
def test_real_cosignatures(keys, folder):
    (vkey,) = json.loads((SKYLIGHT / keys).read_text())["verifier_keys"]
    verifier = parse_vkey(vkey)
    assert verifier.kind is KeyKind.COSIGNATURE_V1
    (path,) = (SKYLIGHT / folder).glob("*/checkpoint")
    data = path.read_bytes()
    assert verify_cosignature(data, verifier) == 1767139200
    # One bit of the time is as good as another signature: it is signed.
    line = data.rsplit(b" ", 1)[1].strip()
    blob = bytearray(base64.b64decode(line))
    blob[11] ^= 1
    with pytest.raises(BadSignatureError):
        verify_cosignature(data.replace(line, base64.b64encode(blob)), verifier)
