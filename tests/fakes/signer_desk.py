"""The signer's desk in one process: keys in memory, a clock by hand, an audit that can be read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from seipd.signerd.app import local_caller
from seipd.signerd.clock import GuardedClock
from seipd.signerd.desk import Desk
from seipd.signerd.server import SigningServicer
from services.base.crypto.signatures import SigningKey
from services.kernel import canonical
from services.kernel.errors import UnavailableError
from services.kernel.signing import MAX_SIGNED_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seipd.signerd.core import KeyTable

NOW = 1_800_000_000_000


class HandClock:
    """Goes when it is told to."""

    def __init__(self, now_ms: int = NOW) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


class MemoryAudit:
    """Keeps entries; ``full`` makes it refuse."""

    def __init__(self) -> None:
        self.entries: list[dict] = []
        self.full = False

    async def write(self, entries: Sequence[bytes], *, at_ms: int) -> None:
        await asyncio.sleep(0)
        if self.full:
            raise UnavailableError("the disk is full", code="audit_unavailable")
        self.entries += [canonical.decode_object(one) | {"at_ms": at_ms} for one in entries]

    def told(self) -> list[tuple[str, str, str]]:
        """Return call, outcome and reason of each entry."""
        return [(one["call"], one["outcome"], one["reason"]) for one in self.entries]


class MemoryKeys:
    """A table without a folder."""

    def __init__(self, table: KeyTable) -> None:
        self.table = table

    def table_at(self, now_ms: int) -> KeyTable:
        self.table = self.table.advanced(now_ms)
        return self.table


class Provider:
    """Keys in memory, and every way for a provider to fail."""

    def __init__(self) -> None:
        self.keys = {f"h{number}": SigningKey(bytes([number]) * 32) for number in range(3)}
        self.swapped: str | None = None
        self.failure: Exception | None = None
        self.max_bytes = MAX_SIGNED_BYTES
        self.in_memory = False

    def generate(self, handle: str) -> bytes:
        return self.public_key(handle)

    def public_key(self, handle: str) -> bytes:
        return self.keys[handle].public_key

    def sign(self, handle: str, data: bytes) -> bytes:
        if self.failure:
            raise self.failure
        return self.keys[self.swapped or handle].sign(data)

    def destroy(self, handle: str) -> None:
        del self.keys[handle]

    def close(self) -> None:
        pass


def desk_of(table: KeyTable, provider=None, *, audit=None, clock=None, **options) -> Desk:
    """Return a desk over a table of keys."""
    return Desk(
        keys=MemoryKeys(table),
        provider=provider or Provider(),
        audit=audit or MemoryAudit(),
        clock=GuardedClock(clock or HandClock()),
        **options,
    )


def servicer_of(desk: Desk) -> SigningServicer:
    """Return the gRPC side of a desk, asked over a unix socket."""
    return SigningServicer(desk, local_caller)
