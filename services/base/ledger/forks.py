"""Two stories of one feed: how they are noticed, proved, and which of them is kept here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from services.base.ledger.equivocation import EQUIVOCATION_KIND, find
from services.base.ledger.feed import ATTEST_KIND, attest_from_body
from services.base.ledger.feedrules import SELF_KINDS
from services.base.ledger.limits import KEPT_KIND, Kept
from services.base.ledger.replay import parse_entries
from services.kernel.errors import InputError, SeipdError, WireError
from services.kernel.records import decode_entry

if TYPE_CHECKING:
    from services.base.ledger.author import Author
    from services.base.ledger.copies import FeedLog
    from services.base.ledger.feed import Attest
    from services.base.ledger.fold import Fold
    from services.base.ledger.roster import Charter
    from services.kernel.certificates import ServerCertificate
    from services.kernel.records import Record

logger = logging.getLogger(__name__)

MAX_CHECKPOINT_BYTES: Final = 1024
MAX_LOOK_AHEAD: Final = 4096
MAX_BROUGHT: Final = 4096


def accusation(
    fold: Fold, author: Author, log: FeedLog, certificate: ServerCertificate, foreign: bytes
) -> list[Record]:
    """Return the records that prove a fork and keep what counts of the feed; none without a fork.

    Raises:
        NoEquivocationError: the foreign checkpoint is malformed or not well signed.
        InputError: it is longer than what is held here.
    """
    if len(foreign) > MAX_CHECKPOINT_BYTES:
        raise WireError("a checkpoint that is too large to be evidence")
    proof = find(mesh_id=fold.mesh_id, certificate=certificate, held=log, foreign=foreign)
    if proof is None:
        return []
    logger.warning("%s has told two stories", certificate.server_id)
    records = [author.record(EQUIVOCATION_KIND, proof.value())]
    kept = kept_of(fold, author, log, certificate)
    return records if kept is None else [*records, kept]


def kept_of(
    fold: Fold, author: Author, log: FeedLog, certificate: ServerCertificate
) -> Record | None:
    """Return the record of what the witnesses co-signed of a feed, if that is more than is known.

    Raises:
        StorageError: the log can't be read.
    """
    feed = fold.feeds.get(certificate.server_id)
    limit = fold.limit_of(certificate.server_id)
    if feed is None or not feed.attested or (limit and limit.size >= feed.attested):
        return None
    attest = _attest_at(log, feed.attested)
    if attest is None:
        return None
    attested = fold.charter.certificate_at(certificate.server_id, feed.attested_roster)
    kept = Kept(
        key=certificate.key,
        epoch=(attested or certificate).epoch,
        roster=feed.attested_roster,
        attest=attest,
    )
    return author.record(KEPT_KIND, kept.value())


def is_other_branch(fold: Fold, log: FeedLog) -> bool:
    """Say whether what is held of a feed is not the branch that counts."""
    limit = fold.limit_of(log.server_id)
    if limit and limit.size and log.size >= limit.size and log.root_at(limit.size) != limit.root:
        return True
    return is_beyond_end(fold.charter, log)


def is_beyond_end(charter: Charter, log: FeedLog) -> bool:
    """Say whether a feed is not the beginning of what its newest epoch goes on from."""
    ends = charter.ends(log.server_id)
    signed_epoch = log.signed_epoch if ends else 0
    for epoch, end in ends.items():
        if signed_epoch <= epoch and log.size > end.size:
            return True
        if 0 < end.size <= log.size and log.root_at(end.size) != end.root:
            return True
    return False


def left_behind(charter: Charter, log: FeedLog) -> list[Record]:
    """Return what others than its author wanted beyond the end of a feed's epoch.

    Raises:
        StorageError: the log can't be read.
    """
    signed_epoch, key = log.signed_epoch, charter.key_of(log.server_id)
    ends = [one.size for epoch, one in charter.ends(log.server_id).items() if signed_epoch <= epoch]
    start = min([*ends, log.size])
    checked = parse_entries(log.read(start, min(start + MAX_BROUGHT, log.size)))
    records = [one.entry.record for one in checked if one.entry is not None]
    return [one for one in records if one.actor != key and one.kind not in SELF_KINDS]


def _attest_at(log: FeedLog, size: int) -> Attest | None:
    """Return the attest of a size; it follows what it attests closely."""
    for data in log.read(size, min(size + MAX_LOOK_AHEAD, log.size)):
        try:
            record = decode_entry(data).record
            if record.kind != ATTEST_KIND:
                continue
            attest = attest_from_body(record.body)
        except (InputError, SeipdError):
            continue
        if attest.size == size:
            return attest
    return None
