"""How much of a feed counts where its server was removed, or proved to have told two stories.

    trust.equivocation  an ``EquivocationProof``
    trust.kept          {epoch, key, root, roster, signatures, size}

The root says of a removed server how many of its entries count. Of one that told two stories counts
what more than half of the witnesses of a roster had co-signed: ``trust.kept`` brings the largest
such checkpoint that its author knows of, and the largest of all wins; without any, nothing counts.
None of this depends on the order in which records came. Pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from services.base.ledger.checkpoint import Checkpoint
from services.base.ledger.equivocation import EQUIVOCATION_KIND, proof_from_body
from services.base.ledger.feed import Attest, attest_from_body, feed_origin, settled_ms
from services.base.ledger.note import cosignature_input
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import b64u_encode, parse_key, server_id_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.base.ledger.roster import Charter
    from services.base.ledger.rosterat import RosterAt
    from services.kernel.ids import MeshId, ServerId
    from services.kernel.records import Record

KEPT_KIND = "trust.kept"
LIMIT_KINDS = frozenset({EQUIVOCATION_KIND, KEPT_KIND})


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a feed, the root over it, and when witnesses settled all of it, if so."""

    size: int
    root: bytes
    settled_ms: int | None = None


NOTHING = Prefix(0, bytes(32))

_Rank = tuple[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the witnesses of a roster co-signed of a feed."""

    key: bytes
    epoch: int
    roster: int
    attest: Attest

    def value(self) -> dict[str, Any]:
        """Return the JSON object: the body of ``trust.kept``."""
        return {
            "key": b64u_encode(self.key),
            "epoch": self.epoch,
            "roster": self.roster,
            **self.attest.value(),
        }


class _KeptWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    epoch: int
    roster: int
    size: int
    root: str
    signatures: list[str]


def kept_from_body(body: object) -> Kept:
    """Check the form of the body of ``trust.kept``.

    Raises:
        InputError: malformed.
    """
    try:
        wire = msgspec.convert(body, _KeptWire)
    except msgspec.ValidationError as error:
        raise InputError(f"{KEPT_KIND}: {error}") from error
    if not 1 <= wire.epoch < 1 << 32 or not 1 <= wire.roster < 1 << 40:
        raise InputError(f"{KEPT_KIND}: epoch and roster from 1")
    attest = {"size": wire.size, "root": wire.root, "signatures": wire.signatures}
    return Kept(
        key=parse_key(wire.key),
        epoch=wire.epoch,
        roster=wire.roster,
        attest=attest_from_body(attest),
    )


def cosigned_times(
    attest: Attest, *, origin: str, roster: RosterAt, verify: Callable[[bytes, bytes, bytes], bool]
) -> list[int] | None:
    """Return the witnesses' times in seconds if more than half of them signed, else None."""
    text = Checkpoint(origin=origin, size=attest.size, root=attest.root).text()
    times: dict[ServerId, int] = {}
    for one in attest.signatures:
        witness = roster.server(one.witness) if one.witness in roster.witnesses else None
        signed = cosignature_input(text, one.time_s)
        if witness is not None and verify(witness.key, signed, one.signature):
            times[one.witness] = one.time_s
    return list(times.values()) if 2 * len(times) > len(roster.witnesses) else None


class Limits:
    """The limits of all feeds; fed with records in any order."""

    def __init__(self, *, charter: Charter, verify: Callable[[bytes, bytes, bytes], bool]) -> None:
        self._charter = charter
        self._verify = verify
        self._proofs: dict[bytes, Record] = {}
        self._kept: dict[bytes, tuple[_Rank, Prefix, Record]] = {}

    @property
    def records(self) -> list[Record]:
        """The records that the limits rest on."""
        return [*self._proofs.values(), *(record for _, _, record in self._kept.values())]

    def offer(self, record: Record, *, roster_number: int) -> ServerId | None:
        """Take a record of a feed that goes by a roster; return whose limit it changed."""
        try:
            if record.kind == EQUIVOCATION_KIND:
                return self._untrust(record)
            return self._keep(record, roster_number)
        except (InputError, RejectedError):
            return None

    def limited(self) -> list[ServerId]:
        """Return every author of whose feed not everything counts."""
        return [*self._charter.former(), *(server_id_of(key) for key in self._proofs)]

    def is_untrusted(self, server_id: ServerId) -> bool:
        """Say whether a server was proved to have told two stories."""
        return self.proof_against(server_id) is not None

    def proof_against(self, server_id: ServerId) -> Record | None:
        """Return the record that proves that a server told two stories."""
        key = self._charter.key_of(server_id)
        return None if key is None else self._proofs.get(key)

    def of(self, server_id: ServerId) -> Prefix | None:
        """Return what counts of a feed; None where all of it does."""
        removal = self._charter.removal(server_id)
        removed = None if removal is None else Prefix(removal.size, removal.root)
        if not self.is_untrusted(server_id):
            return removed
        key = self._charter.key_of(server_id)
        kept = self._kept[key][1] if key in self._kept else NOTHING
        return kept if removed is None or kept.size <= removed.size else removed

    def _untrust(self, record: Record) -> ServerId | None:
        proof = proof_from_body(record.body)
        if proof.mesh_id != self._mesh_id or proof.key in self._proofs:
            return None
        proof.verify()
        self._proofs[proof.key] = record
        return proof.server_id

    def _keep(self, record: Record, roster_number: int) -> ServerId | None:
        kept = kept_from_body(record.body)
        known = self._kept.get(kept.key)
        rank = _rank(kept, record)
        if kept.roster > roster_number or (known and rank <= known[0]):
            return None
        server_id = server_id_of(kept.key)
        origin = feed_origin(self._mesh_id, server_id, kept.epoch)
        roster = self._charter.at(kept.roster)
        times_s = cosigned_times(kept.attest, origin=origin, roster=roster, verify=self._verify)
        if times_s is None:
            return None
        prefix = Prefix(kept.attest.size, kept.attest.root, settled_ms(times_s))
        self._kept[kept.key] = (rank, prefix, record)
        return server_id

    @property
    def _mesh_id(self) -> MeshId:
        return self._charter.genesis.mesh_id


def _rank(kept: Kept, record: Record) -> _Rank:
    """Return what makes the larger prefix win, and of equal ones the same on every server."""
    return kept.attest.size, hashlib.sha256(record.encode()).digest()
