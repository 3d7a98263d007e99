"""Settling: a witness co-signs what it verified, an author appends what the witnesses signed.

A signature line is ``<witness server id> <time in seconds> <base64url signature>``; what is signed
is C2SP cosignature/v1 over the checkpoint text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from services.base.crypto.signatures import SigningKey, verify
from services.base.ledger.author import Author
from services.base.ledger.checkpoint import Checkpoint
from services.base.ledger.feed import (
    ATTEST_KIND,
    ROSTER_KIND,
    Attest,
    Cosignature,
    is_in_time,
)
from services.base.ledger.note import cosignature_input
from services.kernel.ids import (
    ServerId,
    b64u_decode,
    b64u_encode,
    parse_decimal,
    parse_server_id,
    server_id_of,
)

if TYPE_CHECKING:
    from services.base.ledger.fold import Fold
    from services.base.ledger.roster import Charter
    from services.base.ledger.witnesskey import WitnessKey
    from services.base.ledger.writer import Receipt
    from services.kernel.clock import Clock
    from services.kernel.records import Record

MAX_PENDING_SIZES = 64

Submit = Callable[[Sequence["Record"]], Awaitable[list["Receipt"]]]


class Log(Protocol):
    """The part of a feed's log that attesting needs."""

    @property
    def origin(self) -> str:
        """The origin line of its checkpoints."""

    @property
    def size(self) -> int:
        """How many entries it has."""

    def root_at(self, size: int) -> bytes | None:
        """Return the root at a size."""


class Attestor:
    """Gathers cosignatures for this server's feed and gives them for others'."""

    def __init__(
        self,
        *,
        key: SigningKey,
        fold: Fold,
        clock: Clock,
        submit: Submit,
        witness_key: WitnessKey,
    ) -> None:
        self.fold = fold
        self._witness_key = witness_key
        self._submit = submit
        self._author = Author(key=key, mesh_id=fold.mesh_id, clock=clock)
        self._server_id = server_id_of(key.public_key)
        self._pending: OrderedDict[int, tuple[bytes, dict[ServerId, Cosignature]]] = OrderedDict()

    def cosign(self, log: Log) -> bytes | None:
        """Return a signature line over the newest checkpoint of a log, if this is a witness."""
        if self._server_id not in self._witnesses() or not log.size:
            return None
        root = log.root_at(log.size)
        if root is None:
            return None
        one = self._sign(log.origin, log.size, root)
        return f"{one.witness} {one.time_s} {b64u_encode(one.signature)}".encode()

    def add(self, own: Log, size: int, line: bytes) -> None:
        """Keep a witness's line for this server's feed at a size, if its signature is good.

        Raises:
            InputError: malformed.
        """
        parts = line.decode("ascii", "replace").split(" ")
        root = own.root_at(size)
        if len(parts) != 3 or root is None or size <= self._attested():
            return
        one = Cosignature(
            witness=parse_server_id(parts[0]),
            time_s=parse_decimal(parts[1]),
            signature=b64u_decode(parts[2]),
        )
        is_witness = one.witness in self._witnesses()
        if is_witness and is_in_time(one) and self._valid(own.origin, size, root, one):
            self._keep(size, root, one)

    async def settle(self, own: Log) -> None:
        """Append ``feed.attest`` when more than half of the witnesses signed something new."""
        feed = self.fold.feeds.get(self._server_id)
        if feed is None or not feed.unsettled:
            return
        witnesses = self._witnesses()
        if self._server_id in witnesses:
            size = own.size
            root = own.root_at(size)
            if root is not None:
                self._keep(size, root, self._sign(own.origin, size, root))
        for size in sorted(self._pending, reverse=True):
            root, held = self._pending[size]
            good = [one for one in held.values() if self._valid(own.origin, size, root, one)]
            if size > feed.unsettled[0].index and 2 * len(good) > len(witnesses):
                signatures = middle_of(good, len(witnesses) // 2 + 1)
                attest = Attest(size=size, root=root, signatures=signatures)
                await self._append(ATTEST_KIND, attest.value())
                self._forget(size)
                return

    def roster_record(self, charter: Charter) -> Record:
        """Return the record by which a feed goes by the newest roster."""
        return self._author.record(ROSTER_KIND, {"number": charter.number, "hash": charter.head})

    async def _append(self, kind: str, body: dict[str, Any]) -> None:
        await self._submit([self._author.record(kind, body)])

    def _keep(self, size: int, root: bytes, one: Cosignature) -> None:
        known, held = self._pending.setdefault(size, (root, {}))
        if known == root:
            held[one.witness] = one
        while len(self._pending) > MAX_PENDING_SIZES:
            self._pending.popitem(last=False)

    def _forget(self, size: int) -> None:
        for old in [one for one in self._pending if one <= size]:
            del self._pending[old]

    def _sign(self, origin: str, size: int, root: bytes) -> Cosignature:
        text = Checkpoint(origin=origin, size=size, root=root).text()
        time_s, signature = self._witness_key.sign(text)
        return Cosignature(witness=self._server_id, time_s=time_s, signature=signature)

    def _valid(self, origin: str, size: int, root: bytes, one: Cosignature) -> bool:
        certificate = self.fold.charter.server(one.witness)
        signed = cosignature_input(
            Checkpoint(origin=origin, size=size, root=root).text(), one.time_s
        )
        return certificate is not None and verify(certificate.key, signed, one.signature)

    def _witnesses(self) -> tuple[ServerId, ...]:
        return self.fold.charter.witnesses_at(self.fold.charter.number)

    def _attested(self) -> int:
        feed = self.fold.feeds.get(self._server_id)
        return feed.attested if feed else 0


def middle_of(signed: Sequence[Cosignature], count: int) -> tuple[Cosignature, ...]:
    """Return so many of them, with the same median time: an attest of nine fits no datagram."""
    by_time = sorted(signed, key=lambda one: (one.time_s, one.witness))
    start = (len(by_time) - 1) // 2 - (count - 1) // 2
    return tuple(by_time[start : start + count])
