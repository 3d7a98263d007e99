"""The identity of a server over its life: made once, opened at each start, never replaced."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from services.base.crypto import kdf
from services.base.crypto.signatures import verify
from services.base.keywrap.identity import create_identity, identity_exists, load_identity
from services.base.keywrap.wrap import KeyUnwrapError
from services.base.storage import files
from services.base.storage.files import KeyPermissionsError
from services.kernel.errors import ConflictError, CorruptError, NotFoundError, StorageError
from services.kernel.ids import b64u_encode, server_id_of

if TYPE_CHECKING:
    from pathlib import Path

    from services.base.keywrap import identity

CHEAP = kdf.Argon2Cost(opslimit=1, memlimit_bytes=kdf.MIN_MEMLIMIT_BYTES)
UNLOCK = b"an unlock secret of some length"


def create(folder: Path) -> identity.ServerIdentity:
    return create_identity(folder, unlock=UNLOCK, cost=CHEAP)


def load(folder: Path, unlock: bytes = UNLOCK) -> identity.ServerIdentity:
    return load_identity(folder, unlock=unlock, cost=CHEAP)


def test_an_identity_is_made_once_and_is_the_same_after_a_restart(tmp_path: Path):
    made = create(tmp_path / "identity")
    assert load(tmp_path / "identity") == made
    assert load(tmp_path / "identity").wireguard_private_key == made.wireguard_private_key
    assert load(tmp_path / "identity").server_id == server_id_of(made.public_key)
    with pytest.raises(ConflictError):
        create(tmp_path / "identity")
    text = (tmp_path / "identity" / "keypair.pub").read_text()
    assert text == b64u_encode(made.public_key) + "\n"


def test_the_three_keys_are_independent(tmp_path: Path):
    made = create(tmp_path)
    secrets = {
        made.signing_key.seed,
        made.wireguard_private_key,
        made.session_signing_key.seed,
    }
    assert len(secrets) == 3
    assert made.wireguard_public_key != made.public_key
    signature = made.session_signing_key.sign(b"token")
    assert not verify(made.public_key, b"token", signature)


def test_no_private_key_prints_or_lies_about_in_the_clear(tmp_path: Path):
    made = create(tmp_path)
    secrets = (made.signing_key.seed, made.wireguard_private_key, made.session_signing_key.seed)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in secrets:
        assert repr(secret) not in repr(made)
        assert secret not in stored
        assert b64u_encode(secret).encode() not in stored
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_no_identity_is_not_found(tmp_path: Path):
    assert not identity_exists(tmp_path)
    with pytest.raises(NotFoundError) as caught:
        load(tmp_path)
    assert "seipd init" in caught.value.mend


def test_sto_15_another_unlock_secret_does_not_open_it(tmp_path: Path):
    create(tmp_path)
    with pytest.raises(KeyUnwrapError):
        load(tmp_path, b"another unlock secret of some length")


def test_a_public_key_of_another_pair_is_refused(tmp_path: Path):
    create(tmp_path / "a")
    create(tmp_path / "b")
    (tmp_path / "a" / "keypair.pub").write_bytes((tmp_path / "b" / "keypair.pub").read_bytes())
    with pytest.raises(CorruptError) as caught:
        load(tmp_path / "a")
    assert caught.value.code == "identity_mismatch"


def test_sealed_files_are_not_exchangeable(tmp_path: Path):
    create(tmp_path)
    (tmp_path / "session_key.enc").write_bytes((tmp_path / "keypair.enc").read_bytes())
    with pytest.raises(KeyUnwrapError):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * 44, b"\xff", b"A" * 300])
def test_sto_05_a_damaged_public_key_is_told_and_mended_by_removing_it(
    tmp_path: Path, content: bytes
):
    made = create(tmp_path)
    (tmp_path / "keypair.pub").write_bytes(content)
    with pytest.raises(CorruptError) as caught:
        load(tmp_path)
    assert caught.value.path == "keypair.pub"
    (tmp_path / "keypair.pub").unlink()
    assert load(tmp_path) == made
    assert (tmp_path / "keypair.pub").read_text() == b64u_encode(made.public_key) + "\n"


def test_a_lost_private_key_is_never_replaced_by_a_new_one(tmp_path: Path):
    create(tmp_path)
    (tmp_path / "keypair.enc").unlink()
    with pytest.raises(CorruptError, match="lost"):
        load(tmp_path)
    with pytest.raises(ConflictError):
        create(tmp_path)


def test_a_lost_session_key_is_made_anew(tmp_path: Path):
    made = create(tmp_path)
    (tmp_path / "session_key.enc").unlink()
    again = load(tmp_path)
    assert again.public_key == made.public_key
    assert again.session_signing_key != made.session_signing_key
    assert load(tmp_path) == again


@pytest.mark.parametrize("name", ["keypair.enc", "session_key.enc"])
def test_sto_08_refuses_sealed_keys_that_others_can_read(tmp_path: Path, name: str):
    create(tmp_path)
    (tmp_path / name).chmod(0o640)
    with pytest.raises(KeyPermissionsError) as caught:
        load(tmp_path)
    assert caught.value.mend == f"chmod 600 {tmp_path / name}"


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_sto_01_an_interrupted_creation_is_completed_or_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
):
    real_write, count = files.write_atomic, 0

    def write(path: Path, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == failing:
            raise StorageError("no space")
        real_write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", write)
        with pytest.raises(StorageError):
            create(tmp_path)
    if identity_exists(tmp_path):
        assert load(tmp_path) == load(tmp_path)
        assert len(list(tmp_path.iterdir())) == 3
    else:
        assert failing == 1
        create(tmp_path)
