"""The signer with its keys elsewhere: founding, rotating, moving; and the fake of AWS KMS."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from services.base.crypto.signatures import verify
from services.base.keywrap.unlock import create_unlock_file
from services.base.signing.keys_client import GrpcKeys
from services.kernel import canonical
from services.kernel.errors import ForbiddenError, InputError, UnavailableError
from services.kernel.ids import mesh_id_of
from services.runtime.clock import SystemClock
from tests.fakes.fake_kms import FakeKms
from tests.fakes.signer_hardware import MESSAGE, Hardware, end, over_kms, over_token
from tests.fakes.signers import CHECKOUT, Place, signer_user_can_run
from tests.fakes.softhsm import SoftToken, needs_softhsm

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not signer_user_can_run(), reason="needs root and a user seipd-signer"),
]


@pytest.fixture
def place():
    place = Place()
    yield place
    place.close()


@pytest.fixture
def token(place):
    return SoftToken(place.folder / "hsm")


@pytest.fixture
def with_token(place, token):
    return over_token(place, token)


@pytest.fixture
def kms():
    kms = FakeKms()
    yield kms
    kms.close()


@pytest.fixture
def with_kms(place, kms):
    return over_kms(place, kms)


@pytest.mark.parametrize("where", [pytest.param("with_token", marks=needs_softhsm), "with_kms"])
async def test_a_mesh_is_founded_on_a_root_that_is_never_in_a_file(request, where) -> None:
    hardware = request.getfixturevalue(where)
    place = hardware.place
    assert hardware.keygen().returncode == 0
    hardware.start()
    init = ["init", "--domain", "mesh.example", "--region", "eu-central", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "seipd", "--data-root", str(place.folder / "data"), *init],
        cwd=CHECKOUT,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    public_key = await hardware.public_key()
    assert canonical.decode_object(done.stdout)["mesh_id"] == mesh_id_of(public_key)
    assert not (place.state / "keys").exists()
    assert not place.unlock_file.exists()


@pytest.fixture
def with_moving(with_kms):
    """A signer whose root lies in a sealed file yet, and whose next keys are KMS's."""
    place, elsewhere = with_kms.place, with_kms.environment
    create_unlock_file(place.unlock_file)
    with_kms.give(place.unlock_file)
    with_kms.environment = {}
    assert with_kms.keygen().returncode == 0
    with_kms.environment = elsewhere
    return with_kms


@pytest.mark.parametrize(
    "where", [pytest.param("with_token", marks=needs_softhsm), "with_kms", "with_moving"]
)
async def test_sgn_04_a_root_rotates_while_it_signs_without_a_restart(request, where) -> None:
    hardware = request.getfixturevalue(where)
    assert hardware.keygen().returncode == 0
    hardware.start()
    old_key = await hardware.public_key()
    keys = GrpcKeys(str(hardware.place.socket))
    now_ms = SystemClock().now_ms()
    async with asyncio.TaskGroup() as group:
        signed = [group.create_task(hardware.sign()) for _ in range(20)]
        rotated = group.create_task(
            keys.rotate(
                scope="platform",
                old_key_id="root-1",
                new_key_id="root-2",
                opens_at_ms=now_ms,
                closes_at_ms=now_ms + 5000,
            )
        )
        signed += [group.create_task(hardware.sign()) for _ in range(20)]
    new_key = rotated.result().new_public_key
    assert new_key != old_key
    assert all(verify(old_key, MESSAGE, one.result()) for one in signed)
    assert verify(new_key, MESSAGE, await hardware.sign(key_id="root-2"))
    async with asyncio.timeout(30):
        while True:
            try:
                await hardware.sign()
            except ForbiddenError as error:
                ended = error.code
                break
            await asyncio.sleep(0.1)
    assert ended == "key_retired"
    assert SystemClock().now_ms() >= now_ms + 5000
    assert verify(new_key, MESSAGE, await hardware.sign(key_id="root-2"))


async def test_a_root_in_kms_signs_and_is_the_same_after_a_restart(with_kms, kms) -> None:
    made = with_kms.keygen()
    assert made.returncode == 0, made.stderr
    end(with_kms.start())
    with_kms.start()
    public_key = await with_kms.public_key()
    assert verify(public_key, MESSAGE, await with_kms.sign())
    assert kms.asked["CreateKey"] == 1
    with pytest.raises(InputError) as caught:
        await with_kms.sign(MESSAGE + bytes(4096))
    assert caught.value.code == "message_too_long"
    assert kms.secret not in with_kms.log() + made.stdout + made.stderr


async def test_sgn_10_a_key_service_that_is_away_is_said_and_back_it_signs(with_kms, kms) -> None:
    assert with_kms.keygen().returncode == 0
    with_kms.start()
    public_key = await with_kms.public_key()
    kms.faults.extend(["drop"] * 20)
    with pytest.raises(UnavailableError) as caught:
        await with_kms.sign()
    assert caught.value.code == "provider_unavailable"
    assert "KMS can't be reached" in with_kms.log()
    kms.faults.clear()
    assert verify(public_key, MESSAGE, await with_kms.sign())


def test_an_access_key_that_is_refused_leaves_no_row(with_kms, kms) -> None:
    kms.secret = "another than in the file"
    refused = with_kms.keygen()
    assert refused.returncode == 7
    assert refused.stderr.startswith("error: KMS refuses: InvalidSignatureException — look at")
    assert not (with_kms.place.state / "keys.json").exists()
    assert kms.keys == {}


def test_another_provider_than_before_is_said_with_the_mend(with_kms) -> None:
    assert with_kms.keygen().returncode == 0
    place = with_kms.place
    create_unlock_file(place.unlock_file)
    with_kms.give(place.unlock_file)
    with_kms.environment = {}
    assert with_kms.start().wait(20) == 5
    assert "give the --provider that has the key" in with_kms.log()


def test_a_provider_that_is_not_described_is_wrong_usage(place) -> None:
    hardware = Hardware(place, {"SEIPD_SIGNER_PROVIDER": "pkcs11"})
    refused = hardware.keygen()
    assert refused.returncode == 2
    assert "--pkcs11-module" in refused.stderr
    assert not (place.state / "lock").exists()
