"""The signer over a real PKCS#11 library: SoftHSM2."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import pkcs11
import pytest

from services.base.crypto.signatures import verify
from services.kernel.errors import SeipdError, UnavailableError
from tests.fakes.signer_hardware import MESSAGE, end, over_token
from tests.fakes.signers import Place, signer_user_can_run
from tests.fakes.softhsm import LABEL, PIN, SoftToken, needs_softhsm

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not signer_user_can_run(), reason="needs root and a user seipd-signer"),
    needs_softhsm,
]

ROOT = "platform/root-1"


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
    assert with_token.keygen().stdout == made.stdout, "the running signer is asked"
    assert not (with_token.place.state / "keys").exists()
    assert PIN not in with_token.log() + made.stdout + made.stderr


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


async def test_sgn_09_other_tokens_change_the_slots_and_not_the_key(with_token, token) -> None:
    assert with_token.keygen().returncode == 0
    end(with_token.start())
    for number in range(3):
        token.add(f"another {number}")
    with_token.give(token.tokens)
    with_token.start()
    assert verify(await with_token.public_key(), MESSAGE, await with_token.sign())


def test_sgn_09_a_missing_token_ends_the_signer_so_that_its_unit_tries_again(
    with_token, token
) -> None:
    assert with_token.keygen().returncode == 0
    for folder in token.tokens.iterdir():
        folder.rename(with_token.place.folder / folder.name)
    assert with_token.start().wait(20) == 7
    assert "error: there is no token labelled seipd test — plug it in" in with_token.log()


async def test_sgn_09_a_token_that_can_t_be_written_signs_and_makes_no_key(
    with_token, token
) -> None:
    assert with_token.keygen().returncode == 0
    for path in (*token.tokens.rglob("*"), token.tokens):
        path.chmod(0o500 if path.is_dir() else 0o400)
    before = (with_token.place.state / "keys.json").read_bytes()
    refused = with_token.keygen("--key-id", "root-2")
    assert refused.returncode == 7
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


def test_sgn_09_a_session_that_the_library_lost_is_opened_anew(in_process) -> None:
    provider = in_process.open()
    public_key = provider.generate(ROOT)
    in_process.library().reinitialize()
    assert verify(public_key, b"words", provider.sign(ROOT, b"words"))


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
