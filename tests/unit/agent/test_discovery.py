"""From the domain alone to the servers, the near and idle ones first; whatever DNS says."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seipd.agent.choosing import is_clearly_better
from seipd.agent.discovery import settling
from seipd.agent.discovery.finding import Measured, Names, find_servers
from seipd.agent.discovery.naming import parse_config, regions_in, servers_in, to_look_at
from seipd.agent.serverlist import KnownServer
from services.kernel.dnsnames import name_of
from services.kernel.errors import NotFoundError, UnreachableError, WireError
from tests.fakes.nameserver import name_server, zone

DOMAIN = "mesh.example"
ONE, TWO, THREE, FOUR = (f"server-{digit * 16}" for digit in "1234")


def records(**regions: list[str]) -> dict[str, list[str]]:
    """Return what the mesh's name servers would say."""
    made: dict[str, list[str]] = {}
    names = {region.replace("_", "-"): servers for region, servers in regions.items()}
    made[f"_config.seip.{DOMAIN}."] = [f"PTR _config.{name}.seip.{DOMAIN}." for name in names]
    for number, (region, servers) in enumerate(names.items(), start=1):
        tail = f"{region}.seip.{DOMAIN}."
        made[f"_config.{tail}"] = [f"PTR _config.{one}.{tail}" for one in servers]
        for place, one in enumerate(servers, start=1):
            text = f"v=sp1 http=9100 udp=51940 region={region} load={place} host={one}.{tail}"
            made[f"_config.{one}.{tail}"] = [f'TXT "{text}"']
            made[f"{one}.{tail}"] = [f"A 192.0.{number}.{place}"]
    return made


def found_in(said: dict[str, list[str]], **more) -> list[KnownServer]:
    async def work():
        async with name_server(zone(said)) as server:
            return await find_servers(DOMAIN, names=Names([server.place]), **more)

    return asyncio.run(work())


def test_the_domain_leads_to_every_server_with_its_place_and_load() -> None:
    found = found_in(records(eu_west=[ONE, TWO], us_east=[THREE]), region="us-east")
    assert [(one.server_id, one.region, one.address, one.load) for one in found] == [
        (THREE, "us-east", "192.0.2.1:9100", 1.0),
        (ONE, "eu-west", "192.0.1.1:9100", 1.0),
        (TWO, "eu-west", "192.0.1.2:9100", 2.0),
    ]


def test_without_a_region_some_of_each_are_looked_at_and_the_tokens_server_always() -> None:
    listed = {"eu-west": [f"a{n}" for n in range(30)], "us-east": ["b0"], "ap-east": ["c0"]}
    pairs = to_look_at(listed, None, count=4)
    assert sorted(pairs[:3]) == [("a0", "eu-west"), ("b0", "us-east"), ("c0", "ap-east")]
    assert len(pairs) == 4
    near = to_look_at(listed, "us-east", count=40)
    assert [region for _, region in near] == ["us-east", *["eu-west"] * 30, "ap-east"]
    many = [f"server-{number:016x}" for number in range(40)]
    found = found_in(records(eu_west=[ONE], us_east=many), region="us-east", wanted=ONE)
    assert ONE in [one.server_id for one in found]


def test_a_server_that_says_nonsense_is_left_out() -> None:
    said = records(eu_west=[ONE, TWO, THREE])
    said[f"_config.{ONE}.eu-west.seip.{DOMAIN}."] = ['TXT "v=sp2 http=9100"']
    del said[f"{TWO}.eu-west.seip.{DOMAIN}."]
    assert [one.server_id for one in found_in(said)] == [THREE]


def test_a_domain_without_a_mesh_says_so() -> None:
    with pytest.raises(NotFoundError):
        found_in({})


def test_name_servers_that_are_dead_are_passed_over() -> None:
    async def work(*alive):
        async with name_server(lambda data, stream: [], "127.0.0.1") as dead:
            names = Names([dead.place, *alive], tries_s=(0.1, 0.2))
            return await find_servers(DOMAIN, names=names)

    async def with_one():
        async with name_server(zone(records(eu_west=[ONE]))) as good:
            return await work(good.place)

    assert [one.server_id for one in asyncio.run(with_one())] == [ONE]
    with pytest.raises(UnreachableError):
        asyncio.run(work())


