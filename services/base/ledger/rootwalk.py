"""Follows the root key chain for somebody who knows a mesh's id alone. Pure.

What is shown is the chain as a server has it: the genesis, the links, and of each link that a
recovery key endorsed the change that named that key; all else of the roster may be left out. Each
record is believed by those before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.base.crypto.signatures import verify
from services.base.ledger.changes import (
    CHANGE_KINDS,
    GENESIS_KIND,
    Change,
    change_from_record,
    first_chain,
    genesis_from_record,
)
from services.base.ledger.rootchain import ROTATE_KIND, RootChain, RootChainError, fingerprint_of
from services.kernel.errors import InputError, WireError
from services.kernel.records import record_from_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.base.ledger.rootchain import Generation
    from services.base.ledger.roster import Charter
    from services.kernel.ids import MeshId
    from services.kernel.records import Record

MAX_SHOWN: Final = 2048


def shown_chain(charter: Charter) -> list[Record]:
    """Return the records by which anybody can follow the chain."""
    chain = charter.chain
    numbers = {one.number for one in chain.generations}
    named = (naming_number(chain, one) for one in chain.generations)
    numbers |= {number for number in named if number is not None}
    return [charter.records[number] for number in sorted(numbers)]


def naming_number(chain: RootChain, generation: Generation) -> int | None:
    """Return the number of the change that named the recovery key which endorsed a generation.

    None where the key before it endorsed it.
    """
    if generation.endorser != "recovery":
        return None
    named = (number for number, _ in reversed(chain.recovery_keys) if number < generation.number)
    return next(named, None)


def chain_from_values(values: object, mesh_id: MeshId) -> RootWalk:
    """Follow a chain that is shown as JSON.

    Raises:
        RootChainError: it is no chain of that mesh.
    """
    if not isinstance(values, list) or len(values) > MAX_SHOWN:
        raise RootChainError("no chain of root keys is shown", code="root_malformed")
    try:
        records = [record_from_value(value) for value in values]
    except (InputError, WireError) as error:
        raise RootChainError(f"a link: {error}", code="root_malformed") from error
    return follow_chain(records, mesh_id)


def follow_chain(records: Iterable[Record], mesh_id: MeshId | None = None) -> RootWalk:
    """Follow a chain from its genesis.

    Args:
        records: the genesis first, then the links in their order.
        mesh_id: the mesh that it has to be of; any unless given.

    Raises:
        RootChainError: ``root_malformed``, ``root_unproven`` (a record's own signature),
            ``root_other`` (of another mesh), ``root_fork``, ``root_skipped``, ``root_orphan``,
            ``root_window``, ``root_repeated``, ``root_unendorsed``, ``root_retired``.
    """
    found = iter(records)
    try:
        genesis = genesis_from_record(first := next(found))
    except StopIteration:
        raise RootChainError("no genesis is shown", code="root_malformed") from None
    except InputError as error:
        raise RootChainError(f"the genesis: {error}", code="root_malformed") from error
    if mesh_id not in (None, genesis.mesh_id):
        raise RootChainError(f"it is of the mesh {genesis.mesh_id}", code="root_other")
    _require_signed(first, genesis.mesh_id)
    walk = RootWalk(first_chain(genesis))
    for record in found:
        walk.follow(record)
    return walk


class RootWalk:
    """The chain as far as it was shown."""

    def __init__(self, chain: RootChain) -> None:
        self.chain = chain
        self.mesh_id = chain.mesh_id

    @classmethod
    def from_mesh_id(cls, mesh_id: MeshId, first_key: bytes) -> RootWalk:
        """Begin without the genesis record, with the first key by its fingerprint.

        Raises:
            RootChainError: ``root_other``: the mesh began with another key.
        """
        if fingerprint_of(first_key) != mesh_id:
            raise RootChainError("the mesh began with another root key", code="root_other")
        forever_ms = 1 << 48
        return cls(RootChain.of_genesis(mesh_id, first_key, activated_ms=0, expires_ms=forever_ms))

    def follow(self, record: Record) -> Change:
        """Check the next record that is shown, and go on from it.

        Raises:
            RootChainError: it does not follow; see ``follow_chain``.
        """
        change = self.check(record)
        if change.link is not None and self.chain.of_key(record.actor) is None:
            self.chain = self.chain.with_link(change.link)
        if change.recovery_key is not None:
            self.chain = self.chain.with_recovery_key(change.recovery_key, change.number)
        return change

    def check(self, record: Record, *, now_ms: int | None = None) -> Change:
        """Check that the root signed a change of the roster.

        Args:
            record: the change, or the next link.
            now_ms: the time at which it has to be good; whenever it was made unless given.

        Raises:
            RootChainError: see ``follow_chain``; ``root_window``: what that key signed is no
                longer good.
        """
        if record.kind == GENESIS_KIND or record.kind not in CHANGE_KINDS:
            raise RootChainError(f"{record.kind} changes no roster", code="root_malformed")
        try:
            change = change_from_record(record)
        except InputError as error:
            raise RootChainError(str(error), code="root_malformed") from error
        _require_signed(record, self.mesh_id)
        if record.kind == ROTATE_KIND:
            self._check_link(record, change)
            return change
        self.chain.require_change(record, change.number)
        closes_ms = self.chain.at(change.number).closes_ms
        if now_ms is not None and closes_ms is not None and now_ms > closes_ms:
            raise RootChainError(
                "the key that signed it was followed by another, and its window has closed",
                code="root_window_closed",
                mend="fetch the certificate again: it was signed anew",
            )
        return change

    def _check_link(self, record: Record, change: Change) -> None:
        link, newest = change.link, self.chain.newest
        if link is None:
            raise RootChainError("it names no key", code="root_malformed")
        known = self.chain.of_key(record.actor)
        if known is not None and known.number == change.number:
            return  # one that was followed already
        if self.chain.before(link) is not newest:
            raise RootChainError(
                f"two keys follow generation {link.generation - 1}", code="root_fork"
            )
        if change.number <= newest.number:
            raise RootChainError("it stands before the key it follows", code="root_orphan")


def _require_signed(record: Record, mesh_id: MeshId) -> None:
    if not verify(record.actor, record.signed_bytes(mesh_id), record.actor_sig):
        raise RootChainError(
            "a record is not signed by the key that it names", code="root_unproven"
        )
