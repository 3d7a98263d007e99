"""The signer's folder: keys made once, sealed, locked, and honest about damage."""

from __future__ import annotations

import base64
import os
import stat
from typing import TYPE_CHECKING

import pytest

from seipd.signerd.providers.software import SoftwareProvider
from seipd.signerd.rows import KeyState
from seipd.signerd.state import SignerState
from services.base.crypto.kdf import Argon2Cost
from services.kernel.errors import (
    ConflictError,
    CorruptError,
    InputError,
    SeipdError,
)

if TYPE_CHECKING:
    from pathlib import Path

UNLOCK = b"an unlock secret of forty bytes, or more"
RECORD = "seipd/record/v1"
CHEAP = Argon2Cost(opslimit=1, memlimit_bytes=8192)
DOMAIN = "domain:0190b3a0-0000-7000-8000-000000000001"


class Shelf:
    """Opens states one after the other, and closes what a test leaves open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: list[SignerState] = []

    def provider(self, unlock: bytes = UNLOCK) -> SoftwareProvider:
        return SoftwareProvider(self.folder / "keys", unlock=unlock, cost=CHEAP)

    def opened(self, unlock: bytes = UNLOCK) -> SignerState:
        state = SignerState(self.folder, self.provider(unlock))
        self._made.append(state)
        state.open()
        return state

    def close(self) -> None:
        for state in self._made:
            state.close()


@pytest.fixture
def shelf(tmp_path):
    shelf = Shelf(tmp_path / "signer")
    yield shelf
    shelf.close()


def code_of(call, *args) -> str:
    with pytest.raises(SeipdError) as caught:
        call(*args)
    return caught.value.code


def test_a_key_is_made_once(shelf) -> None:
    state = shelf.opened()
    made = state.keygen("platform", "root-1", [RECORD])
    assert state.keygen("platform", "root-1", [RECORD, RECORD]) == made
    state.close()
    assert shelf.opened().keygen("platform", "root-1", [RECORD]) == made


def test_the_same_name_in_another_scope_is_another_key(shelf) -> None:
    state = shelf.opened()
    keys = [state.keygen(scope, "root-1", [RECORD]).public_key for scope in ("platform", DOMAIN)]
    assert keys[0] != keys[1]


def test_other_purposes_are_not_slipped_under_a_key(shelf) -> None:
    state = shelf.opened()
    state.keygen("platform", "root-1", [RECORD])
    assert code_of(state.keygen, "platform", "root-1", [RECORD, "seipd/token/v1"]) == "key_exists"
    assert state.table().rows[0].purposes == (RECORD,)


def test_bad_names_make_nothing(shelf) -> None:
    state = shelf.opened()
    for scope, key_id, purpose in (
        ("everything", "root-1", RECORD),
        ("platform", "../root", RECORD),
        ("platform", "root-1", "x"),
    ):
        with pytest.raises(InputError):
            state.keygen(scope, key_id, [purpose])
    assert sorted(path.name for path in shelf.folder.iterdir()) == ["lock"]


def test_a_key_made_before_a_crash_is_taken_up_again(shelf) -> None:
    handle = "platform/root-1"
    shelf.opened().close()
    public_key = shelf.provider().generate(handle)  # and then the power went, before keys.json
    assert shelf.opened().keygen("platform", "root-1", [RECORD]).public_key == public_key


def test_a_second_signer_is_refused(shelf) -> None:
    first = shelf.opened()
    with pytest.raises(ConflictError) as caught:
        shelf.opened()
    assert caught.value.code == "locked"
    first.close()
    first.close()
    shelf.opened()


def test_states_are_kept(shelf) -> None:
    state = shelf.opened()
    state.keygen("platform", "root-1", [RECORD])
    assert state.retire("platform", "root-1", now_ms=5).state is KeyState.RETIRED
    assert state.table().rows[0].state is KeyState.RETIRED
    assert state.table().rows[0].valid_until_ms == 5
    assert code_of(lambda: state.retire("platform", "root-2", now_ms=5)) == "key_unknown"


def test_rkc_16_no_file_holds_the_seed_in_clear_and_none_is_readable_by_others(shelf) -> None:
    state = shelf.opened()
    state.keygen("platform", "root-1", [RECORD])
    seed = state.provider._key("platform/root-1").seed
    spellings = [
        seed,
        seed[::-1],
        seed.hex().encode(),
        seed.hex().upper().encode(),
        base64.b64encode(seed).rstrip(b"="),
        base64.urlsafe_b64encode(seed).rstrip(b"="),
    ]
    files = [path for path in shelf.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"keys.json", "lock"}
    for path in files:
        content = path.read_bytes()
        assert not any(spelling in content for spelling in spellings), path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((shelf.folder / "keys").stat().st_mode) == 0o700
    assert stat.S_IMODE(shelf.folder.stat().st_mode) == 0o710


def test_another_unlock_secret_opens_nothing_and_makes_nothing(shelf) -> None:
    state = shelf.opened()
    state.keygen("platform", "root-1", [RECORD])
    state.close()
    wrong = shelf.opened(b"some other secret of forty bytes or more")
    before = {path: path.read_bytes() for path in shelf.folder.rglob("*") if path.is_file()}
    assert code_of(wrong.check) == "key_unwrap_failed"
    assert code_of(wrong.keygen, "platform", "root-2", [RECORD]) == "key_unwrap_failed"
    assert before == {path: path.read_bytes() for path in before}


def test_a_sealed_key_put_in_anothers_place_is_found_out(shelf) -> None:
    state = shelf.opened()
    state.keygen("platform", "root-1", [RECORD])
    (first,) = (shelf.folder / "keys").iterdir()
    state.keygen("platform", "root-2", [RECORD])
    (second,) = set((shelf.folder / "keys").iterdir()) - {first}
    second.write_bytes(first.read_bytes())
    state.close()
    assert code_of(shelf.opened().check) == "key_unwrap_failed"


def test_a_row_with_another_public_key_is_found_out(shelf) -> None:
    state = shelf.opened()
    one = state.keygen("platform", "root-1", [RECORD]).value()["public_key"]
    two = state.keygen("platform", "root-2", [RECORD]).value()["public_key"]
    table = shelf.folder / "keys.json"
    table.write_text(table.read_text().replace(one, "~").replace(two, one).replace("~", two))
    with pytest.raises(CorruptError) as caught:
        state.check()
    assert (caught.value.code, caught.value.path) == ("key_mismatch", "keys.json")


def test_a_lost_key_file_is_named(shelf) -> None:
    state = shelf.opened()
    state.keygen("platform", "root-1", [RECORD])
    state.close()
    next((shelf.folder / "keys").iterdir()).unlink()
    assert code_of(shelf.opened().check) == "key_unknown"


def test_a_retired_key_need_not_open(shelf) -> None:
    state = shelf.opened()
    state.keygen("platform", "root-1", [RECORD])
    state.retire("platform", "root-1", now_ms=5)
    state.close()
    assert list((shelf.folder / "keys").iterdir()) == []
    assert shelf.opened().check().rows[0].state is KeyState.RETIRED


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"null", b"[1]", b"[{}]", b"[ ]", b"\xff", b"[" * 40, b'[{"scope":"platform"}]'],
)
def test_a_damaged_table_is_named_with_the_mend(shelf, content) -> None:
    state = shelf.opened()
    (shelf.folder / "keys.json").write_bytes(content)
    (shelf.folder / "keys.json").chmod(0o600)
    with pytest.raises(CorruptError) as caught:
        state.table()
    assert str(shelf.folder / "keys.json") in str(caught.value)
    assert "backup" in caught.value.mend


def test_a_table_that_others_can_read_is_refused(shelf) -> None:
    state = shelf.opened()
    state.keygen("platform", "root-1", [RECORD])
    (shelf.folder / "keys.json").chmod(0o644)
    assert code_of(state.table) == "key_permissions"


def test_a_link_in_place_of_the_lock_is_not_followed(shelf, tmp_path) -> None:
    shelf.opened().close()
    (shelf.folder / "lock").unlink()
    (shelf.folder / "lock").symlink_to(tmp_path / "elsewhere")
    assert code_of(shelf.opened) == "storage_unavailable"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_a_folder_of_another_user_is_refused(shelf) -> None:
    shelf.opened().close()
    os.chown(shelf.folder, 65534, 65534)
    assert code_of(shelf.opened) == "key_permissions"
