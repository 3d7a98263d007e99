"""What an endpoint is told of names that are not the mesh's: looked up, bounded, kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import dnslib

from services.edge.resolver.routing import Routes
from services.edge.resolver.service import MAX_FLIGHT_PER_SOURCE, ResolverService, ResolverSettings
from services.kernel.addr import default_ranges, is_inner
from services.runtime.clock import SystemClock
from tests.fakes.nameserver import name_server, zone
from tests.unit.edge_dns.dns_kit import DOMAIN, INSIDE, STREAM, Small

SOURCE = "10.64.0.10"
MESH = "ab" * 32
NAMES = {
    "www.example.com.": ["A 192.0.2.80"],
    "long.example.com.": [f'TXT "{"x" * 250}"' for _ in range(4)],
    "alias.example.com.": ["CNAME www.example.com."],
    "inward.example.com.": ["A 10.64.0.77", "A 192.0.2.81"],
    "wrapped.example.com.": ["AAAA ::ffff:a40:4d", "AAAA 2002:a40:4d::1", "AAAA 2001:db8::7"],
    "service.example.com.": [
        "HTTPS 1 . alpn=h2 ipv4hint=192.0.2.81,10.64.0.77",
        "HTTPS 2 . ipv6hint=::ffff:a40:4d",
        "HTTPS 3 other.example.com. port=8443 ipv4hint=192.0.2.81",
    ],
    f"{DOMAIN}.": ["DS 12345 15 2 " + "ab" * 32],
}


class NoState:
    """A state in which nobody has domains of their own."""

    def get(self, view: str, key: str):
        return None


class Rig:
    """A name server of the mesh with a resolver behind it."""

    def __init__(self, *upstreams, state=None, resolv_conf: Path = Path("/nonexistent")) -> None:
        ranges = default_ranges()
        self.routes = Routes(
            state=lambda: state or NoState(), mesh_id=MESH, ranges=ranges, own={"10.64.0.1"}
        )
        self.service = ResolverService(
            settings=ResolverSettings(
                upstreams=tuple(upstreams) or None,
                own={"10.64.0.1"},
                is_inner=lambda address: is_inner(MESH, ranges, address),
                resolv_conf=resolv_conf,
            ),
            routes=self.routes,
            clock=SystemClock(),
        )
        self.small = Small()

    def query(self, name: str, rtype: str = "A", *, rd: int = 1) -> bytes:
        query = dnslib.DNSRecord.question(name, rtype)
        query.header.rd = rd
        return bytes(query.pack())

    def begin(self, name: str, rtype: str = "A", *, source: str = SOURCE, rd: int = 1, tcp=False):
        data = self.query(name, rtype, rd=rd)
        answer = self.small.raw(data, STREAM if tcp else INSIDE)
        return self.service.complete(data, answer, source, stream=tcp)

    async def ask(self, name: str, rtype: str = "A", **more) -> dnslib.DNSRecord:
        said = self.begin(name, rtype, **more)
        return dnslib.DNSRecord.parse(said if isinstance(said, bytes) else await said)


def run(work):
    return asyncio.run(work())


def rcode(reply: dnslib.DNSRecord) -> str:
    return dnslib.RCODE[reply.header.rcode]


def datas(reply: dnslib.DNSRecord) -> list[str]:
    return [str(one.rdata) for one in reply.rr]


def test_an_endpoint_is_told_of_other_names_and_the_second_time_from_what_is_kept() -> None:
    async def work():
        async with name_server(zone(NAMES)) as server:
            rig = Rig(server.place)
            await rig.service.start()
            first = await rig.ask("WWW.example.com")
            second = rig.begin("www.example.com")
            await rig.service.stop()
            return first, second, len(server.asked)

    first, second, asked_count = run(work)
    assert datas(first) == ["192.0.2.80"]
    assert str(first.q.qname) == "WWW.example.com."
    assert (first.header.ra, first.header.aa) == (1, 0)
    assert isinstance(second, bytes)
    assert asked_count == 1


def test_names_of_the_mesh_are_its_own_word() -> None:
    async def work():
        async with name_server(zone(NAMES)) as server:
            rig = Rig(server.place)
            await rig.service.start()
            known = await rig.ask(f"pc.acme.ep.{DOMAIN}")
            unknown = await rig.ask(f"nobody.acme.ep.{DOMAIN}")
            await rig.service.stop()
            return known, unknown, server.asked

    known, unknown, asked = run(work)
    assert datas(known) == ["10.64.0.10"]
    assert (known.header.aa, known.header.ra) == (1, 1)
    assert rcode(unknown) == "NXDOMAIN"
    assert asked == []


def test_who_is_no_endpoint_or_wants_no_recursion_is_refused() -> None:
    async def work():
        async with name_server(zone(NAMES)) as server:
            rig = Rig(server.place)
            await rig.service.start()
            replies = [
                await rig.ask("www.example.com", source="172.16.0.20"),
                await rig.ask("www.example.com", source="203.0.113.7"),
                await rig.ask("www.example.com", source="10.64.0.1"),
                await rig.ask("www.example.com", source="fd12:3456::1"),
                await rig.ask("www.example.com", rd=0),
                await rig.ask("www.example.com", "AXFR"),
            ]
            await rig.service.stop()
            return replies, server.asked

    replies, asked = run(work)
    assert [rcode(one) for one in replies] == ["REFUSED"] * 6
    assert asked == []


def test_an_alias_of_the_mesh_that_leads_out_is_followed() -> None:
    from services.edge.dns.records import names
    from services.edge.dns.wire import Type
    from services.kernel.dnsnames import name_of

    async def work():
        async with name_server(zone(NAMES)) as server:
            rig = Rig(server.place)
            rig.small.put("www", names(Type.CNAME, 60, [name_of("alias.example.com")]))
            await rig.service.start()
            reply = await rig.ask(f"www.{DOMAIN}")
            await rig.service.stop()
            return reply

    assert datas(run(work)) == ["alias.example.com.", "www.example.com.", "192.0.2.80"]


def test_what_is_long_goes_over_tcp_both_ways() -> None:
    async def work():
        async with name_server(zone(NAMES)) as server:
            rig = Rig(server.place)
            await rig.service.start()
            cut = await rig.ask("long.example.com", "TXT")
            whole = await rig.ask("long.example.com", "TXT", tcp=True)
            await rig.service.stop()
            return cut, whole, server.streams

    cut, whole, streams = run(work)
    assert (cut.header.tc, len(cut.rr)) == (1, 0)
    assert (whole.header.tc, len(whole.rr)) == (0, 4)
    assert streams == 1


def test_a_dead_upstream_costs_one_try_and_a_broken_one_none() -> None:
    def broken(data: bytes, stream: bool) -> list[bytes]:
        reply = dnslib.DNSRecord.parse(data).reply()
        reply.header.rcode = 2
        return [reply.pack()]

    async def work():
        async with name_server(broken) as bad, name_server(zone(NAMES)) as good:
            rig = Rig(bad.place, good.place)
            await rig.service.start()
            first = await rig.ask("www.example.com")
            second = await rig.ask("alias.example.com")
            await rig.service.stop()
            return first, second, len(bad.asked)

    first, second, bad_count = run(work)
    assert datas(first) == ["192.0.2.80"]
    assert "192.0.2.80" in datas(second)
    assert bad_count == 1


def test_without_an_upstream_that_answers_it_says_that_it_failed() -> None:
    async def work():
        async with name_server(lambda data, stream: []) as server:
            rig = Rig(server.place)
            await rig.service.start()
            said = rig.begin("www.example.com")
            nobody = Rig(("10.64.0.1", 53))
            await nobody.service.start()
            alone = await nobody.ask("www.example.com")
            said.cancel()
            await rig.service.stop()
            return alone

    assert rcode(run(work)) == "SERVFAIL"


def test_dns_20_each_question_has_its_own_id_port_and_case() -> None:
    async def work():
        async with name_server(zone({})) as server:
            rig = Rig(server.place)
            await rig.service.start()
            for number in range(20):
                await rig.ask(f"name-{number}.example.com")
            await rig.service.stop()
            return server.asked, server.ports

    asked, ports = run(work)
    assert len({one[:2] for one in asked}) >= 19
    assert len(set(ports)) >= 15
    assert any(one[12:].lower() != one[12:] for one in asked)


def test_dns_20_what_is_forged_is_ignored_and_other_letters_lead_to_tcp() -> None:
    real = zone(NAMES)

    def forging(data: bytes, stream: bool) -> list[bytes]:
        (answer,) = real(data, stream)
        if stream:
            return [answer]
        evil = answer[:-4] + bytes([203, 0, 113, 66])
        at = next(at for at in range(13, 28) if chr(evil[at]).isalpha())
        other_case = evil[:at] + evil[at : at + 1].swapcase() + evil[at + 1 :]
        return [bytes([evil[0] ^ 1]) + evil[1:], evil[:20], other_case]

    async def work():
        async with name_server(forging) as server:
            rig = Rig(server.place)
            await rig.service.start()
            reply = await rig.ask("www.example.com")
            await rig.service.stop()
            return reply, server.streams

    reply, streams = run(work)
    assert datas(reply) == ["192.0.2.80"]
    assert streams == 1


def test_no_name_of_others_leads_into_the_mesh() -> None:
    async def work():
        async with name_server(zone(NAMES)) as server:
            rig = Rig(server.place)
            await rig.service.start()
            reply = await rig.ask("inward.example.com")
            await rig.service.stop()
            return reply

    assert datas(run(work)) == ["192.0.2.81"]


def test_no_address_in_another_one_and_no_hint_leads_into_the_mesh_either() -> None:
    async def work():
        async with name_server(zone(NAMES)) as server:
            rig = Rig(server.place)
            await rig.service.start()
            replies = [
                await rig.ask("wrapped.example.com", "AAAA"),
                await rig.ask("service.example.com", "HTTPS"),
            ]
            await rig.service.stop()
            return replies

    wrapped, service = run(work)
    assert datas(wrapped) == ["2001:db8::7"]
    assert [one.split()[0] for one in datas(service)] == ["3"]


def test_what_nobody_could_answer_is_not_asked_again_at_once() -> None:
    def broken(data: bytes, stream: bool) -> list[bytes]:
        reply = dnslib.DNSRecord.parse(data).reply()
        reply.header.rcode = 2
        return [reply.pack()]

    async def work():
        async with name_server(broken) as server:
            rig = Rig(server.place)
            await rig.service.start()
            first = await rig.ask("www.example.com")
            asked_count = len(server.asked)
            second = await rig.ask("www.example.com")
            other = await rig.ask("other.example.com")
            await rig.service.stop()
            return [first, second, other], asked_count, len(server.asked)

    replies, asked_count, in_all_count = run(work)
    assert [rcode(one) for one in replies] == ["SERVFAIL"] * 3
    assert in_all_count == 2 * asked_count


def test_the_ds_of_the_meshs_domain_is_the_parents_to_tell() -> None:
    async def work():
        async with name_server(zone(NAMES)) as server:
            rig, alone = Rig(server.place), Rig(("10.64.0.1", 53))
            await rig.service.start()
            await alone.service.start()
            found = await rig.ask(DOMAIN, "DS")
            below = await rig.ask(f"www.{DOMAIN}", "DS")
            nobody = await alone.ask(DOMAIN, "DS")
            await rig.service.stop()
            await alone.service.stop()
            return found, below, nobody, len(server.asked)

    found, below, nobody, asked_count = run(work)
    assert datas(found)[0].startswith("12345 15 2 ")
    assert (below.rr, nobody.rr, asked_count) == ([], [], 1)
    assert rcode(nobody) == "NOERROR"


def test_one_endpoint_has_so_many_questions_in_flight_and_the_next_one_its_own() -> None:
    async def work():
        async with name_server(lambda data, stream: []) as server:
            rig = Rig(server.place)
            await rig.service.start()
            begun = [rig.begin(f"n{number}.example.com") for number in range(100)]
            waiting = [one for one in begun if not isinstance(one, bytes)]
            refused = [dnslib.DNSRecord.parse(one) for one in begun if isinstance(one, bytes)]
            other = rig.begin("www.example.com", source="10.64.0.11")
            flying = rig.service.flight_count
            await rig.service.stop()
            return waiting, refused, other, flying, rig.service

    waiting, refused, other, flying, service = run(work)
    assert len(waiting) == MAX_FLIGHT_PER_SOURCE
    assert {rcode(one) for one in refused} == {"SERVFAIL"}
    assert not isinstance(other, bytes)
    assert flying == MAX_FLIGHT_PER_SOURCE + 1
    assert service.flight_count == 0
    assert service.counters()["refused"] == len(refused)


def test_two_that_ask_the_same_wait_for_one_answer() -> None:
    async def work():
        async with name_server(zone(NAMES)) as server:
            rig = Rig(server.place)
            await rig.service.start()
            both = rig.begin("www.example.com"), rig.begin("www.example.com", source="10.64.0.11")
            replies = [dnslib.DNSRecord.parse(await one) for one in both]
            await rig.service.stop()
            return replies, len(server.asked)

    replies, asked_count = run(work)
    assert [datas(one) for one in replies] == [["192.0.2.80"]] * 2
    assert asked_count == 1


def test_the_machines_own_name_servers_are_asked_but_never_this_one(tmp_path: Path) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 10.64.0.1\nnameserver 192.0.2.53\n")

    async def work():
        rig = Rig(resolv_conf=resolv_conf)
        await rig.service.start()
        detail = rig.service.health().detail
        await rig.service.stop()
        return detail

    assert run(work) == "asks 192.0.2.53"
