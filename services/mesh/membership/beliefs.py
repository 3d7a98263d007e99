"""What to believe of whom: suspicions, refutations and deaths. Pure.

A suspicion is only a reason to wait: the subject may refute it with an ALIVE of a higher
incarnation, or be heard. Each server concludes death by itself when the time is up; the more
others confirm, the shorter the time. So a liar can hasten a death and not make one up.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Final

from services.kernel.ids import raw_server_id
from services.mesh.membership.alive import Alive, decode_alive
from services.mesh.membership.counters import Counters, Refused
from services.mesh.membership.messages import MAX_INCARNATION, Rumour, Suspicion
from services.mesh.membership.own import RECENT_S, OwnWord
from services.mesh.membership.ports import Changed
from services.mesh.membership.prober import Kind
from services.mesh.membership.rumours import LOUD_TELLINGS
from services.mesh.membership.states import NEVER_S, Member, Report, Since, State, Suspected

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.mesh.membership.health import LocalHealth, OwnTime
    from services.mesh.membership.prober import Prober
    from services.mesh.membership.roster import Roster
    from services.mesh.membership.rumours import RumourQueue
    from services.mesh.membership.settings import MembershipSettings
    from services.mesh.membership.speaker import Speaker
    from services.mesh.membership.timers import Timers

MAX_JUMP: Final = 2**20
MAX_OUTBID: Final = 16
MAX_SKEW_MS: Final = 300_000
CONTACT_S: Final = 0.8
REPORT_S: Final = 10.0
MAX_ANSWERS: Final = 12
KNOCKS: Final = 3
KNOCK_PAUSE_S: Final = 0.2


class Beliefs:
    """The states of the others, and the word of this server about itself."""

    def __init__(
        self,
        *,
        settings: MembershipSettings,
        mesh_id: bytes,
        key_of: Callable[[str], bytes | None],
        own: OwnWord,
        roster: Roster,
        rumours: RumourQueue,
        speaker: Speaker,
        timers: Timers,
        time: OwnTime,
        health: LocalHealth,
        now: Since,
    ) -> None:
        self._settings = settings
        self._mesh_id = mesh_id
        self._key_of = key_of
        self._own = own
        self._roster = roster
        self._rumours = rumours
        self._speaker = speaker
        self._timers = timers
        self._time = time
        self._health = health
        self._doubted_s = float("-inf")
        self._knocked_s = float("-inf")
        self._will_refute = False
        self._answers: list[Rumour] = []
        self.now = now
        self.counters = Counters()

    def introduce(self) -> None:
        """Tell the others that this server is here."""
        self._announce(self._own.alive(self.now), tellings=LOUD_TELLINGS)

    def take(self, peer: Member, rumours: tuple[Rumour, ...], prober: Prober) -> tuple[Rumour, ...]:
        """Take rumours from a server; return what it should know in turn."""
        if not rumours:
            return ()
        for rumour in rumours:
            if isinstance(rumour, Suspicion):
                self._on_suspicion(peer, rumour, prober)
            else:
                self._on_alive(peer, decode_alive(rumour))
        answers, self._answers = self._answers, []
        return tuple(dict.fromkeys(answers))[:MAX_ANSWERS]

    def heard(self, member: Member, prober: Prober) -> None:
        """Take a sign of life from the server itself."""
        self._roster.heard(member, self._time.s)
        prober.heard(member)
        old = member.state
        member.cleared(self._time.s)
        if old is State.ALIVE:
            return
        self._enter(member, State.ALIVE)
        if old is State.UNKNOWN:
            return
        # The others have not heard it: let it refute what is said of it.
        self._speaker.tell(member, self._speaker.suspicion_of(member))
        if old is State.DEAD and self._time.s - self._knocked_s >= KNOCK_PAUSE_S:
            self._knocked_s = self._time.s  # where one is back, others may be
            for other in self._roster.some_dead(KNOCKS):
                prober.knock(other)

    def silent(self, member: Member, kind: Kind) -> None:
        """Take note that a server did not answer us."""
        if member.state is State.DEAD or kind is Kind.KNOCK:
            return
        if kind is Kind.RECHECK and member.suspected is None:
            return
        if member.suspected is None:
            member.reports.pop(self._roster.own_id, None)
        self._report(member, self._roster.own_id, member.incarnation)

    def forget(self, member: Member) -> None:
        """Tell nothing more about a server that left the roster."""
        self._drop_rumours(member)
        self._rumours.drop((member.server_id, ""))

    def _on_suspicion(self, peer: Member, said: Suspicion, prober: Prober) -> None:
        if said.subject == self._own.raw:
            self._on_doubt(said.incarnation)
            return
        member = self._roster.by_raw(said.subject)
        reporter = self._roster.by_raw(said.reporter)
        if member is None:
            self.counters.add(Refused.RUMOUR_OF_A_STRANGER)
            return
        if reporter is None or reporter is member or reporter.state is State.DEAD:
            self.counters.add(Refused.REPORTER)
            return
        claimed = said.incarnation
        if claimed < member.incarnation:
            if self._time.s - member.refreshed_s < RECENT_S:
                self.counters.add(Refused.STALE_SUSPICION)
                if member.alive is not None:
                    self._answers.append(member.alive)
                return
            claimed = member.incarnation  # the reporter just does not know the newest
        if member.state is State.DEAD:
            if reporter is peer:
                self._answers.append(self._speaker.suspicion_of(member))
            return
        was_suspected = member.suspected is not None
        self._report(member, reporter.server_id, claimed)
        if not was_suspected and member.suspected is not None and self._is_rechecker(member):
            prober.recheck(member)

    def _on_doubt(self, claimed: int) -> None:
        if self._time.s - self._doubted_s >= self._settings.interval_s:
            self._doubted_s = self._time.s
            self._health.worse()
        if self._own.is_answered(claimed):
            self._answers.append(self._own.alive(self.now).encoded)
        elif (pause_s := self._own.pause_s()) > 0:
            if not self._will_refute:
                self._will_refute = True
                self._timers.set(self._time.s + pause_s, partial(self._refute_late, claimed))
        else:
            self._answers.append(self._outbid(claimed))

    def _refute_late(self, claimed: int) -> None:
        self._will_refute = False
        if claimed >= self._own.incarnation:
            self._outbid(claimed)

    def _outbid(self, claimed: int) -> bytes:
        own = self._own.incarnation
        return self._refute(max(own, min(claimed, own + MAX_OUTBID)) + 1)

    def _refute(self, incarnation: int) -> bytes:
        alive = self._own.renew(min(incarnation, MAX_INCARNATION), self.now)
        self._announce(alive)
        return alive.encoded

    def _announce(self, alive: Alive, *, tellings: int | None = None) -> None:
        self._rumours.put((self._roster.own_id, ""), alive.encoded, tellings=tellings)
        self._speaker.news(own=True)

    def _on_alive(self, peer: Member, alive: Alive) -> None:
        if alive.server == self._own.raw:
            # Our own word from before a restart, or that of a twin: be newer than it.
            own = self._own.alive(self.now)
            is_newer = alive.incarnation >= own.incarnation and alive.encoded != own.encoded
            if is_newer and self._own.is_own(alive):
                self._refute(alive.incarnation + 1)
            return
        member = self._roster.by_raw(alive.server)
        if member is None:
            self.counters.add(Refused.RUMOUR_OF_A_STRANGER)
            return
        if alive.incarnation <= member.incarnation:
            is_behind = alive.incarnation < member.incarnation
            if peer is member and is_behind and member.alive is not None:
                self._answers.append(member.alive)  # it forgot how far it was
            return
        refused = self._fault_of(alive, member)
        if refused is not None:
            self.counters.add(refused)
            return
        member.incarnation, member.alive = alive.incarnation, alive.encoded
        if alive.issued_ms < self.now.ms - MAX_SKEW_MS:
            self.counters.add(Refused.STALE_ALIVE)
            return
        if self._is_overtaken(member):
            return
        # A first word refutes nothing: when a whole mesh starts, nobody waits for so many.
        is_first = member.refreshed_s == NEVER_S and not member.reports
        is_quiet = is_first and member.state is not State.DEAD
        self._drop_rumours(member)
        member.reports.clear()
        member.cleared(self._time.s)
        member.refreshed_s = self._time.s
        tellings = 2 * self._settings.fanout if is_quiet else None
        self._rumours.put((member.server_id, ""), alive.encoded, tellings=tellings)
        self._speaker.news()
        if member.state is not State.ALIVE:
            self._enter(member, State.ALIVE)

    def _is_overtaken(self, member: Member) -> bool:
        """Say whether the newest word comes late: others suspect the server in spite of it.

        A claim of more than the subject ever signed does not count, or it could never refute it.
        """
        if member.state is State.DEAD:
            return member.incarnation in member.died_of
        left = {
            reporter: one
            for reporter, one in member.reports.items()
            if one.claimed == member.incarnation
        }
        if not left or member.suspected is None:
            return False
        for reporter in member.reports.keys() - left.keys():
            self._rumours.drop((member.server_id, reporter))
        member.reports = left
        self._set_deadline(member, member.suspected)
        return True

    def _fault_of(self, alive: Alive, member: Member) -> Refused | None:
        if alive.issued_ms > self.now.ms + MAX_SKEW_MS:
            return Refused.FUTURE_ALIVE
        newest = max(member.incarnation, alive.issued_ms // 1000)
        if alive.incarnation > newest + MAX_JUMP:
            return Refused.JUMP
        key = self._key_of(member.server_id)
        if key is None or not alive.is_signed_by(key, self._mesh_id):
            return Refused.SIGNATURE
        return None

    def _report(self, member: Member, reporter: str, claimed: int) -> None:
        now_s = self._time.s
        reports = member.reports
        is_over = member.suspected is None and reports
        if is_over and now_s - min(one.at_s for one in reports.values()) > REPORT_S:
            self._drop_rumours(member)
            reports.clear()
        if reporter in reports or len(reports) > self._settings.confirmations:
            return
        reports[reporter] = Report(at_s=now_s, claimed=claimed)
        said = Suspicion(subject=member.raw, incarnation=claimed, reporter=raw_server_id(reporter))
        self._rumours.put((member.server_id, reporter), said)
        is_own = reporter == self._roster.own_id
        self._speaker.news(own=is_own)
        if is_own:
            self._speaker.tell(member, said)  # the sooner it hears of it, the sooner it refutes
        member.blamed = tuple(reports)
        if member.suspected is None:
            # Whom we met a moment ago we believe more than what others say.
            if not is_own and now_s - member.heard_s < CONTACT_S:
                return
            member.suspected = Suspected(started_s=now_s, deadline_s=now_s)
            self._enter(member, State.SUSPECT)
        self._set_deadline(member, member.suspected)

    def _set_deadline(self, member: Member, suspected: Suspected) -> None:
        servers = self._roster.present_count
        wanted = max(0, min(self._settings.confirmations, servers - 2))
        lasts_s = self._settings.suspicion_s(
            servers,
            confirmations=len(member.reports) - 1,
            wanted=wanted,
            patience_s=member.patience_s(self._time.s),
        )
        suspected.deadline_s = suspected.started_s + lasts_s
        self._timers.set(suspected.deadline_s, partial(self._conclude, member, suspected))

    def _conclude(self, member: Member, suspected: Suspected) -> None:
        is_current = member.suspected is suspected and self._roster.get(member.server_id) is member
        if is_current and suspected.deadline_s <= self._time.s + 0.05:
            member.suspected = None
            member.died_of = frozenset(one.claimed for one in member.reports.values())
            member.reports.clear()
            self._enter(member, State.DEAD)

    def _is_rechecker(self, member: Member) -> bool:
        """Say whether it is for us to ask again: all derive the same few servers."""
        circle, dead = self._roster.circle, len(self._roster.dead)
        seed = member.raw + member.incarnation.to_bytes(8, "big")
        digest = hashlib.blake2b(seed, digest_size=8, person=b"seipd/recheck/v1").digest()
        distance = (self._roster.own_index - int.from_bytes(digest, "big")) % len(circle)
        wanted = self._settings.recheckers * len(circle) / max(1, len(circle) - dead)
        return self._roster.own_index >= 0 and distance < wanted

    def _enter(self, member: Member, state: State) -> None:
        old = member.state
        self._roster.enter(member, state, self.now)
        if state is State.ALIVE:
            member.blamed = ()
        self._speaker.effects.append(Changed(member.server_id, old, state))

    def _drop_rumours(self, member: Member) -> None:
        for reporter in member.reports:
            self._rumours.drop((member.server_id, reporter))
