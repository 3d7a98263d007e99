"""Two name servers for ``bench_dns``: ours and a plain one by dnslib, each on one core.

    python -m tests.bench.dns_servers ours|dnslib COUNT PORT CPU

Both print ``ready`` when they answer. Ours is the service of the daemon with its sockets, cookies
and tables; only the rate of responses is off, as it is in the NSD beside it, since all queries come
from one address.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from ipaddress import IPv4Address
from pathlib import Path

from services.edge.dns.answering import Answerer, Soa
from services.edge.dns.cookies import Cookies
from services.edge.dns.ratelimiting import ResponseRates
from services.edge.dns.records import addresses
from services.edge.dns.serials import Serials
from services.edge.dns.service import DnsService, DnsSettings
from services.edge.dns.zone import Source, Table, Zone
from services.kernel.dnsnames import name_of
from services.runtime.clock import SystemClock

DOMAIN = "mesh.test"
BASE = int(IPv4Address("198.18.0.0"))


def host(number: int) -> str:
    """Return the name of a server, as long as they really are."""
    return f"server-{number:016x}.eu-central.seip.{DOMAIN}"


def address(number: int) -> str:
    return str(IPv4Address(BASE + number))


class Fixed:
    """A zone that nothing changes; satisfies what the service needs of a publisher."""

    def __init__(self, count: int) -> None:
        self.table = Table(self._changed)
        self._ready = None
        for number in range(count):
            self.put(host(number), address(number))

    def put(self, name: str, text: str) -> None:
        self.table.put(Source.MESH, name_of(name), addresses(60, text))

    def begin(self, ready) -> None:
        self._ready = ready

    def look_over(self) -> None:
        pass

    def _changed(self, name: bytes) -> None:
        if self._ready is not None:
            self._ready.changed(name)


def answerer_of(zone: Fixed, *, per_second: int = 0) -> Answerer:
    return Answerer(
        zones=[Zone(apex=name_of(DOMAIN), public=zone.table)],
        soa=Soa(mname=name_of(f"ns1.{DOMAIN}"), rname=name_of(f"hostmaster.{DOMAIN}")),
        serial=lambda: 1,
        cookies=Cookies(os.urandom, now_s=0),
        rates=ResponseRates(per_second=per_second),
    )


async def serve_ours(count: int, port: int) -> None:
    zone = Fixed(count)
    with tempfile.TemporaryDirectory() as folder:
        service = DnsService(
            settings=DnsSettings(
                bind_address="127.0.0.1",
                public_address="",
                port=port,
                inner_addresses=(),
                interface="lo",
                is_inner=lambda _: False,
            ),
            answerer=answerer_of(zone),
            publisher=zone,
            serials=Serials(count=lambda: 1, file=Path(folder) / "serial"),
            clock=SystemClock(),
        )
        await service.start()
        print("ready", flush=True)
        await asyncio.Event().wait()


async def serve_dnslib(count: int, port: int) -> None:
    """Parse, look up, build and pack with dnslib, on asyncio's own transport."""
    from dnslib import QTYPE, RCODE, RR, A, DNSRecord

    zone = {f"{host(number)}.": address(number) for number in range(count)}

    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, source) -> None:
            query = DNSRecord.parse(data)
            reply = query.reply(ra=0)
            found = zone.get(str(query.q.qname).lower())
            if found is None:
                reply.header.rcode = RCODE.NXDOMAIN
            elif query.q.qtype == QTYPE.A:
                reply.add_answer(RR(query.q.qname, QTYPE.A, ttl=60, rdata=A(found)))
            self.transport.sendto(reply.pack(), source)

    await asyncio.get_running_loop().create_datagram_endpoint(
        Protocol, local_addr=("127.0.0.1", port)
    )
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    kind, count, port, cpu = sys.argv[1], *map(int, sys.argv[2:5])
    os.sched_setaffinity(0, {cpu})
    asyncio.run({"ours": serve_ours, "dnslib": serve_dnslib}[kind](count, port))


if __name__ == "__main__":
    main()
