"""Secrets for servers as the daemon runs them: the way to the others is pinned HTTPS."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Protocol

from services.authority.serversecrets.messages import set_body
from services.authority.serversecrets.service import SecretsService
from services.authority.serversecrets.store import SecretStore
from services.base.storage.journal import JournalFile
from services.kernel.errors import UnreachableError
from services.mesh.bulk.ports import Place

if TYPE_CHECKING:
    from typing import Any

    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground
    from services.authority.serversecrets.messages import Meant
    from services.kernel.ids import ServerId
    from services.mesh.gossip.service import GossipService


class Asks(Protocol):
    """The way to a server whose place is known."""

    async def secret(self, place: Place, body: dict[str, Any]) -> bytes:
        """See HttpTileFetcher."""


class OverHttps:
    """Finds servers by what they tell of their address; satisfies Wire."""

    def __init__(self, *, gossip: GossipService, asks: Asks) -> None:
        self._gossip = gossip
        self._asks = asks

    async def ask(self, server_id: ServerId, meant: Meant) -> bytes:
        """Ask a server for a secret; return it as it was sealed to this server.

        Raises:
            UnreachableError: nobody knows where it is.
            SeipdError: it can't be reached, or what it refuses with.
        """
        fact = self._gossip.addresses().get(server_id)
        if fact is None:
            raise UnreachableError(f"{server_id} has not told where it is")
        place = Place(server_id=server_id, host=fact.host, port=fact.http_port)
        return await self._asks.secret(place, set_body(meant))


def secrets_of(
    ground: Ground, base: BaseLayer, gossip: GossipService, asks: Asks
) -> SecretsService:
    """Return what keeps the secrets of this server."""
    key = ground.identity.signing_key
    return SecretsService(
        ledger=base.ledger,
        author=base.author,
        key=key,
        store=SecretStore(folder=ground.paths.secrets, seed=key.seed, mesh_id=ground.mesh_id),
        wire=OverHttps(gossip=gossip, asks=asks),
        journal=JournalFile(folder=ground.paths.secrets, stem="audit", clock=ground.clock),
        rng=secrets.SystemRandom(),
        clock=ground.clock,
    )
