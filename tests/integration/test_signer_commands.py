"""The signer's commands while it runs as its own user: keys, a rotation, the audit."""

from __future__ import annotations

import subprocess

import pytest

from services.base.signing.client import GrpcSigner
from services.kernel import canonical
from tests.fakes.signers import Place, signer_user_can_run, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not signer_user_can_run(), reason="needs root and a user seipd-signer"),
]

MESSAGE = b"seipd/record/v1\0" + bytes(32) + b"{}"


@pytest.fixture
def place():
    place = Place()
    place.prepare()
    yield place
    place.close()


def asked(place: Place, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [word for word in place.command(verb, *words) if word != "--unlock-file"]
    command.remove(str(place.unlock_file))
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **place.identity())


async def test_a_key_is_rotated_by_command_and_the_audit_tells_of_it(place) -> None:
    place.keygen()
    place.start()
    signer = GrpcSigner(str(place.socket))
    await signer.sign(MESSAGE, scope="platform", key_id="root-1")
    done = asked(place, "rotate", "--from", "root-1", "--to", "root-2", "--window", "1h")
    assert done.returncode == 0, done.stderr
    assert "root-2 follows root-1" in done.stdout
    again = asked(place, "rotate", "--from", "root-1", "--to", "root-3", "--json")
    assert (again.returncode, again.stderr.count("\n")) == (6, 1)
    assert [line.split()[1:3] for line in asked(place, "keys").stdout.splitlines()] == [
        ["root-1", "rotating"],
        ["root-2", "active"],
    ]
    await signer.sign(MESSAGE, scope="platform", key_id="root-2")
    told = canonical.decode_object(asked(place, "audit", "--json").stdout.encode())
    calls = [(one["call"], one["key_id"], one["outcome"]) for one in told["entries"]]
    assert ("sign", "root-1", "granted") in calls
    assert ("rotate", "root-2", "granted") in calls
    assert ("rotate", "root-3", "caveat_violation") in calls
    assert "sign unix platform root-2 granted" in asked(place, "audit").stdout
    assert asked(place, "audit", "--month", "1999-01").returncode == 5


async def test_a_key_is_made_while_the_signer_runs(place) -> None:
    place.keygen()
    place.start()
    made = place.keygen("--key-id", "other")
    assert made.returncode == 0, made.stderr
    assert await GrpcSigner(str(place.socket)).sign(MESSAGE, scope="platform", key_id="other")


def test_a_published_audit_is_verified_offline(place) -> None:
    place.keygen()
    child = place.start()
    for _ in range(3):
        asked(place, "keys")
    told = canonical.decode_object(asked(place, "audit", "--json").stdout.encode())
    child.terminate()
    assert child.wait(20) == 0
    folder = place.state / "audit" / told["month"]
    checked = subprocess.run(
        ["seipd-verify", "ledger", str(folder), "--key", told["vkey"]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stderr


def test_a_signer_that_is_not_there_is_said(place) -> None:
    for words in (("keys",), ("audit",), ("rotate", "--from", "a", "--to", "b")):
        done = asked(place, *words)
        assert (done.returncode, done.stderr.count("\n")) == (7, 1)


def test_a_profile_that_does_not_allow_it_is_said_before_anything_is_made(place) -> None:
    for words in (("--profile", "saas"), ("--listen", "127.0.0.1:0")):
        child = place.start(*words)
        assert child.wait(20) == 2
    wait_until(lambda: "does not allow" in (place.folder / "signer.log").read_text())
    assert not place.socket.exists()
