"""Tells an address by the way that its target names; one at a time, each with an end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.edge.ddns import namecheap
from services.edge.ddns.rfc2136 import send_update
from services.edge.ddns.target import Way
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from ipaddress import IPv4Address, IPv6Address

    from services.edge.ddns.target import Target
    from services.runtime.outbound import Response


class AddressTeller:
    """The two ways out."""

    def __init__(
        self,
        *,
        may_reach: Callable[[IPv4Address | IPv6Address], bool],
        tls: ssl.SSLContext | None = None,
        url: str = namecheap.URL,
    ) -> None:
        self._may_reach = may_reach
        self._tls = tls
        self._url = url

    async def tell(self, target: Target, address: str, secret: bytes) -> None:
        """Tell an address; raises as ``send_update`` and ``namecheap.call`` do."""
        if target.way is Way.RFC2136:
            await asyncio.to_thread(send_update, target, address, secret)
        else:
            password = secret.decode("utf-8", "replace").strip()
            await namecheap.call(self, target, address, password, url=self._url)

    async def get(self, url: str, *, max_bytes: int) -> Response:
        """Fetch a document; see ``namecheap.Way``."""
        async with HttpClient(tls=self._tls, may_reach=self._may_reach) as client:
            return await client.fetch("GET", url, max_bytes=max_bytes)
