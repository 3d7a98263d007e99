"""Asks other servers over HTTPS: for feeds as tiles, for the roster, for quotes and secrets."""

from __future__ import annotations

import contextlib
import secrets
import ssl
from typing import TYPE_CHECKING, Any

from seipd.client.pinning import pinned_context
from seipd.client.problems import error_of
from seipd.client.trust import trust_server
from seipd.daemon.feed_copy import LedgerCopy
from seipd.daemon.login import login_server
from seipd.daemon.tile_source import HttpTileSource
from services.kernel import canonical
from services.kernel.errors import SeipdError, UnreachableError, WireError
from services.kernel.ids import ServerId, b64u_decode, b64u_encode
from services.kernel.records import record_from_value
from services.mesh.bulk.service import catch_up
from services.runtime.outbound import HttpClient, Response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.changes import EpochEnd
    from services.base.ledger.service import LedgerService
    from services.base.ledger.tiles import TileRef
    from services.kernel.clock import Clock
    from services.kernel.records import Record
    from services.mesh.bulk.ports import Outcome, Place

MAX_ANSWER_BYTES = 1 << 20
MAX_ROSTER_BYTES = 64 << 20
MAX_QUOTE_BYTES = 64 << 10


class HttpTileFetcher:
    """Proves both sides by the roster; keeps the pinned TLS context and a session per source."""

    def __init__(self, *, ledger: LedgerService, key: SigningKey, clock: Clock) -> None:
        self._ledger = ledger
        self._key = key
        self._clock = clock
        self._rng = secrets.SystemRandom()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._tokens: dict[str, str] = {}

    async def catch_up(self, places: Sequence[Place], server_id: str, epoch: int) -> Outcome:
        """Bring this server's copy of a feed up to date from several servers at once.

        Each tile is checked before it counts, and the copy grows in durable chunks: whatever
        interrupts it, the next call goes on from what is held.

        Args:
            places: who may be asked, the preferred first.
            server_id: whose feed it is.
            epoch: the feed's epoch.

        Returns:
            How far it came, which may be nowhere, and who sent something false or failed.

        Raises:
            NotFoundError: the roster knows no such feed.
            ForkedError: the copy is not the beginning of what the feed's author signed since.
            SeipdError: an entry can't be stored; see ``LedgerService.ingest``.
        """
        await self._learn_epoch(places, ServerId(server_id), epoch)
        sink = LedgerCopy(self._ledger, server_id, epoch)
        async with contextlib.AsyncExitStack() as stack:
            sources = {place.server_id: _Dialled(self, place, server_id, stack) for place in places}
            return await catch_up(sources=sources, sink=sink, clock=self._clock, rng=self._rng)

    async def end_epoch(self, place: Place, end: EpochEnd, epoch: int) -> list[Record]:
        """Ask a server that may hold the root key to let this server's feed go on after its end.

        Returns:
            The roster's records as they stand there now; nothing of them is checked.

        Raises:
            SeipdError: it can't be reached, or what it refuses with.
        """
        body = {"epoch": epoch, "size": end.size, "root": b64u_encode(end.root)}
        return await self._roster_of(place, "POST", "/api/servers/epoch", body)

    async def _learn_epoch(self, places: Sequence[Place], server_id: ServerId, epoch: int) -> None:
        """Ask for the roster where it does not know a feed's epoch yet."""
        known = self._ledger.charter.last_certificate(server_id)
        if known is None or known.epoch >= epoch:
            return
        for place in places:
            with contextlib.suppress(SeipdError):
                records = await self._roster_of(place, "GET", "/api/servers/charter", None)
                await self._ledger.learn_roster(records)
                return

    async def attest(self, place: Place, path: str, sent: bytes) -> bytes:
        """Ask a server about its hardware; return what that very server answers, unread.

        Raises:
            SeipdError: it can't be reached, or what it refuses with.
        """
        body = canonical.decode_object(sent)
        try:
            answer = await self._ask(place, "POST", path, body, max_bytes=MAX_QUOTE_BYTES)
        except UnreachableError:
            self.forget(place)
            raise
        if answer.status != 200:
            raise error_of(answer)
        return answer.body

    async def _roster_of(
        self, place: Place, method: str, path: str, body: dict[str, Any] | None
    ) -> list[Record]:
        answer = await self._ask(place, method, path, body, max_bytes=MAX_ROSTER_BYTES)
        return _roster_in(answer)

    async def _ask(
        self, place: Place, method: str, path: str, body: dict[str, Any] | None, *, max_bytes: int
    ) -> Response:
        base = _base_of(place.host, place.port)
        context = self._contexts.get(base) or await self._pin(base, place.server_id)
        async with HttpClient(tls=context) as client:
            token = await self._login(client, base)
            return await client.fetch(
                method,
                f"{base}{path}",
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                max_bytes=max_bytes,
            )

    async def secret(self, place: Place, body: dict[str, Any]) -> bytes:
        """Ask a server for a secret; return it as that very server sealed it to this one.

        Raises:
            SeipdError: it can't be reached, or what it refuses with.
        """
        try:
            answer = await self._ask(
                place, "POST", "/api/servers/secrets", body, max_bytes=MAX_QUOTE_BYTES
            )
        except UnreachableError:
            self.forget(place)
            raise
        if answer.status != 200:
            raise error_of(answer)
        shown = answer.json()
        if not isinstance(shown, dict) or not isinstance(shown.get("sealed"), str):
            raise WireError("the answer holds no secret")
        return b64u_decode(shown["sealed"])

    async def changes_after(self, place: Place, number: int) -> list[Record]:
        """Ask anybody for the roster's changes after a number, as one that was revoked may, too.

        Returns:
            The next of them; nothing of them is checked.

        Raises:
            SeipdError: it can't be reached, or what it refuses with.
        """
        base = _base_of(place.host, place.port)
        context = self._contexts.get(base) or await self._pin(base, place.server_id)
        async with HttpClient(tls=context) as client:
            answer = await client.fetch(
                "GET", f"{base}/api/servers/changes/{number}", max_bytes=MAX_ANSWER_BYTES
            )
        return _roster_in(answer)

    async def dial(
        self, place: Place, server_id: str, stack: contextlib.AsyncExitStack
    ) -> HttpTileSource:
        """Return one server's copy of a feed; the connections stay open as long as the stack.

        Raises:
            SeipdError: it can't be reached, or is not the server of the roster.
        """
        base = _base_of(place.host, place.port)
        context = self._contexts.get(base) or await self._pin(base, place.server_id)
        client = await stack.enter_async_context(HttpClient(tls=context))

        async def login() -> str:
            return await self._login(client, base)

        return HttpTileSource(
            client=client,
            prefix=f"{base}/ledger/feeds/{server_id}",
            login=login,
            token=self._tokens.get(base, ""),
        )

    def forget(self, place: Place) -> None:
        """Learn anew by what a server proves itself: its address may be another's by now."""
        self._contexts.pop(_base_of(place.host, place.port), None)

    async def _pin(self, base: str, expected: str | None = None) -> ssl.SSLContext:
        """Learn the source's TLS authority; believe it only as far as the roster names it."""
        blind = ssl.create_default_context()
        blind.check_hostname = False
        blind.verify_mode = ssl.CERT_NONE
        async with HttpClient(tls=blind) as client:
            shown = (await _get(client, f"{base}/api/tls/status", {})).json()
        if not isinstance(shown, dict):
            raise WireError("not an object")
        wanted = ServerId(expected) if expected is not None else None
        trusted = trust_server(shown, mesh_id=self._ledger.mesh_id, server_id=wanted)
        server_id = trusted.certificate.server_id
        known = self._ledger.charter.server(server_id)
        if known is None or known.tls_key_hash != trusted.certificate.tls_key_hash:
            raise UnreachableError(f"{base} is not a server of the roster")
        context = pinned_context(trusted.authority_pem)
        self._contexts[base] = context
        return context

    async def _login(self, client: HttpClient, base: str) -> str:
        token = await login_server(client, base, mesh_id=self._ledger.mesh_id, key=self._key)
        self._tokens[base] = token
        return token


