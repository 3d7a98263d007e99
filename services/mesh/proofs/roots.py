"""Which root of the map to believe: one that enough servers signed a moment ago. Pure.

Everything follows from the hash of the first root key. It, or a key that follows it in the chain,
signs the change of the roster that names the witnesses and the certificates that hold their keys;
their words on the state name that change.
Whoever shows an older change than was seen before, or no chain to the root key that was seen, is
refused. A lie shows; that servers of an old
roster, whose keys were stolen, are believed by one who never saw a newer roster can't be helped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.base.ledger.changes import MAX_WITNESSES, record_hash
from services.base.ledger.seenroot import SeenRoot
from services.base.ledger.ticks import decode_word
from services.kernel.errors import SeipdError
from services.kernel.ids import server_id_of
from services.mesh.facts.envelope import open_envelope
from services.mesh.facts.kinds import STATE
from services.mesh.proofs.byroot import changes_by_root, shown_walk
from services.mesh.proofs.errors import RefusedError, UnprovenError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.ledger.changes import Change
    from services.base.ledger.rootwalk import RootWalk
    from services.base.ledger.ticks import StateWord
    from services.kernel.ids import MeshId, ServerId
    from services.mesh.facts.envelope import Fact

MAX_AGE_MS: Final = 60_000
MAX_AHEAD_MS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What is known beforehand: the mesh, and the newest roster seen so far."""

    mesh_id: MeshId
    roster_number: int = 0
    chain: Sequence[object] = ()
    """The root key chain as the server shows it; empty where the first key signed all."""
    seen: SeenRoot | None = None
    """The newest root key that was ever shown here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreedRoot:
    """A root of the map, and who signed it."""

    root: bytes
    time_ms: int
    roster_number: int
    seen: SeenRoot
    signers: tuple[ServerId, ...]
    needed_count: int


def agreed_root(
    records: Sequence[object],
    envelopes: Sequence[bytes],
    *,
    anchor: Anchor,
    signer_count: int,
    now_ms: int,
) -> AgreedRoot:
    """Return the root that enough servers signed within the last minute.

    Args:
        records: as JSON, the roster change that the words name, and those that hold the
            certificates of the witnesses; the order is of no matter.
        envelopes: words on the state, all the same, each of another witness.
        anchor: what is known beforehand.
        signer_count: how many have to sign; 0 for more than half of the witnesses.
        now_ms: the time here. A word may be a minute old and ten seconds ahead.

    Raises:
        RefusedError: something of it is false; ``root_old``, ``roster_old``.
        UnprovenError: ``too_few_signers`` or ``not_of_now``.
    """
    walk = shown_walk(list(anchor.chain), mesh_id=anchor.mesh_id, seen=anchor.seen)
    changes = _changes(records, anchor.mesh_id, walk, now_ms)
    facts, word = _words(envelopes, anchor.mesh_id)
    change = changes.get(word.roster_hash.hex())
    if change is None or change.number != word.roster_number:
        raise RefusedError("the roster that the servers go by is not shown", code="roster_false")
    if change.number < anchor.roster_number and not _is_rewound(anchor, walk):
        raise RefusedError(
            f"roster {change.number} was replaced by {anchor.roster_number}", code="roster_old"
        )
    keys = {
        one.key
        for shown in changes.values()
        if shown.number <= change.number
        for one in shown.servers
    }
    for fact in facts:
        if fact.key not in keys or server_id_of(fact.key) not in change.witnesses:
            raise RefusedError(f"{fact.server_id} is no witness", code="not_a_witness")
    needed = signer_count or len(change.witnesses) // 2 + 1
    _require_now(facts, word, now_ms)
    if len(facts) < needed:
        raise UnprovenError(
            f"{len(facts)} of the {needed} servers that have to agree signed the state",
            code="too_few_signers",
            mend="wait until more servers can be reached, or ask for fewer with --signers",
        )
    return AgreedRoot(
        root=word.root,
        time_ms=word.time_ms,
        roster_number=change.number,
        seen=SeenRoot.of_chain(walk.chain) if walk else SeenRoot.of_mesh(anchor.mesh_id),
        signers=tuple(sorted(server_id_of(fact.key) for fact in facts)),
        needed_count=needed,
    )


def _is_rewound(anchor: Anchor, walk: RootWalk | None) -> bool:
    """Say whether a recovery took back changes of the roster that were seen before."""
    return walk is not None and anchor.seen is not None and anchor.seen.is_rewound_by(walk.chain)


def _changes(
    records: Sequence[object], mesh_id: MeshId, walk: RootWalk | None, now_ms: int
) -> dict[str, Change]:
    if len(records) > MAX_WITNESSES + 1:
        raise RefusedError("more roster changes than witnesses", code="roster_false")
    shown = changes_by_root(list(records), mesh_id=mesh_id, walk=walk, now_ms=now_ms)
    return {record_hash(record): change for record, change in shown}


def _words(envelopes: Sequence[bytes], mesh_id: MeshId) -> tuple[list[Fact], StateWord]:
    if not envelopes:
        raise UnprovenError("no server's word on the state is here yet", code="too_few_signers")
    if len(envelopes) > MAX_WITNESSES:
        raise RefusedError("more words than witnesses", code="words_false")
    try:
        facts = [open_envelope(data, bytes.fromhex(mesh_id)) for data in envelopes]
        words = {decode_word(fact.payload) for fact in facts if fact.kind == STATE}
    except SeipdError as error:
        raise RefusedError(f"a word on the state: {error}", code="words_false") from error
    if len(words) != 1 or any(fact.kind != STATE for fact in facts):
        raise RefusedError("the words are not all on one state", code="words_false")
    if len({fact.key for fact in facts}) != len(facts):
        raise RefusedError("a witness counts once", code="words_false")
    return facts, words.pop()


def _require_now(facts: Sequence[Fact], word: StateWord, now_ms: int) -> None:
    oldest_ms = min(word.time_ms, *(fact.issued_ms for fact in facts))
    newest_ms = max(word.time_ms, *(fact.issued_ms for fact in facts))
    if oldest_ms < now_ms - MAX_AGE_MS:
        raise UnprovenError(
            f"the servers' words on the state are {(now_ms - oldest_ms) // 1000} s old",
            code="not_of_now",
            mend="check this machine's clock; else the server has lost touch with the others",
        )
    if newest_ms > now_ms + MAX_AHEAD_MS:
        raise UnprovenError(
            f"the servers' words on the state are {(newest_ms - now_ms) // 1000} s ahead",
            code="not_of_now",
            mend="check this machine's clock",
        )
