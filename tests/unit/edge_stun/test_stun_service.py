"""The STUN server by its sockets, as a client on this machine sees them."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from services.edge.stun.messages import (
    BINDING_REQUEST,
    COOKIE,
    Attribute,
    Message,
    decode_address,
    decode_xor_address,
    encode,
    parse,
)
from services.edge.stun.service import ANY4, StunService, StunSettings
from services.kernel.service import HealthState
from services.runtime.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TRANSACTION = COOKIE + b"abcdefghijkl"


def request(flags: int | None = None) -> bytes:
    change = () if flags is None else ((Attribute.CHANGE_REQUEST, bytes((0, 0, 0, flags))),)
    return encode(Message(kind=BINDING_REQUEST, transaction=TRANSACTION, attributes=change))


@asynccontextmanager
async def running(**settings: object) -> AsyncIterator[StunService]:
    chosen = {"bind_address": "127.0.0.1", "port": 0, **settings}
    service = StunService(settings=StunSettings(**chosen), clock=SystemClock())  # type: ignore[arg-type]
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def asked(data: bytes, where: tuple[str, int]) -> tuple[bytes, tuple[str, int], int]:
    """Return an answer, whence it came, and the port that asked."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("::1" if ":" in where[0] else "127.0.0.1", 0))
        await loop.sock_sendto(sock, data, where)
        async with asyncio.timeout(60):
            answer, source = await loop.sock_recvfrom(sock, 2048)
        return answer, source[:2], sock.getsockname()[1]


async def test_a_client_learns_its_address_and_port() -> None:
    async with running() as service:
        assert service.health().state is HealthState.OK
        answer, source, port = await asked(request(), ("127.0.0.1", service.port))
    mapped = parse(answer).value(Attribute.XOR_MAPPED_ADDRESS)
    assert mapped is not None
    assert decode_xor_address(mapped, TRANSACTION) == ("127.0.0.1", port)
    assert source[0] == "127.0.0.1"


async def test_a_server_for_everybody_answers_over_ipv6_too_and_from_where_it_was_asked() -> None:
    async with running(bind_address=ANY4, public_addresses=("127.0.0.2",)) as service:
        answer, _, port = await asked(request(), ("::1", service.port))
        mapped = parse(answer).value(Attribute.XOR_MAPPED_ADDRESS)
        assert mapped is not None
        assert decode_xor_address(mapped, TRANSACTION) == ("::1", port)
        _, source, _ = await asked(request(), ("127.0.0.2", service.port))
        assert source == ("127.0.0.2", service.port)


@pytest.mark.parametrize(("flags", "which"), [(0, (0, 0)), (2, (0, 1)), (4, (1, 0)), (6, (1, 1))])
async def test_with_two_addresses_the_answer_comes_from_the_one_asked_for(
    flags: int, which: tuple[int, int]
) -> None:
    places = {"public_addresses": ("127.0.0.2",), "alternate_address": "127.0.0.3"}
    async with running(bind_address=ANY4, **places) as service:
        assert service.places is not None
        hosts, ports = service.places.hosts, service.places.ports
        answer, source, _ = await asked(request(flags), (hosts[0], ports[0]))
        wanted = hosts[which[0]], ports[which[1]]
        assert source == wanted
        message = parse(answer)
        assert decode_address(message.value(Attribute.RESPONSE_ORIGIN) or b"") == wanted
        assert decode_address(message.value(Attribute.OTHER_ADDRESS) or b"") == (hosts[1], ports[1])
        assert service.counters()["changed" if flags else "answered"] == 1


async def test_a_second_address_that_is_not_there_is_told_and_the_first_answers() -> None:
    places = {"public_addresses": ("127.0.0.2",), "alternate_address": "192.0.2.1"}
    async with running(bind_address=ANY4, **places) as service:
        assert service.health().state is HealthState.DEGRADED
        assert "192.0.2.1 is no address of this machine" in service.health().detail
        _, source, _ = await asked(request(), ("127.0.0.2", service.port))
        assert source == ("127.0.0.2", service.port)


async def test_a_port_that_another_holds_is_told() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        async with running(port=port) as service:
            assert service.health().state is HealthState.DEGRADED
            assert "--stun-port" in service.health().detail
            assert service.port == 0


async def test_a_second_server_on_the_machine_notices_the_first() -> None:
    async with running() as first, running(port=first.port) as second:
        assert second.health().state is HealthState.DEGRADED


async def test_a_stopped_server_is_silent_and_may_be_stopped_twice() -> None:
    async with running() as service:
        pass
    await service.stop()
    assert service.health().state is HealthState.STOPPED
    assert service.port == 0


async def test_what_is_no_request_is_counted_and_not_answered() -> None:
    async with running() as service:
        loop = asyncio.get_running_loop()
        where = ("127.0.0.1", service.port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await loop.sock_sendto(sock, b"not STUN", where)
        # In order: who answered this one has seen the one before.
        await asked(request(), where)
        assert service.counters()["ignored"] == 1


async def test_stn_07_two_servers_set_on_each_other_fall_silent_at_once() -> None:
    async with running() as one, running() as other:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
            forger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # The last that was bound to a port has it: only until it is closed.
            forger.bind(("127.0.0.1", other.port))
            forger.sendto(request(), ("127.0.0.1", one.port))
        async with asyncio.timeout(60):
            while not other.counters()["ignored"]:
                await asyncio.sleep(0.01)
        # In order: who answers this has seen whatever came before.
        for port in (one.port, other.port):
            await asked(request(), ("127.0.0.1", port))
        assert (one.counters()["answered"], one.counters()["ignored"]) == (2, 0)
        assert (other.counters()["answered"], other.counters()["ignored"]) == (1, 1)
