"""What a rotation of the root writes: the link, the certificates signed anew, the end. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.ledger.rootchain import Link
from services.kernel.errors import ConflictError, InputError

if TYPE_CHECKING:
    from services.authority.ports import Json
    from services.base.ledger.rootchain import Generation
    from services.base.ledger.roster import Charter
    from services.kernel.certificates import ServerCertificate

DAY_MS = 86_400_000
DEFAULT_OVERLAP_MS = DAY_MS
MIN_OVERLAP_MS = 10_000
MAX_OVERLAP_MS = 30 * DAY_MS
BATCH_COUNT = 16
"""Certificates in one change: it stays well below the 16 KiB of a record."""


def root_key_id(generation: int) -> str:
    """Return the name under which the signer keeps the root key of a generation."""
    return f"root-{generation}"


def lifetime_ms(interval_ms: int) -> int:
    """Return how long a key is good; one rotation that comes late locks nobody out."""
    return 2 * interval_ms


def due_ms(newest: Generation, interval_ms: int) -> int:
    """Return when a key is followed: after the interval, or half of its life if that is shorter.

    A longer interval that was voted meanwhile holds from the next key on: this one would expire
    first, and sign nothing until then.
    """
    half_ms = (newest.expires_ms - newest.activated_ms) // 2
    return newest.activated_ms + min(interval_ms, half_ms)


def require_rotatable(charter: Charter, *, now_ms: int, overlap_ms: int) -> None:
    """Refuse a rotation that can't be.

    Raises:
        InputError: ``bad_overlap``.
        ConflictError: ``root_fork``, or ``rotation_in_progress``.
    """
    if not MIN_OVERLAP_MS <= overlap_ms <= MAX_OVERLAP_MS:
        raise InputError("an overlap is 10 seconds to 30 days", code="bad_overlap")
    require_one_chain(charter)
    before = window_before(charter)
    if before is not None and now_ms < (before.closes_ms or 0):
        raise ConflictError(
            f"the window of generation {before.generation} is open still",
            code="rotation_in_progress",
            mend="seipd root chain says until when",
        )


def require_one_chain(charter: Charter) -> None:
    """Refuse to go on where two keys follow the same one.

    Raises:
        ConflictError: ``root_fork``.
    """
    if charter.fork is not None:
        raise ConflictError(
            f"two keys follow generation {charter.fork.generation} of the root",
            code="root_fork",
            mend="somebody has that key; seipd root recover begins a new one",
        )


def window_before(charter: Charter) -> Generation | None:
    """Return the generation whose window is not closed yet."""
    generations = charter.chain.generations
    before = generations[-2] if len(generations) > 1 else None
    return None if before is None or before.is_closed else before


def next_link(
    charter: Charter, public_key: bytes, *, now_ms: int, closes_ms: int, interval_ms: int
) -> Link:
    """Return the link to the next key, not endorsed yet."""
    newest = charter.chain.newest
    activated_ms = max(now_ms, newest.activated_ms)
    closes_ms = max(closes_ms, activated_ms)
    return Link(
        number=charter.number + 1,
        prev=charter.head,
        witnesses=charter.witnesses_at(charter.number),
        generation=newest.generation + 1,
        parent=newest.fingerprint,
        public_key=public_key,
        activated_ms=activated_ms,
        expires_ms=max(activated_ms + lifetime_ms(interval_ms), closes_ms),
        closes_ms=closes_ms,
        endorser="root",
    )


def to_sign_anew(charter: Charter) -> list[ServerCertificate]:
    """Return the certificates, a batch at most, that a key before the newest signed."""
    since = charter.chain.newest.number
    if not since:
        return []
    old = [
        certificate
        for server_id, certificate in charter.servers().items()
        if charter.certified_at(server_id) <= since
    ]
    return old[:BATCH_COUNT]


def anew(charter: Charter, certificates: list[ServerCertificate]) -> Json:
    """Return the body of a ``roster.change`` that names servers as they are."""
    return {
        "number": charter.number + 1,
        "prev": charter.head,
        "servers": [one.value() for one in certificates],
        "removed": [],
        "witnesses": list(charter.witnesses_at(charter.number)),
    }


def closing(charter: Charter, generation: int) -> Json:
    """Return the body of the ``roster.change`` that ends the window of a generation."""
    return {**anew(charter, []), "closed": generation}


def state_of(one: Generation, newest: Generation, *, now_ms: int) -> str:
    """Return how a key stands: ``active``, ``rotating``, ``retired`` or ``expired``."""
    if one is not newest:
        over = one.is_closed or one.closes_ms is None or now_ms > one.closes_ms
        return "retired" if over else "rotating"
    return "expired" if now_ms > one.expires_ms else "active"
