"""The HTTP servers: public at once, private as soon as there is an address, the operator's socket.

One class serves one route table on one kind of listener; which tables go where is written here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar

from aiohttp import web

from seipd.api import private, public
from seipd.api.middleware import MAX_BODY_BYTES, Gate, refuse_unknown
from seipd.api.openapi import openapi_document
from seipd.api.private import invite, ipam, mesh, server, status, tree, trust
from seipd.api.private import ledger as private_ledger
from seipd.api.public import auth, health, join
from seipd.api.public import ledger as public_ledger
from seipd.api.routes import Access, Call, Reply, Route
from seipd.api.tls import issue_leaf, server_context
from services.kernel.errors import ConflictError, StartError
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from pathlib import Path

    from seipd.api.services import ApiServices

logger = logging.getLogger(__name__)

PUBLIC_ROUTES: tuple[Route, ...] = (
    *health.ROUTES,
    *auth.ROUTES,
    *join.ROUTES,
    *public_ledger.ROUTES,
)
PRIVATE_ROUTES: tuple[Route, ...] = (
    *status.ROUTES,
    *tree.ROUTES,
    *ipam.ROUTES,
    *mesh.ROUTES,
    *invite.ROUTES,
    *trust.ROUTES,
    *server.ROUTES,
    *private_ledger.ROUTES,
)
KEEPALIVE_S = 30.0
SHUTDOWN_S = 3.0

__all__ = ["PRIVATE_ROUTES", "PUBLIC_ROUTES", "HttpService", "build_app", "private", "public"]


def build_app(
    services: ApiServices, routes: Sequence[Route], *, title: str, operator: bool
) -> tuple[web.Application, Gate]:
    """Return an application that serves these routes and their OpenAPI document."""
    gate = Gate(services, operator=operator)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[refuse_unknown])
    document: dict[str, object] = {}

    async def openapi(call: Call) -> Reply:
        return document

    described = Route(
        method="GET",
        path="/openapi.json",
        handler=openapi,
        summary="This document",
        access=Access.ANYONE,
    )
    table = (*routes, described)
    for route in table:
        app.router.add_route(route.method, route.path, gate.wrap(route))
    document.update(openapi_document(title, services.version, table))
    return app, gate


class HttpService:
    """Listens on the public port, on the tunnel and backbone addresses, and on the socket."""

    name: ClassVar[str] = "http"

    def __init__(
        self,
        *,
        services: ApiServices,
        bind_address: str,
        public_port: int,
        private_port: int,
        private_addresses: Sequence[str],
        certificate_names: Sequence[str],
        socket_path: Path,
    ) -> None:
        self._services = services
        self._bind_address = bind_address
        self._public_port = public_port
        self._private_port = private_port
        self._private_addresses = private_addresses
        self._certificate_names = certificate_names
        self._socket_path = socket_path
        self._runners: list[web.AppRunner] = []
        self._gates: list[Gate] = []
        self._health = Health(state=HealthState.STOPPED)

    async def start(self) -> None:
        """Open every listener.

        Raises:
            StartError: ``port_in_use``, naming the port.
        """
        services = self._services
        names = list(dict.fromkeys(self._certificate_names))
        await asyncio.to_thread(issue_leaf, services.tls, names=names, clock=services.clock)
        context = server_context(services.tls)
        try:
            await self._serve_socket()
            await self._serve("public", PUBLIC_ROUTES, [self._bind_address], context)
            await self._serve("private", PRIVATE_ROUTES, self._private_addresses, context)
        except BaseException:
            await self.stop()
            raise
        detail = f"public on {self.public_port}, private on {self.private_port}"
        self._health = Health(state=HealthState.OK, detail=detail)

    async def stop(self) -> None:
        """Answer what is under way, close the listeners, remove the socket."""
        for gate in self._gates:
            gate.draining = True
        for runner in reversed(self._runners):
            await runner.cleanup()
        self._runners, self._gates = [], []
        self._socket_path.unlink(missing_ok=True)
        self._health = Health(state=HealthState.STOPPED)

    def health(self) -> Health:
        """Say which ports are open."""
        return self._health

    @property
    def public_port(self) -> int:
        """The port that the public server listens on."""
        return self._public_port

    @property
    def private_port(self) -> int:
        """The port that the private server listens on."""
        return self._private_port

    async def _runner(
        self, routes: Sequence[Route], title: str, *, operator: bool
    ) -> web.AppRunner:
        app, gate = build_app(self._services, routes, title=title, operator=operator)
        runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=SHUTDOWN_S
        )
        await runner.setup()
        self._runners.append(runner)
        self._gates.append(gate)
        return runner

    async def _serve(
        self,
        title: str,
        routes: Sequence[Route],
        addresses: Sequence[str],
        context: ssl.SSLContext,
    ) -> None:
        runner = await self._runner(routes, f"seipd {title}", operator=False)
        port = self._public_port if title == "public" else self._private_port
        for address in addresses:
            site = web.TCPSite(runner, address, port, ssl_context=context, backlog=512)
            try:
                await site.start()
            except OSError as error:
                raise StartError(
                    f"{address}:{port}/tcp can't be opened: {error.strerror}",
                    service=self.name,
                    code="port_in_use",
                    mend="end what holds the port, or choose another with --http-port",
                ) from error
            if port == 0:
                port = runner.addresses[-1][1]
        if title == "public":
            self._public_port = port
        else:
            self._private_port = port

    async def _serve_socket(self) -> None:
        runner = await self._runner(
            (*PRIVATE_ROUTES, *PUBLIC_ROUTES), "seipd operator", operator=True
        )
        if self._socket_path.is_symlink():
            raise ConflictError(f"{self._socket_path} is a symbolic link", mend="remove it")
        self._socket_path.unlink(missing_ok=True)
        await web.UnixSite(runner, str(self._socket_path)).start()
        self._socket_path.chmod(0o600)
