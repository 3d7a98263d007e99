"""The signer's audit: an entry for every call, durable before its answer, in logs that verify."""

from __future__ import annotations

import asyncio

import pytest

from seipd.signerd.auditing import Asked, entry_of, month_of, outcome_of, time_of
from seipd.signerd.auditlog import AuditLog, AuditWriter, audit_key
from seipd.signerd.core import KeyTable
from seipd.signerd.desk import Caller
from seipd.signerd.rows import KeyRow, KeyState
from seipd.signerd.strangers import BURST_COUNT
from services.base.crypto.signatures import SigningKey
from services.base.ledger.fsck import verify_log
from services.kernel import canonical
from services.kernel.errors import (
    CorruptError,
    ForbiddenError,
    SeipdError,
    StorageError,
    UnavailableError,
)
from tests.fakes.signer_desk import NOW, HandClock, MemoryAudit, Provider, desk_of

UNIX = Caller(name="unix")
MESSAGE = b"seipd/record/v1\0" + bytes(32)
ASKED = Asked(call="sign", caller="unix", scope="platform", key_id="root-1")
KEY = SigningKey(bytes(32))
DAY = 86_400_000


def table(**fields) -> KeyTable:
    given = {
        "scope": "platform", "key_id": "root-1", "state": KeyState.ACTIVE, "handle": "h0",
        "public_key": Provider().public_key("h0"), "purposes": ("seipd/record/v1",),
    }  # fmt: skip
    return KeyTable((KeyRow(**(given | fields)),))


def entry(at_ms: int = NOW) -> bytes:
    return entry_of(ASKED, at_ms=at_ms)


async def refused(awaitable) -> str:
    with pytest.raises(SeipdError) as caught:
        await awaitable
    return caught.value.code


async def test_every_call_has_one_entry_with_its_outcome() -> None:
    audit, provider = MemoryAudit(), Provider()
    desk = desk_of(table(), provider, audit=audit)
    narrow = Caller(name="spiffe://mesh/a", scopes=frozenset({"platform"}))
    stranger = Caller(name="spiffe://mesh/b", known=False)
    domain = "domain:0190b3a0-0000-7000-8000-000000000001"

    async def sign(caller=UNIX, data=MESSAGE, scope="platform", key_id="root-1"):
        return await desk.sign(caller, data, scope=scope, key_id=key_id)

    assert await sign()
    assert await desk.public_key(UNIX, scope="platform", key_id="root-1")
    await refused(sign(stranger))
    await refused(desk.public_key(stranger, scope="platform", key_id="root-1"))
    await refused(sign(narrow, scope=domain))
    await refused(sign(narrow, scope=domain.upper()))
    await refused(sign(key_id="root-9"))
    await refused(sign(key_id="a/b"))
    await refused(sign(data=bytes(32)))
    await refused(sign(data=MESSAGE + bytes(5 << 20)))
    provider.failure = RuntimeError("pin 1234")
    await refused(sign())
    assert audit.told() == [
        ("sign", "granted", ""),
        ("public_key", "granted", ""),
        ("sign", "insufficient_relation", "caller_unknown"),
        ("public_key", "insufficient_relation", "caller_unknown"),
        ("sign", "insufficient_relation", "wrong_scope"),
        ("sign", "insufficient_relation", "wrong_scope"),
        ("sign", "caveat_violation", "key_unknown"),
        ("sign", "caveat_violation", "bad_key_id"),
        ("sign", "caveat_violation", "purpose_refused"),
        ("sign", "caveat_violation", "message_too_long"),
        ("sign", "caveat_violation", "provider_unavailable"),
    ]
    assert audit.entries[0]["size_bytes"] == len(MESSAGE)
    assert len(audit.entries[0]["sha256"]) == 64
    assert all("1234" not in str(one) for one in audit.entries)


async def test_a_retired_key_is_a_caveat() -> None:
    audit = MemoryAudit()
    desk = desk_of(table(state=KeyState.RETIRED), audit=audit)
    assert await refused(desk.sign(UNIX, MESSAGE, scope="platform", key_id="root-1"))
    assert audit.told() == [("sign", "caveat_violation", "key_retired")]


async def test_no_signature_leaves_where_the_audit_can_t_be_written() -> None:
    audit = MemoryAudit()
    desk = desk_of(table(), audit=audit)
    audit.full = True
    sign = desk.sign(UNIX, MESSAGE, scope="platform", key_id="root-1")
    assert await refused(sign) == "audit_unavailable"
    audit.full = False
    assert await desk.sign(UNIX, MESSAGE, scope="platform", key_id="root-1")


def test_an_entry_keeps_no_more_of_a_stranger_s_words_than_a_name_has() -> None:
    long = Asked(call="sign", caller="unix", scope="s" * 9999, key_id="k" * 9999)
    assert len(entry_of(long, at_ms=NOW)) < 600


