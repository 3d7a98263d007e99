"""Puts rumours on whatever goes out. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.mesh.membership.messages import Ack, Nack, Ping, PingReq, Rumours, Suspicion
from services.mesh.membership.ports import Effect, Tell
from services.mesh.membership.states import Member, State

if TYPE_CHECKING:
    from services.mesh.membership.health import OwnTime
    from services.mesh.membership.messages import Rumour
    from services.mesh.membership.roster import Roster
    from services.mesh.membership.rumours import RumourQueue

ROOM_BYTES: Final = 1100
FED_PAUSE_S: Final = 0.2
FLUSH_PAUSE_S: Final = 0.05
ROUND_PAUSE_S: Final = 0.09  # each tick
FIRST_FACTOR: Final = 3


class Speaker:
    """Everything that this server says, gathered in ``effects``."""

    def __init__(
        self, *, roster: Roster, rumours: RumourQueue, time: OwnTime, own_raw: bytes, fanout: int
    ) -> None:
        self._roster = roster
        self._rumours = rumours
        self._time = time
        self._own_raw = own_raw
        self._fanout = fanout
        self._flushed_s = 0.0
        self._has_news = False
        self._begins_here = False
        self._step = 0
        self.effects: list[Effect] = []

    def ping(self, member: Member, seq: int) -> None:
        """Ask a server; one that is suspected is told so, that it may refute it."""
        member.pinged = (seq, self._time.s)
        self._tell(member, Ping(seq=seq, rumours=self._load(member, self._buddy(member))))

    def ping_req(self, helper: Member, seq: int, target: Member) -> None:
        """Ask a helper to ask a server."""
        rumours = self._load(helper, ())
        self._tell(helper, PingReq(seq=seq, target=target.raw, rumours=rumours))

    def ack(self, member: Member, seq: int, *, first: tuple[Rumour, ...] = ()) -> None:
        """Answer a PING, or tell who asked for help that the target answered."""
        self._tell(member, Ack(seq=seq, rumours=self._load(member, first)))

    def nack(self, member: Member, seq: int) -> None:
        """Tell who asked for help that there is no answer so far."""
        self._tell(member, Nack(seq=seq, rumours=self._load(member, ())))

    def tell(self, member: Member, *rumours: Rumour) -> None:
        """Tell one server something that concerns it."""
        self._tell(member, Rumours(rumours=rumours))

    def news(self, *, own: bool = False) -> None:
        """Note that there is something to tell at once; what begins here, to more servers."""
        self._has_news = True
        self._begins_here = self._begins_here or own

    def flush(self, *, without: tuple[str, ...] = ()) -> None:
        """Tell a few servers what is new, unless that was done a moment ago."""
        since_s = self._time.s - self._flushed_s
        if not (self._has_news and since_s >= FLUSH_PAUSE_S):
            return
        self._flush(without)

    def round(self) -> None:
        """Tell a few more servers what is still new, now and then."""
        since_s = self._time.s - self._flushed_s
        if since_s >= ROUND_PAUSE_S and (self._has_news or self._rumours.is_loud()):
            self._flush(())

    def _flush(self, without: tuple[str, ...]) -> None:
        count = self._fanout * (FIRST_FACTOR if self._begins_here else 1)
        # Chance alone leaves somebody out now and then; the neighbour in the circle it does not.
        self._step = 0 if self._has_news else self._step + 1
        self._has_news = self._begins_here = False
        self._flushed_s = self._time.s
        neighbour = self._roster.neighbour(self._step)
        first = [neighbour] if neighbour is not None and neighbour not in without else []
        others = self._roster.some(count - len(first), self._time.s, without=(*without, *first))
        for name in (*first, *others):
            member = self._roster.get(name)
            rumours = self._rumours.take(ROOM_BYTES)
            if member is not None and rumours:
                self.tell(member, *rumours)

    def _buddy(self, member: Member) -> tuple[Rumour, ...]:
        if member.state not in (State.SUSPECT, State.DEAD):
            return ()
        return (self.suspicion_of(member),)

    def suspicion_of(self, member: Member) -> Suspicion:
        """Return our own word against a server."""
        return Suspicion(subject=member.raw, incarnation=member.incarnation, reporter=self._own_raw)

    def _load(self, member: Member, first: tuple[Rumour, ...]) -> tuple[Rumour, ...]:
        # Who asks us again and again must not use up what is meant for all.
        if self._time.s - member.fed_s < FED_PAUSE_S:
            return first
        member.fed_s = self._time.s
        return self._rumours.take(ROOM_BYTES, first)

    def _tell(self, member: Member, message: Ping | Ack | PingReq | Nack | Rumours) -> None:
        self.effects.append(Tell(member.server_id, message))
