"""Asking servers whether they are there: directly, through others, and for others. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final

from services.mesh.membership.states import Member, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.mesh.membership.health import LocalHealth, OwnTime
    from services.mesh.membership.ports import Rng
    from services.mesh.membership.roster import Roster
    from services.mesh.membership.settings import MembershipSettings
    from services.mesh.membership.speaker import Speaker
    from services.mesh.membership.timers import Timers

MAX_ERRANDS: Final = 64
MAX_ERRANDS_A_PEER: Final = 4
ERRAND_S: Final = 1.5
RECHECK_PAUSE_S: Final = 0.25
ROUND_TRIPS: Final = 3


class Kind(Enum):
    """What a probe is for."""

    CHECK = "check"
    RECHECK = "recheck"
    KNOCK = "knock"


@dataclass(slots=True, kw_only=True)
class _Probe:
    seq: int
    target: str
    kind: Kind
    counts: bool
    helpers: dict[str, bool] = field(default_factory=dict)  # whether it said NACK


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errand:
    asker: str
    seq: int
    target: str


class Prober:
    """The probes under way, at most one for each server, and the errands for others."""

    def __init__(
        self,
        *,
        settings: MembershipSettings,
        roster: Roster,
        speaker: Speaker,
        timers: Timers,
        time: OwnTime,
        health: LocalHealth,
        rng: Rng,
        on_silent: Callable[[Member, Kind], None],
    ) -> None:
        self._settings = settings
        self._roster = roster
        self._speaker = speaker
        self._timers = timers
        self._time = time
        self._health = health
        self._on_silent = on_silent
        self._probes: dict[int, _Probe] = {}
        self._errands: dict[int, _Errand] = {}
        self._errands_of: dict[str, int] = {}
        self._seq = rng.getrandbits(32)

    def check(self, member: Member) -> None:
        """Ask a server in turn; a dead one just once, without help."""
        kind = Kind.KNOCK if member.state is State.DEAD else Kind.CHECK
        self._start(member, kind, counts=True)

    def knock(self, member: Member) -> None:
        """Ask a dead server out of turn."""
        self._start(member, Kind.KNOCK, counts=False)

    def recheck(self, member: Member) -> None:
        """Ask a server that others suspect, twice."""
        self._start(member, Kind.RECHECK, counts=False)

    def heard(self, member: Member) -> None:
        """Take any sign of life for the answer."""
        if member.probe is not None:
            probe = self._end(member.probe)
            if probe.counts:
                member.uptime.add(answered=True)
                self._health.better()

    def acked(self, peer: Member, seq: int) -> None:
        """Take an ACK of the target, of a helper, or for one whom we help."""
        peer.ponged(seq, self._time.s)
        errand = self._errands.get(seq)
        if errand is not None and errand.target == peer.server_id:
            self._end_errand(seq)
            asker = self._roster.get(errand.asker)
            if asker is not None:
                self._speaker.ack(asker, errand.seq)
            return
        probe = self._probes.get(seq)
        if probe is not None and peer.server_id in probe.helpers:
            member = self._roster.get(probe.target)
            if member is not None:
                self.heard(member)

    def nacked(self, peer: Member, seq: int) -> None:
        """Note that a helper is there."""
        probe = self._probes.get(seq)
        if probe is not None and peer.server_id in probe.helpers:
            probe.helpers[peer.server_id] = True

    def help(self, asker: Member, seq: int, target: Member) -> bool:
        """Ask a server for another one; False: too many such wishes at once."""
        waiting = self._errands_of.get(asker.server_id, 0)
        if waiting >= MAX_ERRANDS_A_PEER or len(self._errands) >= MAX_ERRANDS:
            return False
        own_seq = self._next_seq()
        self._errands[own_seq] = _Errand(asker=asker.server_id, seq=seq, target=target.server_id)
        self._errands_of[asker.server_id] = waiting + 1
        rtt_s = target.rtt_s or 0.0
        nack_s = min(self._settings.max_timeout_s / 2, max(self._settings.nack_s, 1.25 * rtt_s))
        self._timers.set(self._time.s + nack_s, partial(self._say_nack, own_seq))
        self._timers.set(self._time.s + ERRAND_S, partial(self._end_errand, own_seq))
        self._speaker.ping(target, own_seq)
        return True

    def forget(self, member: Member) -> None:
        """Ask a server that is gone no more."""
        if member.probe is not None:
            self._end(member.probe)

    def _start(self, member: Member, kind: Kind, *, counts: bool) -> None:
        if member.probe is not None:
            return
        probe = _Probe(seq=self._next_seq(), target=member.server_id, kind=kind, counts=counts)
        member.probe = probe.seq
        self._probes[probe.seq] = probe
        wait_s = self._wait_s(self._settings.timeout_s, member)
        now_s = self._time.s
        match kind:
            case Kind.CHECK:
                self._timers.set(now_s + wait_s / 2, partial(self._repeat, probe.seq))
                self._timers.set(now_s + wait_s, partial(self._seek_help, probe.seq))
            case Kind.RECHECK:
                self._timers.set(now_s + RECHECK_PAUSE_S, partial(self._repeat, probe.seq))
                due_s = now_s + RECHECK_PAUSE_S + wait_s
                self._timers.set(due_s, partial(self._give_up, probe.seq))
            case Kind.KNOCK:
                due_s = now_s + self._settings.max_timeout_s
                self._timers.set(due_s, partial(self._give_up, probe.seq))
        self._speaker.ping(member, probe.seq)

    def _wait_s(self, least_s: float, member: Member) -> float:
        trips_s = ROUND_TRIPS * (member.rtt_s or 0.0)
        return min(self._settings.max_timeout_s, max(least_s, trips_s)) * self._health.factor

    def _repeat(self, seq: int) -> None:
        found = self._find(seq)
        if found is not None:
            pinged = found.pinged
            self._speaker.ping(found, seq)
            # The answer to either would do, so neither tells the time.
            found.pinged = None if pinged is None or pinged[0] == seq else pinged

    def _seek_help(self, seq: int) -> None:
        member = self._find(seq)
        if member is None:
            return
        names = self._roster.some(self._settings.helpers, self._time.s, without=(member.server_id,))
        self._probes[seq].helpers = dict.fromkeys(names, False)
        for name in names:
            helper = self._roster.get(name)
            if helper is not None:
                self._speaker.ping_req(helper, seq, member)
        # Few helpers of many are in session with the target; each false suspicion is told to all.
        self._repeat(seq)
        wait_s = self._wait_s(self._settings.indirect_s, member) if names else 0.0
        self._timers.set(self._time.s + wait_s / 2, partial(self._repeat, seq))
        self._timers.set(self._time.s + wait_s, partial(self._give_up, seq))

    def _give_up(self, seq: int) -> None:
        member = self._find(seq)
        if member is None:
            return
        probe = self._end(seq)
        if probe.kind is Kind.CHECK:
            silent = sum(not nacked for nacked in probe.helpers.values())
            self._health.worse(silent if probe.helpers else 1)
        # Where no helper answers either, the fault may be ours: no mark against the target.
        if probe.counts and (not probe.helpers or any(probe.helpers.values())):
            member.uptime.add(answered=False)
        self._on_silent(member, probe.kind)

    def _find(self, seq: int) -> Member | None:
        probe = self._probes.get(seq)
        return None if probe is None else self._roster.get(probe.target)

    def _end(self, seq: int) -> _Probe:
        probe = self._probes.pop(seq)
        member = self._roster.get(probe.target)
        if member is not None:
            member.probe = None
        return probe

    def _say_nack(self, own_seq: int) -> None:
        errand = self._errands.get(own_seq)
        asker = None if errand is None else self._roster.get(errand.asker)
        if errand is not None and asker is not None:
            self._speaker.nack(asker, errand.seq)

    def _end_errand(self, own_seq: int) -> None:
        errand = self._errands.pop(own_seq, None)
        if errand is None:
            return
        left = self._errands_of.pop(errand.asker) - 1
        if left:
            self._errands_of[errand.asker] = left

    def _next_seq(self) -> int:
        self._seq = (self._seq + 1) % 2**32
        return self._seq