@pytest.mark.parametrize("name", ["", "a", '","outcome":"granted', "ü\u2028€\x00\n\\", "%s%d{}"])
def test_an_entry_is_canonical_whatever_stands_in_it(name: str) -> None:
    asked = Asked(call="sign", caller=name, scope=name, key_id=name, digest="0" * 64, size_bytes=7)
    refusal = ForbiddenError("no", code="key_retired")
    assert canonical.decode_canonical(entry_of(asked, at_ms=NOW, refusal=refusal)) == {
        "at_ms": NOW,
        "call": "sign",
        "caller": name,
        "key_id": name,
        "outcome": "caveat_violation",
        "reason": "key_retired",
        "scope": name,
        "sha256": "0" * 64,
        "size_bytes": 7,
        "v": 1,
    }


def test_an_entry_of_several_messages_is_canonical_and_names_each() -> None:
    asked = Asked(
        call="sign",
        caller="unix",
        scope="platform",
        key_id="root-1",
        digest="0" * 64,
        size_bytes=7,
        more=[("1" * 64, 8), ("2" * 64, 9)],
    )
    entry = canonical.decode_canonical(entry_of(asked, at_ms=NOW))
    assert (entry["sha256"], entry["size_bytes"]) == ("0" * 64, 7)
    assert entry["more"] == [["1" * 64, 8], ["2" * 64, 9]]


def test_outcomes() -> None:
    assert outcome_of(None).value == "granted"
    assert outcome_of(ForbiddenError("x", code="wrong_scope")).value == "insufficient_relation"
    assert outcome_of(UnavailableError("x")).value == "caveat_violation"


@pytest.mark.parametrize("damaged", [b"", b"{}", b'{"at_ms":"x"}', b"\xff"])
def test_an_entry_that_is_none_is_said(damaged: bytes) -> None:
    with pytest.raises(CorruptError):
        time_of(damaged)


def test_a_log_verifies_and_goes_on_where_it_ended(tmp_path) -> None:
    log = AuditLog(tmp_path / "audit", KEY)
    assert log.open() == 0
    for at in range(300):
        log.append([entry(NOW + at)], at_ms=NOW + at)
    log.close()
    again = AuditLog(tmp_path / "audit", KEY)
    assert again.open() == NOW + 299
    again.append([entry(NOW + 300)], at_ms=NOW + 300)
    again.publish()
    month = month_of(NOW)
    verifier = again.verifier(month)
    again.close()
    assert verify_log(tmp_path / "audit" / month, verifier, verifier.name).size == 301


def test_each_month_begins_with_what_the_one_before_came_to(tmp_path) -> None:
    log = AuditLog(tmp_path / "audit", KEY)
    log.open()
    log.append([entry()], at_ms=NOW)
    first = log.read("", 0, 9)
    log.append([entry(NOW + 31 * DAY)], at_ms=NOW + 31 * DAY)
    second = log.read("", 0, 9)
    head = canonical.decode_object(second.entries[0])
    assert (head["call"], head["before"], head["size"]) == ("month", first.month, 1)
    assert first.checkpoint.decode().split("\n")[1] == "1"
    assert log.months() == [first.month, second.month]
    assert log.read(first.month, 0, 9).entries == first.entries
    log.append([entry(NOW)], at_ms=NOW)
    assert log.months() == [first.month, second.month], "a clock set back opens no old month"
    log.close()


def test_another_key_does_not_go_on_with_a_log(tmp_path) -> None:
    log = AuditLog(tmp_path / "audit", KEY)
    log.open()
    log.append([entry()], at_ms=NOW)
    log.publish()
    log.close()
    with pytest.raises(SeipdError):
        AuditLog(tmp_path / "audit", SigningKey(b"x" * 32)).open()


def test_the_key_of_the_audit_is_made_once_and_is_private(tmp_path) -> None:
    assert audit_key(tmp_path) == audit_key(tmp_path)
    (tmp_path / "audit.key").chmod(0o644)
    with pytest.raises(SeipdError):
        audit_key(tmp_path)
    (tmp_path / "audit.key").chmod(0o600)
    (tmp_path / "audit.key").write_bytes(b"short")
    with pytest.raises(CorruptError):
        audit_key(tmp_path)


