"""The agent renews what is due, waits after failures, and nothing that fails ends it."""

from __future__ import annotations

import asyncio
import datetime
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from seipd.agent import renewing
from seipd.agent.renewing import LOOK_S, MIN_PAUSE_S, Renewing, overdue
from services.edge.acme.certfiles import CertificateFiles
from services.edge.acme.renewal import Advice
from services.edge.acme.requesting import new_key_pem
from services.kernel.errors import ForbiddenError, StorageError, UnreachableError

if TYPE_CHECKING:
    from pathlib import Path

NAME = "laptop.acme.ep.mesh.example"
DAY_MS = 86_400_000
BEGIN_MS = 1_800_000_000_000
LIFE_MS = 90 * DAY_MS
LOOK_MS = int(LOOK_S * 1000)


@dataclass
class Clock:
    ms: int = BEGIN_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


def install(files: CertificateFiles, *, at_ms: int, life_ms: int = LIFE_MS) -> None:
    """Put a certificate there that was made at a time."""
    pem = new_key_pem()
    key = serialization.load_pem_private_key(pem, password=None)
    begin = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC)
    chain = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())  # type: ignore[arg-type]  # an elliptic curve
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(milliseconds=life_ms))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]
    )
    files.install(NAME, chain.public_bytes(serialization.Encoding.PEM), pem)


class Stage:
    """One endpoint, and what its server says."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.files = Clock(), CertificateFiles(folder / "certs")
        self.asked: list[int] = []
        self.fault: Exception | None = None
        self.learnt: list[int] = []
        self.renew_at_ms: int | None = None
        self.renewing = Renewing(
            files=self.files,
            renew=self.renew,
            learn=self.learn,
            clock=self.clock,
            rng=random.Random(1),  # noqa: S311 (jitter)
        )

    async def renew(self, name: str) -> None:
        assert name == NAME
        self.asked.append(self.clock.ms)
        if self.fault is not None:
            raise self.fault
        install(self.files, at_ms=self.clock.ms)
        self.renew_at_ms = None  # it was said of the one before

    async def learn(self, name: str) -> None:
        assert name == NAME
        self.learnt.append(self.clock.ms)
        held = self.files.load(name)
        if held is None or self.renew_at_ms is None:
            raise UnreachableError("no tunnel")
        advice = Advice(
            fingerprint=held.leaf.fingerprint,
            start_ms=self.renew_at_ms,
            end_ms=self.renew_at_ms,
            ask_again_ms=0,
        )
        self.files.save_advice(name, advice)

    async def live(self, *, until_ms: int) -> None:
        """Look as often as it wants to, for so long."""
        while self.clock.ms < until_ms:
            self.clock.ms += int(await self.renewing.look() * 1000) + 1


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Days are played in hours' steps: what is due sooner is looked at when it is due."""
    monkeypatch.setattr(renewing, "LOOK_S", 3600.0)


