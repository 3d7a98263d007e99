"""The DNSKEY set as the state has it, made into records once for each that there is. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.authority.dnskeys import view
from services.edge.dns.building import RecordSet
from services.edge.dns.signing import KeySet
from services.edge.dns.wire import Type
from services.kernel.ids import parse_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.kernel.views import StateReader


class PublishedKeys:
    """Reads the set in force."""

    def __init__(self, *, state: Callable[[], StateReader], apex: bytes) -> None:
        self._state = state
        self._apex = apex
        self._found: Any = None
        self._made: KeySet | None = None

    def current(self) -> KeySet | None:
        """Return the set; None where the zone is not signed."""
        found = self._state().get(view.VIEW, view.SET_KEY)
        if found != self._found:
            self._found, self._made = found, self._make()
        return self._made

    def _make(self) -> KeySet | None:
        keys = view.keys_in_force(self._state())
        if keys is None:
            return None
        return KeySet(
            keys=RecordSet(rtype=Type.DNSKEY, ttl_s=keys.ttl, rdatas=keys.datas),
            signature=RecordSet(rtype=Type.RRSIG, ttl_s=keys.ttl, rdatas=(keys.rrsig(self._apex),)),
            zone_keys=frozenset(map(parse_key, keys.zsks)),
        )
