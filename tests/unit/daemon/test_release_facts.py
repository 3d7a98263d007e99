"""What a server tells of its installation, and how often."""

from __future__ import annotations

from types import SimpleNamespace

from seipd.daemon.telling_release import (
    MIN_INTERVAL_S,
    ReleaseTeller,
    interval_s,
    lifetime_ms,
    told_in,
)
from services.base.release.approval import Running
from services.kernel.errors import UnavailableError
from services.kernel.service import HealthState
from services.mesh.facts.kinds import KINDS, RELEASE

RUNS = Running(version="1.4.0", platform="linux-x86_64", python="3.11.2", measurement="ab" * 32)


class Bench:
    """A teller whose measurement comes when it is set."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.runs: Running | None = None
        self.told: list[tuple[Running, int]] = []
        self.teller = ReleaseTeller(
            running=self._running,
            tell=self,
            servers_count=lambda: 3,
            clock=SimpleNamespace(monotonic_s=lambda: self.now_s),
        )

    def _running(self) -> Running:
        if self.runs is None:
            raise UnavailableError("still measuring", code="not_measured")
        return self.runs

    def publish_fact(self, kind: int, payload: bytes, *, lifetime_ms: int) -> None:
        assert kind == RELEASE
        self.told.append((told_in(SimpleNamespace(payload=payload)), lifetime_ms))

    def look_after(self, seconds: float) -> int:
        self.now_s += seconds
        self.teller.look()
        return len(self.told)


async def test_it_is_told_once_it_is_measured_and_then_every_hour() -> None:
    bench = Bench()
    assert bench.look_after(10) == 0
    assert bench.teller.health().detail == "not told: still measuring"
    bench.runs = RUNS
    assert bench.look_after(2) == 1
    assert bench.told == [(RUNS, 4 * 3_600_000)]
    assert bench.teller.health().detail == ""
    assert bench.look_after(MIN_INTERVAL_S - 1) == 1
    assert bench.look_after(1) == 2


def test_a_large_mesh_tells_seldom_and_no_fact_holds_longer_than_its_kind_may() -> None:
    assert interval_s(1000) == 16_000
    assert lifetime_ms(1000) == 64_000_000
    assert lifetime_ms(100_000) == KINDS[RELEASE].max_lifetime_ms


async def test_it_stops_and_may_be_stopped_twice() -> None:
    bench = Bench()
    await bench.teller.start()
    assert bench.teller.health().state is HealthState.OK
    await bench.teller.stop()
    await bench.teller.stop()
    assert bench.teller.health().state is HealthState.STOPPED
