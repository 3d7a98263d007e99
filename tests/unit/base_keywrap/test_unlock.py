"""Where the unlock secret is looked for, and what is told when it is not there."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from services.base.keywrap.unlock import NoUnlockError, create_unlock_file, read_unlock
from services.base.storage.files import KeyPermissionsError, UnsafeFileError
from services.kernel.errors import ConflictError
from services.kernel.ids import b64u_decode

if TYPE_CHECKING:
    from pathlib import Path

NAME = "seipd-unlock"


def test_a_new_unlock_file_is_private_random_and_read_back(tmp_path: Path):
    path = tmp_path / "seipd.unlock"
    unlock = create_unlock_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(b64u_decode(unlock.decode())) == 32
    assert read_unlock(path, None, NAME) == unlock
    assert create_unlock_file(tmp_path / "other") != unlock


def test_an_unlock_file_is_never_overwritten(tmp_path: Path):
    unlock = create_unlock_file(tmp_path / "u")
    with pytest.raises(ConflictError) as caught:
        create_unlock_file(tmp_path / "u")
    assert caught.value.mend
    assert read_unlock(tmp_path / "u", None, NAME) == unlock


def test_a_credential_goes_before_the_file(tmp_path: Path):
    create_unlock_file(tmp_path / "u")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / NAME).write_bytes(b"from the service manager\n")
    (credentials / NAME).chmod(0o440)  # as an access list shows
    assert read_unlock(tmp_path / "u", credentials, NAME) == b"from the service manager"


def test_without_such_a_credential_the_file_counts(tmp_path: Path):
    unlock = create_unlock_file(tmp_path / "u")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    assert read_unlock(tmp_path / "u", credentials, NAME) == unlock


@pytest.mark.parametrize("content", [b"", b"\n", b"too short\n"])
def test_a_secret_to_laugh_at_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "u").write_bytes(content)
    (tmp_path / "u").chmod(0o600)
    with pytest.raises(NoUnlockError) as caught:
        read_unlock(tmp_path / "u", None, NAME)
    assert caught.value.code == "no_unlock"
    assert caught.value.mend


def test_a_missing_secret_is_named(tmp_path: Path):
    with pytest.raises(NoUnlockError, match=r"u\.unlock"):
        read_unlock(tmp_path / "u.unlock", None, NAME)
    with pytest.raises(NoUnlockError, match=NAME):
        read_unlock(None, tmp_path, NAME)
    with pytest.raises(NoUnlockError) as caught:
        read_unlock(None, None, NAME)
    assert NAME in caught.value.mend


def test_sto_08_refuses_an_unlock_file_that_others_can_read(tmp_path: Path):
    create_unlock_file(tmp_path / "u")
    (tmp_path / "u").chmod(0o644)
    with pytest.raises(KeyPermissionsError):
        read_unlock(tmp_path / "u", None, NAME)


def test_sto_09_refuses_an_unlock_file_that_is_a_link(tmp_path: Path):
    create_unlock_file(tmp_path / "u")
    (tmp_path / "link").symlink_to(tmp_path / "u")
    with pytest.raises(UnsafeFileError):
        read_unlock(tmp_path / "link", None, NAME)
