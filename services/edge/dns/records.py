"""Record sets made of values. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from services.edge.dns.building import RecordSet
from services.edge.dns.wire import Type
from services.kernel.dnsdata import text_data

if TYPE_CHECKING:
    from collections.abc import Iterable


def addresses(ttl_s: int, *texts: str | None) -> list[RecordSet]:
    """Return the A and AAAA sets of some addresses; what is None is left out."""
    four = [IPv4Address(text).packed for text in texts if text and ":" not in text]
    six = [IPv6Address(text).packed for text in texts if text and ":" in text]
    sets = ((Type.A, four), (Type.AAAA, six))
    return [
        RecordSet(rtype=rtype, ttl_s=ttl_s, rdatas=tuple(sorted(rdatas)))
        for rtype, rdatas in sets
        if rdatas
    ]


def texts(ttl_s: int, values: Iterable[str]) -> RecordSet:
    """Return a TXT set, one record for each text."""
    return RecordSet(rtype=Type.TXT, ttl_s=ttl_s, rdatas=tuple(map(text_data, values)))


def names(rtype: Type, ttl_s: int, targets: Iterable[bytes]) -> RecordSet:
    """Return a set of records that hold a name each: NS, PTR, CNAME."""
    return RecordSet(rtype=rtype, ttl_s=ttl_s, rdatas=tuple(targets))
