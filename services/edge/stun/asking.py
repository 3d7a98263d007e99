"""What several STUN servers say of one's own address: questions, and what is believed. Pure.

An answer counts if it comes from where the question went and names its transaction. An address that
nobody else could use, or that holds another's view of a network in between, is no answer: loopback,
multicast, nothing, private. Two servers that see two ports say that the NAT in between picks one
for each whom one talks to (RFC 4787: endpoint-dependent): what one server sees is of no use to a
third.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from services.edge.stun.messages import (
    BINDING_REQUEST,
    BINDING_SUCCESS,
    COOKIE,
    Address,
    Attribute,
    Message,
    decode_address,
    decode_xor_address,
    encode,
    parse,
)
from services.kernel.errors import InputError, WireError
from services.kernel.ids import parse_domain
from services.kernel.places import parse_place, parse_port
from services.kernel.targets import is_private, why_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEFAULT_PORT: Final = 3478
MAX_SERVERS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How others see a socket."""

    host: str
    port: int
    is_symmetric: bool
    """Whether it is seen by another port, or address, from another server."""
    answers_count: int


class Inquiry:
    """The same question to several servers, each with a transaction of its own."""

    def __init__(self, servers: Iterable[Address], *, token: Callable[[int], bytes]) -> None:
        """Prepare the questions.

        Args:
            servers: IP addresses and ports; those after the first eight are left out.
            token: returns so many random bytes.
        """
        chosen = list(dict.fromkeys(servers))[:MAX_SERVERS]
        self._open = {server: COOKIE + token(12) for server in chosen}
        self._seen: dict[Address, Address] = {}
        self.others: dict[Address, Address] = {}
        """Of servers that have a second address: by the first."""
        self.ignored_count = 0

    def questions(self) -> list[tuple[bytes, Address]]:
        """Return what is still to be asked, and whom."""
        return [(_request(transaction), server) for server, transaction in self._open.items()]

    def heard(self, data: bytes, source: Address) -> None:
        """Take a datagram."""
        server = (source[0], source[1])
        try:
            mapped, other = _mapped(data, self._open.get(server))
        except WireError:
            self.ignored_count += 1
            return
        self._seen[server] = mapped
        if other is not None:
            self.others[server] = other
        del self._open[server]

    @property
    def is_done(self) -> bool:
        """Whether every server has answered."""
        return not self._open

    def seen(self) -> Seen | None:
        """Return what the servers agree on; None if none said anything of use."""
        if not self._seen:
            return None
        # Most servers' word, the first one's among equals.
        mapped = Counter(self._seen.values()).most_common(1)[0][0]
        return Seen(
            host=mapped[0],
            port=mapped[1],
            is_symmetric=len(set(self._seen.values())) > 1,
            answers_count=len(self._seen),
        )


def parse_servers(text: str) -> tuple[Address, ...]:
    """Parse ``HOST[:PORT]`` apart by commas: names, IPv4 addresses, IPv6 ones in brackets.

    Raises:
        InputError: ``bad_address``.
    """
    found = tuple(_parse_server(one.strip()) for one in text.split(",") if one.strip())
    if len(found) > MAX_SERVERS:
        raise InputError(f"at most {MAX_SERVERS} STUN servers", code="bad_address")
    return found


def is_usable(mapped: Address) -> bool:
    """Say whether others could reach this address, whoever they are."""
    host, port = mapped
    is_refused = why_refused(host, max(port, 1024), mesh_ranges=(), on_link=()) is not None
    return bool(port) and not is_refused and not is_private(ip_address(host))


def _parse_server(text: str) -> Address:
    if text.startswith("["):
        return parse_place(text if not text.endswith("]") else f"{text}:{DEFAULT_PORT}")
    if text.count(":") > 1:
        return parse_place(f"[{text}]:{DEFAULT_PORT}")
    host, colon, port = text.partition(":")
    try:
        ip_address(host)
    except ValueError:
        parse_domain(host)
    return host, parse_port(port) if colon else DEFAULT_PORT


def _request(transaction: bytes) -> bytes:
    return encode(Message(kind=BINDING_REQUEST, transaction=transaction))


def _mapped(data: bytes, transaction: bytes | None) -> tuple[Address, Address | None]:
    """Return the address in an answer, and the server's other one.

    Raises:
        WireError: not the answer to our question, or none that is of use.
    """
    if transaction is None:
        raise WireError("from elsewhere")
    message = parse(data)
    if message.kind != BINDING_SUCCESS or message.transaction != transaction:
        raise WireError("not the answer")
    xored = message.value(Attribute.XOR_MAPPED_ADDRESS)
    plain = message.value(Attribute.MAPPED_ADDRESS)
    if xored is not None:
        mapped = decode_xor_address(xored, transaction)
    else:
        mapped = decode_address(plain or b"")
    if not is_usable(mapped):
        raise WireError("an address that nobody else could use")
    other = message.value(Attribute.OTHER_ADDRESS)
    return mapped, decode_address(other) if other is not None else None
