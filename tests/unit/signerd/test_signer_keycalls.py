"""Keys made and rotated while the signer runs, as the daemon on the same machine asks for it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from seipd.signerd.app import local_caller
from seipd.signerd.auditlog import AuditLog, AuditWriter, audit_key
from seipd.signerd.clock import GuardedClock
from seipd.signerd.desk import Desk
from seipd.signerd.keycalls import KeyDesk, key_handlers
from seipd.signerd.providers.software import SoftwareProvider
from seipd.signerd.rows import KeyState
from seipd.signerd.server import serve
from seipd.signerd.state import SignerState
from services.base.crypto.kdf import Argon2Cost
from services.base.crypto.signatures import verify
from services.base.signing.client import GrpcSigner
from services.base.signing.keys_client import GrpcKeys
from services.kernel.errors import SeipdError, StorageError
from tests.fakes.signer_desk import NOW, HandClock, servicer_of

HOUR = 3_600_000
RECORD = "seipd/record/v1"
MESSAGE = b"seipd/record/v1\0" + bytes(32)
CHEAP = Argon2Cost(opslimit=1, memlimit_bytes=8192)
UNLOCK = b"an unlock secret of forty bytes, or more"


class Signerd:
    """A whole signer in this process, but for its user and its limits."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.clock = HandClock()
        self.socket = folder / "s"
        self.client = GrpcSigner(str(self.socket))
        self.keys = GrpcKeys(str(self.socket))
        self.provider = SoftwareProvider(folder / "keys", unlock=UNLOCK, cost=CHEAP)

    @contextlib.asynccontextmanager
    async def running(self):
        state = SignerState(self.folder, self.provider)
        state.open()
        log = AuditLog(self.folder / "audit", audit_key(self.folder))
        seen_ms = log.open()
        clock = GuardedClock(self.clock, floor_ms=seen_ms)
        state.advance(max(seen_ms, clock.now_ms()))
        writer = AuditWriter(log)
        desk = Desk(keys=state, provider=state.provider, audit=writer, clock=clock)
        keys = KeyDesk(state=state, log=log, clock=clock)
        task = asyncio.get_running_loop().create_task(writer.run())
        others = [key_handlers(keys, desk, local_caller)]
        try:
            async with serve(servicer_of(desk), self.socket, others=others):
                yield state
        finally:
            task.cancel()
            await asyncio.wait([task])
            state.close()

    async def rotate(self, **fields):
        given = {
            "scope": "platform", "old_key_id": "root-1", "new_key_id": "root-2",
            "opens_at_ms": NOW, "closes_at_ms": NOW + HOUR,
        }  # fmt: skip
        return await self.client.rotate(**(given | fields))

    async def sign(self, key_id: str) -> bytes:
        return await self.client.sign(MESSAGE, scope="platform", key_id=key_id)


@pytest.fixture
def signerd(tmp_path):
    return Signerd(tmp_path)


async def code_of(awaitable) -> str:
    with pytest.raises(SeipdError) as caught:
        await awaitable
    return caught.value.code


async def make(signerd) -> None:
    await signerd.keys.make(scope="platform", key_id="root-1", purposes=[RECORD])


async def test_sgn_04_a_key_is_rotated_while_the_signer_runs(signerd) -> None:
    async with signerd.running():
        await make(signerd)
        rotation = await signerd.rotate()
        assert verify(rotation.new_public_key, MESSAGE, await signerd.sign("root-2"))
        assert await signerd.sign("root-1")
        told = await signerd.keys.keys("platform")
        assert [(one.key_id, one.state) for one in told] == [
            ("root-1", "rotating"),
            ("root-2", "active"),
        ]
        signerd.clock.ms = NOW + HOUR
        assert await code_of(signerd.sign("root-1")) == "key_retired"
        info = await signerd.client.public_key(scope="platform", key_id="root-1")
        assert (info.state, info.valid_until_ms) == ("retired", NOW + HOUR)
        assert await signerd.sign("root-2")


async def test_sgn_04_who_was_cut_off_asks_again_and_gets_the_same_rotation(signerd) -> None:
    async with signerd.running():
        await make(signerd)
        first = await signerd.rotate()
    async with signerd.running():
        again = await signerd.rotate(opens_at_ms=NOW + 5, closes_at_ms=NOW + 9 * HOUR)
        assert again == first


async def test_sgn_04_a_clock_set_back_over_a_restart_opens_no_closed_window(signerd) -> None:
    async with signerd.running():
        await make(signerd)
        await signerd.rotate()
        signerd.clock.ms = NOW + HOUR
        assert await signerd.sign("root-2")
    signerd.clock.ms = NOW
    async with signerd.running() as state:
        assert await code_of(signerd.sign("root-1")) == "key_retired"
        assert state.table().rows[0].state is KeyState.RETIRED


