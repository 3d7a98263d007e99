"""Who is there: SWIM with Lifeguard's refinements, messages and time in, effects out. Pure.

Every server is asked once an interval by one of the others. Who does not answer, neither directly
nor through others, is suspected aloud; who is suspected says that it is here; who does not is held
dead by each that waited long enough. The dead are asked on, at the same slow pace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.kernel.errors import InputError
from services.kernel.ids import raw_server_id
from services.mesh.membership.beliefs import Beliefs
from services.mesh.membership.counters import Refused
from services.mesh.membership.health import LocalHealth, OwnTime
from services.mesh.membership.messages import Ack, MembershipMessage, Nack, Ping, PingReq, Rumours
from services.mesh.membership.own import OwnWord
from services.mesh.membership.prober import Prober
from services.mesh.membership.roster import Roster
from services.mesh.membership.rumours import RumourQueue
from services.mesh.membership.schedule import Schedule
from services.mesh.membership.speaker import Speaker
from services.mesh.membership.states import MemberStatus, Since, State, why_of
from services.mesh.membership.timers import Timers
from services.mesh.membership.uptime import Uptime, plain_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from services.base.crypto.signatures import Signer
    from services.mesh.membership.ports import Effect, Moment, Rng
    from services.mesh.membership.settings import MembershipSettings
    from services.mesh.membership.states import Member

VERSION: Final = 1


class Membership:
    """One server's view of the others.

    ``tick`` wants to be called every 0.1 s; half a second without a call is a stall of our own.
    Of each good BOX either ``on_message`` or ``heard`` is told. ``saved`` is what ``to_plain``
    gave before a restart.

    Raises:
        InputError: ``saved`` is not what ``to_plain`` gave.
    """

    def __init__(
        self,
        *,
        own_id: str,
        key: Signer,
        mesh_id: bytes,
        settings: MembershipSettings,
        rng: Rng,
        now: Moment,
        key_of: Callable[[str], bytes | None],
        saved: Mapping[str, object] | None = None,
    ) -> None:
        self.own_id = own_id
        self._settings = settings
        self._saved_uptimes, least = _read_saved(saved or {})
        raw = raw_server_id(own_id)
        since = Since(s=now.s, ms=now.ms)
        self._time = OwnTime(now.s)
        self.health = LocalHealth()
        self._timers = Timers()
        self._rumours = RumourQueue()
        self._roster = Roster(own_id=own_id, rng=rng)
        self._speaker = Speaker(
            roster=self._roster,
            rumours=self._rumours,
            time=self._time,
            own_raw=raw,
            fanout=settings.fanout,
        )
        incarnation = max(now.ms // 1000, least, 1)
        self._own = OwnWord(
            signer=key, mesh_id=mesh_id, raw=raw, time=self._time, incarnation=incarnation
        )
        self._beliefs = Beliefs(
            settings=settings,
            mesh_id=mesh_id,
            key_of=key_of,
            own=self._own,
            roster=self._roster,
            rumours=self._rumours,
            speaker=self._speaker,
            timers=self._timers,
            time=self._time,
            health=self.health,
            now=since,
        )
        self._prober = Prober(
            settings=settings,
            roster=self._roster,
            speaker=self._speaker,
            timers=self._timers,
            time=self._time,
            health=self.health,
            rng=rng,
            on_silent=self._beliefs.silent,
        )
        self._schedule = Schedule(mesh_id=mesh_id, interval_s=settings.interval_s)
        self._passed_turns = 0
        self._next_unknown_s = 0.0
        self._is_introduced = False

    @property
    def incarnation(self) -> int:
        """The newest incarnation of this server."""
        return self._own.incarnation

    @property
    def refused(self) -> Mapping[str, int]:
        """How much was refused, by reason."""
        return self._beliefs.counters.snapshot()

    def set_members(self, ids: Iterable[str], now: Moment) -> None:
        """Have exactly these servers as members; this one may be among them."""
        self._advance(now)
        for member in self._roster.set_ids(ids, self._beliefs.now):
            self._prober.forget(member)
            self._beliefs.forget(member)
        for member in self._roster:
            if (saved := self._saved_uptimes.pop(member.server_id, None)) is not None:
                member.uptime = saved
        circle = self._roster.circle
        self._schedule.set_circle(index=self._roster.own_index, servers=len(circle))
        self._rumours.set_tellings(self._settings.tellings(len(circle)))

    def tick(self, now: Moment) -> list[Effect]:
        """Do what is due."""
        self._advance(now)
        if not self._is_introduced and self._roster.own_index >= 0:
            self._is_introduced = True
            self._beliefs.introduce()
        self._timers.run(self._time.s)
        self._take_turn(now)
        self._meet_unknown()
        self._speaker.flush()
        self._speaker.round()
        return self._take_effects()

    def coming(self) -> tuple[str, ...]:
        """Return whom this server asks in its next two turns: a session should be up by then."""
        return tuple(self._roster.circle[index] for index in self._schedule.coming())

    def on_message(self, peer: str, message: MembershipMessage, now: Moment) -> list[Effect]:
        """Take a message of a server that has proved itself."""
        self._advance(now)
        member = self._roster.get(peer)
        if member is None:
            self._beliefs.counters.add(Refused.STRANGER)
            return self._take_effects()
        answers = self._beliefs.take(member, message.rumours, self._prober)
        self._beliefs.heard(member, self._prober)
        match message:
            case Ping(seq=seq):
                self._speaker.ack(member, seq, first=answers)
                answers = ()
            case Ack(seq=seq):
                self._prober.acked(member, seq)
            case Nack(seq=seq):
                self._prober.nacked(member, seq)
            case PingReq(seq=seq, target=target):
                self._help(member, seq, target)
            case Rumours():
                pass
        if answers:
            self._speaker.tell(member, *answers)
        self._speaker.flush(without=(peer,))
        return self._take_effects()

    def heard(self, peer: str, now: Moment) -> list[Effect]:
        """Take any other authenticated message for a sign of life."""
        self._advance(now)
        member = self._roster.get(peer)
        if member is not None:
            self._beliefs.heard(member, self._prober)
        return self._take_effects()

    def state(self, server_id: str) -> State:
        """Return the state of a server; of this one: alive."""
        if server_id == self.own_id:
            return State.ALIVE
        member = self._roster.get(server_id)
        return State.UNKNOWN if member is None else member.state

    def status(self, server_id: str, now: Moment) -> MemberStatus | None:
        """Return what is known of another server of the roster."""
        member = self._roster.get(server_id)
        return None if member is None else self._status(member, now)

    def statuses(self, now: Moment) -> list[MemberStatus]:
        """Return what is known of all others, in the order of their ids."""
        members = sorted(self._roster, key=lambda one: one.server_id)
        return [self._status(member, now) for member in members]

    def uptime(self, server_id: str) -> float | None:
        """Return the share of our last checks that a server answered; None before the first."""
        member = self._roster.get(server_id)
        return None if member is None else member.uptime.ratio

    def rtt_s(self, server_id: str) -> float | None:
        """Return the round trip to a server; None before it was measured."""
        member = self._roster.get(server_id)
        return None if member is None else member.rtt_s

    def to_plain(self) -> dict[str, object]:
        """Return what should outlast a restart, as JSON can hold it."""
        rows = sorted((one.server_id, one.uptime) for one in self._roster)
        return {
            "version": VERSION,
            "incarnation": self._own.incarnation,
            "uptime": plain_rows(rows),
        }

    def _advance(self, now: Moment) -> None:
        self._beliefs.now = Since(s=now.s, ms=now.ms)
        stalled_s = self._time.advance(now.s)
        if stalled_s > 0:
            self.health.worse(1 + int(stalled_s))

    def _take_turn(self, now: Moment) -> None:
        index = self._schedule.due(now.ms)
        if index is None:
            return
        if self._passed_turns < self.health.score:
            self._passed_turns += 1  # who may be at fault asks less often
            return
        self._passed_turns = 0
        member = self._roster.get(self._roster.circle[index])
        if member is not None:
            self._prober.check(member)

    def _meet_unknown(self) -> None:
        if self._time.s < self._next_unknown_s:
            return
        self._next_unknown_s = self._time.s + self._settings.interval_s / 2
        member = self._roster.next_unknown()
        if member is not None:
            self._prober.check(member)

    def _help(self, asker: Member, seq: int, raw: bytes) -> None:
        target = self._roster.by_raw(raw)
        if target is None or target is asker or not self._prober.help(asker, seq, target):
            self._beliefs.counters.add(Refused.ERRAND)

    def _status(self, member: Member, now: Moment) -> MemberStatus:
        return MemberStatus(
            server_id=member.server_id,
            state=member.state,
            since_ms=member.since.ms,
            incarnation=member.incarnation,
            why=why_of(member, now.s, own_id=self.own_id),
            latency_ms=None if member.rtt_s is None else member.rtt_s * 1000,
            uptime=member.uptime.ratio,
            checks=member.uptime.count,
        )

    def _take_effects(self) -> list[Effect]:
        effects, self._speaker.effects = self._speaker.effects, []
        return effects


def _read_saved(saved: Mapping[str, object]) -> tuple[dict[str, Uptime], int]:
    if not saved:
        return {}, 0
    match saved:
        case {"version": 1, "incarnation": int(incarnation), "uptime": dict(rows)}:
            return {str(name): Uptime.of_plain(row) for name, row in rows.items()}, incarnation + 1
        case _:
            raise InputError("not the saved state of membership")
