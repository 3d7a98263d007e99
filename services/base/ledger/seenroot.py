"""The newest root key that somebody ever saw, and which chains lead to it. Pure.

A chain that does not hold it is an older one, or one that a key made which was followed long ago;
whoever goes by it lets such a key act as the root. Only a recovery takes the place of what was
seen, and only one that was not known then: one that an older chain holds, too, explains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from services.kernel.errors import WireError
from services.kernel.ids import parse_mesh_id

if TYPE_CHECKING:
    from services.base.ledger.rootchain import RootChain
    from services.kernel.ids import MeshId


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    generation: int
    fingerprint: str
    recoveries: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRoot:
    """A root key by its fingerprint, and the recovered ones that its chain held."""

    generation: int
    fingerprint: str
    recoveries: frozenset[str] = frozenset()

    @classmethod
    def of_mesh(cls, mesh_id: MeshId) -> SeenRoot:
        """Return the first key, which whoever knows the mesh knows."""
        return cls(generation=1, fingerprint=mesh_id)

    @classmethod
    def of_chain(cls, chain: RootChain) -> SeenRoot:
        """Return the newest key of a chain."""
        newest = chain.newest
        return cls(
            generation=newest.generation,
            fingerprint=newest.fingerprint,
            recoveries=_recoveries(chain),
        )

    @classmethod
    def from_value(cls, value: object) -> SeenRoot:
        """Return what ``value`` gave.

        Raises:
            WireError: it is something else.
        """
        try:
            wire = msgspec.convert(value, _Wire)
        except msgspec.ValidationError as error:
            raise WireError(f"no root key that was seen: {error}") from error
        return cls(
            generation=wire.generation,
            fingerprint=parse_mesh_id(wire.fingerprint),
            recoveries=frozenset(parse_mesh_id(one) for one in wire.recoveries),
        )

    def value(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "generation": self.generation,
            "fingerprint": self.fingerprint,
            "recoveries": sorted(self.recoveries),
        }

    def is_first(self, mesh_id: MeshId) -> bool:
        """Say whether it is the key that the mesh began with."""
        return self.fingerprint == mesh_id

    def is_led_to_by(self, chain: RootChain) -> bool:
        """Say whether a chain holds it, or a recovery that took its place since."""
        held = chain.of_fingerprint(self.fingerprint)
        if held is not None:
            return held.generation == self.generation
        return self.is_rewound_by(chain)

    def is_rewound_by(self, chain: RootChain) -> bool:
        """Say whether a chain holds a recovery that was not known; it may have taken much back."""
        return not _recoveries(chain) <= self.recoveries


def _recoveries(chain: RootChain) -> frozenset[str]:
    return frozenset(one.fingerprint for one in chain.generations if one.endorser == "recovery")
