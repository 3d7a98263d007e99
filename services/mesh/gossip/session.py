r"""Sessions between two servers: who may open one, which is used, when it ends. Pure.

    initiator                                   responder
       | HELLO (signed, to this responder) ------> |  in the roster, fresh, newer than any before
       | <----------------- HELLO_ACK (signed) --- |  half open: nothing is sent under it yet
       | first BOX ------------------------------> |  proves that the initiator lives at its address

Keys: HKDF-SHA-256 of the X25519 secret of the two ephemeral keys; salt = mesh id, info =
``seipd/gossip-keys/v1\0`` || SHA-256(HELLO || HELLO_ACK); the first 32 bytes are the initiator's
sending key, the last 32 the responder's. A session that is in use stays until the new one has
proved itself. The peer's address is that of the handshake: a box from elsewhere is dropped, so that
nobody can steer answers at a third party.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from services.base.crypto.agreement import generate_x25519, shared_secret
from services.base.crypto.kdf import hkdf_sha256
from services.base.crypto.session import ReplayWindow, SessionCipher
from services.base.crypto.signatures import verify
from services.kernel.errors import InputError, WireError
from services.kernel.ids import server_id_of
from services.mesh.gossip.clocks import MAX_SKEW_MS, PeerClocks
from services.mesh.gossip.codec import (
    Box,
    Hello,
    HelloAck,
    ack_signed_bytes,
    box_header,
    encode_ack,
    encode_hello,
    hello_signed_bytes,
)
from services.mesh.gossip.counters import Count, DroppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from services.base.crypto.signatures import Signer
    from services.mesh.gossip.ports import Moment, Rng
    from services.runtime.udp import Address

HANDSHAKE_TIMEOUT_S: Final = 10.0
MAX_SESSION_AGE_S: Final = 900.0
MAX_HALF_OPEN: Final = 2048
_KEPT_A_PEER: Final = 2
_KEYS_PURPOSE: Final = b"seipd/gossip-keys/v1\0"


@dataclass(slots=True, kw_only=True)
class Session:
    """One agreed pair of keys with one peer at one address."""

    peer: str
    address: Address
    local_index: int
    remote_index: int
    initiator: bool
    created_s: float
    cipher: SessionCipher = field(repr=False)
    window: ReplayWindow = field(default_factory=ReplayWindow, repr=False)
    counter: int = 0

    def seal(self, plaintext: bytes) -> bytes:
        """Return the datagram of the next BOX."""
        header = box_header(self.remote_index, self.counter)
        sealed = self.cipher.encrypt(self.counter, plaintext, aad=header)
        self.counter += 1
        return header + sealed


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """The message of a BOX; ``fresh`` says that it proved a session that was half open."""

    session: Session
    plaintext: bytes
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A HELLO of ours that waits for its answer."""

    peer: str
    address: Address
    started_s: float
    datagram: bytes
    ephemeral_secret: bytes = field(repr=False)


