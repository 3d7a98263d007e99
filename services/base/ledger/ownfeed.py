"""When this server may append to its own feed, and when it has to stop.

A disk that was put back, or a copy of this server, holds less of the feed than was signed.
Appending to that would sign a second story. So nothing is appended while a good checkpoint is known
that signs more than is held; what is missing comes back from the others under that very signature.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from services.base.crypto.signatures import BadSignatureError
from services.base.ledger.checkpoint import verify_checkpoint
from services.base.ledger.note import NoteVerifier
from services.kernel.errors import ConflictError, UnavailableError
from services.kernel.hlc import hlc_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.ledger.copies import FeedLog
    from services.base.ledger.standing import Checked
    from services.base.ledger.writer import Writer

logger = logging.getLogger(__name__)

MEND: Final = (
    "if the others are right, revoke this server there (seipd server revoke) and join it anew "
    "with an empty data root"
)
ASKING: Final = "this server is asking the others how long its own feed is"
BEHIND: Final = "this server is getting newer entries of its own feed back from the others"
RESTORED: Final = (
    "this server was restored from a backup and takes no writes before the root lets its feed go "
    "on in a new epoch"
)
ENDED: Final = (
    "this server was restored elsewhere, and its feed goes on there; stop this copy for good"
)
FORKED: Final = f"the others hold another story of this server's own feed; {MEND}"
CLONED: Final = (
    "another copy of this server is running and writes to the same feed; stop one of them, then "
    "start the other again"
)


class OwnFeed:
    """Opens and closes the writer."""

    def __init__(self, *, writer: Writer, key: bytes, now_ms: int) -> None:
        self._writer = writer
        self._key = key
        self._begun_ms = now_ms
        self._signed_size = 0
        self._current = True
        self.is_restored = False

    @property
    def is_current(self) -> bool:
        """Whether all that is known to be signed of this feed is held."""
        return self._current and self._signed_size <= self._writer.size

    def wait_for_epoch(self) -> None:
        """Append nothing before ``go_on``: the disk was restored from a backup."""
        self.is_restored = True
        self._writer.close(RESTORED)

    def go_on(self) -> None:
        """Append again: the epoch that was restored has ended."""
        self.is_restored = False
        self._open(self._writer.size)

    def ended(self) -> None:
        """Append nothing: another copy of this server goes on in a newer epoch."""
        self._stop(ENDED)

    def wait_for_others(self) -> None:
        """Append nothing before the others were asked."""
        self._current = False
        self._writer.close(ASKING)

    def current(self) -> None:
        """Append from now on, unless something good is known to be missing."""
        self._current = True
        self._open(self._writer.size)

    def claimed(self, own: FeedLog, checkpoint: bytes) -> None:
        """Note that somebody holds what this checkpoint signs.

        Raises:
            BadSignatureError: it is not ours.
            NoteError: malformed, or of another feed.
        """
        verifier = NoteVerifier(name=own.origin, public_key=self._key)
        size = verify_checkpoint(checkpoint, verifier, own.origin).size
        self._signed_size = max(self._signed_size, size)
        if self._signed_size > own.size:
            self._writer.close(BEHIND)

    def take(
        self,
        own: FeedLog,
        entries: Sequence[bytes],
        checkpoint: bytes,
        proof: Sequence[bytes] | None,
    ) -> None:
        """Append what was signed already; blocks.

        Raises:
            UnavailableError: what is signed does not follow what is held, or the entries are
                not those that are signed.
            StorageError: the disk refused.
        """
        try:
            if proof is None:
                own.extend(entries, checkpoint)
            else:
                own.extend_verified(entries, checkpoint, proof)
        except (ConflictError, BadSignatureError) as error:
            self.contradicted()
            raise UnavailableError(str(error), code="own_feed_forked", mend=MEND) from error

    def taken(self, own: FeedLog, checked: Sequence[Checked]) -> None:
        """Go on behind what was taken back."""
        self._writer.resume_at(own.size)
        if self._writer.read_only == FORKED:
            self._writer.read_only = ""
        stamps = [one.entry.hlc for one in checked if one.entry is not None]
        if any(hlc_ms(stamp) > self._begun_ms for stamp in stamps):
            self._stop(CLONED)
        logger.warning("took back %d entries of this server's own feed", len(checked))
        self._open(own.size)

    def contradicted(self) -> None:
        """Append nothing: the others hold what does not go with what is held here."""
        self._stop(FORKED)

    def _open(self, size: int) -> None:
        if not self._current or self._signed_size > size:
            return
        if self.is_restored:
            self._writer.close(RESTORED)
        else:
            self._writer.open()

    def _stop(self, why: str) -> None:
        if not self._writer.read_only:
            logger.error("%s", why)
            self._writer.read_only = why
