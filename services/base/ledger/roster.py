"""The charter: what has one author, the root, and so needs no agreement about its order.

``root.genesis`` founds the mesh. ``roster.change`` is a numbered hash chain of changes: servers
added, changed or removed, and the witnesses named. Changes may arrive in any order on any feed;
they take effect in the order of their numbers. A record is judged under the newest roster that its
feed had named, so old numbers stay answerable.

    root.genesis   {domain, expires_ms, generation, public_key, ranges, version}
    roster.change  {number, prev, removed: [{root, server, size}, ...], servers, witnesses,
                    ended: [{root, server, size}, ...], closed, recovery_key}

The last three stand only where an epoch or a window ends, or another recovery key is named.

``prev`` is the SHA-256 of the record before: the change with the number before, or the genesis.
Whoever is removed is revoked for good: of its feed the first ``size`` entries count, whose root is
``root``; of two revocations the smaller size wins. Its slices stay out of use until a certificate
names them as another server's, assignments included. A certificate whose epoch is one more than the
server's last comes with the end of the epoch before: the feed goes on behind it.

``root.rotate`` takes a number, too (see ``rootchain``): the changes after it are the new key's.
``closed`` in a change ends the window of the key before. Until then a second link by the same key
is a fork: neither that nor anything else takes effect any more, but a link by the recovery key.
That one takes the place which it names; what had come after that place is taken back.
"""

from __future__ import annotations

import bisect
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.base.ledger.changes import (
    Change,
    EpochEnd,
    Removal,
    change_from_record,
    change_number,
    first_chain,
    genesis_from_record,
    record_hash,
)
from services.base.ledger.rootchain import (
    ROTATE_KIND,
    Link,
    RootChainError,
    is_recovery,
    link_from_record,
)
from services.base.ledger.rosterat import RosterAt
from services.base.ledger.rosterrules import require_allowed
from services.kernel.errors import InputError, RejectedError, SeipdError

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from services.kernel.certificates import ServerCertificate
    from services.kernel.ids import ServerId
    from services.kernel.records import Record

logger = logging.getLogger(__name__)

MAX_WAITING = 1024
MAX_STRANGERS = 256


@dataclass(frozen=True, slots=True)
class RootFork:
    """Two links that follow one key of the root, both signed for: nobody knows which is meant."""

    generation: int
    records: tuple[Record, Record]


