"""``seipd-verify equivocation`` as somebody who was handed an accusation uses it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from services.base.crypto.signatures import SigningKey
from services.base.ledger.equivocation import find
from services.base.ledger.note import NoteVerifier
from services.kernel.ids import server_id_of
from tests.fakes.programs import run_program
from tests.unit.base_ledger_log.fork_kit import KEY, MESH, certificate_of, forked

CHECKOUT = Path(__file__).resolve().parents[3]
HELD, FOREIGN = forked(5, 3, 7)
PROOF = find(mesh_id=MESH, certificate=certificate_of(), held=FOREIGN, foreign=HELD.signed())
STRANGER = NoteVerifier(name=PROOF.verifier.name, public_key=SigningKey(b"o" * 32).public_key).vkey


def verify(*arguments):
    return run_program("seipd.cli.verify", "equivocation", *arguments)


def assert_not_good(result) -> str:
    assert result.returncode == 1
    assert "good:" not in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: INVALID equivocation: ")
    assert " — " in line
    return line


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "proof.json"
    path.write_bytes(PROOF.encode())
    return path


def test_led_05_a_good_proof_tells_who_lied_about_what(file):
    result = verify(file, "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout) == {
        "good": True,
        "server_id": server_id_of(KEY.public_key),
        "epoch": 1,
        "size": 8,
        "root_hash": HELD.root_at(8).hex(),
        "other_size": 12,
        "other_root_hash": FOREIGN.root_at(8).hex(),
        "vkey": PROOF.verifier.vkey,
    }


def test_a_good_proof_in_one_line_for_people(file):
    result = verify(file, "--key", PROOF.verifier.vkey)
    assert result.returncode == 0
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"good: equivocation server_id {server_id_of(KEY.public_key)}, ")
    assert HELD.root_at(8).hex() in line
    assert FOREIGN.root_at(8).hex() in line


def test_a_proof_about_somebody_else_than_was_asked_for(file):
    assert "another key" in assert_not_good(verify(file, "--key", STRANGER))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"smaller": FOREIGN.signed(8)}, "same_root"),
        ({"smaller": forked(5, 3, 7, epoch=2)[0].signed()}, "other_origin"),
        ({"smaller": HELD.signed().replace(b"\n8\n", b"\n7\n")}, "sig_invalid"),
        ({"hashes": ()}, "proof_invalid"),
        ({"larger": b"nonsense"}, "bad_checkpoint"),
    ],
)
def test_what_proves_nothing_is_not_good_and_says_why(tmp_path, changes, code):
    path = tmp_path / "proof.json"
    path.write_bytes(dataclasses.replace(PROOF, **changes).encode())
    result = verify(path, "--json")
    assert_not_good(result)
    assert json.loads(result.stdout)["code"] == code


def test_garbage_and_nothing_at_all_are_not_good(tmp_path, file):
    assert_not_good(verify(tmp_path / "none"))
    (tmp_path / "x").write_bytes(os.urandom(500))
    assert_not_good(verify(tmp_path / "x"))
    (tmp_path / "half").write_bytes(file.read_bytes()[:-20])
    assert_not_good(verify(tmp_path / "half"))
    (tmp_path / "long").write_bytes(b" " * 100_000)
    assert_not_good(verify(tmp_path / "long"))


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("a", "--key", "no key")])
def test_wrong_usage_is_exit_2(arguments):
    result = verify(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
