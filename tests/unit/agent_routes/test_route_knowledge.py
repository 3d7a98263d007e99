"""What a server says of subnets: taken where it is proved, told where it is to be, never more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seipd.agent.proving import Verdict
from seipd.agent.routes.answer import routes_answer
from seipd.agent.routes.knowing import Knower
from seipd.agent.routes.wishes import RoutingWishes
from seipd.agent.state import AgentState
from services.base.storage.files import make_private_dir
from services.kernel.errors import WireError
from tests.fakes.world import START_MS, curve_key

NODES = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(3)]
OWN, GATE, OTHER = NODES
LAN = "192.168.7.0/24"
MESH = {"node_id": OWN, "mesh_id": "ab" * 32}


def router(node_id: str = GATE, *, routes=(LAN,), is_exit: bool = False) -> dict:
    return {
        "node_id": node_id,
        "name": f"host{node_id[-1]}",
        "address": f"10.64.0.1{node_id[-1]}",
        "wireguard_key": curve_key(node_id),
        "routes": list(routes),
        "exit": is_exit,
    }


def answer(*routers: dict, asked: dict | None = None, routes=()) -> dict:
    asked = asked or {"prefixes": [], "exit": False, "serial": 0}
    own = {"routes": list(routes), "exit": False, "asked": asked}
    return {"routers": list(routers), "own": own, "members": []}


class Server:
    """Answers as it is told to, and notes what it is told."""

    def __init__(self) -> None:
        self.says = answer()
        self.told = []

    async def call(self, method, path, body=None):
        if method == "POST":
            self.told.append(body["record"])
            return {}
        return self.says


class Judge:
    """Holds of each endpoint what a test says."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.asked: list[str] = []

    async def shown_so(self, api, listed):
        self.asked += listed
        return {name: Verdict(state=self.states.get(name, "proven")) for name in listed}


class StillClock:
    def now_ms(self) -> int:
        return START_MS

    def monotonic_s(self) -> float:
        return 1.0


@pytest.fixture
def knower(tmp_path):
    folder = tmp_path / "seip"
    make_private_dir(folder)
    return Knower(keys=AgentState(folder).keys(create=True), clock=StillClock())


async def test_only_what_is_proved_is_gone_by(knower) -> None:
    server, judge = Server(), Judge()
    server.says = answer(router(), router(OTHER, routes=["192.168.8.0/24"]))
    judge.states = {GATE: "waiting", OTHER: "refused"}
    learnt = await knower.ask(server, judge, MESH)
    assert (learnt.routers, learnt.waiting, learnt.refused) == ((), ("host1",), ("host2",))
    judge.states = {}
    learnt = await knower.ask(server, judge, MESH)
    assert [one.prefixes for one in learnt.routers] == [(LAN,), ("192.168.8.0/24",)]


async def test_what_was_proved_stays_while_there_is_no_newer_proof(knower) -> None:
    server, judge = Server(), Judge()
    server.says = answer(router())
    await knower.ask(server, judge, MESH)
    judge.states = {GATE: "waiting"}
    assert (await knower.ask(server, judge, MESH)).routers[0].prefixes == (LAN,)
    server.says = answer(router(routes=[LAN, "192.168.9.0/24"]))
    assert (await knower.ask(server, judge, MESH)).waiting == ("host1",)
    server.says = answer()
    assert (await knower.ask(server, judge, MESH)).routers == ()
    server.says = answer(router())
    assert (await knower.ask(server, judge, MESH)).waiting == ("host1",)


async def test_an_endpoint_is_no_router_of_its_own(knower) -> None:
    server, judge = Server(), Judge()
    server.says = answer(router(OWN), routes=[LAN])
    learnt = await knower.ask(server, judge, MESH)
    assert (learnt.routers, learnt.own.routes, judge.asked) == ((), [LAN], [])


async def test_what_is_offered_is_said_once_and_with_a_growing_number(knower) -> None:
    server, judge = Server(), Judge()
    wishes = RoutingWishes(advertise=[LAN], offers_exit=True)
    learnt = await knower.ask(server, judge, MESH)
    assert await knower.offer(server, MESH, learnt.own, wishes)
    assert server.told[0]["body"] == {"node": OWN, "prefixes": [LAN], "exit": True, "serial": 1}
    server.says = answer(asked={"prefixes": [LAN], "exit": True, "serial": 1})
    learnt = await knower.ask(server, judge, MESH)
    assert not await knower.offer(server, MESH, learnt.own, wishes)
    assert await knower.offer(server, MESH, learnt.own, RoutingWishes())
    assert server.told[1]["body"] == {"node": OWN, "prefixes": [], "exit": False, "serial": 2}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value.pop("own"),
        lambda value: value.update(routers=[router(routes=["0.0.0.0/0"])]),
        lambda value: value.update(routers=[router(routes=["192.168.7.1/24"])]),
        lambda value: value.update(routers=[router(routes=[LAN] * 33)]),
        lambda value: value.update(routers=[{**router(), "address": "10.64.0.1\n"}]),
        lambda value: value.update(routers=[{**router(), "name": "a b"}]),
        lambda value: value.update(routers=[{**router(), "wireguard_key": curve_key("x")[:-1]}]),
        lambda value: value.update(members=["10.64.0.300"]),
        lambda value: value.update(members="10.64.0.10"),
        lambda value: value["own"].update(routes=["fe80::%eth0/64"]),
        lambda value: value["own"]["asked"].update(serial=-1),
    ],
)
def test_an_answer_that_is_not_good_is_refused_whole(spoil) -> None:
    value = answer(router())
    routes_answer(value)
    spoil(value)
    with pytest.raises(WireError):
        routes_answer(value)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["routers", "own", "members", "asked"]), inner),
    ),
    max_leaves=9,
)


@given(JSON)
def test_any_answer_is_taken_or_refused(value) -> None:
    try:
        routes_answer(value)
    except WireError:
        return