class Charter:
    """The genesis and the roster's history; pure, fed with records whose signatures are checked."""

    def __init__(self, genesis_record: Record) -> None:
        self.genesis = genesis_from_record(genesis_record)
        self.fork: RootFork | None = None
        self.rewound_count = 0
        self.passed_over: set[str] = set()
        self._waiting: dict[tuple[int, str, str], Record] = {}
        self._strangers: deque[Record] = deque(maxlen=MAX_STRANGERS)
        self._begin(genesis_record)

    def _begin(self, genesis_record: Record) -> None:
        self.records: list[Record] = [genesis_record]
        self.chain = first_chain(self.genesis)
        self._hashes: list[str] = [record_hash(genesis_record)]
        self._history: dict[ServerId, list[tuple[int, ServerCertificate | None]]] = {}
        self._witnesses: list[tuple[ServerId, ...]] = [()]
        self._backbones: dict[str, ServerId] = {}
        self._slices: dict[str, ServerId] = {}
        self._removals: dict[ServerId, Removal] = {}
        self._ends: dict[ServerId, dict[int, EpochEnd]] = {}

    @property
    def number(self) -> int:
        """The number of the newest change in effect; 0 before the first."""
        return len(self._hashes) - 1

    @property
    def head(self) -> str:
        """The hash of the newest change in effect."""
        return self._hashes[-1]

    @property
    def root_keys(self) -> frozenset[bytes]:
        """The root keys that may speak now."""
        return frozenset({self.chain.newest.public_key})

    def hash_at(self, number: int) -> str | None:
        """Return the hash of change ``number``, or None where it is not known."""
        return self._hashes[number] if 0 < number < len(self._hashes) else None

    def offer(self, record: Record) -> list[Change]:
        """Take a record of the roster's chain; return what came into effect by it, in order.

        Raises:
            InputError: malformed.
            RootChainError: it is not the root's, or no longer; ``root_fork``.
            RejectedError: against the rules (``rejected_overlap``, ``rejected_stale``, ...).
        """
        change, text = change_from_record(record), record_hash(record)
        if change.number <= self.number and text == self._hashes[change.number]:
            return []
        if change.link is not None:
            self._consider(record, change.link)
        if change.number <= self.number:
            self.passed_over.add(text)
            raise RejectedError("this roster number is taken", code="rejected_stale")
        if not self._is_known(record, change):
            # Its key may be that of a link which is not here yet; but anybody can write the like.
            self._strangers.append(record)
            raise RootChainError("only the root changes the roster", code="rejected_unauthorised")
        if len(self._waiting) < MAX_WAITING:
            self._waiting[change.number, change.prev, text] = record
        refused: dict[str, SeipdError] = {}
        changes = list(self._advance(refused))
        if any(one.link is not None for one in changes):
            changes += self._offer_strangers()
        if text in refused:
            raise refused[text]
        return changes

    def was_server(self, server_id: ServerId) -> bool:
        """Say whether the roster ever named a server."""
        return server_id in self._history

    def server(self, server_id: ServerId) -> ServerCertificate | None:
        """Return the newest certificate of a server."""
        return self.at(self.number).server(server_id)

    def at(self, number: int) -> RosterAt:
        """Return the roster as change ``number`` left it."""
        return RosterAt(self, number)

    def witnesses_at(self, number: int) -> tuple[ServerId, ...]:
        """Return the witnesses that change ``number`` named."""
        return self._witnesses[min(number, self.number)]

    def certificate_at(self, server_id: ServerId, number: int) -> ServerCertificate | None:
        """Return a server's certificate as of a roster number."""
        history = self._history.get(server_id)
        if not history:
            return None
        at = bisect.bisect_right(history, number, key=lambda step: step[0])
        return history[at - 1][1] if at else None

    def servers(self) -> dict[ServerId, ServerCertificate]:
        """Return every server of the newest roster."""
        newest = ((name, steps[-1][1]) for name, steps in self._history.items())
        return {name: certificate for name, certificate in newest if certificate is not None}

    def certificates(self) -> dict[ServerId, ServerCertificate]:
        """Return the newest certificate of everybody who is or was a server."""
        found = {}
        for name in self._history:
            certificate = self.last_certificate(name)
            if certificate is not None:
                found[name] = certificate
        return found

    def certified_at(self, server_id: ServerId) -> int:
        """Return the number of the newest change that names a server; 0 where none does."""
        steps = self._history.get(server_id)
        return steps[-1][0] if steps else 0

    def last_certificate(self, server_id: ServerId) -> ServerCertificate | None:
        """Return the newest certificate of whoever is or was a server."""
        changes = self._history.get(server_id, ())
        return next((one for _, one in reversed(changes) if one is not None), None)

    def key_of(self, server_id: ServerId) -> bytes | None:
        """Return the identity key of whoever is or was a server."""
        certificate = self.last_certificate(server_id)
        return certificate.key if certificate is not None else None

    def removal(self, server_id: ServerId) -> Removal | None:
        """Return how much of a removed server's feed counts; None while it was not removed."""
        return self._removals.get(server_id)

    def removed(self) -> Set[ServerId]:
        """Return every server that was removed."""
        return self._removals.keys()

    def ends(self, server_id: ServerId) -> dict[int, EpochEnd]:
        """Return where the epochs of a feed before the newest ended, by epoch."""
        return self._ends.get(server_id, {})

    def former(self) -> list[ServerId]:
        """Return the servers that the newest roster names no more."""
        return [name for name, steps in self._history.items() if steps[-1][1] is None]

    def free_slices(self) -> Iterator[str]:
        """Yield the slices that nobody holds, lowest first."""
        ranges = self.genesis.ranges
        for number in range(ranges.slice_count):
            text = str(ranges.slice_at(number))
            if text not in self._slices:
                yield text

    def slice_holder(self, slice_text: str) -> ServerId | None:
        """Return who holds a slice now."""
        return self._slices.get(slice_text)

    def backbones(self) -> frozenset[str]:
        """Return the backbone addresses in use."""
        return frozenset(self._backbones)

    def _is_known(self, record: Record, change: Change) -> bool:
        if change.link is not None:
            return self.chain.of_fingerprint(change.link.parent) is not None
        return self.chain.of_key(record.actor) is not None or any(
            one.kind == ROTATE_KIND and one.actor == record.actor for one in self._waiting.values()
        )

    def _offer_strangers(self) -> list[Change]:
        """Look again at what was by nobody known before a link came into effect."""
        strangers = sorted(self._strangers, key=change_number)
        self._strangers.clear()
        changes: list[Change] = []
        for record in strangers:
            try:
                changes += self.offer(record)
            except (RejectedError, InputError) as error:
                logger.debug("still of no effect: %s", error)
        return changes

    def _consider(self, record: Record, link: Link) -> None:
        """Compare a link with what follows its parent here, wherever the two stand.

        Raises:
            RootChainError: it is not good, comes too late, or makes a fork.
        """
        parent = self.chain.of_fingerprint(link.parent)
        if parent is None or link.number > self.number + 1:
            return
        self.chain.before(link)
        follows = self.chain.successor(parent.generation)
        if follows is not None and follows.public_key == link.public_key:
            return
        if parent.is_closed:
            raise RootChainError(
                f"generation {parent.generation} was followed by another long ago",
                code="root_retired",
            )
        if link.endorser == "recovery" and (follows is None or follows.endorser == "root"):
            self._make_room(link)
        elif follows is not None and follows.endorser == "recovery" != link.endorser:
            raise RootChainError("a recovery took its place", code="root_superseded")
        elif follows is not None:
            self.fork = RootFork(parent.generation, (self.records[follows.number], record))
            raise RootChainError(
                f"two keys follow generation {parent.generation} of the root",
                code="root_fork",
                mend="seipd root recover: nothing else decides between them",
            )

    def _make_room(self, link: Link) -> None:
        """Take back what stands where a recovery begins, and all after it."""
        at = link.number - 1
        if at > self.number or self._hashes[at] != link.prev:
            return
        if self.chain.at(link.number).fingerprint != link.parent:
            raise RootChainError("it does not follow that key there", code="root_orphan")
        if at < self.number or self.fork is not None:
            self._rewind(at)

    def _rewind(self, number: int) -> None:
        kept, dropped = self.records[: number + 1], self._hashes[number + 1 :]
        self._begin(kept[0])
        for record in kept[1:]:
            self._place(record, change_from_record(record))
        self.passed_over.update(dropped)
        self.rewound_count += 1
        self.fork = None

    def _advance(self, refused: dict[str, SeipdError]) -> Iterator[Change]:
        while (follower := self._next(refused)) is not None:
            record, change = follower
            self._place(record, change)
            yield change
            if change.link is not None:
                self._contest()
        self._waiting = {key: one for key, one in self._waiting.items() if key[0] > self.number}

    def _contest(self) -> None:
        """Compare the link that came into effect with those that wait."""
        for record in list(self._waiting.values()):
            if record.kind == ROTATE_KIND:
                try:
                    self._consider(record, link_from_record(record))
                except (RejectedError, InputError) as error:
                    logger.warning("a link of the root key chain has no effect: %s", error)

    def _next(self, refused: dict[str, SeipdError]) -> tuple[Record, Change] | None:
        """Return the waiting change that follows the newest one and keeps the rules.

        One that breaks them never hides another of its number, whichever came first; a link by
        the recovery key stands before all others.
        """
        follows = (self.number + 1, self.head)
        if self.fork is not None:
            return None
        keys = sorted(key for key in self._waiting if key[:2] == follows)
        for key in sorted(keys, key=lambda key: not is_recovery(self._waiting[key])):
            record = self._waiting.pop(key)
            change = change_from_record(record)
            try:
                self._check(record, change)
            except (RejectedError, InputError) as error:
                logger.info("roster change %d has no effect: %s", change.number, error)
                refused[key[2]] = error
                continue
            return record, change
        return None

    def _check(self, record: Record, change: Change) -> None:
        if change.link is not None:
            if self.chain.before(change.link) is not self.chain.newest:
                raise RootChainError("it follows no key in force", code="root_orphan")
        else:
            self.chain.require_change(record, change.number, closed=change.closed)
        require_allowed(self, change, backbones=self._backbones, slices=self._slices)

    def _place(self, record: Record, change: Change) -> None:
        self._apply(change)
        if change.link is not None:
            self.chain = self.chain.with_link(change.link)
        if change.closed is not None:
            self.chain = self.chain.with_closed(change.closed)
        if change.recovery_key is not None:
            self.chain = self.chain.with_recovery_key(change.recovery_key, change.number)
        self.records.append(record)
        self._hashes.append(record_hash(record))

    def _apply(self, change: Change) -> None:
        for end in change.ended:
            last = self._history[end.server_id][-1][1]
            if last is not None:
                self._ends.setdefault(end.server_id, {})[last.epoch] = end
        for certificate in change.servers:
            server_id = certificate.server_id
            self._history.setdefault(server_id, []).append((change.number, certificate))
            self._backbones[certificate.backbone] = server_id
            self._slices.update(dict.fromkeys(certificate.slices, server_id))
        for removal in change.removed:
            name = removal.server_id
            known = self._removals.get(name)
            if known is None or removal.size < known.size:
                self._removals[name] = removal
            if known is None:
                self._history[name].append((change.number, None))
        self._witnesses.append(change.witnesses)
