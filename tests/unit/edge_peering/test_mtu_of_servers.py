"""A server's tunnel has the MTU that its uplink takes, and follows where that is another one."""

from __future__ import annotations

from services.edge.peering import service as peering_service
from services.kernel.errors import UnavailableError
from tests.fakes.peering import peering_of, settled


async def test_the_mtu_follows_the_uplink_and_stays_while_that_is_not_known(
    one, monkeypatch
) -> None:
    monkeypatch.setattr(peering_service, "MTU_LOOK_S", 0.0)
    found = [1420]

    async def mtu_of() -> int:
        if not found:
            raise UnavailableError("netlink does not answer")
        return found[0]

    peering, device = await peering_of(one.ledger, mtu_of=mtu_of)
    try:
        assert [plan.mtu for plan in device.plans] == [1420]
        found[0] = 1380
        await settled()
        assert [plan.mtu for plan in device.plans] == [1420, 1380]
        found.clear()
        await settled()
        found.append(1412)
        await settled()
        assert [plan.mtu for plan in device.plans] == [1420, 1380, 1412]
    finally:
        await peering.stop()