class TestDue:
    async def test_without_a_certificate_nobody_is_asked(self, stage: Stage) -> None:
        assert await stage.renewing.look() == LOOK_S
        assert stage.asked == []

    async def test_it_is_renewed_at_two_thirds_of_its_life_and_then_left_alone(
        self, stage: Stage
    ) -> None:
        install(stage.files, at_ms=BEGIN_MS)
        stage.clock.ms = BEGIN_MS + LIFE_MS // 2
        assert await stage.renewing.look() == LOOK_S
        assert stage.asked == []
        stage.clock.ms = BEGIN_MS + LIFE_MS * 3 // 4
        await stage.renewing.look()
        await stage.renewing.look()
        assert stage.asked == [BEGIN_MS + LIFE_MS * 3 // 4]

    async def test_a_short_life_is_renewed_again_and_again_before_its_end(
        self, stage: Stage
    ) -> None:
        async def short(name: str) -> None:
            held = stage.files.load(name)
            assert held is not None
            assert stage.clock.ms < held.leaf.not_after_ms
            stage.asked.append(stage.clock.ms)
            install(stage.files, at_ms=stage.clock.ms, life_ms=45_000)

        stage.renewing = Renewing(
            files=stage.files,
            renew=short,
            learn=stage.learn,
            clock=stage.clock,
            rng=random.Random(1),  # noqa: S311 (jitter)
        )
        install(stage.files, at_ms=BEGIN_MS, life_ms=45_000)
        await stage.live(until_ms=BEGIN_MS + 300_000)
        assert 8 <= len(stage.asked) <= 12

    async def test_one_that_expired_while_the_machine_was_off_is_renewed_at_once(
        self, stage: Stage
    ) -> None:
        install(stage.files, at_ms=BEGIN_MS)
        stage.clock.ms = BEGIN_MS + 2 * LIFE_MS
        await stage.renewing.look()
        assert len(stage.asked) == 1

    async def test_a_damaged_one_is_made_anew(self, stage: Stage) -> None:
        install(stage.files, at_ms=BEGIN_MS)
        stage.files.bundle_path(NAME).write_bytes(b"rubbish")
        await stage.renewing.look()
        assert len(stage.asked) == 1

    async def test_it_is_renewed_early_where_its_ca_wants_that(self, stage: Stage) -> None:
        install(stage.files, at_ms=BEGIN_MS)
        wanted_ms = stage.renew_at_ms = BEGIN_MS + DAY_MS // 2
        await stage.live(until_ms=wanted_ms + 3 * LOOK_MS)
        assert len(stage.asked) == 1
        assert 0 <= stage.asked[0] - wanted_ms <= 2 * LOOK_MS
        assert 9 < len(stage.learnt) < 16

    async def test_a_server_that_does_not_say_is_asked_again_within_minutes(
        self, stage: Stage
    ) -> None:
        install(stage.files, at_ms=BEGIN_MS)
        await stage.live(until_ms=BEGIN_MS + DAY_MS // 4)
        assert 50 < len(stage.learnt) < 100
        assert stage.asked == []

    async def test_by_a_wrong_clock_nothing_is_due(self, stage: Stage) -> None:
        install(stage.files, at_ms=BEGIN_MS)
        stage.clock.ms = BEGIN_MS - 10 * DAY_MS
        assert await stage.renewing.look() == LOOK_S
        assert stage.asked == []


class TestFailures:
    async def test_refusals_are_waited_out_longer_and_longer(
        self, stage: Stage, seldom: None
    ) -> None:
        install(stage.files, at_ms=BEGIN_MS)
        stage.fault = ForbiddenError("not your name", code="not_your_name")
        begin_ms = stage.clock.ms = BEGIN_MS + LIFE_MS
        held = stage.files.load(NAME)
        await stage.live(until_ms=begin_ms + 2 * DAY_MS)
        waits_s = [(b - a) / 1000 for a, b in zip(stage.asked, stage.asked[1:], strict=False)]
        assert waits_s[0] < 13
        assert len(stage.asked) < 24
        assert max(waits_s) < 1.25 * 6 * 3600
        assert stage.files.load(NAME) == held
        stage.fault = None
        await stage.live(until_ms=begin_ms + 3 * DAY_MS)
        assert held != stage.files.load(NAME)

    async def test_nobody_answering_is_tried_again_within_minutes(
        self, stage: Stage, seldom: None
    ) -> None:
        install(stage.files, at_ms=BEGIN_MS)
        stage.fault = UnreachableError("no tunnel")
        begin_ms = stage.clock.ms = BEGIN_MS + LIFE_MS
        await stage.live(until_ms=begin_ms + DAY_MS)
        waits_s = [(b - a) / 1000 for a, b in zip(stage.asked, stage.asked[1:], strict=False)]
        assert max(waits_s) < 1.25 * 300

    @pytest.mark.parametrize("fault", [RuntimeError("a bug"), OSError(28, "no space")])
    async def test_nothing_that_fails_gets_out(self, stage: Stage, fault: Exception) -> None:
        install(stage.files, at_ms=BEGIN_MS)
        stage.fault, stage.clock.ms = fault, BEGIN_MS + LIFE_MS
        assert MIN_PAUSE_S <= await stage.renewing.look() <= LOOK_S
        assert len(stage.asked) == 1

    async def test_a_disk_that_cant_be_read_is_looked_at_again(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken() -> list[str]:
            raise StorageError("input/output error")

        monkeypatch.setattr(stage.files, "names", broken)
        assert await stage.renewing.look() == LOOK_S

    async def test_the_same_failure_is_logged_once(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        install(stage.files, at_ms=BEGIN_MS)
        stage.fault, stage.clock.ms = UnreachableError("no tunnel"), BEGIN_MS + LIFE_MS
        await stage.live(until_ms=stage.clock.ms + 600_000)
        said = [one for one in caplog.records if one.levelname == "WARNING"]
        assert len(stage.asked) > 3
        assert [NAME in one.getMessage() for one in said] == [True]

    async def test_it_is_cancelled_while_it_waits_for_a_ca(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiting = asyncio.Event()

        async def forever(name: str) -> None:
            waiting.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(stage.renewing, "_renew", forever)
        install(stage.files, at_ms=BEGIN_MS)
        stage.clock.ms = BEGIN_MS + LIFE_MS
        async with asyncio.TaskGroup() as group:
            task = group.create_task(stage.renewing.run())
            await waiting.wait()
            task.cancel()
        assert task.cancelled()


def test_the_doctor_names_what_should_long_have_been_renewed(stage: Stage) -> None:
    assert overdue(stage.files, BEGIN_MS) == []
    install(stage.files, at_ms=BEGIN_MS)
    assert overdue(stage.files, BEGIN_MS + LIFE_MS * 3 // 4) == []
    assert overdue(stage.files, BEGIN_MS + LIFE_MS - 10 * DAY_MS) == [NAME]
    stage.files.bundle_path(NAME).write_bytes(b"rubbish")
    assert overdue(stage.files, BEGIN_MS) == [NAME]
