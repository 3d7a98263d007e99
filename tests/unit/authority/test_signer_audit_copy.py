"""The signer's audit in the ledger's folder: whole, verifiable, and not to be told otherwise."""

from __future__ import annotations

import shutil

import pytest
from click.testing import CliRunner

from seipd.cli.verify import cli
from services.authority.rootkeys.auditcopy import AuditCopy, AuditMonth, audit_month
from services.authority.rootkeys.auditing import AuditService
from services.base.ledger.note import NoteVerifier
from services.kernel import canonical
from services.kernel.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    UnavailableError,
    WireError,
)
from services.kernel.ids import b64u_encode
from services.kernel.service import HealthState
from services.runtime.clock import SystemClock
from tests.fakes.signer_audit import MONTH_MS, NOVEMBER_MS, AuditedSigner
from tests.fakes.signer_desk import HandClock


class Said:
    """What the feeds hold: another month or more entries each time. Satisfies Anchors."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.words: list[dict] = []

    def own(self) -> list[dict]:
        return self.words

    def all(self) -> list[dict]:
        return [{"server_id": "server-0000000000000000", **one} for one in self.words]

    async def say(self, month: AuditMonth, *, size: int, root: bytes) -> None:
        key = b64u_encode(month.verifier.public_key)
        word = {"at_ms": self.clock.now_ms(), "key": key, "month": month.month, "record": "ab" * 16}
        others = [one for one in self.words if one["key"] != key]
        self.words = [*others, {**word, "root": root.hex(), "size": size}]


class Daemon:
    """The daemon's side, and a signer."""

    def __init__(self, folder) -> None:
        self.folder = folder / "ledger" / "audit"
        self.signer = AuditedSigner(folder / "signer")
        self.away = False
        self.clock = HandClock()
        self.anchors = Said(self.clock)
        self.service = self.restarted()

    def restarted(self) -> AuditService:
        return AuditService(
            copy=AuditCopy(self.folder),
            source=self.source,
            anchors=self.anchors,
            clock=self.clock,
        )

    def source(self) -> AuditedSigner:
        if self.away:
            raise UnavailableError("the signer does not answer", code="signer_unavailable")
        return self.signer

    async def calls(self, *, limit: int = 1000) -> list[str]:
        shown = await self.service.shown(seconds=None, limit=limit)
        return [one["call"] for one in shown["entries"]]


@pytest.fixture
def daemon(tmp_path) -> Daemon:
    return Daemon(tmp_path)


async def test_what_the_signer_wrote_is_shown_oldest_first_as_new_as_can_be(daemon) -> None:
    for call in ("sign", "rotate"):
        daemon.signer.write(call)
    assert await daemon.calls() == ["sign", "rotate", "audit"]
    daemon.signer.write("sign", "root-2")
    shown = await daemon.service.shown(seconds=None, limit=2)
    newest = shown["entries"][-2]
    assert (newest["call"], newest["key_id"], newest["outcome"]) == ("sign", "root-2", "granted")
    assert shown["logs"][0]["path"] == newest["log"]
    assert (shown["behind"], [one["index"] for one in shown["entries"]]) == ("", [4, 5])


async def test_a_long_log_is_taken_page_by_page(daemon) -> None:
    daemon.signer.page = 7
    for _ in range(600):
        daemon.signer.write("sign")
    assert (await daemon.calls(limit=10_000)).count("sign") == 600
    assert len(await daemon.calls(limit=3)) == 3


async def test_months_follow_each_other_and_an_auditor_verifies_each(daemon) -> None:
    daemon.signer.write("sign")
    await daemon.service.refresh()
    daemon.signer.write("sign")
    daemon.signer.now_ms += MONTH_MS
    daemon.signer.write("rotate")
    calls = await daemon.calls()
    assert calls.count("month") == 1
    assert calls.index("month") + 1 == calls.index("rotate")
    report = await daemon.service.verify()
    assert [(one["path"][-7:], one["good"]) for one in report] == [
        ("2026-11", True),
        ("2026-12", True),
    ]
    for one in report:
        folder = daemon.folder / one["path"].removeprefix("ledger/audit/")
        words = ["ledger", str(folder), "--key", one["vkey"]]
        assert CliRunner().invoke(cli, words, standalone_mode=False).exit_code == 0


def judged(folder, vkey: str, anchors=None) -> dict:
    words = ["audit", str(folder), "--key", vkey, "--json"]
    words += [] if anchors is None else ["--anchors", str(anchors)]
    done = CliRunner().invoke(cli, words, standalone_mode=False)
    return canonical.decode_object(done.stdout.encode())


