"""The running agent's routes, against a real server in this process: offer, approval, use, lies."""

from __future__ import annotations

import asyncio

import pytest

from seipd.agent.routes import service as routes_service
from seipd.agent.routes.options import routes_lines
from seipd.agent.routes.service import Routes
from seipd.agent.routes.wishes import Said, remember
from services.edge.punch.messages import What
from services.edge.wireguard.model import DeviceStatus
from services.kernel.errors import UnreachableError
from tests.fakes.endpoint import Api, agree, joined
from tests.fakes.one_server import OneServer

LAN = "192.168.7.0/24"


@pytest.fixture
async def server(tmp_path):
    one = await OneServer.start(tmp_path / "server")
    yield one
    await one.stop()


class Endpoint:
    """An agent's routes; its sessions lead to that server, tunnel and firewall are noted."""

    def __init__(self, server, state, lies) -> None:
        self.server, self.state, self.lies = server, state, lies
        self.mesh = state.mesh()
        self.subnets: tuple[str, ...] = ()
        self.plans = []
        self.carried = None
        self.is_away = False
        self.mtu = 1420
        self.on_carry = lambda: None
        self.lie = lambda path, value: value
        self.routes = Routes(
            state=state, signer_count=0, clock=server.clock, carrier=self, mtu=lambda: self.mtu
        )

    # As its home, its interface and its carrier.
    async def carry(self, what):
        if isinstance(what, tuple):
            self.subnets = what
            return ""
        self.carried = what
        self.on_carry()
        return ""

    async def set_plan(self, plan) -> None:
        self.plans.append(plan)

    def status(self) -> DeviceStatus:
        return DeviceStatus(
            interface="seip1", backend="kernel", public_key=bytes(32), listen_port=7, peer_count=1
        )

    async def end(self) -> None:
        self.carried = None

    async def look(self) -> None:
        self.routes.heard(What.PEERS)
        await self.routes.look(self, self)

    def into(self) -> list[str]:
        return [one.destination for one in self.plans[-1].side.routes]


@pytest.fixture
def endpoint(server, tmp_path, monkeypatch):
    made: dict[str, Endpoint] = {}

    class Session(Api):
        def __init__(self, mesh, keys) -> None:
            self._of = made[mesh["node_id"]]
            super().__init__(server, self._of.state)
            self.lie = self._of.lie

        async def __aenter__(self):
            if self._of.is_away:
                raise UnreachableError("the server is away")
            return await super().__aenter__()

    lies = []

    async def report(mesh, keys, *, subject, verdict, now_ms):
        lies.append((subject, verdict.code))
        return 1

    monkeypatch.setattr(routes_service, "PrivateApi", Session)
    monkeypatch.setattr(routes_service, "report_lie", report)

    async def endpoint(name: str, **said) -> Endpoint:
        state = await joined(server, tmp_path / name, name)
        remember(state, Said(**said))
        one = Endpoint(server, state, lies)
        made[one.mesh["node_id"]] = one
        return one

    return endpoint


def lines(one: Endpoint, *held: dict) -> list[tuple[str, str]]:
    status = {"routes": one.routes.facts(), "paths": {"held": held, "why_none": ""}}
    return routes_lines(status)


async def approve(server, one: Endpoint, route: str, kind: str = "tree.approve") -> None:
    record = server.author.record(kind, {"node": one.mesh["node_id"], "route": route})
    await server.ledger.submit([record])


async def test_a_subnet_from_its_offer_to_its_withdrawal(server, endpoint) -> None:
    router, user = await endpoint("router", advertise=LAN), await endpoint("user")
    await router.look()
    assert lines(router)[-1] == ("offered", f"{LAN}: not approved yet")
    assert not router.carried.is_router
    await agree(server)
    await approve(server, router, LAN)
    await user.look()
    assert user.routes.facts()["waiting"] == ["router"]
    assert user.subnets == ()
    await agree(server)
    for one in (router, user):
        await one.look()
    assert router.carried.subnets == (LAN,)
    assert set(router.carried.members) == {
        router.mesh["tunnel_address"],
        user.mesh["tunnel_address"],
    }
    assert (user.subnets, user.into()) == ((LAN,), [LAN])
    assert user.carried.uses
    assert ("subnet", f"{LAN} by router") in lines(user)
    await approve(server, router, LAN, "tree.withdraw")
    for one in (router, user):
        await one.look()
    assert (user.subnets, user.into(), router.carried.subnets) == ((), [], ())


async def test_its_own_going_from_the_firewall_brings_nothing_back(server, endpoint) -> None:
    router = await endpoint("router")
    begun = asyncio.Event()
    router.on_carry = begun.set
    router.routes.begin(router, router)
    await begun.wait()
    await router.routes.end()
    assert router.carried is None
    router.on_carry = lambda: pytest.fail("carried after the end")
    router.routes.touched()
    for _ in range(100):
        await asyncio.sleep(0)


