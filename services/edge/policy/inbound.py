"""What may reach one endpoint, for its own agent: sources that are treated alike, by class. Pure.

The agent needs no tree and no rules: each class has what is open to it, as stretches of the line of
``services.authority.policy.traffic``, and the tunnel addresses that it is. Whoever is in no class
is a stranger, for whom something else may be open.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final

import msgspec

from services.authority.policy.deciding import judged, open_spans
from services.authority.policy.traffic import LAST
from services.kernel import canonical
from services.kernel.errors import InputError, WireError
from services.kernel.ids import b64u_decode, b64u_encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.authority.policy.deciding import Rule
    from services.authority.policy.traffic import Span
    from services.edge.policy.book import PolicyBook

ADDRESS_BYTES: Final = 4
MAX_CLASSES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """Classes of sources, and what is open to strangers."""

    classes: tuple[tuple[tuple[Span, ...], tuple[IPv4Address, ...]], ...]
    strangers: tuple[Span, ...]

    def value(self) -> dict[str, Any]:
        """Return the JSON object; its version is the same as long as all else is."""
        listed = [
            {
                "open": [list(span) for span in spans],
                "addresses": b64u_encode(b"".join(one.packed for one in addresses)),
            }
            for spans, addresses in self.classes
        ]
        body = {"classes": listed, "strangers": [list(span) for span in self.strangers]}
        return {"version": hashlib.sha256(canonical.encode(body)).hexdigest()[:16], **body}


class _ClassWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    open: list[tuple[int, int]]
    addresses: str


class _InboundWire(msgspec.Struct, frozen=True):
    version: str
    classes: list[_ClassWire]
    strangers: list[tuple[int, int]]


def inbound_from(value: object) -> Inbound:
    """Parse what a server answers.

    Raises:
        WireError: ``bad_policy``: anything but what ``Inbound.value`` returns.
    """
    try:
        wire = msgspec.convert(value, _InboundWire)
        if len(wire.classes) > MAX_CLASSES:
            raise InputError("too many classes")
        classes = [(_spans(one.open), _addresses(one.addresses)) for one in wire.classes]
        held = [address for _, addresses in classes for address in addresses]
        if len(set(held)) != len(held):
            raise InputError("an address in two classes")
        inbound = Inbound(classes=tuple(classes), strangers=_spans(wire.strangers))
    except (msgspec.ValidationError, InputError) as error:
        raise WireError(f"what may reach this endpoint: {error}", code="bad_policy") from error
    return inbound


def inbound_of(book: PolicyBook, target: str) -> Inbound:
    """Return what may reach an endpoint."""
    above = book.path_of(target)
    layers = [(there, book.sources_at(there)) for there in above]
    named = {source for _, sources in layers for source in sources}
    own = above[1] if len(above) > 1 else ""
    members: dict[str, list[IPv4Address]] = {}
    for endpoint in _concerned(book, named, own):
        address = book.address_of(endpoint)
        # The target itself is among its brothers: so all of them are told the same.
        if address is None:
            continue
        # Of what is above an endpoint only that counts which a rule names, and its own customer.
        path = book.path_of(endpoint)
        names = [one for one in path if one in named]
        sign = "/".join([*names, "own" if path[1:2] == [own] else ""])
        members.setdefault(sign, []).append(address)
    root = above[-1]
    strangers = _open(layers, [root] if root in named else [], is_open=False)
    classes = []
    for sign, addresses in members.items():
        *names, is_own = sign.split("/")
        spans = _open(layers, names, is_open=bool(is_own))
        if spans != strangers:
            classes.append((spans, tuple(sorted(addresses))))
    return Inbound(classes=tuple(sorted(classes)), strangers=strangers)


def _concerned(book: PolicyBook, named: Iterable[str], own: str) -> set[str]:
    """Return the endpoints that a rule may treat unlike strangers."""
    found = {one for one in book.below(own, depth=1) if book.is_endpoint(one)} if own else set()
    for node_id in named:
        if not book.is_root(node_id):
            found |= {one for one in (node_id, *book.below(node_id)) if book.is_endpoint(one)}
    return found


def _open(
    layers: list[tuple[str, dict[str, list[Rule]]]], sources: list[str], *, is_open: bool
) -> tuple[Span, ...]:
    asked = (
        (there, here, rules[here]) for there, rules in layers for here in sources if here in rules
    )
    return tuple(open_spans(judged(asked, is_open=is_open)))


def _spans(listed: list[tuple[int, int]]) -> tuple[Span, ...]:
    points = [point for span in listed for point in span]
    ascends = all(one < other for (_, one), (other, _) in itertools.pairwise(listed))
    if not all(0 <= point <= LAST for point in points) or not ascends:
        raise InputError("stretches ascend within the line")
    if any(first > last for first, last in listed):
        raise InputError("a stretch goes upwards")
    return tuple(listed)


def _addresses(text: str) -> tuple[IPv4Address, ...]:
    data = b64u_decode(text)
    if len(data) % ADDRESS_BYTES:
        raise InputError("addresses are of four bytes")
    return tuple(
        IPv4Address(data[at : at + ADDRESS_BYTES]) for at in range(0, len(data), ADDRESS_BYTES)
    )
