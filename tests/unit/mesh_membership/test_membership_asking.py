"""Whom a server asks and how often before it blames anybody."""

from __future__ import annotations

import pytest

from services.mesh.membership.messages import Ping
from services.mesh.membership.ports import Tell
from services.mesh.membership.schedule import Schedule
from tests.unit.mesh_membership.membership_alone import PEER, alone
from tests.unit.mesh_membership.membership_kit import MESH_ID, START_MS, At


@pytest.mark.parametrize("index", range(5))
def test_a_server_knows_a_second_ahead_whom_it_will_ask(index: int) -> None:
    schedule = Schedule(mesh_id=MESH_ID, interval_s=1.0)
    assert schedule.coming() == ()
    schedule.set_circle(index=index, servers=200)
    known_since: dict[int, int] = {}
    leads_ms: list[int] = []
    for ms in range(START_MS, START_MS + 60_000, 100):
        target = schedule.due(ms)
        if target is not None:
            leads_ms.append(ms - known_since[target])
        known_since = {one: known_since.get(one, ms) for one in schedule.coming()}
    assert len(leads_ms) >= 58
    assert min(leads_ms[2:]) >= 900


def test_whoever_stays_silent_is_asked_four_times_within_a_second_and_then_suspected() -> None:
    core = alone()
    pings: list[float] = []
    told_s = 0.0
    for tenths in range(40):
        for effect in core.tick(At(tenths / 10)):
            if isinstance(effect, Tell):
                if effect.peer == PEER and isinstance(effect.message, Ping):
                    pings.append(tenths / 10)
            elif effect.server_id == PEER:
                told_s = told_s or tenths / 10
        if len(pings) >= 4:
            break
    assert pings[-1] - pings[0] <= 0.85
