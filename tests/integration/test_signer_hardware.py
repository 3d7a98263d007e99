"""The signer with its keys elsewhere: a real PKCS#11 token (SoftHSM2), and a fake of AWS KMS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pkcs11
import pytest

from services.base.crypto.signatures import verify
from services.base.keywrap.unlock import create_unlock_file
from services.base.signing.client import GrpcSigner
from services.base.signing.keys_client import GrpcKeys
from services.kernel import canonical
from services.kernel.errors import ForbiddenError, InputError, SeipdError, UnavailableError
from services.kernel.ids import mesh_id_of
from services.runtime.clock import SystemClock
from tests.fakes.fake_kms import REGION, FakeKms
from tests.fakes.signers import CHECKOUT, RECORD, Place, signer_user_can_run
from tests.fakes.softhsm import LABEL, PIN, SoftToken, needs_softhsm

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not signer_user_can_run(), reason="needs root and a user seipd-signer"),
]

MESSAGE = b"seipd/record/v1\0" + bytes(32) + b"{}"
ROOT = "platform/root-1"


class Hardware:
    """A place whose signer keeps its keys elsewhere, as a unit with a drop-in would start it."""

    def __init__(self, place: Place, environment: dict[str, str]) -> None:
        self.place = place
        self.environment = environment
        place.state.mkdir(mode=0o710)
        self.give(place.state)

    def give(self, path: Path) -> None:
        """Make something, and all in it, the signer's."""
        for one in (path, *path.rglob("*")):
            os.chown(one, self.place.uid, self.place.uid)

    def secret(self, name: str, text: str) -> str:
        """Write a file that is the signer's alone."""
        path = self.place.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        self.give(path)
        return str(path)

    def keygen(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.place.command("keygen", "--purpose", RECORD, *words),
            capture_output=True,
            text=True,
            timeout=60,
            **self.place.identity(env=self.environment),
        )

    def start(self):
        return self.place.start(**self.environment)

    def log(self) -> str:
        return (self.place.folder / "signer.log").read_text()

    async def sign(self, data: bytes = MESSAGE, key_id: str = "root-1") -> bytes:
        signer = GrpcSigner(str(self.place.socket))
        return await signer.sign(data, scope="platform", key_id=key_id)

    async def public_key(self) -> bytes:
        signer = GrpcSigner(str(self.place.socket))
        return (await signer.public_key(scope="platform", key_id="root-1")).public_key


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
    hardware = Hardware(place, {})
    hardware.give(place.folder / "hsm")
    hardware.environment = {
        "SOFTHSM2_CONF": str(token.config),
        "SEIPD_SIGNER_PROVIDER": "pkcs11",
        "SEIPD_SIGNER_PKCS11_MODULE": token.module,
        "SEIPD_SIGNER_PKCS11_TOKEN": LABEL,
        "SEIPD_SIGNER_PKCS11_PIN_FILE": hardware.secret("pin", PIN + "\n"),
    }
    return hardware


@pytest.fixture
def kms():
    kms = FakeKms()
    yield kms
    kms.close()


@pytest.fixture
def with_kms(place, kms):
    hardware = Hardware(place, {})
    hardware.environment = {
        "SEIPD_SIGNER_PROVIDER": "kms",
        "SEIPD_SIGNER_KMS_REGION": REGION,
        "SEIPD_SIGNER_KMS_ENDPOINT": kms.endpoint,
        "SEIPD_SIGNER_KMS_CREDENTIALS_FILE": hardware.secret("aws", kms.credentials_file()),
    }
    return hardware


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """Return a token of this process and what opens providers of it."""
    token, made = SoftToken(tmp_path / "hsm"), []
    token.use(monkeypatch)
    opener = token.open

    def opened(**options):
        made.append(opener(**options))
        return made[-1]

    token.open = opened
    yield token
    for provider in made:
        provider.close()


def code_of(call, *arguments) -> str:
    with pytest.raises(SeipdError) as caught:
        call(*arguments)
    return caught.value.code


def end(child) -> None:
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0


