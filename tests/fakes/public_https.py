"""A server's public HTTPS on loopback, with a certificate of its own authority."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from seipd.api.tls import issue_leaf, server_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.one_server import OneServer


@asynccontextmanager
async def public_https(server: OneServer) -> AsyncIterator[str]:
    """Serve it; give ``host:port``."""
    issue_leaf(server.tls, names=["127.0.0.1"], clock=server.clock)
    runner = web.AppRunner(server.app("public"))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(server.tls)).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
