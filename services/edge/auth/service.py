"""Who is there: challenge and answer, session tokens, and servers' own credentials."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from services.base.crypto.signatures import SigningKey, verify
from services.edge.auth.sessions import Challenges, Tokens, auth_input
from services.kernel.errors import UnauthenticatedError
from services.kernel.ids import ServerId, node_id_of, server_id_of
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    from services.authority.ports import Ledger
    from services.kernel.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: a key, and what the mesh knows it as."""

    key: bytes
    node_id: str | None
    server_id: ServerId | None


class AuthService:
    """Proves callers by their keys; holds no password and no session table."""

    name: ClassVar[str] = "auth"

    def __init__(self, *, ledger: Ledger, session_key: SigningKey, clock: Clock) -> None:
        self._ledger = ledger
        self._session_key = session_key
        self._clock = clock

    async def start(self) -> None:
        """Make this run's challenge secret: a challenge does not outlive a restart."""
        mesh_id, server_id = self._ledger.mesh_id, self._ledger.server_id
        self._challenges = Challenges(
            secret=secrets.token_bytes(32), mesh_id=mesh_id, server_id=server_id
        )
        self._tokens = Tokens(key=self._session_key, server_id=server_id, mesh_id=mesh_id)

    async def stop(self) -> None:
        """Nothing to release."""

    def health(self) -> Health:
        """It is as well as the ledger is."""
        return Health(state=HealthState.OK)

    def challenge(self) -> bytes:
        """Return a nonce to sign."""
        return self._challenges.issue(now_ms=self._clock.now_ms(), random=secrets.token_bytes(16))

    def answer(self, *, key: bytes, nonce: bytes, signature: bytes) -> str:
        """Return a session token for a key of the mesh that signed a challenge of ours.

        Raises:
            UnauthenticatedError: the nonce, the signature or the key is not good.
        """
        signed = auth_input(self._ledger.mesh_id, self._ledger.server_id, nonce)
        if not verify(key, signed, signature):
            raise UnauthenticatedError("the signature is wrong")
        now_ms = self._clock.now_ms()
        self._challenges.check(nonce, now_ms=now_ms)
        # Before the nonce is remembered: strangers must not fill that memory. What becomes of a
        # key is told to its holder alone, for the signature was checked first.
        self._caller(key)
        self._challenges.take(nonce, now_ms=now_ms)
        return self._tokens.issue(key, now_s=now_ms // 1000)

    def caller(self, token: str) -> Caller:
        """Return who holds a token; a key that left the mesh meanwhile is nobody.

        Raises:
            UnauthenticatedError: ``token_invalid`` or ``revoked``.
        """
        session = self._tokens.check(token, now_s=self._clock.now_ms() // 1000, verify=verify)
        return self._caller(session.key)

    def _caller(self, key: bytes) -> Caller:
        node_id = node_id_of(key)
        if self._ledger.state.get("tree", node_id) is not None:
            return Caller(key=key, node_id=node_id, server_id=None)
        server = self._ledger.charter.server(server_id_of(key))
        if server is not None and server.key == key:
            return Caller(key=key, node_id=None, server_id=server.server_id)
        raise UnauthenticatedError("this key is not in the mesh", code="revoked")
