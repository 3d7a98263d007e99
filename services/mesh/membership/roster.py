"""The servers that there are, and whom of them to talk to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.kernel.ids import raw_server_id
from services.mesh.membership.states import Member, Since, State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from services.mesh.membership.ports import Rng

RECENT_S: Final = 300.0
MAX_RECENT: Final = 128
_TRIES: Final = 12


class Roster:
    """The other servers by id and by their place in the circle."""

    def __init__(self, *, own_id: str, rng: Rng) -> None:
        self.own_id = own_id
        self._rng = rng
        self._members: dict[str, Member] = {}
        self._by_raw: dict[bytes, Member] = {}
        self._circle: list[str] = []
        self._own_index = -1
        self._recent: dict[str, float] = {}
        self.unknown: dict[str, None] = {}
        self.dead: dict[str, None] = {}

    @property
    def circle(self) -> list[str]:
        """All servers, this one too, in the order of their ids."""
        return self._circle

    @property
    def own_index(self) -> int:
        """The place of this server; -1 outside of the roster."""
        return self._own_index

    @property
    def present_count(self) -> int:
        """How many servers are not held dead, this one included."""
        return len(self._members) + 1 - len(self.dead)

    def get(self, server_id: str) -> Member | None:
        """Return another server of the roster."""
        return self._members.get(server_id)

    def by_raw(self, raw: bytes) -> Member | None:
        """Return another server of the roster by its eight bytes."""
        return self._by_raw.get(raw)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def set_ids(self, ids: Iterable[str], since: Since) -> list[Member]:
        """Have exactly these servers; return those that are gone."""
        wanted = set(ids)
        gone = [one for name, one in self._members.items() if name not in wanted]
        for one in gone:
            del self._members[one.server_id], self._by_raw[one.raw]
            for table in (self._recent, self.unknown, self.dead):
                table.pop(one.server_id, None)
        new = sorted(wanted - self._members.keys() - {self.own_id})
        for name in self._rng.sample(new, len(new)):
            member = Member(server_id=name, raw=raw_server_id(name), since=since)
            self._members[name] = self._by_raw[member.raw] = member
            self.unknown[name] = None
        self._circle = sorted(wanted)
        self._own_index = self._circle.index(self.own_id) if self.own_id in wanted else -1
        return gone

    def enter(self, member: Member, state: State, since: Since) -> None:
        """Note a change of state."""
        self.unknown.pop(member.server_id, None)
        self.dead.pop(member.server_id, None)
        if state is State.DEAD:
            self.dead[member.server_id] = None
        member.state = state
        member.since = since

    def heard(self, member: Member, now_s: float) -> None:
        """Note a sign of life; who gave one lately is told news first, since a session is up."""
        member.heard_s = now_s
        self._recent.pop(member.server_id, None)
        self._recent[member.server_id] = now_s
        if len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]

    def next_unknown(self) -> Member | None:
        """Return the one of the unknown that was not returned for longest."""
        name = next(iter(self.unknown), None)
        if name is None:
            return None
        self.unknown[name] = self.unknown.pop(name)
        return self._members[name]

    def some_dead(self, count: int) -> list[Member]:
        """Return some of the dead, by chance."""
        names = self._rng.sample(list(self.dead), min(count, len(self.dead)))
        return [self._members[name] for name in names]

    def neighbour(self, step: int) -> str | None:
        """Return the server so many doublings ahead in the circle, unless it is dead."""
        if self._own_index < 0 or len(self._circle) < 2:
            return None
        ahead = 1 << step % (len(self._circle) - 1).bit_length()
        name = self._circle[(self._own_index + ahead) % len(self._circle)]
        return None if name == self.own_id or name in self.dead else name

    def some(self, count: int, now_s: float, *, without: Collection[str] = ()) -> list[str]:
        """Return some servers to talk to, by chance, none of them dead."""
        fresh = [
            name
            for name, heard_s in self._recent.items()
            if now_s - heard_s <= RECENT_S and name not in without and name not in self.dead
        ]
        if len(fresh) >= 4 * count:
            return self._rng.sample(fresh, count)
        chosen: dict[str, None] = {}
        for _ in range(_TRIES + count):
            if len(chosen) == count or not self._circle:
                break
            name = self._circle[int(self._rng.random() * len(self._circle))]
            if name != self.own_id and name not in without and name not in self.dead:
                chosen[name] = None
        missing = [name for name in fresh if name not in chosen]
        more = self._rng.sample(missing, min(len(missing), count - len(chosen)))
        return [*chosen, *more]
