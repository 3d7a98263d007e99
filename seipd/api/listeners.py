"""Listening on addresses that come and go: one socket for each that this machine has now.

Never on the wildcard address: what waits for an address waits, so the private API can't be reached
from outside while WireGuard is away.
"""

from __future__ import annotations

import errno
import logging
import socket
from typing import TYPE_CHECKING

from aiohttp import web

from services.kernel.errors import ConflictError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

BACKLOG = 512


def has_address(address: str) -> bool:
    """Say whether this machine has an IPv4 address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return False
            raise
    return True


class Listeners:
    """Keeps one runner listening on those of its addresses that are there."""

    def __init__(
        self,
        *,
        runner: web.AppRunner,
        addresses: Sequence[str],
        port: int,
        context: ssl.SSLContext,
        has_address: Callable[[str], bool] = has_address,
    ) -> None:
        self._runner = runner
        self._addresses = tuple(dict.fromkeys(addresses))
        self._context = context
        self._has_address = has_address
        self._sites: dict[str, web.TCPSite] = {}
        self.port = port

    @property
    def waiting(self) -> tuple[str, ...]:
        """The addresses that nothing listens on."""
        return tuple(one for one in self._addresses if one not in self._sites)

    async def settle(self) -> None:
        """Listen on the addresses that came, stop listening on those that went.

        Raises:
            ConflictError: ``port_in_use``, naming address and port.
        """
        for address in self._addresses:
            there, site = self._has_address(address), self._sites.get(address)
            if there and site is None:
                await self._open(address)
            elif not there and site is not None:
                del self._sites[address]
                await site.stop()
                logger.warning("%s is gone, no longer listening there", address)

    async def _open(self, address: str) -> None:
        site = web.TCPSite(
            self._runner, address, self.port, ssl_context=self._context, backlog=BACKLOG
        )
        try:
            await site.start()
        except OSError as error:
            await site.stop()
            if error.errno == errno.EADDRNOTAVAIL:
                return
            raise ConflictError(
                f"{address}:{self.port}/tcp can't be opened: {error.strerror}",
                code="port_in_use",
                mend="end what holds the port, or choose another with --http-port"
                " or --private-http-port",
            ) from error
        self._sites[address] = site
        if self.port == 0:
            self.port = self._runner.addresses[-1][1]
        logger.info("listening on %s:%s", address, self.port)
