"""A signer that ends at any step of a rotation: one key is active, and asked again it goes on."""

from __future__ import annotations

import os
import signal
import traceback

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
CRASHED, DONE = 42, 43
HANGS_S = 15


def opened(folder) -> SignerState:
    state = SignerState(folder, SoftwareProvider(folder / "keys", unlock=b"u" * 32, cost=CHEAP))
    state.open()
    return state


def crash_at(step: int, work) -> int:
    """Do something in a process that ends before its n-th call to the system; say how it ended."""
    pid = os.fork()
    if pid:
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return CRASHED if ended == -signal.SIGALRM else ended
    # The fork of a program with threads may hang, seldom, in none of our code: a crash like others.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(HANGS_S)
    left = step

    def ending(call):
        def called(*arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(CRASHED)
            return call(*arguments, **options)

        return called

    try:
        for name in STEPS:
            setattr(os, name, ending(getattr(os, name)))
        work()
    except BaseException:  # noqa: BLE001 (a child of a fork must not come back)
        traceback.print_exc()
        os._exit(1)
    os._exit(DONE)


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

        ended = crash_at(step, rotate)
        assert ended in {CRASHED, DONE}
        state = opened(folder)
        assert [path.name for path in folder.rglob(".*")] == []
        active = [row for row in state.check().rows if row.state is KeyState.ACTIVE]
        made = len(state.table().rows) == 2
        assert made or ended == CRASHED
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
        if ended == DONE:
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

        ended = crash_at(step, advance)
        assert ended in {CRASHED, DONE}
        state = opened(folder)
        assert [signs(state, one, 2000) for one in ("root-1", "root-2")] == ["key_retired", "good"]
        state.close()
        if ended == DONE:
            return
    pytest.fail("it never came to an end")
