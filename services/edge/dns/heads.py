"""What stands around the body of an answer: heads, the OPT, and how long it may be. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from services.edge.dns.wire import Query, Rcode

PLAIN_LIMIT_BYTES: Final = 512
EDNS_LIMIT_BYTES: Final = 1232
STREAM_LIMIT_BYTES: Final = 65_535


def limit_of(query: Query, *, stream: bool) -> int:
    """Return how long an answer may be for what asks."""
    if stream:
        return STREAM_LIMIT_BYTES
    if query.edns is None:
        return PLAIN_LIMIT_BYTES
    return min(max(query.edns.payload_bytes, PLAIN_LIMIT_BYTES), EDNS_LIMIT_BYTES)


def opt_of(query: Query, rcode: Rcode, cookie: bytes) -> bytes:
    """Return the OPT of an answer; nothing where the query had none."""
    if query.edns is None:
        return b""
    head = b"\0\0\x29" + EDNS_LIMIT_BYTES.to_bytes(2, "big")
    flags = b"\x80\0" if query.edns.dnssec_ok else b"\0\0"
    return head + bytes([rcode >> 4, 0]) + flags + len(cookie).to_bytes(2, "big") + cookie


_HEADS: dict[int, tuple[bytes, ...]] = {}


def heads_of(answer_count: int) -> tuple[bytes, ...]:
    """Return the ten octets after the id: without and with RD, without and with OPT."""
    heads = _HEADS.get(answer_count)
    if heads is None:
        counts = b"\0\1" + answer_count.to_bytes(2, "big") + b"\0\0\0"
        flags = (b"\x84\0", b"\x85\0")
        heads = tuple(flag + counts + bytes([opt]) for opt in (0, 1) for flag in flags)
        _HEADS[answer_count] = heads
    return heads
