"""Answers a PULL with as many datagrams of entries as are allowed at once. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from services.base.ledger.checkpoint import parse_checkpoint
from services.base.ledger.note import parse_note
from services.mesh.gossip.codec import MAX_PLAINTEXT_BYTES
from services.mesh.gossip.messages import MAX_ENTRIES, Entries, Pull, id_of_raw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from services.mesh.gossip.ports import FeedReader

MAX_BURST: Final = 16
MAX_READ: Final = 128
MAX_ENTRY_BYTES: Final = 1000
MAX_CHECKPOINT_BYTES: Final = 1100
_FIXED_BYTES: Final = 42  # array and type, server, epoch, start, size, list header, nil, last
_PER_ITEM_BYTES: Final = 3  # msgpack's header of up to 65,535 bytes


def answer_pull(pull: Pull, feeds: FeedReader) -> list[Entries]:
    """Return the burst that answers a PULL; nothing where there is nothing to say.

    Whoever wants no entries wants the checkpoint, and gets the newest, of whatever size it is.

    Raises:
        SeipdError: the feed can't be read.
    """
    server_id = id_of_raw(pull.server)
    checkpoint = feeds.checkpoint(server_id, pull.epoch)
    if checkpoint is None:
        return []
    size = parse_checkpoint(parse_note(checkpoint).text).size
    if pull.start == pull.stop < size:
        pull = msgspec.structs.replace(pull, start=size, stop=size)
    stop = min(pull.stop, size, pull.start + MAX_READ)
    entries = feeds.read(server_id, pull.epoch, pull.start, stop) if pull.start < stop else []
    if not entries and pull.start != size:
        return []
    return pack_answer(pull, entries, size=size, checkpoint=checkpoint)


def pack_answer(
    pull: Pull, entries: Sequence[bytes], *, size: int, checkpoint: bytes
) -> list[Entries]:
    """Return the burst for entries read from ``pull.start`` on, under a checkpoint of ``size``.

    The checkpoint goes out only when the burst reaches it. An entry that is too large for a
    datagram ends the burst; when it is the first one, the empty burst sends the asker to HTTPS.
    """
    if pull.start > size:
        return []
    too_large = len(checkpoint) > MAX_CHECKPOINT_BYTES
    groups = [] if too_large else list(_groups(entries))[:MAX_BURST]
    reached = pull.start + sum(len(group) for group in groups)
    complete = reached == size and not too_large
    if complete and (not groups or not _fits(groups[-1], checkpoint)):
        groups.append([])
    answer = []
    start = pull.start
    for number, group in enumerate(groups or [[]], 1):
        last = number >= len(groups)
        answer.append(
            Entries(
                server=pull.server,
                epoch=pull.epoch,
                start=start,
                size=size,
                entries=tuple(group),
                checkpoint=checkpoint if last and complete else None,
                last=last,
            )
        )
        start += len(group)
    return answer


def _groups(entries: Sequence[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    used = _FIXED_BYTES
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            break
        need = len(entry) + _PER_ITEM_BYTES
        if used + need > MAX_PLAINTEXT_BYTES or len(group) == MAX_ENTRIES:
            yield group
            group, used = [], _FIXED_BYTES
        group.append(entry)
        used += need
    if group:
        yield group


def _fits(group: Sequence[bytes], checkpoint: bytes) -> bool:
    used = sum(len(entry) + _PER_ITEM_BYTES for entry in group)
    return used + len(checkpoint) + _PER_ITEM_BYTES + _FIXED_BYTES <= MAX_PLAINTEXT_BYTES
