"""What membership is handed: time, chance, and what it asks of its owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.mesh.membership.messages import MembershipMessage
    from services.mesh.membership.states import State

T = TypeVar("T")


class Moment(Protocol):
    """One reading of both clocks."""

    @property
    def s(self) -> float:
        """Seconds that never go back."""

    @property
    def ms(self) -> int:
        """Milliseconds of UTC."""


class Rng(Protocol):
    """Chance: the system's in the daemon, a seeded one in tests."""

    def random(self) -> float:
        """Return a number from 0 up to 1."""

    def getrandbits(self, k: int, /) -> int:
        """Return a number of ``k`` bits."""

    def sample(self, population: Sequence[T], k: int) -> list[T]:
        """Return ``k`` different members."""


class Tell(msgspec.Struct, frozen=True):
    """Send a message to a server; greet it first where there is no session."""

    peer: str
    message: MembershipMessage


@dataclass(frozen=True, slots=True)
class Changed:
    """A server is held to be in another state than before."""

    server_id: str
    old: State
    new: State


Effect = Tell | Changed
