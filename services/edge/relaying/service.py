"""The relay directory as a service: knows the relays, hears how good they are, tells of its own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from services.authority.relays import view as relays_view
from services.authority.trust import view as trust_view
from services.edge.relaying.finding import Finder
from services.edge.relaying.hearing import (
    OWN_VOICE,
    Hearing,
    raw_relay,
    reputation_of,
    worth_telling,
)
from services.edge.relaying.knowing import community_relays, relay_told, relays_of_servers
from services.edge.relaying.lifesigns import Lifesigns
from services.edge.relaying.probing import INTERVAL_S, Probes, next_to_ask
from services.edge.relaying.reporting import RelayReports
from services.kernel.errors import SeipdError, UnavailableError
from services.kernel.ids import ServerId
from services.kernel.service import Health, HealthState
from services.mesh.facts.kinds import RELAY
from services.mesh.facts.payloads import RelayPayload, encode_payload
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from services.authority.ports import Ledger
    from services.base.ledger.watching import Change
    from services.edge.relaying.finding import Found, Relay
    from services.edge.relaying.hearing import Voices
    from services.kernel.clock import Clock
    from services.mesh.facts.envelope import Fact
    from services.mesh.gossip.addresses import AddressFact

logger = logging.getLogger(__name__)

LOOK_S: Final = 2.0
LOOK_OVER_S: Final = 15.0
LOOK_SHARE: Final = 50
"""Looking takes at most one part in so many of the time."""
MIN_TELL_S: Final = 60.0
RENEW_S: Final = 6 * 3600.0
ASKED_AT_ONCE: Final = 8
ASK_LOOK_S: Final = 5.0


class Gossip(Protocol):
    """The part of gossip that is needed here."""

    def publish_fact(self, kind: int, payload: bytes, *, lifetime_ms: int | None = None) -> None:
        """Say something about this server from now on."""

    def facts(self, kind: int) -> Mapping[str, Fact]:
        """Return the facts of one kind that hold now, by server, our own among them."""

    def addresses(self) -> Mapping[str, AddressFact]:
        """Return where the servers are."""

    def subscribe_facts(self, callback: Callable[[Fact], None]) -> None:
        """Tell of every fact that is news."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRelay:
    """This server's own relay as it is now."""

    box: bytes
    port: int
    host6: str
    sessions_count: int
    load_permille: int


NO_RELAY: Final = OwnRelay(box=bytes(32), port=0, host6="", sessions_count=0, load_permille=0)


