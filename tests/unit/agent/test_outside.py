"""Who is told of another way out, and what the router is asked for."""

from __future__ import annotations

import pytest

from seipd.agent.changes import Change
from seipd.agent.outside import ELSEWHERE, Outside
from seipd.agent.portmap.mapped import Mapped
from services.kernel.errors import UnavailableError

MAPPED = Mapped(by="PCP", host="203.0.113.7", port=4242, lifetime_s=1200)


class FakeHome:
    """The server that the endpoint is at."""

    def __init__(self, endpoint: str = "198.18.0.11:51940") -> None:
        self.mesh = {"server": {"endpoint": endpoint}, "allowed_ips": ["10.64.0.0/10"]}
        self.resets_count = 0
        self.is_gone = False

    async def reset(self) -> None:
        self.resets_count += 1
        if self.is_gone:
            raise UnavailableError("no answer")

    def device(self) -> object:
        raise AssertionError("nobody asks the router here")


@pytest.mark.parametrize(
    ("change", "resets_count"),
    [(Change.WAY, 1), (Change.AWAKE, 1), (Change.ADDRESSES, 0), (Change.MORE, 0)],
)
async def test_the_tunnel_shakes_hands_anew_and_whoever_keeps_paths_is_told(change, resets_count):
    home, told = FakeHome(), []
    outside = Outside(home=home, interface="seip1")

    async def tell(change: Change) -> None:
        told.append((change, home.resets_count))

    outside.on_change.append(tell)
    await outside._on_change(change)
    assert told == [(change, resets_count)], "told when the handshake is under way"


async def test_a_tunnel_that_does_not_answer_keeps_nobody_from_being_told() -> None:
    home, told = FakeHome(), []
    home.is_gone = True
    outside = Outside(home=home, interface="seip1")

    async def tell(change: Change) -> None:
        told.append(change)

    outside.on_change.append(tell)
    await outside._on_change(Change.WAY)
    assert told == [Change.WAY]


@pytest.mark.parametrize(
    ("endpoint", "server", "towards"),
    [
        ("198.18.0.11:51940", "198.18.0.11", "198.18.0.11"),
        ("[2001:db8::b]:51940", "2001:db8::b", ELSEWHERE),
    ],
)
def test_the_router_is_the_one_on_the_way_to_the_server(endpoint, server, towards) -> None:
    outside = Outside(home=FakeHome(endpoint), interface="seip1")
    assert outside._server() == server
    assert outside._towards() == towards


def test_the_status_shows_the_port_and_else_why_there_is_none() -> None:
    outside, told = Outside(home=FakeHome(), interface="seip1"), []
    outside.on_mapped.append(told.append)
    assert outside.facts() == {"mapped": None, "why": "not asked yet"}
    outside._on_mapped(MAPPED)
    assert told == [MAPPED]
