"""The charter: what has one author, the root, and so needs no agreement about its order.

``root.genesis`` founds the mesh. ``roster.change`` is a numbered hash chain of changes: servers
added, changed or removed, and the witnesses named. Changes may arrive in any order on any feed;
they take effect in the order of their numbers. A record is judged under the newest roster that its
feed had named, so old numbers stay answerable.

    root.genesis   {domain, expires_ms, generation, public_key, ranges, version}
    roster.change  {number, prev, removed: [{root, server, size}, ...], servers, witnesses,
                    ended: [{root, server, size}, ...]}     ``ended`` where an epoch ends

``prev`` is the SHA-256 of the record before: the change with the number before, or the genesis.
Whoever is removed is revoked for good: of its feed the first ``size`` entries count, whose root is
``root``; of two revocations the smaller size wins. Its slices stay out of use until a certificate
names them as another server's, assignments included. A certificate whose epoch is one more than the
server's last comes with the end of the epoch before: the feed goes on behind it.
"""

from __future__ import annotations

import bisect
import logging
from typing import TYPE_CHECKING

from services.base.ledger.changes import (
    Change,
    EpochEnd,
    Removal,
    change_from_record,
    genesis_from_record,
    record_hash,
)
from services.kernel.addr import (
    BACKBONE_RESERVED,
    parse_address,
    parse_network,
)
from services.kernel.errors import InputError, RejectedError, SeipdError
from services.kernel.ids import (
    ServerId,
    server_id_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.kernel.certificates import ServerCertificate
    from services.kernel.records import Record

logger = logging.getLogger(__name__)

MAX_WAITING = 1024


class Charter:
    """The genesis and the roster's history; pure, fed with records whose signatures are checked."""

    def __init__(self, genesis_record: Record) -> None:
        self.genesis = genesis_from_record(genesis_record)
        self.records: list[Record] = [genesis_record]
        self._hashes: list[str] = [record_hash(genesis_record)]
        self._waiting: dict[tuple[int, str, str], Record] = {}
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
        return frozenset({self.genesis.root_key})

    def hash_at(self, number: int) -> str | None:
        """Return the hash of change ``number``, or None where it is not known."""
        return self._hashes[number] if 0 < number < len(self._hashes) else None

    def offer(self, record: Record) -> list[Change]:
        """Take a ``roster.change``; return the changes that came into effect by it, in order.

        Raises:
            InputError: malformed.
            RejectedError: not by the root, or against the rules (``rejected_unauthorised``,
                ``rejected_overlap``, ``rejected_stale``).
        """
        if record.actor not in self.root_keys:
            raise RejectedError("only the root changes the roster", code="rejected_unauthorised")
        change = change_from_record(record)
        text = record_hash(record)
        if change.number <= self.number:
            if text == self._hashes[change.number]:
                return []
            raise RejectedError("this roster number is taken", code="rejected_stale")
        if len(self._waiting) < MAX_WAITING:
            self._waiting[change.number, change.prev, text] = record
        refused: dict[str, SeipdError] = {}
        changes = list(self._advance(refused))
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

    def last_certificate(self, server_id: ServerId) -> ServerCertificate | None:
        """Return the newest certificate of whoever is or was a server."""
        steps = self._history.get(server_id, ())
        return next((one for _, one in reversed(steps) if one is not None), None)

    def key_of(self, server_id: ServerId) -> bytes | None:
        """Return the identity key of whoever is or was a server."""
        certificate = self.last_certificate(server_id)
        return certificate.key if certificate is not None else None

    def removal(self, server_id: ServerId) -> Removal | None:
        """Return how much of a removed server's feed counts; None while it was not removed."""
        return self._removals.get(server_id)

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

    def _advance(self, refused: dict[str, SeipdError]) -> Iterator[Change]:
        while (step := self._next(refused)) is not None:
            record, change = step
            self._apply(change)
            self.records.append(record)
            self._hashes.append(record_hash(record))
            yield change
        self._waiting = {key: one for key, one in self._waiting.items() if key[0] > self.number}

    def _next(self, refused: dict[str, SeipdError]) -> tuple[Record, Change] | None:
        """Return the waiting change that follows the newest one and keeps the rules.

        One that breaks them never hides another of its number, whichever came first.
        """
        follows = (self.number + 1, self.head)
        for key in sorted(key for key in self._waiting if key[:2] == follows):
            record = self._waiting.pop(key)
            change = change_from_record(record)
            try:
                self._check(change)
            except (RejectedError, InputError) as error:
                logger.info("roster change %d has no effect: %s", change.number, error)
                refused[key[2]] = error
                continue
            return record, change
        return None

    def _check(self, change: Change) -> None:
        ranges = self.genesis.ranges
        removed = {one.server_id for one in change.removed}
        gone = self._removals.keys() | removed
        backbones = {at: holder for at, holder in self._backbones.items() if holder not in gone}
        slices = {at: holder for at, holder in self._slices.items() if holder not in gone}
        named = [one.server_id for one in change.servers] + [
            one.server_id for one in change.removed
        ]
        if len(set(named)) != len(named):
            raise RejectedError("a change names a server once", code="rejected_conflict")
        for certificate in change.servers:
            server_id = certificate.server_id
            if server_id in gone:
                raise RejectedError(f"{server_id} was removed", code="revoked")
            offset = int(parse_address(certificate.backbone)) - int(ranges.backbone[0])
            if not BACKBONE_RESERVED <= offset < ranges.backbone.num_addresses - 1:
                raise RejectedError("backbone address out of range", code="rejected_scope")
            if backbones.setdefault(certificate.backbone, server_id) != server_id:
                raise RejectedError("backbone address is taken", code="rejected_overlap")
            for text in certificate.slices:
                ranges.slice_number(parse_network(text))
                if slices.setdefault(text, server_id) != server_id:
                    raise RejectedError(f"slice {text} is taken", code="rejected_overlap")
        self._check_epochs(change)
        known = self.servers().keys() | {one.server_id for one in change.servers}
        if not removed <= self._history.keys():
            raise RejectedError("only a server can be removed", code="rejected_unauthorised")
        if not set(change.witnesses) <= known - gone:
            raise RejectedError("a witness must be a server", code="rejected_unauthorised")

    def _check_epochs(self, change: Change) -> None:
        ended = {one.server_id: one for one in change.ended}
        begun = set()
        for certificate in change.servers:
            name = certificate.server_id
            known = self.server(name)
            if known is None or certificate.epoch == known.epoch:
                continue
            if certificate.epoch != known.epoch + 1 or name not in ended:
                raise RejectedError(
                    "the next epoch begins where the last one ends", code="rejected_stale"
                )
            before = self.ends(name).get(known.epoch - 1)
            if before is not None and ended[name].size < before.size:
                raise RejectedError("an epoch can't end before it began", code="rejected_stale")
            begun.add(name)
        if len(ended) != len(change.ended) or ended.keys() != begun:
            raise RejectedError("only an epoch that is followed by one ends", code="rejected_stale")

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


class RosterAt:
    """The roster as one number left it; satisfies RosterReader."""

    def __init__(self, charter: Charter, number: int) -> None:
        self._charter = charter
        self._number = number

    @property
    def number(self) -> int:
        """The number of the roster."""
        return self._number

    def servers(self) -> list[ServerId]:
        """Return everybody who is a server by then."""
        return [one for one in self._charter.certificates() if self.server(one) is not None]

    def server(self, server_id: ServerId) -> ServerCertificate | None:
        """Return a server's certificate, or None."""
        return self._charter.certificate_at(server_id, self._number)

    def server_of_key(self, key: bytes) -> ServerCertificate | None:
        """Return the certificate of the server with this identity key, or None."""
        certificate = self.server(server_id_of(key))
        return certificate if certificate is not None and certificate.key == key else None

    @property
    def witnesses(self) -> tuple[ServerId, ...]:
        """The witnesses of this roster."""
        return self._charter.witnesses_at(self._number)
