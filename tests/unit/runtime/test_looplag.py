"""Work that holds up the event loop shows in health and metrics, and is forgotten in time."""

from __future__ import annotations

import asyncio
import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from seipd.api.metrics import render_metrics
from services.kernel.service import HealthState
from services.runtime.looplag import REMEMBERED_S, LoopLagService, WorstOfLate
from tests.fakes.one_server import OneServer


class HandClock:
    """A clock that a test moves; whoever blocks the loop moves it, too."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


async def until(true) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0)


async def test_cli_14_a_loop_that_stood_still_shows_and_is_forgotten() -> None:
    clock = HandClock()
    service = LoopLagService(clock=clock, interval_s=0.0)
    assert service.health().state is HealthState.STOPPED
    await service.start()
    try:
        await asyncio.sleep(0)
        assert service.health().state is HealthState.OK
        clock.now_s += 5
        await until(lambda: service.worst_s() == 5)
        assert service.health().state is HealthState.DEGRADED
        assert "5.0 s" in service.health().detail
        clock.now_s += REMEMBERED_S / 2
        # The leap itself holds up the loop, as the watcher sees it.
        await until(lambda: service.worst_s() == REMEMBERED_S / 2)
    finally:
        await service.stop()
    clock.now_s += REMEMBERED_S + 1
    assert service.worst_s() == 0
    assert service.health().state is HealthState.STOPPED


async def test_cli_14_the_metric_tells_it(tmp_path) -> None:
    one = await OneServer.start(tmp_path)
    clock = HandClock()
    service = LoopLagService(clock=clock, interval_s=0.0)
    await service.start()
    try:
        await asyncio.sleep(0)
        clock.now_s += 5
        await until(lambda: service.worst_s() == 5)
        services = dataclasses.replace(one.services, all_services=(service,))
        text = render_metrics(services).decode()
        assert "seipd_loop_lag_seconds 5.0" in text
        assert 'seipd_service_up{service="loop"} 0.0' in text
    finally:
        await service.stop()
        await one.stop()


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 10)), max_size=60))
def test_the_worst_of_a_minute_is_that_of_all_lags_in_it(steps) -> None:
    worst, now_s, seen = WorstOfLate(), 0.0, []
    for step_s, lag_s in steps:
        now_s += step_s
        worst.note(lag_s, now_s=now_s)
        seen.append((now_s, lag_s))
        recent = [lag for at, lag in seen if now_s - at <= REMEMBERED_S]
        assert worst.worst_s(now_s=now_s) == max(recent)
