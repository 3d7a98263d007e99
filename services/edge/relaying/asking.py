"""Asks a relay whether it lives: for a session that nobody needs, which is given back at once.

A relay answers to nobody without a ticket, so a server writes one for itself. The other party is
the relay's own box key, which takes part in no session.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import socket
import uuid
from itertools import count
from typing import TYPE_CHECKING, Final

from services.base.crypto.agreement import x25519_public
from services.edge.relay.client import Offer, Phase, RelayClient
from services.edge.relay.tickets import sign_ticket
from services.kernel.errors import SeipdError, UnavailableError

if TYPE_CHECKING:
    from services.base.crypto.signatures import Signer
    from services.edge.relaying.finding import Relay
    from services.kernel.clock import Clock
    from services.kernel.ids import MeshId

TIMEOUT_S: Final = 3.5
TICK_S: Final = 0.5
LIFETIME_MS: Final = 60_000
RATE_KBITS: Final = 64
MAX_DATAGRAM_BYTES: Final = 1500
NONCE_BYTES: Final = 16

_NO_WAY: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
)


class RelayAsker:
    """Asks one relay at a time."""

    def __init__(
        self, *, private_key: bytes, signer: Signer, mesh_id: MeshId, clock: Clock
    ) -> None:
        """Prepare.

        Args:
            private_key: of this server's WireGuard.
            signer: this server's identity.
            mesh_id: the mesh.
            clock: the clock.
        """
        self._private_key = private_key
        self._public_key = x25519_public(private_key)
        self._signer = signer
        self._mesh_id = bytes.fromhex(mesh_id)
        self._clock = clock

    async def ask(self, relay: Relay) -> float | None:
        """Return how many milliseconds the answer took; None where there was none.

        Raises:
            UnavailableError: ``no_way``: this machine has no way there, which says nothing of the
                relay.
        """
        try:
            client = self._client(relay)
        except SeipdError:
            return None
        host = client.offer.hosts[0]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.connect((host, relay.port))
                return await self._exchange(client, sock)
        except OSError as error:
            if error.errno in _NO_WAY:
                raise UnavailableError(f"no way to {host}", code="no_way") from error
            return None

    def _client(self, relay: Relay) -> RelayClient:
        """Return the client's side of a session.

        Raises:
            InputError: what the relay says of itself is of no use.
        """
        now_ms = self._clock.now_ms()
        relay_id = uuid.UUID(relay.relay_id).bytes
        ticket = sign_ticket(
            self._signer,
            self._mesh_id,
            relay_id=relay_id,
            box_key=relay.box,
            nonce=secrets.token_bytes(NONCE_BYTES),
            keys=(self._public_key, relay.box),
            now_ms=now_ms,
            lifetime_ms=LIFETIME_MS,
            rate_kbits=RATE_KBITS,
            customer=bytes(16),
        )
        return RelayClient(
            offer=Offer(
                relay_id=relay_id,
                hosts=(relay.host or relay.host6,),
                port=relay.port,
                box_key=relay.box,
                ticket=ticket,
            ),
            private_key=self._private_key,
            counters=count(now_ms),
            random_bytes=secrets.token_bytes,
        )

    async def _exchange(self, client: RelayClient, sock: socket.socket) -> float | None:
        loop, clock = asyncio.get_running_loop(), self._clock
        address = (client.offer.hosts[0], client.offer.port)
        datagrams = client.begin(clock.monotonic_s())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                while client.phase is Phase.ALLOCATING:
                    for data, _ in datagrams:
                        await loop.sock_sendall(sock, data)
                    data = await _received(sock)
                    now_s = clock.monotonic_s()
                    if data:
                        client.receive(data, address, now_s)
                    datagrams = client.tick(now_s)
        if client.phase is Phase.ALLOCATING or client.latency_s is None:
            return None
        for data, where in client.end():
            sock.connect(where)
            await loop.sock_sendall(sock, data)
        return client.latency_s * 1000


async def _received(sock: socket.socket) -> bytes:
    """Return the next datagram, or nothing after a while."""
    try:
        async with asyncio.timeout(TICK_S):
            return await asyncio.get_running_loop().sock_recv(sock, MAX_DATAGRAM_BYTES)
    except TimeoutError:
        return b""
