"""Where servers are reached over IPv6: the facts of kind 9, read. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.addr import is_inner
from services.mesh.facts.payloads import Address6Payload, decode_payload, meant_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.kernel.addr import Ranges
    from services.kernel.ids import MeshId
    from services.mesh.facts.envelope import Fact


def hosts6_in(facts: Mapping[str, Fact], *, mesh_id: MeshId, ranges: Ranges) -> dict[str, str]:
    """Return the addresses that servers tell, but for those that lie inside of the mesh."""
    told = {name: host6_in(fact) for name, fact in facts.items()}
    return {
        name: host for name, host in told.items() if not is_inner(mesh_id, ranges, meant_by(host))
    }


def host6_in(fact: Fact) -> str:
    """Return the address in a fact of kind 9."""
    return decode_payload(fact.payload, Address6Payload).host
