"""The listeners of the daemon on real sockets: who can connect where, and when."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from seipd.api.listeners import has_address
from seipd.api.server import HttpService
from services.kernel.errors import StartError
from services.kernel.service import HealthState

GATEWAY, BACKBONE = "127.0.0.61", "127.0.0.62"


class Machine:
    """The addresses that the machine has, as the test says."""

    def __init__(self) -> None:
        self.addresses: set[str] = set()

    def has(self, address: str) -> bool:
        return address in self.addresses


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
async def http(one, machine, tmp_path):
    service = service_of(one, tmp_path, has_address=machine.has)
    yield service
    await service.stop()


def service_of(one, folder, **changes):
    settings = {
        "services": one.services,
        "bind_address": "127.0.0.60",
        "public_port": 0,
        "private_port": 0,
        "private_addresses": (GATEWAY, BACKBONE),
        "certificate_names": ("localhost",),
        "socket_path": folder / "seipd.sock",
        "settle_interval_s": 0.01,
        **changes,
    }
    return HttpService(**settings)


def listens(address: str, port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex((address, port)) == 0


async def until(true) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def status_of(address: str, port: int, path: str) -> int:
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"https://{address}:{port}{path}", ssl=blind) as answer,
    ):
        return answer.status


async def test_prv_02_the_private_server_comes_up_with_its_address(http, machine) -> None:
    await http.start()
    assert listens("127.0.0.60", http.public_port)
    assert http.health().state is HealthState.DEGRADED
    assert GATEWAY in http.health().detail

    machine.addresses = {GATEWAY}
    await until(lambda: BACKBONE in http.health().detail and GATEWAY not in http.health().detail)
    assert listens(GATEWAY, http.private_port)
    assert not listens(BACKBONE, http.private_port)

    machine.addresses = {GATEWAY, BACKBONE}
    await until(lambda: http.health().state is HealthState.OK)
    assert await status_of(GATEWAY, http.private_port, "/api/mesh/peers/x") == 401
    assert await status_of(BACKBONE, http.private_port, "/api/mesh/peers/x") == 401


async def test_prv_02_never_on_any_other_address(http, machine) -> None:
    machine.addresses = {GATEWAY}
    await http.start()
    assert listens(GATEWAY, http.private_port)
    for other in ("127.0.0.1", "127.0.0.60", BACKBONE):
        assert not listens(other, http.private_port)
    machine.addresses = set()
    await until(lambda: not listens(GATEWAY, http.private_port))
    for other in ("127.0.0.1", "127.0.0.60", BACKBONE):
        assert not listens(other, http.private_port)


async def test_prv_02_an_address_that_goes_and_comes_keeps_its_port(http, machine) -> None:
    machine.addresses = {GATEWAY, BACKBONE}
    await http.start()
    port = http.private_port
    machine.addresses = {BACKBONE}
    await until(lambda: not listens(GATEWAY, port))
    assert http.health().state is HealthState.DEGRADED
    assert await status_of(BACKBONE, port, "/api/mesh/peers/x") == 401
    machine.addresses = {GATEWAY, BACKBONE}
    await until(lambda: http.health().state is HealthState.OK)
    assert http.private_port == port
    assert await status_of(GATEWAY, port, "/api/mesh/peers/x") == 401


async def test_prv_02_an_address_of_nobody_is_no_reason_not_to_start(one, tmp_path) -> None:
    service = service_of(
        one, tmp_path, private_addresses=("192.0.2.61", GATEWAY), has_address=has_address
    )
    await service.start()
    try:
        assert listens(GATEWAY, service.private_port)
        assert "waiting for 192.0.2.61" in service.health().detail
    finally:
        await service.stop()
    assert service.health().state is HealthState.STOPPED


async def test_prv_02_a_port_that_another_holds_is_named(one, machine, tmp_path) -> None:
    with socket.create_server((GATEWAY, 0)) as holder:
        port = holder.getsockname()[1]
        machine.addresses = {GATEWAY}
        service = service_of(one, tmp_path, private_port=port, has_address=machine.has)
        with pytest.raises(StartError) as caught:
            await service.start()
        assert caught.value.code == "port_in_use"
        assert f"{GATEWAY}:{port}" in str(caught.value)
        assert not (tmp_path / "seipd.sock").exists()


async def test_prv_02_a_port_that_another_takes_later_shows_in_the_health(http, machine) -> None:
    machine.addresses = {BACKBONE}
    await http.start()
    with socket.create_server((GATEWAY, http.private_port)):
        machine.addresses = {GATEWAY, BACKBONE}
        await until(lambda: "can't be opened" in http.health().detail)
        assert http.health().state is HealthState.DEGRADED
    await until(lambda: http.health().state is HealthState.OK)
    assert listens(GATEWAY, http.private_port)


@contextlib.contextmanager
def no_more_files():
    """Let this process open not one file more."""
    gc.collect()  # what earlier tests forgot to close must not become free meanwhile
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(one.name) for one in Path("/proc/self/fd").iterdir())
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for number in held:
            os.close(number)


async def test_cli_16_without_file_descriptors_it_waits_and_then_serves_on(one, tmp_path) -> None:
    http = service_of(one, tmp_path, has_address=has_address)
    await http.start()
    crowd = [socket.socket() for _ in range(20)]
    try:
        with no_more_files():
            for client in crowd:
                client.connect(("127.0.0.60", http.public_port))
            await until(lambda: http.health().state is HealthState.DEGRADED)
            for client in crowd:
                client.close()
        assert await status_of("127.0.0.60", http.public_port, "/api/health") == 200
        await until(lambda: http.health().state is HealthState.OK)
    finally:
        await http.stop()


async def test_cli_16_a_request_that_needs_a_file_is_told_to_try_again(one) -> None:
    async with TestClient(TestServer(one.app("public"))) as client:
        one.ledger.log(one.ledger.server_id).publish()
        path = "/ledger/feed/checkpoint"
        answer = await client.get(path)
        # Read whole: only then its connection is free for a request that has no file for another.
        assert (answer.status, bool(await answer.read())) == (200, True)
        with no_more_files():
            answer = await client.get(path)
            said = json.loads(await answer.read())
        assert (answer.status, said["code"]) == (503, "storage_unavailable")
        assert (await client.get(path)).status == 200