class _Dialled:
    """A source that is dialled when it is asked for its checkpoint."""

    def __init__(
        self,
        fetcher: HttpTileFetcher,
        place: Place,
        server_id: str,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self._fetcher = fetcher
        self._place = place
        self._server_id = server_id
        self._stack = stack
        self._source: HttpTileSource | None = None

    async def checkpoint(self) -> bytes:
        try:
            if self._source is None:
                self._source = await self._fetcher.dial(self._place, self._server_id, self._stack)
            return await self._source.checkpoint()
        except UnreachableError:
            self._fetcher.forget(self._place)
            raise

    async def tile(self, ref: TileRef, *, max_bytes: int) -> bytes:
        if self._source is None:
            raise UnreachableError("not dialled yet")
        return await self._source.tile(ref, max_bytes=max_bytes)


def _base_of(host: str, port: int) -> str:
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


async def _get(client: HttpClient, url: str, headers: dict[str, str]) -> Response:
    answer = await client.fetch("GET", url, headers=headers, max_bytes=MAX_ANSWER_BYTES)
    if answer.status != 200:
        raise UnreachableError(f"{url}: status {answer.status}")
    return answer


def _roster_in(answer: Response) -> list[Record]:
    if answer.status != 200:
        raise error_of(answer)
    shown = answer.json()
    listed = shown.get("charter") if isinstance(shown, dict) else None
    if not isinstance(listed, list):
        raise WireError("the answer holds no roster")
    return [record_from_value(one) for one in listed]
