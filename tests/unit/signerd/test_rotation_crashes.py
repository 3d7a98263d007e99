"""A signer that ends at any step of a rotation: one key is active, and asked again it goes on."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest

from seipd.signerd.providers.software import SoftwareProvider
from seipd.signerd.rows import KeyState, Rotation
from seipd.signerd.state import SignerState
from services.base.crypto.kdf import Argon2Cost
from services.base.crypto.signatures import verify
from services.kernel.errors import ForbiddenError, NotFoundError

PURPOSE = "seipd/record/v1"
MESSAGE = PURPOSE.encode() + b"\0{}"
CHEAP = Argon2Cost(opslimit=1, memlimit_bytes=8192)
WINDOW = Rotation(
    scope="platform", old_key_id="root-1", new_key_id="root-2", opens_at_ms=1000, closes_at_ms=2000
)
STEPS = (
    "open",
    "write",
    "fsync",
    "replace",
    "rename",
    "link",
    "unlink",
    "close",
    "chmod",
    "fchmod",
)


class CrashError(BaseException):
    """The process ended here: no handler of errors is meant to see it."""


def opened(folder) -> SignerState:
    state = SignerState(folder, SoftwareProvider(folder / "keys", unlock=b"u" * 32, cost=CHEAP))
    state.open()
    return state


def crash_at(step: int, work) -> bool:
    """Do something that ends before its n-th call to the system; say whether it came so far.

    Nothing it calls from then on is done, so that nothing is tidied up, as when a process is
    killed; what the system itself does then, it closes files and so lets go of locks, is done.
    """
    left, held, thread = step, set(), threading.get_ident()

    def ending(name, call):
        def called(*arguments, **options):
            nonlocal left
            if threading.get_ident() != thread:
                return call(*arguments, **options)
            left -= 1
            if left < 0:
                raise CrashError
            result = call(*arguments, **options)
            if name == "open":
                held.add(result)
            elif name == "close":
                held.discard(arguments[0])
            return result

        return called

    with pytest.MonkeyPatch.context() as patched:
        for name in STEPS:
            patched.setattr(os, name, ending(name, getattr(os, name)))
        with contextlib.suppress(CrashError):
            work()
    for descriptor in held:
        os.close(descriptor)
    return left < 0


def signs(state: SignerState, key_id: str, now_ms: int) -> str:
    try:
        row = state.table_at(now_ms).may_sign("platform", key_id, MESSAGE, now_ms=now_ms)
    except (ForbiddenError, NotFoundError) as error:
        return error.code
    return (
        "good" if verify(row.public_key, MESSAGE, state.provider.sign(row.handle, MESSAGE)) else ""
    )


def test_sgn_04_a_crash_at_each_step_of_a_rotation_leaves_one_active_key(tmp_path) -> None:
    before = 0
    for step in range(200):
        folder = tmp_path / str(step)
        state = opened(folder)
        first = state.keygen("platform", "root-1", [PURPOSE])
        state.close()

        def rotate(folder=folder) -> None:
            opened(folder).rotate(WINDOW, now_ms=500)

        crashed = crash_at(step, rotate)
        state = opened(folder)
        assert [path.name for path in folder.rglob(".*")] == []
        active = [row for row in state.check().rows if row.state is KeyState.ACTIVE]
        made = len(state.table().rows) == 2
        assert made or crashed
        before += not made
        assert active[0] == first or made
        assert signs(state, "root-1", 999) == "good"
        assert signs(state, "root-2", 999) == ("rotation_in_progress" if made else "key_unknown")
        rotation, second = state.rotate(WINDOW, now_ms=600)
        assert rotation == WINDOW
        assert [signs(state, one, 1999) for one in ("root-1", "root-2")] == ["good"] * 2
        assert [signs(state, one, 2000) for one in ("root-1", "root-2")] == ["key_retired", "good"]
        table = state.advance(2000)
        assert [row for row in table.rows if row.state is KeyState.ACTIVE] == [second]
        state.close()
        if not crashed:
            break
    else:
        pytest.fail("it never came to an end")
    assert before >= 5
    assert step > before, "some crashed after the rows were written"


def test_sgn_04_a_crash_at_each_step_of_a_key_s_end_leaves_it_ended(tmp_path) -> None:
    for step in range(100):
        folder = tmp_path / str(step)
        state = opened(folder)
        state.keygen("platform", "root-1", [PURPOSE])
        state.rotate(WINDOW, now_ms=500)
        state.close()

        def advance(folder=folder) -> None:
            opened(folder).advance(2000)

        crashed = crash_at(step, advance)
        state = opened(folder)
        assert [signs(state, one, 2000) for one in ("root-1", "root-2")] == ["key_retired", "good"]
        state.close()
        if not crashed:
            return
    pytest.fail("it never came to an end")