@needs_softhsm
async def test_a_root_in_a_token_signs_and_is_the_same_after_a_restart(with_token) -> None:
    made = with_token.keygen()
    assert made.returncode == 0, made.stderr
    first = with_token.start()
    public_key = await with_token.public_key()
    assert verify(public_key, MESSAGE, await with_token.sign())
    end(first)
    end(with_token.start())
    with_token.start()
    assert await with_token.public_key() == public_key
    assert verify(public_key, MESSAGE, await with_token.sign())
    assert with_token.keygen().returncode == 6, "the lock is held"
    assert not (with_token.place.state / "keys").exists()
    assert PIN not in with_token.log() + made.stdout + made.stderr


@needs_softhsm
async def test_sgn_09_the_wrong_pin_ends_the_signer_at_once_and_locks_nothing(
    with_token, token
) -> None:
    assert with_token.keygen().returncode == 0
    pin_file = Path(with_token.environment["SEIPD_SIGNER_PKCS11_PIN_FILE"])
    pin_file.write_text("31415926535\n")
    signer = with_token.start()
    assert signer.wait(20) == 2, "a status after which the unit does not start it again"
    said = with_token.log()
    assert "error: the token seipd test refuses the PIN — correct the PIN file" in said
    assert "31415926535" not in said
    pin_file.write_text(PIN + "\n")
    with_token.start()
    assert await with_token.sign()


@needs_softhsm
async def test_sgn_09_other_tokens_change_the_slots_and_not_the_key(with_token, token) -> None:
    assert with_token.keygen().returncode == 0
    end(with_token.start())
    for number in range(3):
        token.add(f"another {number}")
    with_token.give(token.tokens)
    with_token.start()
    assert verify(await with_token.public_key(), MESSAGE, await with_token.sign())


@needs_softhsm
def test_sgn_09_a_missing_token_ends_the_signer_so_that_its_unit_tries_again(
    with_token, token
) -> None:
    assert with_token.keygen().returncode == 0
    for folder in token.tokens.iterdir():
        folder.rename(with_token.place.folder / folder.name)
    assert with_token.start().wait(20) == 1
    assert "error: there is no token labelled seipd test — plug it in" in with_token.log()


@needs_softhsm
async def test_sgn_09_a_token_that_can_t_be_written_signs_and_makes_no_key(
    with_token, token
) -> None:
    assert with_token.keygen().returncode == 0
    for path in (*token.tokens.rglob("*"), token.tokens):
        path.chmod(0o500 if path.is_dir() else 0o400)
    before = (with_token.place.state / "keys.json").read_bytes()
    refused = with_token.keygen("--key-id", "root-2")
    assert refused.returncode in (1, 2)
    assert refused.stderr.startswith("error: the token")
    assert refused.stderr.count("\n") == 1
    assert (with_token.place.state / "keys.json").read_bytes() == before
    with_token.start()
    assert verify(await with_token.public_key(), MESSAGE, await with_token.sign())


