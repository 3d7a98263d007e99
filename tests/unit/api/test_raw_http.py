"""The public port as it is found by bytes that are no request."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from aiohttp import web

from seipd.api.tls import issue_leaf, server_context
from tests.fakes.one_server import OneServer


@pytest.fixture
async def listening(tmp_path):
    one = await OneServer.start(tmp_path)
    issue_leaf(one.tls, names=["localhost", "127.0.0.1"], clock=one.clock)
    runner = web.AppRunner(one.app("public"), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(one.tls)).start()
    yield one, runner.addresses[0][1]
    await runner.cleanup()
    await one.stop()


def trusting(one: OneServer) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=one.tls.authority_pem.decode())


async def say(one: OneServer, port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trusting(one), server_hostname="localhost"
    )
    writer.write(data)
    await writer.drain()
    async with asyncio.timeout(60):
        answer = await reader.read(4096)
    writer.close()
    return answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /api/health HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /api/join HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /api/join HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        b"GET /api/health HTTP/1.1\r\nA : b\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
    ],
)
async def test_pub_10_requests_that_are_none_get_400(listening, request_bytes) -> None:
    one, port = listening
    answer = await say(one, port, request_bytes)
    assert answer.split(b"\r\n")[0].split(b" ")[1] == b"400"
    good = await say(one, port, b"GET /api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b" 200 " in good.split(b"\r\n")[0]


async def test_pub_11_tls_1_2_and_plain_http_are_closed(listening) -> None:
    one, port = listening
    old = trusting(one)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", port, ssl=old, server_hostname="localhost")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(60):
        assert b"200" not in await reader.read(4096)
    writer.close()


async def test_pub_33_no_origin_is_let_in_and_nothing_is_kept_in_cookies(listening) -> None:
    one, port = listening
    answer = await say(
        one,
        port,
        b"OPTIONS /api/join HTTP/1.1\r\nHost: evil\r\nOrigin: https://evil\r\n"
        b"Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n",
    )
    assert answer.split(b"\r\n")[0].split(b" ")[1] == b"405"
    assert b"access-control-allow" not in answer.lower()
    assert b"set-cookie" not in answer.lower()