class RelayingService:
    """Keeps the finder as the records, the facts and the reports have it."""

    name: ClassVar[str] = "relay-directory"

    def __init__(
        self,
        *,
        ledger: Ledger,
        gossip: Gossip,
        own: Callable[[], OwnRelay],
        dead: Callable[[], Collection[str]],
        ask: Callable[[Relay], Awaitable[float | None]] | None,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._gossip = gossip
        self._own = own
        self._dead = dead
        self._ask = ask
        self._clock = clock
        self._registered: set[str] = set()
        self._finder = Finder()
        self._hearing = Hearing()
        self._probes = Probes()
        self.lifesigns = Lifesigns()
        self.reports = RelayReports(ledger=ledger, directory=self, clock=clock)
        self._voices: dict[str, Voices] = {}
        self._is_news = True
        self._looked_s = 0.0
        self._told: RelayPayload | None = None
        self._told_s = 0.0
        self._turn = 0
        self._is_subscribed = False
        self._state = HealthState.STOPPED
        self._trouble = ""
        self._tasks = TaskOwner("relay-directory", on_crash=self._on_crash)

    async def start(self) -> None:
        """Read the records and follow them from now on."""
        state = self._ledger.state
        rows = state.scan(relays_view.VIEW)
        found = await asyncio.to_thread(lambda: [key for _, key, _ in rows])
        self._registered = set(found)
        if not self._is_subscribed:
            self._ledger.subscribe([relays_view.VIEW], self._on_records)
            self._ledger.subscribe(["roster", trust_view.VIEW], lambda _: self.hurry())
            self._gossip.subscribe_facts(self._on_fact)
        self._is_subscribed = True
        self._state, self._trouble = HealthState.OK, ""
        self.look()
        self._tasks.spawn(self._look_forever(), name="relay-directory-look")
        if self._ask is not None:
            self._tasks.spawn(self._ask_forever(self._ask), name="relay-directory-ask")

    async def stop(self) -> None:
        """Look no more; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()

    def health(self) -> Health:
        """Say how many relays there are, and how many of them are offered."""
        if self._trouble:
            return Health(state=self._state, detail=self._trouble)
        relays = self._finder.all()
        usable = sum(not one.why_not for one in relays)
        return Health(state=self._state, detail=f"{len(relays)} relays, {usable} usable")

    def hurry(self) -> None:
        """Look again soon: something changed."""
        self._is_news = True

    def get(self, relay_id: str) -> Relay | None:
        """Return a relay, usable or not."""
        return self._finder.get(relay_id)

    def all(self) -> list[Relay]:
        """Return every relay, usable or not."""
        return self._finder.all()

    def nearest(
        self,
        ends: Sequence[str | None],
        *,
        limit: int,
        excluded: Collection[str] = (),
        versions: Sequence[Collection[int]] = (),
    ) -> list[Found]:
        """Return the usable relays that cost least between these regions; see ``Finder``."""
        return self._finder.nearest(ends, limit=limit, excluded=excluded, versions=versions)

    def latency_ms(self, relay_id: str) -> float | None:
        """Return how long a relay takes to answer this server; None where it was not asked."""
        return self._probes.latency_ms(relay_id)

    def voices_count(self, relay_id: str) -> int:
        """Return how many voices there are on a relay."""
        own = {name.hex() for name in self._voices.get(relay_id, ())}
        told = self._hearing.of_relay(raw_relay(relay_id))
        return len(own.union(*told))

    def look(self) -> None:
        """Go by what is known now."""
        now_s = self._clock.monotonic_s()
        charter = self._ledger.charter
        self._is_news, self._looked_s = False, now_s
        self._hearing.keep_only(lambda name: charter.server(ServerId(name)) is not None, now_s)
        known = {one.relay_id: one for one in self._known()}
        for gone in [one.relay_id for one in self._finder.all() if one.relay_id not in known]:
            self._finder.remove(gone)
        self.reports.keep_only(known.__contains__)
        self._probes.keep_only(known.__contains__)
        self.lifesigns.keep_only(known.__contains__)
        self._voices = self._own_voices()
        for relay in known.values():
            judged = self._judged(relay, now_s)
            if judged != self._finder.get(relay.relay_id):
                self._finder.put(judged)

    def _known(self) -> list[Relay]:
        state, charter = self._ledger.state, self._ledger.charter
        servers = relays_of_servers(
            charter,
            told=self._gossip.facts(RELAY),
            addresses=self._gossip.addresses(),
            untrusted=[
                name for name in charter.servers() if state.get(trust_view.VIEW, name) is not None
            ],
            dead=self._dead(),
        )
        # A server that was registered, too, goes by what it tells now.
        return [*community_relays(state, sorted(self._registered)), *servers]

    def _own_voices(self) -> dict[str, Voices]:
        voices = self.reports.voices()
        for relay in self._finder.all():
            seen = self._probes.quality(relay.relay_id)
            if seen is not None:
                voices.setdefault(relay.relay_id, {})[OWN_VOICE] = seen
        return voices

    def _judged(self, relay: Relay, now_s: float) -> Relay:
        told = self._hearing.of_relay(raw_relay(relay.relay_id))
        sign = self.lifesigns.of(relay.relay_id, now_s)
        is_silent = self._probes.is_down(relay.relay_id)
        # One that tells another server now is not down: it answers when it is asked.
        is_told = sign is None or sign.is_fresh or self._probes.is_answering(relay.relay_id)
        judged = dataclasses.replace(
            relay,
            reputation=reputation_of(self._voices.get(relay.relay_id, {}), told),
            is_up=relay.is_up and is_told and not is_silent,
        )
        if sign is None:
            return judged
        return dataclasses.replace(
            judged, load_permille=sign.load_permille, sessions_count=sign.sessions_count
        )

    def tell(self) -> None:
        """Tell the others of the own relay and of the voices heard here, if it is time to."""
        now_s, own = self._clock.monotonic_s(), self._own()
        is_new = self._told is None or (self._told.box, self._told.port, self._told.host6) != (
            own.box,
            own.port,
            own.host6,
        )
        servers_count = len(self._ledger.charter.servers())
        if not is_new and now_s - self._told_s < max(MIN_TELL_S, 16.0 * servers_count):
            return
        held = {raw_relay(relay_id): voices for relay_id, voices in self._voices.items()}
        payload = RelayPayload(
            box=own.box,
            port=own.port,
            host6=own.host6,
            sessions_count=own.sessions_count,
            load_permille=own.load_permille,
            voices=worth_telling(held, self._turn),
        )
        if payload == self._told and now_s - self._told_s < RENEW_S:
            return
        try:
            self._gossip.publish_fact(RELAY, encode_payload(payload))
        except SeipdError as error:
            self._trouble = f"not told: {error}"
            logger.debug("relay directory: not told: %s", error)
            return
        self._trouble = ""
        self._told, self._told_s, self._turn = payload, now_s, self._turn + 1
        self.hurry()

    async def _look_forever(self) -> None:
        gap_s = LOOK_S
        while True:
            self.tell()
            begun_s = self._clock.monotonic_s()
            since_s = begun_s - self._looked_s
            if since_s >= LOOK_OVER_S or (self._is_news and since_s >= gap_s):
                self.look()
                # In a large mesh there is always news, and a look takes its time.
                gap_s = LOOK_SHARE * (self._clock.monotonic_s() - begun_s)
            await asyncio.sleep(LOOK_S)

    async def _ask_forever(self, ask: Callable[[Relay], Awaitable[float | None]]) -> None:
        turn, asked_s = 0, self._clock.monotonic_s() - INTERVAL_S
        while True:
            relays = self._to_ask(turn)
            if self._clock.monotonic_s() - asked_s >= INTERVAL_S:
                turn, asked_s = turn + 1, self._clock.monotonic_s()
            else:
                # In between those that nobody asked yet: whoever is new is known soon.
                relays = [one for one in relays if not self._probes.is_known(one.relay_id)]
            for relay in relays:
                with contextlib.suppress(UnavailableError):
                    self._probes.put(relay.relay_id, await ask(relay))
                    self._is_news = True
            await asyncio.sleep(ASK_LOOK_S)

    def _to_ask(self, turn: int) -> list[Relay]:
        own_id = self._ledger.server_id
        own = self._ledger.charter.server(own_id)
        near = self._finder.nearest([own.region if own else None], limit=ASKED_AT_ONCE)
        doubtful = [one.relay_id for one in self._finder.all() if one.why_not]
        names = next_to_ask(
            [one.relay.relay_id for one in near], doubtful, turn=turn, limit=ASKED_AT_ONCE
        )
        found = [self._finder.get(name) for name in names]
        return [one for one in found if one is not None and one.server_id != own_id]

    def _on_records(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.new is None:
                self._registered.discard(change.key)
            else:
                self._registered.add(change.key)
        self._is_news = True

    def _on_fact(self, fact: Fact) -> None:
        if fact.kind != RELAY:
            return
        said = relay_told(fact)
        if said is not None and fact.server_id != self._ledger.server_id:
            self._hearing.learn(fact.server_id, said.voices, self._clock.monotonic_s())
        self._is_news = True

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._state, self._trouble = HealthState.FAILED, f"{task} ended: {error!r}"