async def test_sgn_04_a_clock_that_was_far_ahead_and_was_mended_stops_no_rotation(signerd) -> None:
    async with signerd.running() as state:
        await make(signerd)
        await signerd.rotate()
        signerd.clock.ms = NOW + 400 * 24 * HOUR
        assert await code_of(signerd.sign("root-1")) == "key_retired"
        signerd.clock.ms = NOW + 1
        assert await code_of(signerd.sign("root-1")) == "key_retired"
        assert state.is_behind(NOW + 1)
        state.advance(NOW + 1)
        assert await code_of(signerd.sign("root-1")) == "key_retired"
        next_one = {"old_key_id": "root-2", "new_key_id": "root-3"}
        await signerd.rotate(**next_one, opens_at_ms=NOW + 2, closes_at_ms=NOW + HOUR)
        assert await signerd.sign("root-2")
    signerd.clock.ms = NOW + 2
    async with signerd.running():
        assert await code_of(signerd.sign("root-1")) == "key_retired"
        assert await signerd.sign("root-3")


async def test_sgn_04_what_was_over_at_the_last_entry_is_so_after_a_crash_and_a_mended_clock(
    signerd,
) -> None:
    async with signerd.running():
        await make(signerd)
        await signerd.rotate()
        signerd.clock.ms = NOW + 400 * 24 * HOUR
        assert await signerd.sign("root-2")
    signerd.clock.ms = NOW + 1
    async with signerd.running():
        assert await code_of(signerd.sign("root-1")) == "key_retired"


async def test_sgn_13_a_retired_key_is_destroyed_and_one_that_was_cut_off_at_the_next_start(
    signerd, monkeypatch
) -> None:
    def files() -> int:
        return len(list((signerd.folder / "keys").iterdir()))

    async with signerd.running() as state:
        await make(signerd)
        await signerd.rotate()
        assert files() == 2
        signerd.clock.ms = NOW + HOUR
        with monkeypatch.context() as patched:
            patched.setattr(SoftwareProvider, "destroy", full)
            with pytest.raises(StorageError):
                state.advance(NOW + HOUR)
        assert state.table().rows[0].state is KeyState.RETIRED
        assert files() == 2
    async with signerd.running():
        assert files() == 1
        assert await code_of(signerd.sign("root-1")) == "key_retired"
        assert await signerd.sign("root-2")


def full(*_):
    raise StorageError("no space")


async def test_sgn_04_a_crash_before_the_rows_are_written_leaves_one_active_key(
    signerd, monkeypatch
) -> None:
    def full(*_):
        raise StorageError("no space")

    async with signerd.running() as state:
        await make(signerd)
        with monkeypatch.context() as patch:
            patch.setattr("seipd.signerd.state.write_atomic", full)
            assert await code_of(signerd.rotate()) == "provider_unavailable"
        assert [row.key_id for row in state.table().rows] == ["root-1"]
        assert await signerd.sign("root-1")
    async with signerd.running():
        assert await code_of(signerd.sign("root-2")) == "key_unknown"
        assert (await signerd.rotate()).new_key_id == "root-2"


async def test_refusals_of_a_rotation_have_codes_and_entries(signerd) -> None:
    async with signerd.running():
        await make(signerd)
        await signerd.rotate()
        for fields, code in (
            ({"new_key_id": "root-3"}, "rotation_in_progress"),
            ({"old_key_id": "root-9"}, "key_unknown"),
            ({"new_key_id": "a/b"}, "bad_key_id"),
            ({"scope": "domain:00000000-0000-0000-0000-000000000000"}, "wrong_scope"),
            ({"new_key_id": "x", "closes_at_ms": NOW}, "bad_window"),
        ):
            assert await code_of(signerd.rotate(**fields)) == code, fields
        assert await code_of(make_other(signerd)) == "key_exists"
        page = await signerd.keys.audit(first=2, count=20)
        assert [one["reason"] for one in page.entries[:5]] == [
            "rotation_in_progress", "key_unknown", "bad_key_id", "wrong_scope", "bad_window",
        ]  # fmt: skip
        assert {one["caller"] for one in page.entries} == {"unix"}


async def make_other(signerd) -> None:
    await signerd.keys.make(scope="platform", key_id="root-1", purposes=["seipd/token/v1"])


async def test_a_provider_that_fails_tells_only_that(signerd, monkeypatch) -> None:
    def refused(handle):
        raise StorageError("/secret/place is full")

    async with signerd.running():
        await make(signerd)
        monkeypatch.setattr(signerd.provider, "generate", refused)
        with pytest.raises(SeipdError) as caught:
            await signerd.rotate()
        assert caught.value.code == "provider_unavailable"
        assert "secret" not in str(caught.value)


async def test_what_is_no_request_is_refused(signerd) -> None:
    async with signerd.running():
        await make(signerd)
        assert await code_of(signerd.rotate(opens_at_ms="soon")) == "bad_field"
        assert await code_of(signerd.keys.audit(count=0)) == "bad_field"
        assert await code_of(signerd.keys.audit(month="../../etc")) == "no_audit"


async def test_the_daemon_reads_the_audit_with_what_proves_it(signerd) -> None:
    async with signerd.running():
        await make(signerd)
        await signerd.sign("root-1")
        page = await signerd.keys.audit()
    assert page.months == [page.month] == ["2027-01"]
    assert [(one["call"], one["outcome"]) for one in page.entries] == [
        ("make", "granted"),
        ("sign", "granted"),
        ("public_key", "granted"),
    ]
    assert f"\n{page.size}\n" in page.checkpoint
    assert page.vkey.startswith("seipd-signer-")
