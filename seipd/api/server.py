"""The HTTP servers: public at once, private as soon as there is an address, the operator's socket.

One class serves one route table on one kind of listener; which tables go where is written here.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
from typing import TYPE_CHECKING, ClassVar

from aiohttp import web

from seipd.api import private, public
from seipd.api.listeners import BACKLOG, Listeners, has_address
from seipd.api.middleware import MAX_BODY_BYTES, Gate, refuse_unknown
from seipd.api.openapi import openapi_document
from seipd.api.private import (
    attestation,
    certs,
    credentials,
    ddns,
    dns,
    enrollment,
    governance,
    hardware,
    invite,
    ipam,
    jobs,
    mesh,
    policy,
    protocol,
    recovery,
    relay,
    root,
    server,
    shares,
    splitdns,
    status,
    tree,
    trust,
)
from seipd.api.private import ledger as private_ledger
from seipd.api.public import auth, epochs, health, join, quotes, relays, witness
from seipd.api.public import credentials as public_credentials
from seipd.api.public import ledger as public_ledger
from seipd.api.routes import Access, Call, Reply, Route
from seipd.api.tls import issue_leaf, server_context
from seipd.api.tlsswitch import TlsSwitch
from services.kernel.errors import ConflictError, SeipdError, StartError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from seipd.api.services import ApiServices

logger = logging.getLogger(__name__)

PUBLIC_ROUTES: tuple[Route, ...] = (
    *health.ROUTES,
    *auth.ROUTES,
    *join.ROUTES,
    *epochs.ROUTES,
    *public_ledger.ROUTES,
    *witness.ROUTES,
    *quotes.ROUTES,
    *public_credentials.ROUTES,
    *relays.ROUTES,
)
PRIVATE_ROUTES: tuple[Route, ...] = (
    *status.ROUTES,
    *tree.ROUTES,
    *ipam.ROUTES,
    *dns.ROUTES,
    *ddns.ROUTES,
    *splitdns.ROUTES,
    *policy.ROUTES,
    *relay.ROUTES,
    *mesh.ROUTES,
    *invite.ROUTES,
    *trust.ROUTES,
    *server.ROUTES,
    *root.ROUTES,
    *shares.ROUTES,
    *recovery.ROUTES,
    *protocol.ROUTES,
    *governance.ROUTES,
    *attestation.ROUTES,
    *credentials.ROUTES,
    *certs.ROUTES,
    *jobs.ROUTES,
    *hardware.ROUTES,
    *enrollment.ROUTES,
    *private_ledger.ROUTES,
)
KEEPALIVE_S = 30.0
SHUTDOWN_S = 3.0
SETTLE_INTERVAL_S = 2.0

__all__ = ["PRIVATE_ROUTES", "PUBLIC_ROUTES", "HttpService", "build_app", "private", "public"]


def build_app(
    services: ApiServices,
    routes: Sequence[Route],
    *,
    title: str,
    operator: bool,
    tunnel_only: bool = False,
) -> tuple[web.Application, Gate]:
    """Return an application that serves these routes and their OpenAPI document.

    With ``tunnel_only`` a token is good from the tunnel address of its holder alone.
    """
    gate = Gate(services, operator=operator, tunnel_only=tunnel_only)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[refuse_unknown])

    # Made for the first who asks: hardly anybody does, and a start need not wait for it.
    @functools.cache
    def document() -> dict[str, object]:
        return openapi_document(title, services.version, table)

    async def openapi(call: Call) -> Reply:
        return document()

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
        public_addresses: Sequence[str] = (),
        socket_path: Path,
        switch: TlsSwitch | None = None,
        has_address: Callable[[str], bool] = has_address,
        settle_interval_s: float = SETTLE_INTERVAL_S,
    ) -> None:
        self._services = services
        self._bind_address = bind_address
        self._public_port = public_port
        self._private_port = private_port
        self._private_addresses = private_addresses
        self._certificate_names = certificate_names
        self._public_addresses = public_addresses
        self._socket_path = socket_path
        self._switch = switch or TlsSwitch()
        self._has_address = has_address
        self._settle_interval_s = settle_interval_s
        self._tasks = TaskOwner(self.name)
        self._runners: list[web.AppRunner] = []
        self._gates: list[Gate] = []
        self._private: Listeners | None = None
        self._trouble = ""
        self._state = HealthState.STOPPED

    async def start(self) -> None:
        """Open every listener; private ones as soon as their addresses are there.

        Raises:
            StartError: ``port_in_use``, naming the port.
        """
        services = self._services
        names = list(dict.fromkeys(self._certificate_names))
        await asyncio.to_thread(issue_leaf, services.tls, names=names, clock=services.clock)
        context = server_context(services.tls)
        self._switch.install(context)
        try:
            await self._serve_socket()
            await self._serve_public(context)
            self._private = await self._serve_private(context)
        except BaseException:
            await self.stop()
            raise
        self._tasks.spawn(self._keep_settled(self._private), name="private-listeners")
        self._state = HealthState.OK

    async def stop(self) -> None:
        """Answer what is under way, close the listeners, remove the socket."""
        await self._tasks.close()
        for gate in self._gates:
            gate.draining = True
        for runner in reversed(self._runners):
            await runner.cleanup()
        self._runners, self._gates = [], []
        self._socket_path.unlink(missing_ok=True)
        self._state, self._private, self._trouble = HealthState.STOPPED, None, ""

    def health(self) -> Health:
        """Say which ports are open, and which addresses have yet to come."""
        if self._private is None:
            return Health(state=self._state)
        detail = f"public on {self.public_port}, private on {self.private_port}"
        trouble = self._trouble
        if not trouble and (waiting := self._private.waiting):
            trouble = f"waiting for {', '.join(waiting)}"
        if trouble:
            return Health(state=HealthState.DEGRADED, detail=f"{detail}; {trouble}")
        return Health(state=self._state, detail=detail)

    @property
    def public_port(self) -> int:
        """The port that the public server listens on."""
        return self._public_port

    @property
    def private_port(self) -> int:
        """The port that the private server listens on."""
        return self._private_port if self._private is None else self._private.port

    async def _runner(
        self, routes: Sequence[Route], title: str, *, operator: bool, tunnel_only: bool = False
    ) -> web.AppRunner:
        app, gate = build_app(
            self._services, routes, title=title, operator=operator, tunnel_only=tunnel_only
        )
        runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=SHUTDOWN_S
        )
        await runner.setup()
        self._runners.append(runner)
        self._gates.append(gate)
        return runner

    async def _serve_public(self, context: ssl.SSLContext) -> None:
        runner = await self._runner(PUBLIC_ROUTES, "seipd public", operator=False)
        address, port = self._bind_address, self._public_port
        try:
            await web.TCPSite(runner, address, port, ssl_context=context, backlog=BACKLOG).start()
        except OSError as error:
            raise self._taken(address, port, error) from error
        self._public_port = runner.addresses[0][1]
        for more in self._public_addresses:
            await self._serve_beside(runner, more, context)

    async def _serve_beside(
        self, runner: web.AppRunner, address: str, context: ssl.SSLContext
    ) -> None:
        """Serve the public at one more address, if this machine has it.

        Raises:
            StartError: ``port_in_use``.
        """
        port = self._public_port
        site = web.TCPSite(runner, address, port, ssl_context=context, backlog=BACKLOG)
        try:
            await site.start()
        except OSError as error:
            await site.stop()
            if error.errno != errno.EADDRINUSE:
                logger.info("not listening on %s:%s: %s", address, port, error.strerror)
                return
            raise self._taken(address, port, error) from error

    def _taken(self, address: str, port: int, error: OSError) -> StartError:
        return StartError(
            f"{address}:{port}/tcp can't be opened: {error.strerror}",
            service=self.name,
            code="port_in_use",
            mend="end what holds the port, or choose another with --http-port",
        )

    async def _serve_private(self, context: ssl.SSLContext) -> Listeners:
        runner = await self._runner(
            PRIVATE_ROUTES, "seipd private", operator=False, tunnel_only=True
        )
        listeners = Listeners(
            runner=runner,
            addresses=self._private_addresses,
            port=self._private_port,
            context=context,
            has_address=self._has_address,
        )
        try:
            await listeners.settle()
        except ConflictError as error:
            raise StartError(
                str(error), service=self.name, code=error.code, mend=error.mend
            ) from error
        return listeners

    async def _keep_settled(self, listeners: Listeners) -> None:
        while True:
            await asyncio.sleep(self._settle_interval_s)
            try:
                await listeners.settle()
            except (SeipdError, OSError) as error:
                self._trouble = str(error)
            else:
                self._trouble = ""

    async def _serve_socket(self) -> None:
        runner = await self._runner(
            (*PRIVATE_ROUTES, *PUBLIC_ROUTES), "seipd operator", operator=True
        )
        if self._socket_path.is_symlink():
            raise ConflictError(f"{self._socket_path} is a symbolic link", mend="remove it")
        self._socket_path.unlink(missing_ok=True)
        await web.UnixSite(runner, str(self._socket_path)).start()
        self._socket_path.chmod(0o600)
