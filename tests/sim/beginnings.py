"""Feeds as they stand in a mesh that has been up before: everybody holds the beginning of each."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from services.base.ledger.checkpoint import Checkpoint, sign_checkpoint
from services.base.ledger.feed import ROSTER_KIND
from services.kernel.hlc import Hlc
from services.kernel.records import Entry
from tests.sim.founding import START_MS, Founding, found, signed_record
from tests.sim.tape import Copy, Tape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.kernel.ids import ServerId


@functools.lru_cache(maxsize=4)
def first_feeds(server_count: int, witness_count: int) -> Mapping[ServerId, Copy]:
    """Return every server's feed: the roster that it goes by, in the first one the founding too."""
    founding = found(server_count, witness_count)
    charter = founding.charter()
    named = {"number": charter.number, "hash": charter.head}
    feeds = {}
    for number, (name, key) in enumerate(zip(founding.names, founding.keys, strict=True)):
        record_id = f"{1_000_000 + number:032x}"
        records = [signed_record(founding.mesh_id, key, ROSTER_KIND, named, record_id)]
        if number == 0:
            records = [*founding.changes, *records, *founding.first_records]
        feeds[name] = _feed(founding, number, [_entry(at, one) for at, one in enumerate(records)])
    return feeds


def _entry(at: int, record) -> bytes:
    return Entry(hlc=Hlc((START_MS - 1000 << 16) + at), record=record).encode()


def _feed(founding: Founding, number: int, entries: list[bytes]) -> Copy:
    tape = Tape()
    tape.append(entries)
    origin = founding.origin(founding.names[number])
    checkpoint = Checkpoint(origin=origin, size=len(entries), root=tape.roots[-1])
    note = sign_checkpoint(checkpoint, signer=founding.keys[number])
    return Copy(
        tape=tape,
        origin=origin,
        server_id=founding.names[number],
        epoch=1,
        size=len(entries),
        checkpoint=note,
    )
