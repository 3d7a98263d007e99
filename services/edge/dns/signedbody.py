"""The body of an answer to one who asks for signatures: each set with its RRSIG beside it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from services.edge.dns.building import Body
from services.edge.dns.denial import no_such_name, no_such_type
from services.edge.dns.wire import Type

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from services.edge.dns.building import RecordSet
    from services.edge.dns.signing import Signing


class SignedBody(Body):
    """Grows by record sets; by their signatures, too, where there is something that signs."""

    def __init__(self, question_name: bytes, signing: Signing | None) -> None:
        super().__init__(question_name)
        self._signing = signing

    @override
    def add(self, name: bytes, records: RecordSet) -> int:
        """Write a record set; return how many records that took."""
        count = super().add(name, records)
        if self._signing is not None and records.rtype != Type.RRSIG:
            count += super().add(name, self._signing.rrsig(name, records))
        return count

    def deny(
        self,
        name: bytes,
        sets: Mapping[int, RecordSet] | None,
        types_at: Callable[[bytes], Collection[int] | None],
    ) -> int:
        """Write what proves that a name, or what is asked of it, is not there."""
        if self._signing is None:
            return 0
        apex = self._signing.apex
        if sets is not None:
            return self.add(name, no_such_type(name, apex, sets))
        return sum(self.add(owner, nsec) for owner, nsec in no_such_name(name, apex, types_at))

    def own(self, qtype: int, name: bytes, sets: Mapping[int, RecordSet]) -> RecordSet | None:
        """Return what DNSSEC has at a name for those who ask for just that: the NSEC, a signature.

        Of the signatures one, as with ANY.
        """
        if self._signing is None:
            return None
        link = no_such_type(name, self._signing.apex, sets)
        return link if qtype == Type.NSEC else self._signing.rrsig(name, link)
