"""The sockets: strangers and insiders, UDP and TCP, IPv4 and IPv6, and a port that is taken."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

import dnslib
import pytest

from services.edge.dns import service as dns_service
from services.edge.dns.serials import Serials
from services.edge.dns.service import DnsService, DnsSettings
from services.kernel.service import HealthState
from services.runtime.clock import SystemClock
from services.runtime.udp import bound_socket
from tests.unit.edge_dns.dns_kit import LONG, Small, datas, query

INNER = "127.0.0.9"


class NoPublisher:
    """The zone is there already."""

    def __init__(self) -> None:
        self.looked = 0

    def begin(self, ready) -> None:
        self.ready = ready

    def look_over(self) -> None:
        self.looked += 1


def service_on(tmp_path, *, port: int = 0, bind: str = "127.0.0.1", interface: str = "lo"):
    settings = DnsSettings(
        bind_address=bind,
        public_address="127.0.0.1",
        port=port,
        inner_addresses=(INNER,),
        interface=interface,
        is_inner=lambda address: address.startswith("127."),
    )
    return DnsService(
        settings=settings,
        answerer=Small().answerer,
        publisher=NoPublisher(),
        serials=Serials(count=lambda: 1, file=tmp_path / "dns" / "serial"),
        clock=SystemClock(),
    )


@contextlib.asynccontextmanager
async def running(service):
    async with asyncio.timeout(60):
        await service.start()
        try:
            yield service
        finally:
            await service.stop()
            await service.stop()


async def over_udp(place, data: bytes) -> bytes:
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(place)
        await loop.sock_sendall(sock, data)
        return await loop.sock_recv(sock, 4096)


async def over_tcp(place, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*place)
    writer.write(len(data).to_bytes(2, "big") + data)
    answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    writer.close()
    return answer


def rcode(data: bytes) -> int:
    return data[3] & 0xF


def test_strangers_and_insiders_are_answered_over_udp_and_tcp(tmp_path) -> None:
    async def work():
        async with running(service_on(tmp_path)) as service:
            for way in (over_udp, over_tcp):
                outside, inside = ("127.0.0.1", service.port), (INNER, service.port)
                for place in (outside, inside, outside):
                    record = dnslib.DNSRecord.parse(await way(place, query(LONG)))
                    assert datas(record) == {"198.51.100.1"}
                name = "pc.acme.ep"
                assert rcode(await way(outside, query(name))) == 3
                found = dnslib.DNSRecord.parse(await way(inside, query(name)))
                assert datas(found) == {"10.64.0.10"}
            assert service.health().state is HealthState.OK
            assert str(service.port) in service.health().detail
            assert service.counters()["quick"] >= 1

    asyncio.run(work())


def test_a_datagram_from_another_interface_is_a_strangers(tmp_path, monkeypatch) -> None:
    async def work():
        async with running(service_on(tmp_path, interface="seip0")) as service:
            inside = (INNER, service.port)
            assert rcode(await over_udp(inside, query("pc.acme.ep"))) == 0
            monkeypatch.setattr(socket, "if_indextoname", lambda number: "eth0")
            assert rcode(await over_udp(inside, query("pc.acme.ep"))) == 3
            monkeypatch.setattr(socket, "if_indextoname", lambda number: "seip0")
            assert rcode(await over_udp(inside, query("pc.acme.ep"))) == 0

            def gone(number):
                raise OSError(errno.ENXIO, "no such device")

            monkeypatch.setattr(socket, "if_indextoname", gone)
            assert rcode(await over_udp(inside, query("pc.acme.ep"))) == 3

    asyncio.run(work())


def test_ipv6_is_answered_where_there_is_any(tmp_path) -> None:
    try:
        bound_socket("::1", 0, socket.SOCK_DGRAM).close()
    except OSError:
        pytest.skip("this machine has no IPv6")

    async def work():
        async with running(service_on(tmp_path, bind=dns_service.ANY4)) as service:
            for way in (over_udp, over_tcp):
                for address in ("::1", "127.0.0.1"):
                    record = dnslib.DNSRecord.parse(await way((address, service.port), query(LONG)))
                    assert datas(record) == {"198.51.100.1"}
            assert rcode(await over_tcp((INNER, service.port), query("pc.acme.ep"))) == 0

    asyncio.run(work())


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_dns_19_a_port_that_is_taken_is_named_and_tried_again(tmp_path, monkeypatch, kind) -> None:
    monkeypatch.setattr(dns_service, "LOOK_OVER_S", 0.01)
    monkeypatch.setattr(dns_service, "RETRY_S", 0.02)

    async def work():
        holder = socket.socket(socket.AF_INET, kind)
        holder.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        port = holder.getsockname()[1]
        async with running(service_on(tmp_path, port=port)) as service:
            health = service.health()
            assert health.state is HealthState.DEGRADED
            word = "tcp" if kind == socket.SOCK_STREAM else "udp"
            assert f"port {port}/{word}" in health.detail
            assert "--dns-port" in health.detail
            await asyncio.sleep(0.1)
            assert service.health().state is HealthState.DEGRADED
            holder.close()
            while service.health().state is not HealthState.OK:
                await asyncio.sleep(0.01)
            record = dnslib.DNSRecord.parse(await over_udp(("127.0.0.1", port), query(LONG)))
            assert datas(record) == {"198.51.100.1"}
            assert service.health().detail == f"port {port}"

    asyncio.run(work())


def test_dns_19_beside_a_resolver_at_an_address_of_its_own_the_others_are_answered_at(
    tmp_path, monkeypatch
) -> None:
    """systemd-resolved has port 53 at 127.0.0.53, so nobody else has it at all addresses."""
    monkeypatch.setattr(dns_service, "LOOK_OVER_S", 0.01)
    monkeypatch.setattr(dns_service, "RETRY_S", 0.02)
    out = "127.0.0.21"
    monkeypatch.setattr(dns_service, "way_out", lambda: out)

    async def work():
        nonlocal out
        holder = bound_socket("127.0.0.53", 0, socket.SOCK_STREAM)
        holder.listen()
        port = holder.getsockname()[1]
        async with running(service_on(tmp_path, port=port, bind=dns_service.ANY4)) as service:
            assert service.health().state is HealthState.OK
            assert service.health().detail == f"port {port} at 127.0.0.1, 127.0.0.21"
            for way in (over_udp, over_tcp):
                for host in ("127.0.0.1", out):
                    record = dnslib.DNSRecord.parse(await way((host, port), query(LONG)))
                    assert datas(record) == {"198.51.100.1"}
                assert rcode(await way((INNER, port), query("pc.acme.ep"))) == 0
            out = "127.0.0.22"
            while out not in service.health().detail:
                await asyncio.sleep(0.01)
            assert rcode(await over_tcp((out, port), query(LONG))) == 0
            with pytest.raises(ConnectionRefusedError):
                await over_tcp(("127.0.0.21", port), query(LONG))
        holder.close()

    asyncio.run(work())


def test_dns_19_a_port_that_may_not_be_opened_is_named(tmp_path, monkeypatch) -> None:
    def refuse(*args, **more):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(dns_service, "bound_socket", refuse)

    async def work():
        async with running(service_on(tmp_path, port=53)) as service:
            health = service.health()
            assert health.state is HealthState.DEGRADED
            assert "port 53/tcp can't be opened: Permission denied" in health.detail
            assert "CAP_NET_BIND_SERVICE" in health.detail

    asyncio.run(work())


def test_what_is_heard_is_looked_over_soon(tmp_path) -> None:
    async def work():
        service = service_on(tmp_path)
        async with running(service):
            await asyncio.sleep(0)
            before = service._publisher.looked
            service.hurry()
            while service._publisher.looked == before:
                await asyncio.sleep(0.001)

    asyncio.run(work())


def test_a_service_is_started_again_after_its_stop(tmp_path) -> None:
    async def work():
        service = service_on(tmp_path)
        for _ in range(2):
            async with running(service):
                assert rcode(await over_udp(("127.0.0.1", service.port), query(""))) == 0
            assert service.health().state is HealthState.STOPPED

    asyncio.run(work())


def test_inner_addresses_that_are_not_there_yet_are_no_trouble(tmp_path) -> None:
    async def work():
        settings = DnsSettings(
            bind_address="127.0.0.1",
            public_address="198.51.100.77",
            port=0,
            inner_addresses=(INNER, "10.99.0.1", "fd99::1"),
            interface="lo",
            is_inner=lambda address: True,
        )
        service = DnsService(
            settings=settings,
            answerer=Small().answerer,
            publisher=NoPublisher(),
            serials=Serials(count=lambda: 1, file=tmp_path / "dns" / "serial"),
            clock=SystemClock(),
        )
        async with running(service):
            assert service.health().state is HealthState.OK
            assert rcode(await over_tcp((INNER, service.port), query("pc.acme.ep"))) == 0

    asyncio.run(work())
