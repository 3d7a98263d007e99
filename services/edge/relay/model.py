"""What a relay's sessions are made of, and what is to be done about them. Pure.

A *direction* is a number: twice the session's plus 0 for what party a sends, plus 1 for party b. So
the other way is one bit away, and a datagram's whole fate hangs on one look-up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from services.edge.relay.messages import Answer

DATA_PORTS: Final = 256
MAX_SESSIONS: Final = 10_000

Address = tuple[Any, ...]
"""As the socket tells it: (host, port) of IPv4, two more numbers after these of IPv6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of everything there may be."""

    sessions: int = MAX_SESSIONS
    sessions_per_client: int = 64
    idle_s: float = 60.0
    """For so long a party may be unheard of."""
    stolen_after_s: float = 15.0
    """An address that another party has, and was not heard from for so long, is free."""
    spent_tickets: int = 65_536


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """A data port on one of the relay's addresses, and which directions begin there."""

    host: str
    port: int
    bound: dict[Address, int] = field(default_factory=dict)
    """By where the datagrams come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A bound party, as the data path needs it."""

    place: Place
    address: Address


class Party(msgspec.Struct, kw_only=True, gc=False, eq=False):
    """One end of a session, as far as it is known."""

    direction: int
    key: bytes
    place: Place | None = None
    address: Address | None = None
    """Where it was last heard, once that is proved."""

    @property
    def data_place(self) -> Place:
        """The data port of a party that was heard on one."""
        if self.place is None:
            raise AssertionError("a party without a data port was heard on one")
        return self.place

    @property
    def side(self) -> Side:
        """Where a bound party is."""
        if self.address is None:
            raise AssertionError("a party that is not bound has no side")
        return Side(place=self.data_place, address=self.address)


class Session(msgspec.Struct, kw_only=True, gc=False, eq=False):
    """Two parties that may talk; the numbers that change often are in the book's columns."""

    a: Party
    b: Party
    customer: bytes
    server_key: bytes
    """Of the server that signed it."""

    @property
    def is_linked(self) -> bool:
        """Whether both parties are bound."""
        return self.a.address is not None and self.b.address is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Let data pass between two sides."""

    number: int
    a: Side
    b: Side
    rate_kbits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlink:
    """Let nothing pass any more between these."""

    number: int
    a: Side
    b: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Say something to a party, under its session key, from its data port."""

    place: Place
    address: Address
    session_key: bytes
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Tell the party of a direction, who is where it is bound, what was carried for it."""

    direction: int
    counter: int


Effect = Link | Unlink | Tell | Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A session that a party has, for the answer to its ALLOCATE."""

    direction: int
    place: Place
    left_ms: int
    session_key: bytes
    token: bytes