class SessionTable:
    """Every session of this server, by the index that it gave out."""

    def __init__(
        self,
        *,
        key: Signer,
        mesh_id: bytes,
        key_of: Callable[[str], bytes | None],
        rng: Rng,
        newest_hello_ms: Mapping[str, int] | None = None,
        new_pair: Callable[[], tuple[bytes, bytes]] = generate_x25519,
    ) -> None:
        self._key = key
        self._mesh_id = mesh_id
        self._key_of = key_of
        self._rng = rng
        self._new_pair = new_pair
        self._pending: dict[int, _Pending] = {}
        self._half_open: dict[int, Session] = {}
        self._open: dict[int, Session] = {}
        self._by_peer: dict[str, list[Session]] = {}
        self._last_sent_ms: dict[str, int] = {}
        self.newest_hello_ms: dict[str, int] = dict(newest_hello_ms or {})
        self.clocks = PeerClocks()

    def current(self, peer: str) -> Session | None:
        """Return the session to send under, if there is one."""
        sessions = self._by_peer.get(peer)
        return sessions[0] if sessions else None

    def peers(self) -> Collection[str]:
        """Return everybody with whom there is a session."""
        return self._by_peer.keys()

    def begin(self, peer: str, address: Address, now: Moment) -> bytes | None:
        """Return a HELLO for a peer of the roster."""
        receiver = self._key_of(peer)
        if receiver is None:
            return None
        secret, public = self._new_pair()
        # Two HELLOs in one millisecond, or a clock set back: the peer takes only newer ones.
        time_ms = max(now.ms, self._last_sent_ms.get(peer, 0) + 1)
        self._last_sent_ms[peer] = time_ms
        index = self._new_index()
        hello = Hello(
            sender_index=index,
            sender=self._key.public_key,
            receiver=receiver,
            ephemeral=public,
            time_ms=time_ms,
        )
        signature = self._key.sign(hello_signed_bytes(hello, self._mesh_id))
        datagram = encode_hello(hello)[: -len(signature)] + signature
        self._make_room(self._pending, peer)
        self._pending[index] = _Pending(
            peer=peer,
            address=address,
            started_s=now.s,
            datagram=datagram,
            ephemeral_secret=secret,
        )
        return datagram

    def check_hello(self, hello: Hello) -> str:
        """Make the checks that cost nothing; return who claims to have sent it.

        Raises:
            DroppedError: it is not for us, from a stranger, or not newer than the one before.
        """
        if hello.receiver != self._key.public_key:
            raise DroppedError(Count.DROPPED_NOT_FOR_US)
        peer = server_id_of(hello.sender)
        if hello.sender == self._key.public_key or self._key_of(peer) != hello.sender:
            raise DroppedError(Count.DROPPED_UNKNOWN_SENDER)
        if hello.time_ms <= self.newest_hello_ms.get(peer, -1):
            raise DroppedError(Count.DROPPED_REPLAY)
        return peer

    def accept_hello(self, hello: Hello, datagram: bytes, address: Address, now: Moment) -> bytes:
        """Check a HELLO in full; return the HELLO_ACK.

        Raises:
            DroppedError: it fails a check, or too many handshakes are half open.
        """
        peer = self.check_hello(hello)
        if not verify(hello.sender, hello_signed_bytes(hello, self._mesh_id), hello.signature):
            raise DroppedError(Count.DROPPED_BAD_SIGNATURE)
        # Also of a clock that is too far off to talk to: it may be ours that is wrong.
        self.clocks.greeted(peer, hello.time_ms, now)
        if abs(hello.time_ms - now.ms) > MAX_SKEW_MS:
            raise DroppedError(Count.DROPPED_CLOCK_SKEW)
        self._make_room(self._half_open, peer)
        if len(self._half_open) >= MAX_HALF_OPEN:
            raise DroppedError(Count.DROPPED_RATE_LIMITED)
        secret, public = self._new_pair()
        index = self._new_index()
        ack = HelloAck(
            receiver_index=hello.sender_index,
            sender_index=index,
            sender=self._key.public_key,
            ephemeral=public,
            time_ms=now.ms,
        )
        signature = self._key.sign(ack_signed_bytes(ack, self._mesh_id, datagram))
        answer = encode_ack(ack)[: -len(signature)] + signature
        to_responder, to_initiator = self._keys(secret, hello.ephemeral, datagram + answer)
        self.newest_hello_ms[peer] = hello.time_ms
        self._half_open[index] = Session(
            peer=peer,
            address=address,
            local_index=index,
            remote_index=hello.sender_index,
            initiator=False,
            created_s=now.s,
            cipher=SessionCipher(to_initiator, to_responder),
        )
        return answer

    def accept_ack(self, ack: HelloAck, datagram: bytes, address: Address, now: Moment) -> Session:
        """Check the answer to a HELLO of ours; the session is in use from here on.

        Raises:
            DroppedError: it answers nothing of ours, or fails a check.
        """
        pending = self._pending.get(ack.receiver_index)
        if pending is None:
            raise DroppedError(Count.DROPPED_UNKNOWN_SESSION)
        if address != pending.address:
            raise DroppedError(Count.DROPPED_WRONG_ADDRESS)
        if self._key_of(pending.peer) != ack.sender:
            raise DroppedError(Count.DROPPED_UNKNOWN_SENDER)
        signed = ack_signed_bytes(ack, self._mesh_id, pending.datagram)
        if not verify(ack.sender, signed, ack.signature):
            raise DroppedError(Count.DROPPED_BAD_SIGNATURE)
        self.clocks.answered(pending.peer, ack.time_ms, now)
        to_responder, to_initiator = self._keys(
            pending.ephemeral_secret, ack.ephemeral, pending.datagram + datagram
        )
        del self._pending[ack.receiver_index]
        session = Session(
            peer=pending.peer,
            address=address,
            local_index=ack.receiver_index,
            remote_index=ack.sender_index,
            initiator=True,
            created_s=now.s,
            cipher=SessionCipher(to_responder, to_initiator),
        )
        self._use(session)
        return session

    def open_box(self, box: Box, address: Address) -> Opened:
        """Decrypt a BOX; the first good one under a half-open session puts it to use.

        Raises:
            DroppedError: no such session, another address, not from the peer, or seen before.
        """
        index = box.receiver_index
        session = self._open.get(index) or self._half_open.get(index)
        if session is None:
            raise DroppedError(Count.DROPPED_UNKNOWN_SESSION)
        if address != session.address:
            raise DroppedError(Count.DROPPED_WRONG_ADDRESS)
        if self._key_of(session.peer) is None:
            self.forget(session.peer)
            raise DroppedError(Count.DROPPED_UNKNOWN_SENDER)
        try:
            plaintext = session.cipher.decrypt(box.counter, box.ciphertext, aad=box.header)
        except WireError as error:
            raise DroppedError(Count.DROPPED_BAD_BOX) from error
        if not session.window.accept(box.counter):
            raise DroppedError(Count.DROPPED_REPLAY)
        fresh = self._half_open.pop(index, None) is not None
        if fresh:
            self._use(session)
        return Opened(session=session, plaintext=plaintext, fresh=fresh)

    def expire(self, now_s: float) -> None:
        """Drop handshakes that were not finished and sessions past their time."""
        late_s = now_s - HANDSHAKE_TIMEOUT_S
        self._pending = {i: p for i, p in self._pending.items() if p.started_s > late_s}
        self._half_open = {i: s for i, s in self._half_open.items() if s.created_s > late_s}
        for session in tuple(self._open.values()):
            if now_s - session.created_s > MAX_SESSION_AGE_S:
                self._drop(session)

    def forget(self, peer: str) -> None:
        """Drop everything that is shared with a peer."""
        self.clocks.forget(peer)
        self._pending = {i: p for i, p in self._pending.items() if p.peer != peer}
        self._half_open = {i: s for i, s in self._half_open.items() if s.peer != peer}
        for session in tuple(self._by_peer.get(peer, ())):
            self._drop(session)

    def _use(self, session: Session) -> None:
        sessions = self._by_peer.setdefault(session.peer, [])
        sessions.insert(0, session)
        self._open[session.local_index] = session
        for old in sessions[_KEPT_A_PEER:]:
            self._drop(old)

    def _drop(self, session: Session) -> None:
        del self._open[session.local_index]
        sessions = self._by_peer[session.peer]
        sessions.remove(session)
        if not sessions:
            del self._by_peer[session.peer]

    def _keys(self, secret: bytes, public: bytes, transcript: bytes) -> tuple[bytes, bytes]:
        try:
            shared = shared_secret(secret, public)
        except InputError as error:
            raise DroppedError(Count.DROPPED_BAD_SIGNATURE) from error
        info = _KEYS_PURPOSE + hashlib.sha256(transcript).digest()
        keys = hkdf_sha256(shared, salt=self._mesh_id, info=info, length=64)
        return keys[:32], keys[32:]

    def _new_index(self) -> int:
        while True:
            index = self._rng.getrandbits(32)
            if not any(index in one for one in (self._pending, self._half_open, self._open)):
                return index

    @staticmethod
    def _make_room(table: dict[int, _Pending] | dict[int, Session], peer: str) -> None:
        """Keep one other handshake with this peer, the newest: two addresses may be tried."""
        own = [index for index, one in table.items() if one.peer == peer]
        for index in own[:-1]:
            del table[index]
