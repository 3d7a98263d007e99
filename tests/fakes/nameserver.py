"""A name server of somebody else: answers over UDP and TCP as it is told to.

python -m tests.fakes.nameserver ADDRESS PORT NAME=ADDRESS...
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable

import dnslib

Behaviour = Callable[[bytes, bool], list[bytes]]


def zone(records: dict[str, list[str]], *, ttl_s: int = 60) -> Behaviour:
    """Return the behaviour of one who knows these names: lines of ``TYPE data`` for each."""

    def behave(data: bytes, stream: bool) -> list[bytes]:
        query = dnslib.DNSRecord.parse(data)
        reply = query.reply()
        name = str(query.q.qname).lower()
        for line in records.get(name, ()):
            rtype, _, value = line.partition(" ")
            if rtype in (dnslib.QTYPE[query.q.qtype], "CNAME"):
                (one,) = dnslib.RR.fromZone(f"{name} {ttl_s} IN {line}")
                reply.add_answer(one)
                if rtype == "CNAME":
                    for more in records.get(value, ()):
                        reply.add_answer(*dnslib.RR.fromZone(f"{value} {ttl_s} IN {more}"))
        if not reply.rr:
            reply.header.rcode = 0 if name in records else 3
            (soa,) = dnslib.RR.fromZone(f"test. 300 IN SOA ns.test. h.test. 1 2 3 4 {ttl_s}")
            reply.add_auth(soa)
        packed = reply.pack()
        if len(packed) > 512 and not stream:
            reply.header.tc = 1
            reply.rr = []
            packed = reply.pack()
        return [packed]

    return behave


class NameServer(asyncio.DatagramProtocol):
    """Remembers what it was asked, and from which ports."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.place = ("", 0)
        self.asked: list[bytes] = []
        self.ports: list[int] = []
        self.streams = 0

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address) -> None:
        self.asked.append(data)
        self.ports.append(address[1])
        for answer in self.behave(data, False):
            self.transport.sendto(answer, address)

    async def serve(self, reader, writer) -> None:
        with contextlib.suppress(OSError, EOFError):
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            self.streams += 1
            for answer in self.behave(query, True):
                writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()


@contextlib.asynccontextmanager
async def name_server(behave: Behaviour, host: str = "127.0.0.1", port: int = 0):
    """Give a name server on a port that is free for both."""
    server, loop = NameServer(behave), asyncio.get_running_loop()
    while True:
        listener = await asyncio.start_server(server.serve, host, port)
        server.place = listener.sockets[0].getsockname()
        try:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: server, local_addr=server.place
            )
        except OSError:
            listener.close()
            if port:
                raise
        else:
            break
    try:
        yield server
    finally:
        transport.close()
        listener.close()


async def _main(host: str, port: str, *names: str) -> None:
    records = {}
    for one in names:
        name, _, address = one.partition("=")
        records[f"{name}."] = [f"A {address}"]
    async with name_server(zone(records), host, int(port)):
        sys.stdout.write("up\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
