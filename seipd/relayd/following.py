"""Keeps in touch with the mesh: learns the roster, tells that the relay lives, hears who left.

The roster is believed as far as the root signed it. Who left is the word of one server, believed
over its own TLS authority, which the root signed for too: at worst it ends sessions.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any, Final, Protocol

from seipd.client.pinning import pinned_context
from seipd.client.trust import trust_server
from seipd.relayd.home import KnownMesh
from services.edge.relaying.lifesigns import signed_lifesign
from services.kernel.errors import InputError, SeipdError, UnreachableError, WireError
from services.kernel.ids import parse_key
from services.kernel.places import parse_place
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    from seipd.relayd.home import RelayHome
    from seipd.relayd.roster import MeshRoster
    from services.base.crypto.signatures import SigningKey
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 5.0
MAX_PAGES: Final = 64
MAX_PAGE_BYTES: Final = 2 << 20
MAX_SERVERS: Final = 256


class Carrier(Protocol):
    """The part of the relay that is needed here."""

    def parties(self) -> list[bytes]:
        """Return the WireGuard keys that it carries for."""

    def sessions_count(self) -> int:
        """Return how many sessions there are."""

    def load_permille(self) -> int:
        """Return how much of what it may carry it carries."""

    def revoked(self, wireguard_key: bytes) -> None:
        """End what a key takes part in."""

    def recheck(self) -> None:
        """End what no server of the mesh stands behind any more."""


class Follower:
    """Goes through the servers that are known until one answers, and stays with it."""

    def __init__(
        self,
        *,
        home: RelayHome,
        mesh: KnownMesh,
        roster: MeshRoster,
        key: SigningKey,
        carrier: Carrier,
        clock: Clock,
    ) -> None:
        self._home = home
        self._roster = roster
        self._key = key
        self._carrier = carrier
        self._clock = clock
        self._mesh_id = mesh.mesh_id
        self._servers = list(mesh.servers)
        self._authorities: dict[str, str] = {}
        self.state = "unknown"
        """What the mesh says of this relay: usable, suspended, not_registered and the like."""
        self.doubted: frozenset[bytes] = frozenset()
        """Keys that a server does not know; it may be behind, and they may have just joined."""

    async def turn(self) -> None:
        """Ask once: the roster first, then for who left.

        Raises:
            UnreachableError: no server that is known answers as one of the mesh.
        """
        for _ in range(len(self._servers)):
            address = self._servers[0]
            try:
                await self._ask(address)
            except SeipdError as error:
                logger.info("%s: %s", address, error)
                self._authorities.pop(address, None)
                self._servers.append(self._servers.pop(0))
            else:
                return
        raise UnreachableError("no server of the mesh answers", mend="check the network")

    async def _ask(self, address: str) -> None:
        base = f"https://{address}"
        async with HttpClient(tls=_anyone()) as client:
            await self._learn_roster(client, base)
            if address not in self._authorities:
                self._authorities[address] = await self._authority(client, base)
        async with HttpClient(tls=pinned_context(self._authorities[address])) as client:
            await self._tell(client, base)
            await self._learn_servers(client, base)

    async def _learn_roster(self, client: HttpClient, base: str) -> None:
        is_news = False
        if self._roster.number < 0:
            shown = await _get(client, f"{base}/api/tls/status")
            is_news = self._roster.take([shown.get("genesis")])
        for _ in range(MAX_PAGES):
            page = await _get(client, f"{base}/api/servers/changes/{self._roster.number}")
            records = page.get("charter")
            if not isinstance(records, list) or not self._roster.take(records):
                break
            is_news = True
        if is_news:
            self._home.save_charter(self._roster.values())
            self._carrier.recheck()

    async def _authority(self, client: HttpClient, base: str) -> str:
        shown = await _get(client, f"{base}/api/tls/status")
        trusted = trust_server(shown, mesh_id=self._mesh_id, server_id=None)
        if not self._roster.names(trusted.certificate.server_id):
            raise WireError("it is no server of the mesh any more")
        return trusted.authority_pem

    async def _tell(self, client: HttpClient, base: str) -> None:
        carrier = self._carrier
        sign = signed_lifesign(
            self._key,
            self._mesh_id,
            keys=carrier.parties(),
            sessions_count=carrier.sessions_count(),
            load_permille=carrier.load_permille(),
            now_ms=self._clock.now_ms(),
        )
        answer = await client.fetch(
            "POST", f"{base}/api/relay/life", json={"sign": sign}, timeout_s=TIMEOUT_S
        )
        value = answer.json()
        if not isinstance(value, dict):
            raise WireError("no answer to a sign of life")
        if answer.status == 404:
            self.state = "not_registered"
            return
        if answer.status != 200:
            raise WireError(f"a sign of life is refused: {value.get('code')}")
        self.state = str(value.get("state"))
        gone = gone_in(value)
        for key in gone & self.doubted:
            carrier.revoked(key)
        self.doubted = gone - self.doubted

    async def _learn_servers(self, client: HttpClient, base: str) -> None:
        value = await _get(client, f"{base}/api/servers")
        found = [one for one in places_in(value) if one not in self._servers]
        if found:
            self._servers = [*self._servers, *found][:MAX_SERVERS]
            self._home.save_mesh(KnownMesh(mesh_id=self._mesh_id, servers=tuple(self._servers)))


def gone_in(value: dict[str, Any]) -> frozenset[bytes]:
    """Return the keys that a server says are not in the mesh. Pure.

    Raises:
        WireError: it says nothing of the kind.
    """
    told = value.get("gone", [])
    if not isinstance(told, list):
        raise WireError("no list of who left")
    try:
        return frozenset(parse_key(str(text)) for text in told)
    except InputError as error:
        raise WireError(f"who left: {error}") from error


def places_in(value: dict[str, Any]) -> list[str]:
    """Return where a server says that servers are, each once; what is no place is passed over."""
    told = value.get("servers", [])
    listed = told if isinstance(told, list) else []
    named = (one.get("address") for one in listed if isinstance(one, dict))
    return list(dict.fromkeys(one for one in named if isinstance(one, str) and _is_place(one)))


def _is_place(text: str) -> bool:
    try:
        parse_place(text)
    except InputError:
        return False
    return True


def _anyone() -> ssl.SSLContext:
    # What is shown carries the root's signature: whose TLS it came over is of no matter.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _get(client: HttpClient, url: str) -> dict[str, Any]:
    answer = await client.fetch("GET", url, timeout_s=TIMEOUT_S, max_bytes=MAX_PAGE_BYTES)
    value = answer.json() if answer.status == 200 else None
    if not isinstance(value, dict):
        raise WireError("it is no server of a mesh")
    return value
