"""A small zone, those who ask it, and an oracle that reads the answers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import dnslib

from services.edge.dns.answering import Answerer, Asker, Soa
from services.edge.dns.cookies import Cookies
from services.edge.dns.ratelimiting import ResponseRates
from services.edge.dns.records import addresses, names, texts
from services.edge.dns.wire import Type
from services.edge.dns.zone import Source, Table, Zone
from services.kernel.dnsnames import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.edge.dns.building import RecordSet
    from services.edge.dns.signing import ZoneSigner

DOMAIN = "mesh.example.org"
LONG = "server-0123456789abcdef.eu-west.seip"
NOW_S = 1_000_000

STRANGER = Asker(address=bytes([203, 0, 113, 7]), network=bytes([203, 0, 113]), inside=False)
STREAM = Asker(
    address=bytes([203, 0, 113, 7]), network=bytes([203, 0, 113]), inside=False, stream=True
)
INSIDE = Asker(address=bytes([10, 64, 0, 10]), network=bytes([10, 64, 0]), inside=True)


class Inner:
    """Names that only those inside are told of."""

    def find(self, name: bytes):
        if name == name_of(f"pc.acme.ep.{DOMAIN}"):
            return {one.rtype: one for one in addresses(30, "10.64.0.10", "fd00::10")}
        parts = {name_of(f"acme.ep.{DOMAIN}"), name_of(f"ep.{DOMAIN}")}
        return {} if name in parts else None


class Small:
    """An answerer over a small zone, driven by hand."""

    def __init__(
        self,
        *,
        per_second: int = 0,
        serial: Callable[[], int] = lambda: 42,
        seed: int = 1,
        signer: ZoneSigner | None = None,
    ) -> None:
        self.table = Table(lambda name: self.answerer.changed(name))  # noqa: PLW0108 (made below)
        zone = Zone(apex=name_of(DOMAIN), public=self.table, inner=Inner())
        reverse = Zone(apex=name_of("64.10.in-addr.arpa"), public=self.table, is_open=False)
        self.answerer = Answerer(
            zones=[zone, reverse],
            soa=Soa(mname=name_of(f"ns1.{DOMAIN}"), rname=name_of(f"hostmaster.{DOMAIN}")),
            serial=serial,
            cookies=Cookies(random.Random(seed).randbytes, now_s=NOW_S),  # noqa: S311
            rates=ResponseRates(per_second=per_second),
            signer=signer,
        )
        self.now_s = 0.0
        self.put(LONG, *addresses(60, "198.51.100.1", "2001:db8::1"))
        self.put(f"_config.{LONG}", texts(60, ["v=sp1 " + "x" * 150]))
        self.put("eu-west.seip", *addresses(30, *(f"198.51.100.{n}" for n in range(1, 41))))
        self.put("", names(Type.NS, 3600, [name_of(f"ns{n}.{DOMAIN}") for n in (1, 2)]))
        self.put("ns1", *addresses(3600, "198.51.100.1"))
        self.put("ns2", *addresses(3600, "198.51.100.2"))

    def put(self, name: str, *records: RecordSet, source: Source = Source.MESH) -> None:
        self.table.put(source, name_of(f"{name}.{DOMAIN}" if name else DOMAIN), records)

    def raw(self, data: bytes, asker: Asker = STREAM) -> bytes | None:
        """Do as the sockets do: what lies ready first, for those over UDP."""
        if not asker.stream:
            quick = self.answerer.quick(data, asker.network, inside=asker.inside, now_s=self.now_s)
            if quick is not None:
                return quick
        return self.answerer.answer(data, asker, now_s=self.now_s, clock_s=NOW_S)

    def ask(self, name: str, rtype: str = "A", asker: Asker = STREAM, **more) -> dnslib.DNSRecord:
        data = self.raw(query(name, rtype, **more), asker)
        assert data is not None
        return dnslib.DNSRecord.parse(data)


def query(
    name: str,
    rtype: str | int = "A",
    *,
    rclass: int = 1,
    edns: int | None = None,
    options: bytes = b"",
    message_id: int = 0x1234,
    recursion: bool = False,
) -> bytes:
    """Return a query as a client writes it; a name without a last dot lies below the domain."""
    full = name if name.endswith(".") else (f"{name}.{DOMAIN}." if name else f"{DOMAIN}.")
    wire = b"".join(bytes([len(one)]) + one.encode() for one in full.split(".") if one) + b"\0"
    number = rtype if isinstance(rtype, int) else getattr(dnslib.QTYPE, rtype)
    head = message_id.to_bytes(2, "big") + (b"\1\0" if recursion else b"\0\0") + b"\0\1\0\0\0\0"
    head += b"\0\1" if edns is not None else b"\0\0"
    body = wire + number.to_bytes(2, "big") + rclass.to_bytes(2, "big")
    return head + body + (opt(edns, options) if edns is not None else b"")


def opt(payload: int, options: bytes = b"", *, version: int = 0, flags: int = 0) -> bytes:
    """Return an OPT record."""
    head = b"\0\0\x29" + payload.to_bytes(2, "big") + bytes([0, version]) + flags.to_bytes(2, "big")
    return head + len(options).to_bytes(2, "big") + options


def cookie(client: bytes, server: bytes = b"") -> bytes:
    """Return the option that holds a cookie."""
    value = client + server
    return b"\0\x0a" + len(value).to_bytes(2, "big") + value


def datas(record: dnslib.DNSRecord) -> set[str]:
    """Return the data of the answers as text."""
    return {str(one.rdata) for one in record.rr}
