"""``seipd-verify`` as an auditor uses it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.base.crypto.signatures import SigningKey
from services.base.ledger.note import NoteVerifier
from services.base.ledger.proof import TlogProof
from tests.fakes.programs import run_program
from tests.unit.base_ledger_log.log_kit import ORIGIN, VERIFIER, LazyDisk, entry, grow, open_log

CHECKOUT = Path(__file__).resolve().parents[3]
VKEY = VERIFIER.vkey
OTHER = NoteVerifier(name=ORIGIN, public_key=SigningKey(b"o" * 32).public_key).vkey


def verify(*arguments):
    return run_program("seipd.cli.verify", *arguments)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    log = open_log(folder / "log", disk=LazyDisk())
    grow(log, 300)
    log.publish()
    proof = TlogProof(
        index=7,
        hashes=tuple(log.inclusion_proof(7, 300)),
        checkpoint=log.checkpoint,
        extra=entry(7),
    )
    (folder / "good.tlog-proof").write_bytes(proof.encode())
    log.close()
    return folder


def assert_not_good(result):
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: INVALID ")
    assert " — " in line
    assert "good:" not in result.stdout


def test_a_good_ledger(exported):
    result = verify("ledger", exported / "log", "--key", VKEY, "--json")
    assert result.returncode == 0
    answer = json.loads(result.stdout)
    assert answer["good"] is True
    assert answer["size"] == 300
    assert len(answer["root_hash"]) == 64


def test_led_16_a_damaged_ledger_names_the_tile(exported, tmp_path):
    shutil.copytree(exported / "log", tmp_path / "log")
    path = tmp_path / "log/tile/0/000"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    result = verify("ledger", tmp_path / "log", "--key", VKEY, "--json")
    assert_not_good(result)
    answer = json.loads(result.stdout)
    assert answer == {
        "good": False,
        "code": "ledger_corrupt",
        "path": "tile/0/000",
        "reason": answer["reason"],
    }


def test_led_16_another_key_is_not_good(exported):
    assert_not_good(verify("ledger", exported / "log", "--key", OTHER))
    assert_not_good(verify("proof", exported / "good.tlog-proof", "--key", OTHER))


def test_led_16_what_is_not_there_is_not_good(tmp_path):
    assert_not_good(verify("ledger", tmp_path / "none", "--key", VKEY))
    assert_not_good(verify("proof", tmp_path / "none", "--key", VKEY))
    assert_not_good(verify("proof", tmp_path, "--key", VKEY))


def test_led_16_garbage_is_not_good(tmp_path):
    (tmp_path / "x").write_bytes(os.urandom(500))
    assert_not_good(verify("proof", tmp_path / "x", "--key", VKEY))
    (tmp_path / "checkpoint").write_bytes(os.urandom(500))
    assert_not_good(verify("ledger", tmp_path, "--key", VKEY))


def test_a_good_proof(exported, tmp_path):
    result = verify("proof", exported / "good.tlog-proof", "--key", VKEY, "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["index"] == 7
    (tmp_path / "entry").write_bytes(entry(7))
    proof = exported / "good.tlog-proof"
    assert verify("proof", proof, "--key", VKEY, "--entry", tmp_path / "entry").returncode == 0
    (tmp_path / "entry").write_bytes(entry(8))
    assert_not_good(verify("proof", proof, "--key", VKEY, "--entry", tmp_path / "entry"))


def test_led_16_half_a_proof_is_not_good(exported, tmp_path):
    data = (exported / "good.tlog-proof").read_bytes()
    for cut in (len(data) // 3, len(data) - 10):
        (tmp_path / "half").write_bytes(data[:cut])
        assert_not_good(verify("proof", tmp_path / "half", "--key", VKEY))


def test_led_16_an_answer_that_nobody_can_read_is_not_success(exported):
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "seipd.cli.verify", "ledger", exported / "log", "--key", VKEY],
            cwd=CHECKOUT,
            timeout=60,
            stdout=full,
            stderr=full,
        )
    assert result.returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [(), ("nonsense",), ("ledger",), ("ledger", "."), ("ledger", ".", "--key", "no key")],
)
def test_wrong_usage_is_exit_2_in_one_line(arguments):
    result = verify(*arguments)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert result.stdout == ""
