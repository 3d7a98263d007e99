"""A key follows another in its window, whatever holds the two; and moves into hardware."""

from __future__ import annotations

import contextlib
import shutil

import pytest

from seipd.signerd.providers.moving import MovingProvider
from seipd.signerd.rows import KeyState, Rotation
from seipd.signerd.state import SignerState
from services.base.crypto.signatures import verify
from services.kernel.errors import ForbiddenError, NotFoundError
from tests.fakes.key_providers import HARDWARE, software

PURPOSE = "seipd/record/v1"
MESSAGE = PURPOSE.encode() + b"\0{}"
WINDOW = Rotation(
    scope="platform", old_key_id="root-1", new_key_id="root-2", opens_at_ms=1000, closes_at_ms=2000
)


def signed(state: SignerState, key_id: str, *, now_ms: int) -> bool:
    """Sign as the service does; say whether it verifies under the key's own row."""
    row = state.table_at(now_ms).may_sign("platform", key_id, MESSAGE, now_ms=now_ms)
    return verify(row.public_key, MESSAGE, state.provider.sign(row.handle, MESSAGE))


def refusal(state: SignerState, key_id: str, *, now_ms: int) -> str:
    with pytest.raises(ForbiddenError) as caught:
        signed(state, key_id, now_ms=now_ms)
    return caught.value.code


@contextlib.contextmanager
def signer(folder, provider):
    state = SignerState(folder / "signer", provider)
    state.open()
    try:
        yield state
    finally:
        state.close()


def test_sgn_04_both_sign_in_the_window_and_outside_of_it_one(opened, tmp_path) -> None:
    with signer(tmp_path, opened()) as state:
        old = state.keygen("platform", "root-1", [PURPOSE], now_ms=0)
        _, new = state.rotate(WINDOW, now_ms=500)
        assert new.public_key != old.public_key
        assert signed(state, "root-1", now_ms=999)
        assert refusal(state, "root-2", now_ms=999) == "rotation_in_progress"
        for key_id in ("root-1", "root-2"):
            assert signed(state, key_id, now_ms=1000)
            assert signed(state, key_id, now_ms=1999)
        assert refusal(state, "root-1", now_ms=2000) == "key_retired"
        assert signed(state, "root-2", now_ms=2000)


def test_sgn_04_a_rotation_outlives_the_process_and_is_made_once(opened, tmp_path) -> None:
    with signer(tmp_path, opened()) as state:
        state.keygen("platform", "root-1", [PURPOSE], now_ms=0)
        _, made = state.rotate(WINDOW, now_ms=500)
    with signer(tmp_path, opened()) as state:
        assert state.rotate(WINDOW, now_ms=600)[1].public_key == made.public_key
        state.check()
        assert signed(state, "root-1", now_ms=1500)
        assert signed(state, "root-2", now_ms=1500)


def test_sgn_04_a_key_that_was_made_before_a_crash_is_the_one_that_is_taken(
    opened, tmp_path
) -> None:
    with signer(tmp_path, opened()) as state:
        state.keygen("platform", "root-1", [PURPOSE], now_ms=0)
        # As far as a rotation comes that ends before its rows are written.
        made = state.provider.generate("platform/root-2")
    with signer(tmp_path, opened()) as state:
        assert state.rotate(WINDOW, now_ms=500)[1].public_key == made


@pytest.mark.parametrize("hardware", HARDWARE)
def test_a_root_moves_from_a_sealed_file_into_hardware_by_a_rotation(
    hardware, tmp_path, monkeypatch
) -> None:
    with contextlib.ExitStack() as stack:
        in_files = software(tmp_path, monkeypatch, stack)
        in_hardware = hardware(tmp_path, monkeypatch, stack)
        with signer(tmp_path, in_files()) as state:
            state.keygen("platform", "root-1", [PURPOSE], now_ms=0)
        with signer(tmp_path, MovingProvider(old=in_files(), new=in_hardware())) as state:
            state.check()
            _, new = state.rotate(WINDOW, now_ms=500)
            assert signed(state, "root-1", now_ms=1500)
            assert signed(state, "root-2", now_ms=1500)
            assert state.table_at(2000).find("platform", "root-1").state is KeyState.RETIRED
        shutil.rmtree(tmp_path / "keys")
        with signer(tmp_path, in_hardware()) as state:
            with pytest.raises(NotFoundError):
                state.check(now_ms=1999)
            state.check(now_ms=2000)
            assert signed(state, "root-2", now_ms=3000)
            assert state.provider.public_key("platform/root-2") == new.public_key