@contextlib.contextmanager
def files_held(folder: Path):
    """Hold the locks of all files, for which SoftHSM waits without end."""
    script = (
        "import fcntl, sys\n"
        "from pathlib import Path\n"
        "files = [p.open('r+b') for p in Path(sys.argv[1]).rglob('*') if p.is_file()]\n"
        "for file in files:\n"
        "    fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print(len(files), flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert int(holder.stdout.readline()) > 0
        yield
    finally:
        holder.communicate()


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@needs_softhsm
async def test_a_library_that_hangs_is_unavailable_and_the_others_are_answered(
    with_token, token
) -> None:
    assert with_token.keygen().returncode == 0
    signer = with_token.start()
    public_key = await with_token.public_key()
    assert await with_token.sign()
    before = threads_of(signer.pid)
    with files_held(token.tokens):
        for _ in range(30):
            with pytest.raises(UnavailableError) as caught:
                await with_token.sign()
            assert caught.value.code == "provider_unavailable"
        assert await with_token.public_key() == public_key
        assert threads_of(signer.pid) <= before + 8, "those of the loop, and none a call"
        assert "does not answer within 3.7 s" in with_token.log()
        assert "still hangs in an earlier call" in with_token.log()
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(UnavailableError):
                signature = await with_token.sign()
                break
            await asyncio.sleep(0.05)
    assert verify(public_key, MESSAGE, signature)
    end(signer)


@needs_softhsm
def test_sgn_09_a_session_that_the_library_lost_is_opened_anew(in_process) -> None:
    provider = in_process.open()
    public_key = provider.generate(ROOT)
    in_process.library().reinitialize()
    assert verify(public_key, b"words", provider.sign(ROOT, b"words"))


@needs_softhsm
def test_sgn_09_a_token_that_vanished_is_missing_until_it_is_back(in_process) -> None:
    provider = in_process.open()
    public_key = provider.generate(ROOT)
    away = in_process.tokens.with_name("away")
    in_process.tokens.rename(away)
    in_process.tokens.mkdir()
    in_process.library().reinitialize()
    assert code_of(provider.sign, ROOT, b"words") == "token_missing"
    in_process.tokens.rmdir()
    away.rename(in_process.tokens)
    in_process.library().reinitialize()
    assert verify(public_key, b"words", provider.sign(ROOT, b"words"))


@needs_softhsm
def test_sgn_09_a_real_token_notes_the_one_wrong_pin_and_takes_the_right_one_after(
    in_process,
) -> None:
    wrong = in_process.open(pin="31415926")
    assert [code_of(wrong.public_key, ROOT) for _ in range(3)] == ["pin_wrong"] * 3
    flags = in_process.library().get_token(token_label=LABEL).flags
    assert flags & pkcs11.TokenFlag.USER_PIN_COUNT_LOW
    assert in_process.open().generate(ROOT)
    flags = in_process.library().get_token(token_label=LABEL).flags
    assert not flags & pkcs11.TokenFlag.USER_PIN_COUNT_LOW


@needs_softhsm
def test_a_key_made_in_the_token_can_t_be_taken_out(in_process) -> None:
    in_process.open().generate(ROOT)
    in_process.library().reinitialize()
    session = in_process.library().get_token(token_label=LABEL).open(user_pin=PIN)
    key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=ROOT)
    attribute = pkcs11.Attribute
    for name, value in (("SENSITIVE", 1), ("EXTRACTABLE", 0), ("NEVER_EXTRACTABLE", 1)):
        assert key[attribute[name]] == bool(value), name
    with pytest.raises(pkcs11.AttributeSensitive):
        key[attribute.VALUE]
    session.close()


@needs_softhsm
def test_a_key_of_another_s_making_that_could_be_taken_out_is_refused(in_process) -> None:
    attribute = pkcs11.Attribute
    with in_process.library().get_token(token_label=LABEL).open(rw=True, user_pin=PIN) as session:
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC_EDWARDS,
            {attribute.EC_PARAMS: b"\x13\x0cedwards25519"},
            local=True,
        )
        for label, extractable in ((ROOT, True), ("platform/root-2", False)):
            parameters.generate_keypair(
                mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
                store=True,
                label=label,
                private_template={attribute.SENSITIVE: True, attribute.EXTRACTABLE: extractable},
            )
    provider = in_process.open()
    assert code_of(provider.public_key, ROOT) == "key_extractable"
    # One that is kept inside is taken as it is; its curve is told by name, not by number.
    public_key = provider.generate("platform/root-2")
    assert verify(public_key, b"words", provider.sign("platform/root-2", b"words"))


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
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: KMS refuses: InvalidSignatureException — look at")
    assert not (with_kms.place.state / "keys.json").exists()
    assert kms.keys == {}


def test_another_provider_than_before_is_said_with_the_mend(with_kms) -> None:
    assert with_kms.keygen().returncode == 0
    place = with_kms.place
    create_unlock_file(place.unlock_file)
    with_kms.give(place.unlock_file)
    with_kms.environment = {}
    assert with_kms.start().wait(20) == 1
    assert "give the --provider that has the key" in with_kms.log()


def test_a_provider_that_is_not_described_is_wrong_usage(place) -> None:
    hardware = Hardware(place, {"SEIPD_SIGNER_PROVIDER": "pkcs11"})
    refused = hardware.keygen()
    assert refused.returncode == 2
    assert "--pkcs11-module" in refused.stderr
    assert not (place.state / "lock").exists()
