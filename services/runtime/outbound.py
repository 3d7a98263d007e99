"""The one way out over HTTP: a deadline, a size limit, no proxy of the environment, no redirect."""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from services.kernel import canonical
from services.kernel.errors import (
    ForbiddenError,
    TooLargeError,
    UnavailableError,
    UnreachableError,
)
from services.runtime.ssrf import address_in

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from ipaddress import IPv4Address, IPv6Address
    from types import TracebackType

MAX_RESPONSE_BYTES = 64 << 20
DEFAULT_TIMEOUT_S = 15.0
_CHUNK_BYTES = 1 << 16
_BLOCKED: Final = "this address may not be reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 (JSON)
        """Return the body as strictly parsed JSON.

        Raises:
            BadJsonError: it is none.
        """
        return canonical.decode(self.body)


class HttpClient:
    """A client session.

    ``may_reach`` is asked for each address as it is connected to, whatever a name meant before.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        may_reach: Callable[[IPv4Address | IPv6Address], bool] = lambda _: True,
    ) -> None:
        self._tls = tls
        self._may_reach = may_reach
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> HttpClient:
        """Open the session."""
        connector = aiohttp.TCPConnector(
            ssl=self._tls if self._tls is not None else True, socket_factory=self._open_socket
        )
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,  # noqa: ANN401 (JSON)
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_bytes: int = MAX_RESPONSE_BYTES,
    ) -> Response:
        """Make one request.

        Raises:
            UnreachableError: nobody listens there, or TLS fails.
            ForbiddenError: ``ssrf_blocked``: none of its addresses may be reached from here.
            UnavailableError: ``timeout``.
            TooLargeError: the answer is over ``max_bytes``.
        """
        if self._session is None:
            raise UnreachableError("the client is closed")
        sent = dict(headers or {})
        if json is not None:
            body = canonical.encode(json)
            sent["Content-Type"] = "application/json"
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.request(
                    method, url, data=body, headers=sent, allow_redirects=False
                ) as answer,
            ):
                data = await _read(answer, max_bytes)
                return Response(status=answer.status, headers=answer.headers, body=data)
        except TimeoutError:
            raise UnavailableError(f"{url}: no answer in time", code="timeout") from None
        except (aiohttp.ClientError, OSError) as error:
            if _BLOCKED in str(error):
                raise ForbiddenError(
                    f"{url} leads to an address that is not asked from here", code="ssrf_blocked"
                ) from error
            raise UnreachableError(f"{url}: {error}") from error

    def _open_socket(self, address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, place = address
        found = address_in(str(place[0]))
        if found is None or not self._may_reach(found):
            raise PermissionError(errno.EACCES, _BLOCKED)
        opened = socket.socket(family=family, type=kind, proto=protocol)
        opened.setblocking(False)
        return opened


async def _read(answer: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    data = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
        data += chunk
        if len(data) > max_bytes:
            raise TooLargeError(f"the answer is over {max_bytes} bytes")
    return bytes(data)
