"""The servers that most tests of the API begin with, and the ways to talk to them."""

from __future__ import annotations

import asyncio
import subprocess

import pytest
from aiohttp import web, web_app
from aiohttp.test_utils import TestClient, TestServer

from tests.fakes.neighbour import Neighbour, hand_over
from tests.fakes.one_server import OneServer
from tests.fakes.programs import run_program


@pytest.fixture(autouse=True, scope="module")
def forgotten():
    """Let go of the applications in aiohttp's cache of handlers: a whole server is behind each."""
    yield
    web_app._cached_build_middleware.cache_clear()


@pytest.fixture
async def server(tmp_path):
    """A mesh of one server."""
    one = await OneServer.start(tmp_path / "server")
    yield one
    await one.stop()


@pytest.fixture
def one(server):
    """The same server, where there are others beside it."""
    return server


@pytest.fixture
async def others(one, tmp_path):
    """Two more servers of the same mesh."""
    found = [await Neighbour.join(one, tmp_path / name) for name in ("two", "three")]
    for other in found:
        await hand_over(one.ledger, other.ledger)
        await hand_over(other.ledger, one.ledger)
    yield found
    for other in found:
        await other.stop()


@pytest.fixture
async def public(server):
    """What the whole world may ask."""
    async with TestClient(TestServer(server.app("public"))) as client:
        yield client


@pytest.fixture
async def private(server):
    """What those in the tunnel may ask."""
    async with TestClient(TestServer(server.app("private"))) as client:
        yield client


@pytest.fixture
async def operator(server):
    """What who owns the machine may ask."""
    async with TestClient(TestServer(server.app("operator"))) as client:
        yield client


@pytest.fixture
async def seipd(server):
    """Run ``seipd`` against the daemon's own socket, with nobody at the keyboard."""
    (server.folder / "run").mkdir()
    runner = web.AppRunner(server.app("operator"))
    await runner.setup()
    await web.UnixSite(runner, str(server.folder / "run/seipd.sock")).start()

    async def run(*arguments, stdin=subprocess.DEVNULL):
        words = (f"--data-root={server.folder}", *arguments)
        return await asyncio.to_thread(run_program, "seipd", *words, stdin=stdin)

    yield run
    await runner.cleanup()