def test_a_name_server_that_loses_every_first_question_is_asked_once_more() -> None:
    """As one does that has to look everything up first: by then it has it."""
    asked: set[bytes] = set()
    told = zone(records(eu_west=[ONE, TWO]))

    def slow(data: bytes, stream: bool) -> list[bytes]:
        question = data[12:].lower()
        if question in asked:
            return told(data, stream)
        asked.add(question)
        return []

    async def work():
        async with name_server(slow) as server:
            return await find_servers(DOMAIN, names=Names([server.place], tries_s=(0.1, 5.0)))

    assert sorted(one.server_id for one in asyncio.run(work())) == [ONE, TWO]


def test_a_name_server_that_fails_for_one_kind_of_address_leaves_the_other() -> None:
    told = zone(records(eu_west=[ONE]))

    def broken(data: bytes, stream: bool) -> list[bytes]:
        (answer,) = told(data, stream)
        is_six = b"\0\x1c\0\1" in data
        return [answer[:3] + bytes([answer[3] & 0xF0 | 2]) + answer[4:]] if is_six else [answer]

    async def work():
        async with name_server(broken) as server:
            return await find_servers(DOMAIN, names=Names([server.place]))

    assert [one.server_id for one in asyncio.run(work())] == [ONE]


def test_a_list_points_below_its_own_domain_or_nowhere() -> None:
    good = f"_config.{ONE}.eu-west.seip.{DOMAIN}"
    targets = [
        good,
        good.upper(),
        f"_config.{TWO}.eu-west.seip.evil.example",
        f"_config.server-xyz.eu-west.seip.{DOMAIN}",
        f"{TWO}.eu-west.seip.{DOMAIN}",
        f"_config.{TWO}.us-east.seip.{DOMAIN}",
    ]
    assert servers_in(map(name_of, targets), "eu-west", DOMAIN) == [ONE]
    regions = [f"_config.eu-west.seip.{DOMAIN}", f"_config.a.b.seip.{DOMAIN}", "eu-west"]
    assert regions_in(map(name_of, regions), DOMAIN) == ["eu-west"]


@pytest.mark.parametrize(
    "text", ["", "v=sp1", "v=sp1 http=0", "v=sp1 http=99999", "v=sp1 http=+9", "http=9100"]
)
def test_a_text_without_a_port_is_none(text: str) -> None:
    with pytest.raises(WireError):
        parse_config(text)


@given(st.text(max_size=100))
def test_any_text_is_one_or_is_refused(text: str) -> None:
    try:
        config = parse_config(text)
    except WireError:
        return
    assert 1 <= config.http_port <= 65_535
    assert 0 <= config.load <= 10


def test_a_move_is_worth_it_where_it_is_clearly_better() -> None:
    assert is_clearly_better(70.0, 100.0)
    assert not is_clearly_better(71.0, 100.0)
    assert not is_clearly_better(0.3, 0.6)


class State:
    def __init__(self) -> None:
        self.at = ONE

    def mesh(self) -> dict:
        return {"server": {"server_id": self.at}}


def settled(monkeypatch, *scores: tuple[str, float], refuses: str = "") -> tuple[str, str]:
    """Return where an endpoint of the first server ends, and what is said of it."""
    state = State()
    server = KnownServer(server_id="", region="lab", address="192.0.2.1:9100")
    measured = [
        Measured(server=replace(server, server_id=name), latency_ms=latency_ms)
        for name, latency_ms in scores
    ]

    async def measure(found):
        return sorted(measured, key=lambda one: one.score)

    async def attach(state, server_id: str, address: str) -> None:
        if server_id == refuses:
            raise UnreachableError("nobody answers")
        state.at = server_id

    monkeypatch.setattr(settling, "measure", measure)
    monkeypatch.setattr(settling, "attach", attach)
    monkeypatch.setattr(settling, "save_servers", lambda state, found: None)
    why = asyncio.run(settling.settle(state, [server]))
    return state.at, why


def test_after_the_join_it_goes_to_the_best_if_that_is_clearly_better(monkeypatch) -> None:
    assert settled(monkeypatch, (ONE, 300.0), (TWO, 120.0), (THREE, 20.0))[0] == THREE
    assert settled(monkeypatch, (ONE, 100.0), (TWO, 80.0)) == (ONE, "")
    assert settled(monkeypatch, (ONE, 0.9), (TWO, 0.2)) == (ONE, "")
    assert settled(monkeypatch, (TWO, 80.0))[0] == TWO
    at, why = settled(monkeypatch, (ONE, 300.0), (TWO, 120.0), (THREE, 20.0), refuses=THREE)
    assert (at, why) == (TWO, f"{TWO} is better: 120, 300 there")
    assert settled(monkeypatch) == (ONE, "")