async def test_an_approval_that_comes_while_it_asks_is_not_lost(server, endpoint) -> None:
    router = await endpoint("router", advertise=LAN)
    await router.look()
    await agree(server)
    asked = []

    def approved_just_now(path, value):
        if "/mesh/routes/" in path and not asked:
            # The answer is on its way; what is heard now is newer than it.
            router.routes.heard(What.PEERS)
            asked.append(path)
        return value

    router.lie = approved_just_now
    await router.look()
    await approve(server, router, LAN)
    assert router.carried.subnets == ()
    await router.routes.look(router, router)
    assert router.carried.subnets == (LAN,)


async def test_a_fault_while_it_asks_is_not_the_last_time(server, endpoint) -> None:
    router = await endpoint("router", advertise=LAN)
    await router.look()
    await agree(server)
    await approve(server, router, LAN)

    def breaks(path, value):
        raise RuntimeError("a fault of ours")

    router.lie = breaks
    with pytest.raises(RuntimeError):
        await router.look()
    router.lie = lambda path, value: value
    server.clock.shift_ms += 5_000
    await router.routes.look(router, router)
    assert router.carried.subnets == (LAN,)


async def test_the_firewall_is_looked_after_while_nothing_changes(server, endpoint) -> None:
    router = await endpoint("router", advertise=LAN)
    await router.look()
    await agree(server)
    await router.look()
    router.carried, router.is_away = None, True
    await router.routes.look(router, router)
    assert router.carried is None
    server.clock.shift_ms += 20_000
    await router.routes.look(router, router)
    assert router.carried is not None


async def test_who_accepts_no_routes_has_none_and_hears_of_it_while_it_runs(
    server, endpoint
) -> None:
    router, user = await endpoint("router", advertise=LAN), await endpoint("user", accepts=False)
    await router.look()
    await approve(server, router, LAN)
    await agree(server)
    await user.look()
    assert (user.subnets, user.into()) == ((), [])
    remember(user.state, Said(accepts=True))
    await user.routes.look(user, user)
    assert user.subnets == (LAN,)


async def test_a_server_alone_makes_up_no_route(server, endpoint) -> None:
    router, user = await endpoint("router", advertise=LAN), await endpoint("user")
    await router.look()
    await approve(server, router, LAN)
    await agree(server)

    def lie(path, value):
        if path.startswith("/api/mesh/routes/"):
            value["routers"][0]["routes"] = ["8.8.8.0/24"]
        return value

    user.lie = lie
    await user.look()
    assert (user.subnets, user.into()) == ((), [])
    assert user.routes.facts()["waiting"] == ["router"]


async def test_everything_is_closed_until_the_exit_is_there(server, endpoint) -> None:
    gate, user = await endpoint("gate", offers_exit=True), await endpoint("user", exit_node="gate")
    assert user.routes.plan(user.mesh).side.closed == ("0.0.0.0/0", "::/0")
    user.is_away = True
    with pytest.raises(UnreachableError):
        await user.look()
    assert user.plans[-1].side.closed == ("0.0.0.0/0", "::/0")
    user.is_away = False
    await gate.look()
    await agree(server)
    await user.look()
    assert user.into() == []
    assert "may be an exit" in lines(user)[-1][1]
    await approve(server, gate, "exit")
    await user.look()
    assert "not proved yet" in lines(user)[-1][1]
    await agree(server)
    told = []

    async def tell() -> None:
        told.append(user.routes.book.wanted())

    user.routes.on_changed.append(tell)
    await user.look()
    assert user.into() == ["0.0.0.0/0", "::/0"]
    assert told == [(gate.mesh["tunnel_address"],)]
    assert user.routes.book.prefixes_of(gate.mesh["tunnel_address"]) == ("0.0.0.0/0", "::/0")
    assert user.subnets == ()  # nothing of it goes to the server
    assert user.carried.port == 7
    path = {"address": gate.mesh["tunnel_address"], "path": "server", "why": "it is away"}
    assert lines(user, path)[-1][1] == (
        "gate: there is no path to it from end to end: it is away; nothing goes out meanwhile"
    )
    assert lines(user, {**path, "path": "relay"})[-1] == ("exit node", "gate")


async def test_an_exit_is_given_up_though_the_server_is_away(server, endpoint) -> None:
    user = await endpoint("user", exit_node="gate")
    await user.look()
    user.is_away = True
    remember(user.state, Said(exit_node="none"))
    with pytest.raises(UnreachableError):
        await user.routes.look(user, user)
    assert user.plans[-1].side.closed == ()
    assert user.routes.facts()["exit"] is None