async def test_an_auditor_follows_the_months_in_the_copy_and_at_the_signer(
    daemon, tmp_path
) -> None:
    for _ in range(3):
        daemon.signer.write("sign")
        daemon.signer.now_ms += MONTH_MS
    await daemon.service.refresh()
    daemon.signer.log.publish()
    shown = await daemon.service.shown(seconds=None, limit=1)
    vkey = shown["logs"][-1]["vkey"]
    (copy,) = daemon.folder.glob("seipd-signer-*")
    for folder in (copy, tmp_path / "signer"):
        told = judged(folder, vkey)
        assert (told["good"], told["begins_after"]) == (True, "nothing")
        assert told["months"] == ["2026-11", "2026-12", "2027-01", "2027-02"]
    shutil.rmtree(copy / "2026-11")
    assert judged(copy, vkey)["begins_after"] == "2026-11"
    shutil.rmtree(copy / "2027-01")
    told = judged(copy, vkey)
    assert (told["good"], told["path"]) == (False, "2027-02")
    assert not judged(copy, NoteVerifier(name="x", public_key=bytes(32)).vkey)["good"]
    assert not judged(tmp_path, vkey)["good"]


async def test_by_age_and_where_the_signer_is_away_the_copy_answers(daemon) -> None:
    daemon.signer.write("sign")
    await daemon.service.refresh()
    daemon.away = True
    shown = await daemon.service.shown(seconds=None, limit=10)
    assert shown["behind"] == "the signer does not answer"
    assert [one["call"] for one in shown["entries"]] == ["sign", "audit"]
    daemon.clock.ms = NOVEMBER_MS + 3_600_000
    assert len((await daemon.service.shown(seconds=3600, limit=9))["entries"]) == 2
    assert (await daemon.service.shown(seconds=60, limit=9))["entries"] == []


async def test_a_log_that_goes_back_is_said_and_the_copy_stays(daemon, tmp_path) -> None:
    for _ in range(9):
        daemon.signer.write("sign")
    await daemon.service.refresh()
    daemon.signer = AuditedSigner(tmp_path / "put back")
    daemon.signer.write("sign")
    with pytest.raises(ConflictError) as refused:
        await daemon.service.refresh()
    assert refused.value.code == "audit_rolled_back"
    assert daemon.service.health().state is HealthState.DEGRADED
    assert "AUDIT_ROLLED_BACK" in daemon.service.health().detail
    shown = await daemon.service.shown(seconds=None, limit=100)
    assert [one["call"] for one in shown["entries"]].count("sign") == 9


@pytest.mark.parametrize("more", [0, 5])
async def test_a_log_that_was_rewritten_convicts_itself(daemon, tmp_path, more) -> None:
    daemon.signer.write("sign")
    await daemon.service.refresh()
    size = daemon.service._copy.held(month_of(daemon))[0]
    daemon.signer = AuditedSigner(tmp_path / "rewritten")
    for _ in range(size + more):
        daemon.signer.write("public_key")
    with pytest.raises(ConflictError) as refused:
        await daemon.service.refresh()
    assert refused.value.code == "audit_rewritten"
    other = next(daemon.folder.glob("*/2026-11.other"))
    verifier = month_of(daemon).verifier
    assert other.read_text().startswith(verifier.name)
    assert (await daemon.service.verify())[0]["size"] == size


async def test_a_signer_with_another_key_begins_another_log(daemon, tmp_path) -> None:
    daemon.signer.write("sign")
    await daemon.service.refresh()
    daemon.signer = AuditedSigner(tmp_path / "another", key=b"k" * 32)
    daemon.signer.write("sign")
    await daemon.service.refresh()
    assert len(await daemon.service.verify()) == 2
    assert daemon.service.health().state is HealthState.OK


async def test_without_a_signer_there_is_no_audit(tmp_path) -> None:
    service = AuditService(
        copy=AuditCopy(tmp_path / "audit"),
        source=lambda: None,
        anchors=Said(HandClock()),
        clock=SystemClock(),
    )
    with pytest.raises(NotFoundError) as refused:
        await service.shown(seconds=None, limit=1)
    assert refused.value.code == "no_audit"


@pytest.mark.parametrize("month", ["../../..", "2026-11/x", "2026-13-1", ""])
def test_a_name_that_leads_elsewhere_is_refused(daemon, month) -> None:
    with pytest.raises(WireError):
        audit_month(month, daemon.signer.log.verifier("2026-11").vkey)


