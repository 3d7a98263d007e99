"""Signed notes as Go's sumdb/note and the C2SP text have them."""

import base64
import json

import pytest

from services.base.crypto.signatures import BadSignatureError, SigningKey
from services.base.ledger.note import (
    NoteError,
    encode_note,
    open_note,
    parse_note,
    parse_vkey,
    sign_text,
)
from services.kernel.errors import SeipdError
from tests.vectors.locate import vectors_dir

DATA = vectors_dir("signed-note")
GO = json.loads((DATA / "go-sumdb-note.json").read_text())
C2SP = json.loads((DATA / "c2sp-examples.json").read_text())


@pytest.mark.parametrize("vkey", GO["valid_vkeys"])
def test_a_verifier_key_reads_and_writes_the_same(vkey):
    assert parse_vkey(vkey).vkey == vkey


@pytest.mark.parametrize("case", GO["invalid_vkeys"], ids=lambda case: case["why"])
def test_a_bad_verifier_key_is_refused(case):
    with pytest.raises(NoteError):
        parse_vkey(case["vkey"])


def test_every_mangled_verifier_key_is_refused():
    vkey = GO["valid_vkeys"][0]
    mangled = {vkey[i:j] for i in range(len(vkey)) for j in range(i, len(vkey) + 1)} - {vkey}
    mangled |= {vkey[:i] + chr(ord(char) + 1) + vkey[i + 1 :] for i, char in enumerate(vkey)}
    for text in mangled:
        with pytest.raises(NoteError):
            parse_vkey(text)


def test_signing_gives_the_published_note():
    case = GO["sign"]
    seed = base64.b64decode(case["skey"].split("+", 4)[4])[1:]
    text = case["text"]
    assert (
        encode_note(text, [sign_text(text, name="PeterNeumann", signer=SigningKey(seed))])
        == case["want"].encode()
    )
    for bad in case["bad_texts"]:
        with pytest.raises(NoteError):
            sign_text(bad, name="PeterNeumann", signer=SigningKey(seed))


@pytest.mark.parametrize("case", GO["open"], ids=lambda case: case["name"])
def test_led_08_a_note_opens_or_is_refused_as_published(case):
    data = base64.b64decode(case["msg_b64"])
    known = [parse_vkey(vkey) for vkey in case["known_vkeys"]]
    if case["ok"]:
        opened = open_note(data, known)
        assert [one.name for one in opened.verified] == case["verified"]
        assert {one.name for one in opened.unverified} == set(case["unverified"])
        return
    with pytest.raises(SeipdError) as caught:
        open_note(data, known)
    want = case["error"]
    if want == "malformed note":
        assert isinstance(caught.value, NoteError)
    elif want.startswith("ambiguous key"):
        assert caught.value.code == "ambiguous_key"
    else:
        assert isinstance(caught.value, BadSignatureError)


@pytest.mark.parametrize("case", C2SP["cases"], ids=lambda case: case["vkey"][:16])
def test_the_example_of_the_specification(case):
    opened = open_note(case["note"].encode(), [parse_vkey(case["vkey"])])
    assert len(opened.verified) == 1
    assert parse_note(case["note"].encode()).encode() == case["note"].encode()
