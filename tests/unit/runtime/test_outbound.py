"""The way out over HTTP has a deadline, a size, no proxy and no detour."""

from __future__ import annotations

import asyncio
import gzip
import ssl

import pytest
from aiohttp import web

from services.kernel.canonical import encode
from services.kernel.errors import (
    ForbiddenError,
    TooLargeError,
    UnavailableError,
    UnreachableError,
)
from services.runtime.outbound import HttpClient
from services.runtime.ssrf import is_public


@pytest.fixture
async def place():
    """A server: its address, and what it was asked."""
    asked = []

    async def echo(request):
        asked.append((request.method, request.path, await request.read(), dict(request.headers)))
        return web.Response(body=encode({"ok": True}), content_type="application/json")

    async def hang(request):
        await asyncio.sleep(3600)

    async def drip(request):
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b".")
            await asyncio.sleep(0.01)

    async def bomb(request):
        body = gzip.compress(bytes(1 << 22))
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async def elsewhere(request):
        raise web.HTTPFound("/echo")

    async def cut(request):
        request.transport.abort()
        return web.Response()

    app = web.Application()
    for path, handler in (
        ("/echo", echo), ("/hang", hang), ("/drip", drip), ("/bomb", bomb),
        ("/elsewhere", elsewhere), ("/cut", cut),
    ):  # fmt: skip
        app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    await runner.cleanup()


async def test_a_body_goes_out_as_canonical_json_and_comes_back_parsed(place):
    base, asked = place
    async with HttpClient() as client:
        answer = await client.fetch("POST", f"{base}/echo", json={"b": 1, "a": "ü"})
    assert (answer.status, answer.json()) == (200, {"ok": True})
    method, _, body, headers = asked[0]
    assert (method, body) == ("POST", '{"a":"ü","b":1}'.encode())
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/hang", "/drip"])
async def test_who_does_not_come_to_an_end_is_unavailable(place, path):
    async with HttpClient() as client:
        with pytest.raises(UnavailableError) as caught:
            await client.fetch("GET", f"{place[0]}{path}", timeout_s=0.1)
    assert caught.value.code == "timeout"


async def test_gos_14_an_answer_is_bounded_as_unpacked(place):
    async with HttpClient() as client:
        with pytest.raises(TooLargeError):
            await client.fetch("GET", f"{place[0]}/bomb", max_bytes=1 << 20)


async def test_a_redirect_is_told_and_not_followed(place):
    base, asked = place
    async with HttpClient() as client:
        answer = await client.fetch("GET", f"{base}/elsewhere")
    assert answer.status == 302
    assert asked == []


async def test_nobody_there_and_a_cut_line_are_unreachable(place, unused_tcp_port):
    async with HttpClient() as client:
        with pytest.raises(UnreachableError):
            await client.fetch("GET", f"{place[0]}/cut")
        with pytest.raises(UnreachableError):
            await client.fetch("GET", f"http://127.0.0.1:{unused_tcp_port}/echo")
    with pytest.raises(UnreachableError):
        await client.fetch("GET", f"{place[0]}/echo")


async def test_the_proxy_of_the_environment_is_not_used(monkeypatch, unused_tcp_port):
    seen = []
    proxy = await asyncio.start_server(lambda *_: seen.append("proxy"), "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    async with proxy, HttpClient() as client:
        with pytest.raises(UnreachableError):
            await client.fetch("GET", f"http://127.0.0.1:{unused_tcp_port}/")
    assert seen == []


async def test_a_peer_that_speaks_no_tls_is_unreachable():
    async def plain(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, HttpClient(tls=ssl.create_default_context()) as client:
        with pytest.raises(UnreachableError):
            await client.fetch("GET", f"https://127.0.0.1:{port}/", timeout_s=60)


BLOCKED = (
    "https://127.0.0.1:{port}/",
    "https://localhost:{port}/",
    "https://[::ffff:127.0.0.1]:{port}/",
    "https://0x7f.1:{port}/",
    "https://[64:ff9b::7f00:1]:{port}/",
)


@pytest.mark.parametrize("url", BLOCKED)
async def test_whk_01_an_address_that_may_not_be_reached_is_never_connected_to(url):
    seen = []
    server = await asyncio.start_server(lambda *_: seen.append("asked"), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, HttpClient(may_reach=is_public) as client:
        with pytest.raises(ForbiddenError) as caught:
            await client.fetch("GET", url.format(port=port), timeout_s=60)
        assert caught.value.code == "ssrf_blocked"
        with pytest.raises(UnreachableError):
            await client.fetch("GET", f"https://2130706433:{port}/", timeout_s=60)
    assert seen == []


async def test_whk_01_a_name_that_means_another_address_by_now_is_judged_by_that_one(monkeypatch):
    """The address is judged as it is connected to, so an answer before that is worth nothing."""
    judged = []

    def may_reach(address):
        judged.append(str(address))
        return is_public(address)

    async def rebound(self, host, port=0, family=0):
        place = {"hostname": host, "host": "127.0.0.1", "port": port}
        return [place | {"family": 2, "proto": 0, "flags": 0}]

    monkeypatch.setattr("aiohttp.resolver.DefaultResolver.resolve", rebound)
    async with HttpClient(may_reach=may_reach) as client:
        with pytest.raises(ForbiddenError):
            await client.fetch("GET", "https://releases.example.org/index.json", timeout_s=60)
    assert judged == ["127.0.0.1"]