class Slow:
    """A log that counts its writes, and fails when told to."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.fails = False

    def append(self, entries, *, at_ms: int) -> None:
        if self.fails:
            raise StorageError("no space left", mend="free some")
        self.batches.append(len(entries))

    def publish(self) -> None:
        pass

    def close(self) -> None:
        pass


async def test_calls_that_come_at_once_share_a_write() -> None:
    log = Slow()
    writer = AuditWriter(log)
    task = asyncio.get_running_loop().create_task(writer.run())
    await asyncio.wait_for(
        asyncio.wait(
            [asyncio.ensure_future(writer.write((entry(),), at_ms=NOW)) for _ in range(100)]
        ),
        30,
    )
    assert sum(log.batches) == 100
    assert len(log.batches) <= 3
    log.fails = True
    assert await refused(writer.write((entry(),), at_ms=NOW)) == "audit_unavailable"
    log.fails = False
    await writer.write((entry(),), at_ms=NOW)
    task.cancel()
    await asyncio.wait([task])


async def test_sgn_10_a_provider_that_hangs_holds_nobody_for_long() -> None:
    import threading

    gate = threading.Event()
    provider, audit = Provider(), MemoryAudit()
    provider.sign = lambda handle, data: gate.wait(60) and b""
    desk = desk_of(table(), provider, audit=audit, clock=HandClock(), provider_timeout_s=0.05)
    calls = [desk.sign(UNIX, MESSAGE, scope="platform", key_id="root-1") for _ in range(20)]
    codes = await asyncio.gather(*(refused(one) for one in calls))
    assert set(codes) == {"provider_unavailable"}
    stuck = [one for one in threading.enumerate() if one.name == "provider-call"]
    assert len(stuck) <= 8
    gate.set()
    for one in stuck:
        await asyncio.to_thread(one.join, 30)
    provider.sign = lambda handle, data: provider.keys[handle].sign(data)
    assert await desk.sign(UNIX, MESSAGE, scope="platform", key_id="root-1")


async def test_sgn_11_a_caller_that_floods_is_held_back_and_others_are_served() -> None:
    import threading

    gate = threading.Event()
    provider = Provider()
    provider.sign = lambda handle, data: gate.wait(60) and provider.keys[handle].sign(data)
    desk = desk_of(table(), provider, audit=MemoryAudit())
    flood = Caller(name="spiffe://mesh/flood")

    async def ask(caller):
        return await desk.sign(caller, MESSAGE, scope="platform", key_id="root-1")

    waiting = [asyncio.ensure_future(ask(flood)) for _ in range(64)]
    await asyncio.sleep(0)
    assert await refused(ask(flood)) == "caller_busy"
    assert await desk.public_key(UNIX, scope="platform", key_id="root-1")
    gate.set()
    await asyncio.wait(waiting)


async def test_sgn_04_a_window_that_closes_while_the_provider_works_lets_nothing_out() -> None:
    clock, provider, audit = HandClock(), Provider(), MemoryAudit()
    desk = desk_of(table(valid_until_ms=NOW + 1), provider, audit=audit, clock=clock)

    def slow(handle, data):
        clock.ms = NOW + 1
        return provider.keys[handle].sign(data)

    provider.sign = slow
    sign = desk.sign(UNIX, MESSAGE, scope="platform", key_id="root-1")
    assert await refused(sign) == "key_retired"
    assert audit.told() == [("sign", "caveat_violation", "key_retired")]


async def test_a_caller_that_hangs_up_was_granted_nothing() -> None:
    import threading

    gate, provider, audit = threading.Event(), Provider(), MemoryAudit()
    provider.sign = lambda handle, data: gate.wait(60) and provider.keys[handle].sign(data)
    desk = desk_of(table(), provider, audit=audit)
    call = asyncio.ensure_future(desk.sign(UNIX, MESSAGE, scope="platform", key_id="root-1"))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    gate.set()
    assert audit.told() == [("sign", "caveat_violation", "not_ended")]


async def test_what_waits_when_the_signer_ends_is_written(tmp_path) -> None:
    log = AuditLog(tmp_path / "audit", KEY)
    log.open()
    writer = AuditWriter(log)
    task = asyncio.get_running_loop().create_task(writer.run())
    await asyncio.sleep(0)
    waiting = [asyncio.ensure_future(writer.write((entry(),), at_ms=NOW)) for _ in range(600)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.gather(*waiting)
    verifier = log.verifier(month_of(NOW))
    assert verify_log(tmp_path / "audit" / month_of(NOW), verifier, verifier.name).size == 600


async def test_sgn_11_a_flood_of_strangers_fills_no_disk_and_every_call_is_counted() -> None:
    clock, audit = HandClock(), MemoryAudit()
    desk = desk_of(table(), Provider(), audit=audit, clock=clock)
    stranger = Caller(name="spiffe://mesh/b", known=False)
    count = 4 * BURST_COUNT
    for number in range(count):
        if number % 2:
            call = desk.sign(stranger, bytes(9), scope="platform", key_id=f"k{number}")
        else:
            call = desk.public_key(stranger, scope="platform", key_id="root-1")
        assert await refused(call) == "caller_unknown"
    assert len(audit.entries) == BURST_COUNT
    assert await desk.sign(UNIX, MESSAGE, scope="platform", key_id="root-1")
    assert audit.told()[-1] == ("sign", "granted", "")
    clock.ms += 1000
    for _ in range(3):
        await refused(desk.public_key(stranger, scope="platform", key_id="root-1"))
    assert len(audit.entries) == BURST_COUNT + 2
    assert sum(one.get("times", 1) for one in audit.entries) == count + 2
    clock.ms += 3_600_000
    await refused(desk.public_key(stranger, scope="platform", key_id="root-1"))
    assert audit.entries[-1]["times"] == 3
    assert sum(one.get("times", 1) for one in audit.entries) == count + 5
