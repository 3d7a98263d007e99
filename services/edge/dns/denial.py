r"""What proves that a name or a type is not there: NSEC records made for the question. Pure.

They cover as little as can be (RFC 4470): of a name that exists the gap between it and the first
name below it, of one that does not a range around it in which nothing is. So nobody can list the
zone by walking along them, no order of names has to be kept, and NXDOMAIN stays NXDOMAIN for all
resolvers, which a compact denial (RFC 9824) gives up.

    NODATA     (name, \0.name)          types of the name
    NXDOMAIN   (before, after)          the first name above it that is not there, all below it
               (before *, after *)      no wildcard stands in for it

Names of the zone are made of a-z, 0-9, ``-`` and ``_``: octets of 255 are in made-up ones alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.edge.dns.building import RecordSet
from services.edge.dns.wire import Type
from services.edge.dns.zone import NEGATIVE_TTL_S
from services.kernel.dnsnames import MAX_LABEL_BYTES, MAX_NAME_BYTES, labels_of, parents_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    TypesAt = Callable[[bytes], Collection[int] | None]

_LAST: Final = b"\xff"
_WILDCARD: Final = b"*"
# Upper case letters count as lower case ones, which are further on: they are left out.
_UPPER: Final = 0x41
_UPPER_AFTER: Final = 0x5B


def no_such_type(name: bytes, apex: bytes, types: Collection[int]) -> RecordSet:
    """Return the NSEC of a name that exists."""
    below = b"\1\0" + name
    if len(below) > MAX_NAME_BYTES:
        below = _after_all_of(name, apex)
    return _nsec(below, types)


def no_such_name(name: bytes, apex: bytes, types_at: TypesAt) -> list[tuple[bytes, RecordSet]]:
    """Return what proves that there is neither a name nor a wildcard for it: owners and NSEC.

    Args:
        name: below the apex, and not there.
        apex: the zone's own name, which is there.
        types_at: tells the types at a name, None where there is no such name.
    """
    missing, above = name, apex
    for parent in parents_of(name):
        if parent == apex or types_at(parent) is not None:
            above = parent
            break
        missing = parent
    first = labels_of(missing)[0]
    labels = (first,) if first == _WILDCARD else (first, _WILDCARD)
    found = []
    for label in labels:
        owner = _before(label, above)
        nsec = _nsec(_after(label, above, apex), types_at(owner) or ())
        found.append((owner, nsec))
    return found


def _before(label: bytes, above: bytes) -> bytes:
    """Return a name before that of a label, with nothing of the zone between the two."""
    start, last = label[:-1], label[-1]
    if last:
        label = start + bytes([(_UPPER if last == _UPPER_AFTER else last) - 1])
        if len(label) < MAX_LABEL_BYTES and len(above) + len(label) + 2 <= MAX_NAME_BYTES:
            return _name(label + _LAST, above)
    elif not start:
        return above
    else:
        label = start
    # The last of what may be below the label before; where there is no room nothing can be.
    before = _name(label, above)
    return _name(_LAST, before) if len(before) + 2 <= MAX_NAME_BYTES else before


def _after(label: bytes, above: bytes, apex: bytes) -> bytes:
    """Return a name after that of a label and all below it, with nothing between."""
    if len(label) < MAX_LABEL_BYTES and len(label) + 2 + len(above) <= MAX_NAME_BYTES:
        return _name(label + b"\0", above)
    label = label.rstrip(_LAST)
    if not label:
        return _after_all_of(above, apex)
    octet = label[-1] + 1
    return _name(label[:-1] + bytes([_UPPER_AFTER if octet == _UPPER else octet]), above)


def _after_all_of(name: bytes, apex: bytes) -> bytes:
    """Return what follows a name and all below it; after the last of a zone comes its first."""
    if name == apex:
        return apex
    end = 1 + name[0]
    return _after(name[1:end], name[end:], apex)


def _name(label: bytes, above: bytes) -> bytes:
    return bytes([len(label)]) + label + above


def _nsec(following: bytes, types: Collection[int]) -> RecordSet:
    bitmap = _bitmap({*types, Type.RRSIG, Type.NSEC})
    return RecordSet(rtype=Type.NSEC, ttl_s=NEGATIVE_TTL_S, rdatas=(following + bitmap,))


def _bitmap(types: Iterable[int]) -> bytes:
    """Return types as RFC 4034 section 4.1.2 has them: windows of 256, a bit each."""
    windows: dict[int, bytearray] = {}
    for one in sorted(types):
        bits = windows.setdefault(one >> 8, bytearray(32))
        bits[(one & 0xFF) >> 3] |= 0x80 >> (one & 7)
    parts = ((window, bytes(bits).rstrip(b"\0")) for window, bits in windows.items())
    return b"".join(bytes([window, len(bits)]) + bits for window, bits in parts)