async def test_a_signer_put_back_to_last_month_is_said(daemon, tmp_path) -> None:
    daemon.signer.write("sign")
    shutil.copytree(tmp_path / "signer", tmp_path / "of last month")
    daemon.signer.now_ms += MONTH_MS
    daemon.signer.write("sign")
    await daemon.service.refresh()
    daemon.signer = AuditedSigner(tmp_path / "of last month")
    with pytest.raises(ConflictError) as refused:
        await daemon.service.refresh()
    assert refused.value.code == "audit_rolled_back"
    assert daemon.service.health().state is HealthState.DEGRADED


async def test_what_the_audit_came_to_is_anchored_after_each_call_of_weight(daemon) -> None:
    daemon.signer.write("public_key")
    await daemon.service.refresh()
    await daemon.service.anchor()
    (first,) = daemon.anchors.words
    assert (first["month"], first["size"]) == ("2026-11", 2)
    for _ in range(3):
        await daemon.service.refresh()
        await daemon.service.anchor()
    assert daemon.anchors.words == [first]
    daemon.signer.write("sign")
    await daemon.service.refresh()
    await daemon.service.anchor()
    (second,) = daemon.anchors.words
    assert second["size"] > first["size"]
    daemon.clock.ms += 25 * 3_600_000
    await daemon.service.refresh()
    await daemon.service.anchor()
    assert daemon.anchors.words[0]["size"] > second["size"]


async def test_a_call_that_was_refused_is_of_weight(daemon) -> None:
    daemon.signer.write("public_key")
    await daemon.service.refresh()
    await daemon.service.anchor()
    daemon.signer.write("public_key", refusal=ForbiddenError("no", code="caller_unknown"))
    await daemon.service.refresh()
    await daemon.service.anchor()
    assert daemon.anchors.words[0]["size"] > 2


@pytest.mark.parametrize("calls", [1, 9])
async def test_both_folders_written_anew_contradict_what_was_anchored(
    daemon, tmp_path, calls
) -> None:
    for _ in range(5):
        daemon.signer.write("sign")
    await daemon.service.refresh()
    await daemon.service.anchor()
    before = daemon.anchors.words
    shutil.rmtree(daemon.folder)
    daemon.signer = AuditedSigner(tmp_path / "anew")
    for _ in range(calls):
        daemon.signer.write("public_key")
    daemon.service = daemon.restarted()
    with pytest.raises(ConflictError) as refused:
        await daemon.service.refresh()
    assert refused.value.code == ("audit_rolled_back" if calls == 1 else "audit_rewritten")
    assert "ab" * 16 in daemon.service.health().detail
    await daemon.service.anchor()
    assert daemon.anchors.words == before


async def test_an_audit_that_began_anew_under_another_key_hides_nothing(daemon, tmp_path) -> None:
    daemon.signer.write("sign")
    await daemon.service.refresh()
    await daemon.service.anchor()
    shutil.rmtree(daemon.folder)
    daemon.signer = AuditedSigner(tmp_path / "another", key=b"k" * 32)
    daemon.signer.write("sign")
    daemon.service = daemon.restarted()
    with pytest.raises(ConflictError) as refused:
        await daemon.service.refresh()
    assert refused.value.code == "audit_rolled_back"
    daemon.clock.ms += 91 * 86_400_000
    await daemon.service.refresh()
    assert daemon.service.health().state is HealthState.OK


async def test_an_auditor_holds_a_folder_against_what_was_anchored(daemon, tmp_path) -> None:
    for _ in range(300):
        daemon.signer.write("sign")
    await daemon.service.refresh()
    await daemon.service.anchor()
    daemon.signer.write("sign")
    await daemon.service.refresh()
    file = tmp_path / "anchors.json"
    file.write_bytes(canonical.encode({"anchors": daemon.service.anchored()}))
    vkey = daemon.signer.log.verifier("2026-11").vkey
    (copy,) = daemon.folder.glob("seipd-signer-*")
    assert judged(copy, vkey, file)["anchored"] == "301 of 2026-11"
    (said,) = daemon.service.anchored()
    for wrong in ({"size": 400}, {"root": "00" * 32}, {"month": "2026-12"}):
        file.write_bytes(canonical.encode({"anchors": [said | wrong]}))
        told = judged(copy, vkey, file)
        assert (told["good"], told["path"]) == (False, wrong.get("month", "2026-11"))
    for malformed in ({}, {"anchors": [{}]}, {"anchors": 1}, [], {"anchors": []}):
        file.write_bytes(canonical.encode(malformed))
        assert not judged(copy, vkey, file)["good"]


def month_of(daemon: Daemon):
    return audit_month("2026-11", daemon.signer.log.verifier("2026-11").vkey)
