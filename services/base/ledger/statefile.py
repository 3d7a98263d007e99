"""State files: this server's own for its next start, one for a newcomer, and one from another."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from services.base.ledger.limits import LIMIT_KINDS
from services.base.ledger.points import points_at, settled_points
from services.base.ledger.snapshot import Snapshot, decode_snapshot, encode_snapshot
from services.base.ledger.ticks import agreed_word, word_of
from services.kernel.errors import UnauthenticatedError, UnavailableError
from services.kernel.versions import unknown_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.base.ledger.feedrules import Verify
    from services.base.ledger.fold import Fold
    from services.base.ledger.roster import Charter
    from services.base.ledger.ticks import StateWord
    from services.kernel.ids import ServerId


def settled_state(fold: Fold, *, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the state file of all that is settled."""
    points, horizon_ms = settled_points(fold)
    provisional = fold.rewind()
    try:
        snapshot = Snapshot(
            state=fold.state,
            charter_records=(*fold.charter.records, *fold.limits.records),
            points=points,
            horizon_ms=horizon_ms,
        )
        return encode_snapshot(snapshot, mesh_id=fold.mesh_id, sign=sign)
    finally:
        fold.forward(provisional)


def state_as_of(fold: Fold, word: StateWord, *, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the state file of the tick that a word is about.

    Raises:
        UnavailableError: ``no_agreed_state``: it is not remembered, was another one here, or of a
            protocol version that is unknown here.
    """
    points = points_at(fold, word.time_ms)
    if points is not None and word.roster_number <= fold.charter.number:
        with fold.as_of(word.time_ms, word.roster_number):
            snapshot = Snapshot(
                state=fold.state,
                charter_records=(
                    *fold.charter.records[: word.roster_number + 1],
                    *fold.limits.records,
                ),
                points=points,
                horizon_ms=word.time_ms,
            )
            is_known = not unknown_version(fold.state)
            if is_known and _word_on(snapshot, fold.charter, word) == word:
                return encode_snapshot(snapshot, mesh_id=fold.mesh_id, sign=sign)
    raise UnavailableError(
        "no state that the witnesses agree on is remembered here now",
        code="no_agreed_state",
        mend="try again in half a minute",
    )


def adopt_state(
    data: bytes,
    *,
    charter: Charter,
    words: Mapping[ServerId, StateWord],
    source_key: bytes,
    sign: Callable[[bytes], bytes],
    verify: Verify,
) -> bytes:
    """Check a state file of another server and return it as this server's own.

    Args:
        data: the file.
        charter: what the root signed, checked by this server itself.
        words: what servers said of the state; the signatures were checked.
        source_key: the identity key of the server that the file is from.
        sign: signs with this server's own key.
        verify: Ed25519.

    Raises:
        CorruptError: the file is damaged or not signed by its source.
        UnauthenticatedError: it is not the state that more than half of the witnesses agree on.
    """
    word = agreed_word(charter, words)
    if word is None:
        raise UnauthenticatedError("too few witnesses agree on a state", code="no_agreed_state")
    mesh_id = charter.genesis.mesh_id
    snapshot = decode_snapshot(io.BytesIO(data), mesh_id=mesh_id, key=source_key, verify=verify)
    if _word_on(snapshot, charter, word) != word or snapshot.horizon_ms != word.time_ms:
        raise UnauthenticatedError("this is not the state that the witnesses agree on")
    # The records on which limits rest carry their own proof; those of the charter are our own.
    limits = [record for record in snapshot.charter_records if record.kind in LIMIT_KINDS]
    own = Snapshot(
        state=snapshot.state,
        charter_records=(*charter.records, *limits),
        points=snapshot.points,
        horizon_ms=snapshot.horizon_ms,
    )
    return encode_snapshot(own, mesh_id=mesh_id, sign=sign)


def _word_on(snapshot: Snapshot, charter: Charter, word: StateWord) -> StateWord:
    root = snapshot.state.root()
    return word_of(charter, word.time_ms, snapshot.points, root, roster_number=word.roster_number)
