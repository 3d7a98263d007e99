r"""The addresses that a record leads a client to, wherever in its data they stand. Pure.

    A, AAAA        the address
    SVCB, HTTPS    priority 2 | target name | (key 2 | length 2 | value)*
                   ipv4hint, 4, and ipv6hint, 6: addresses, one behind the other (RFC 9460)

An IPv4 address that an IPv6 one wraps is what packets go to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.edge.dns.wire import Type
from services.kernel.errors import WireError
from services.kernel.targets import normalised

if TYPE_CHECKING:
    from services.kernel.targets import Address

_SERVICES: Final = frozenset({64, 65})
_HINTS: Final = {4: 4, 6: 16}
_PRIORITY_BYTES: Final = 2
_PARAMETER_BYTES: Final = 4


def addresses_in(rtype: int, rdata: bytes) -> list[Address]:
    """Return the addresses in a record's data; none where its type has none.

    Raises:
        WireError: the data is not of that type.
    """
    if rtype in (Type.A, Type.AAAA):
        return _split(rdata, 4 if rtype == Type.A else 16)
    if rtype not in _SERVICES:
        return []
    found: list[Address] = []
    at = _end_of_name(rdata, _PRIORITY_BYTES)
    while at < len(rdata):
        value = at + _PARAMETER_BYTES
        after = value + int.from_bytes(rdata[value - 2 : value], "big")
        if after > len(rdata):
            raise WireError("cut short in a parameter")
        if size := _HINTS.get(int.from_bytes(rdata[at : at + 2], "big")):
            found += _split(rdata[value:after], size)
        at = after
    return found


def _split(data: bytes, size: int) -> list[Address]:
    if not data or len(data) % size:
        raise WireError("addresses of another length")
    return [normalised(data[at : at + size]) for at in range(0, len(data), size)]


def _end_of_name(data: bytes, at: int) -> int:
    while at < len(data):
        if not data[at]:
            return at + 1
        at += 1 + data[at]
    raise WireError("cut short in a name")
