"""Links of the root key chain for the little mesh: endorsed as they should be, or not."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from services.base.ledger.rootchain import ROTATE_KIND, Link, fingerprint_of
from tests.fakes.world import START_MS, key_of

if TYPE_CHECKING:
    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.roster import Charter
    from services.kernel.records import Record
    from tests.fakes.world import World

MINUTE_MS = 60_000
DAY_MS = 86_400_000


def link_after(world: World, charter: Charter, key: SigningKey, **changes: Any) -> Link:
    """Return a link that follows the newest change, not endorsed yet."""
    parent = charter.chain.newest
    link = Link(
        number=charter.number + 1,
        prev=charter.head,
        witnesses=charter.witnesses_at(charter.number),
        generation=parent.generation + 1,
        parent=parent.fingerprint,
        public_key=key.public_key,
        activated_ms=START_MS + parent.generation,
        expires_ms=START_MS + DAY_MS,
        closes_ms=START_MS + 10 * MINUTE_MS,
        endorser="root",
    )
    return dataclasses.replace(link, **changes)


def rotation(
    world: World, charter: Charter, by: SigningKey, key: SigningKey, **changes: Any
) -> Record:
    """Return the record of a link, endorsed by a key and signed by the new one."""
    link = link_after(world, charter, key, **changes)
    signed = dataclasses.replace(link, endorsement=by.sign(link.claim(world.mesh_id)))
    return world.signed(key, ROTATE_KIND, signed.value())


def rotate(world: World, name: str, **changes: Any) -> Record:
    """Rotate the root of the little mesh; ``world.root`` is the new key from here on."""
    key = key_of(name)
    record = rotation(world, world.charter, world.root, key, **changes)
    world.charter.offer(record)
    assert world.charter.chain.newest.fingerprint == fingerprint_of(key.public_key)
    world.root = key
    return record
