"""One server's published copy of a feed, read over HTTPS on connections that stay open."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.base.ledger.note import MAX_NOTE_BYTES
from services.kernel.errors import (
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    UnauthenticatedError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from services.base.ledger.tiles import TileRef
    from services.runtime.outbound import HttpClient, Response

TILE_TIMEOUT_S = 20.0
USUAL_PAUSE_S = 5
MAX_PAUSE_S = 3600


class HttpTileSource:
    """Reads below ``prefix``; ``login`` gives the token that bundles are read with."""

    def __init__(
        self,
        *,
        client: HttpClient,
        prefix: str,
        login: Callable[[], Awaitable[str]],
        token: str = "",
        timeout_s: float = TILE_TIMEOUT_S,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._login = login
        self._token = token
        self._timeout_s = timeout_s
        self._logging_in = asyncio.Lock()

    async def checkpoint(self) -> bytes:
        """Return the newest published checkpoint.

        Raises:
            SeipdError: see ``services.mesh.bulk.ports.TileSource``.
        """
        answer = await self._get("checkpoint", "", MAX_NOTE_BYTES)
        return _body(answer)

    async def tile(self, ref: TileRef, *, max_bytes: int) -> bytes:
        """Return a tile or a bundle; logs in where the session has ended.

        Raises:
            SeipdError: see ``services.mesh.bulk.ports.TileSource``.
        """
        if ref.level is not None:
            return _body(await self._get(ref.path(), "", max_bytes))
        token = self._token or await self._new_token("")
        answer = await self._get(ref.path(), token, max_bytes)
        if answer.status == 401:
            token = await self._new_token(token)
            answer = await self._get(ref.path(), token, max_bytes)
        return _body(answer)

    async def _new_token(self, ended: str) -> str:
        """Log in once for all requests that found the same session ended."""
        async with self._logging_in:
            if self._token == ended:
                self._token = await self._login()
            return self._token

    async def _get(self, path: str, token: str, max_bytes: int) -> Response:
        return await self._client.fetch(
            "GET",
            f"{self._prefix}/{path}",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout_s=self._timeout_s,
            max_bytes=max_bytes,
        )


def _body(answer: Response) -> bytes:
    match answer.status:
        case 200:
            return answer.body
        case 401:
            raise UnauthenticatedError("the source does not know us")
        case 403:
            raise ForbiddenError("the source refuses")
        case 404 | 410:
            raise NotFoundError("the source has no such tile")
        case 429:
            raise _busy(answer)
        case 503 if "Retry-After" in answer.headers:
            raise _busy(answer)
        case status:
            raise UnreachableError(f"the source answers with status {status}")


def _busy(answer: Response) -> RateLimitedError:
    text = answer.headers.get("Retry-After", "")
    # The other form, a date, is nothing that our servers send.
    wanted_s = int(text) if text.isascii() and text.isdigit() and len(text) < 8 else USUAL_PAUSE_S
    return RateLimitedError("the source is busy", retry_after_s=min(wanted_s, MAX_PAUSE_S))
