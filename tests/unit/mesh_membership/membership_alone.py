"""One server whose messages nobody gets, and what others might have told it."""

from __future__ import annotations

import random

from services.kernel.ids import raw_server_id
from services.mesh.membership.alive import sign_alive
from services.mesh.membership.membership import Membership
from services.mesh.membership.messages import (
    MembershipMessage,
    Suspicion,
)
from services.mesh.membership.ports import Effect, Tell
from services.mesh.membership.settings import MembershipSettings
from tests.unit.mesh_membership.membership_kit import MESH_ID, START_MS, At, keys, name_of

KEYS = keys(6)
NAMES = [name_of(key) for key in KEYS]
OWN, PEER, OTHER = NAMES[:3]


def alone(count: int = 6, saved: dict[str, object] | None = None) -> Membership:
    """One server whose messages nobody gets."""
    known = {name_of(key): key.public_key for key in KEYS}
    core = Membership(
        own_id=OWN,
        key=KEYS[0],
        mesh_id=MESH_ID,
        settings=MembershipSettings(),
        rng=random.Random(1),  # noqa: S311 (failures repeat)
        now=At(0.0),
        key_of=known.get,
        saved=saved,
    )
    core.set_members(NAMES[:count], At(0.0))
    return core


def word(of: int, incarnation: int, *, issued_ms: int = START_MS, mesh: bytes = MESH_ID) -> bytes:
    alive = sign_alive(
        KEYS[of],
        mesh,
        server=raw_server_id(NAMES[of]),
        incarnation=incarnation,
        issued_ms=issued_ms,
    )
    return alive.encoded


def doubt(of: str, by: str, incarnation: int = 0) -> Suspicion:
    return Suspicion(subject=raw_server_id(of), incarnation=incarnation, reporter=raw_server_id(by))


def told(effects: list[Effect], to: str) -> list[MembershipMessage]:
    return [one.message for one in effects if isinstance(one, Tell) and one.peer == to]
