"""Which endpoints are here, where each may be reached, and what it has heard of changes. Pure.

An endpoint is here while it says so: who is silent for a minute is forgotten. Each datagram costs
the same however many there are. What an endpoint says of its own addresses is kept as it is, up to
a bound, and judged when another is told of it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.edge.punch.messages import (
    CandidateKind,
    Changed,
    Known,
    What,
    encode,
    host_bytes,
    tunnel_bytes,
)
from services.edge.punch.repeats import Repeats
from services.kernel.budget import Budget

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from services.edge.punch.messages import Candidate, Here
    from services.edge.punch.parties import Parties, Party

SILENT_S: Final = 60.0
MAX_HERE: Final = 1 << 20
MAX_PER_HOST: Final = 4
MAX_TOLD: Final = 256
"""As many paths as an endpoint has."""
LOOK_GRACE_S: Final = 1.0
CHANGED_AGAIN_S: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
ASKS_PER_S: Final = 4.0
ASKS_AT_ONCE: Final = 128.0
MEETINGS_PER_S: Final = 8.0
MEETINGS_AT_ONCE: Final = 256.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A datagram, and the address inside of the mesh that it is for."""

    host: str
    data: bytes


@dataclass(slots=True, kw_only=True, eq=False)
class Presence:
    """One endpoint that is here."""

    address: str
    tunnel: bytes
    """The same, as messages name it."""
    node_id: str
    key: bytes
    counter: int
    candidates: tuple[Candidate, ...] | None
    """None: it wants to meet nobody."""
    is_symmetric: bool
    heard_s: float
    fresh_s: float
    """Readings of the device from before say nothing of it."""
    policy_version: int
    peers_version: int
    observed: tuple[bytes, int] | None = None
    asks: Budget | None = None
    meetings: Budget | None = None
    told_of: OrderedDict[bytes, None] | None = None
    """Whom it was told to meet, the newest last."""

    def may_ask(self, amount: float, now_s: float) -> bool:
        """Say whether it may want something more now."""
        if self.asks is None:
            self.asks = Budget(rate_per_s=ASKS_PER_S, burst=ASKS_AT_ONCE, now_s=now_s)
        return self.asks.spend(amount, now_s)

    def may_be_met(self, now_s: float) -> bool:
        """Say whether it may be told of one more who wants to meet it now."""
        if self.meetings is None:
            self.meetings = Budget(rate_per_s=MEETINGS_PER_S, burst=MEETINGS_AT_ONCE, now_s=now_s)
        return self.meetings.spend(1.0, now_s)

    def version(self, what: What) -> int:
        """Return the newest version of something that concerns it."""
        return self.policy_version if what is What.POLICY else self.peers_version

    def set_version(self, what: What, version: int) -> None:
        """Have something changed that concerns it."""
        if what is What.POLICY:
            self.policy_version = version
        else:
            self.peers_version = version


class Book:
    """The endpoints that are here."""

    def __init__(self, *, parties: Parties, first_version: int) -> None:
        """Prepare.

        Args:
            parties: who is who.
            first_version: other than what a server before this one told, as a clock gives it.
        """
        self._parties = parties
        self._here: OrderedDict[str, Presence] = OrderedDict()
        self._by_key: dict[bytes, Presence] = {}
        self._by_node: dict[str, Presence] = {}
        self._told: dict[bytes, set[str]] = {}
        self._version = first_version
        self._versions = dict.fromkeys(What, first_version)
        self._unheard: Repeats[tuple[str, What]] = Repeats(CHANGED_AGAIN_S, limit=2 * MAX_HERE)
        self.wants_look = False
        """Somebody's observed address is not known."""

    def __len__(self) -> int:
        """How many are here."""
        return len(self._here)

    @property
    def unheard_count(self) -> int:
        """How many changes were not heard of yet."""
        return len(self._unheard)

    def get(self, address: str) -> Presence | None:
        """Return an endpoint that is here."""
        return self._here.get(address)

    def own_party(self, address: str) -> Party | None:
        """Return the endpoint that holds an address, if it is this server that carries it."""
        party = self._parties.party(address)
        return party if party is not None and party.carrier == self._parties.own_id else None

    def here(self, address: str, message: Here, now_s: float) -> list[Outgoing]:
        """Take an endpoint's word that it is here; return the answer, none to a stranger."""
        party = self.own_party(address)
        if party is None:
            return []
        one = self._here.get(address)
        if one is not None and (one.node_id, one.key) != (party.node_id, party.key):
            self._forget(one)
            one = None
        if one is None:
            if len(self._here) >= MAX_HERE:
                return []
            one = self._welcome(address, party, message, now_s)
        elif message.counter < one.counter and not message.is_fresh:
            return []
        elif message.counter != one.counter:
            self._renew(one, message, now_s)
        one.heard_s = now_s
        self._here.move_to_end(address)
        self._note_heard(one, message)
        return [self._known(one)]

    def greet(self, address: str) -> list[Outgoing]:
        """Answer an endpoint that speaks without having said that it is here: it says so then."""
        changed = Changed(what=What.POLICY, version=self._versions[What.POLICY])
        return [Outgoing(host=address, data=encode(changed))]

    def observe(self, key: bytes, host: str, port: int, began_s: float) -> list[Outgoing]:
        """Take where WireGuard sees a peer, by a reading that began at a time."""
        one = self._by_key.get(key)
        if one is None or began_s < one.fresh_s:
            return []
        observed = host_bytes(host), port
        if observed == one.observed:
            return []
        one.observed = observed
        return [self._known(one)]

    def is_settled(self, one: Presence, now_s: float) -> bool:
        """Say whether it is known where an endpoint comes from, or not worth waiting for."""
        return one.observed is not None or now_s - one.fresh_s > LOOK_GRACE_S

    def note_told(self, one: Presence, peer: bytes) -> None:
        """Note that an endpoint was told of another one, and may have a tunnel to it from now on.

        After a restart of the server nobody is noted; then again all versions are others, so that
        everybody looks for themselves.
        """
        told_of = one.told_of = one.told_of if one.told_of is not None else OrderedDict()
        told_of[peer] = None
        told_of.move_to_end(peer)
        self._told.setdefault(peer, set()).add(one.address)
        if len(told_of) > MAX_TOLD:
            self._untell(one, told_of.popitem(last=False)[0])

    def told_of(self, address: str) -> list[str]:
        """Return the nodes here that were told of the endpoint with an address."""
        found = self._told.get(tunnel_bytes(address), ())
        return [one.node_id for one in map(self._here.get, sorted(found)) if one is not None]

    def changed(
        self, what: What, nodes: Collection[str] | None, now_s: float
    ) -> Iterator[Outgoing]:
        """Tell those who are here of a change, all for None; lazily, since they may be many."""
        self._version += 1
        version = self._version
        # Whoever comes later has not heard of it, concerned or not.
        self._versions[what] = version
        found = list(self._here) if nodes is None else [*filter(None, map(self._address_of, nodes))]
        return self._tell(what, version, found, now_s)

    def tick(self, now_s: float) -> list[Outgoing]:
        """Forget the silent; return what is to be said again."""
        while (oldest := self._oldest()) is not None and now_s - oldest.heard_s >= SILENT_S:
            self._forget(oldest)
        again, _ = self._unheard.due(now_s)
        return [
            self._change(one, what)
            for address, what in again
            if (one := self._here.get(address)) is not None
        ]

    @property
    def next_s(self) -> float:
        """When ``tick`` has something to do next."""
        oldest = self._oldest()
        silent_s = oldest.heard_s + SILENT_S if oldest is not None else float("inf")
        return min(silent_s, self._unheard.next_s)

    def _oldest(self) -> Presence | None:
        return next(iter(self._here.values()), None)

    def _tell(
        self, what: What, version: int, addresses: list[str], now_s: float
    ) -> Iterator[Outgoing]:
        for one in filter(None, map(self._here.get, addresses)):
            if one.version(what) < version:
                one.set_version(what, version)
                self._unheard.sent((one.address, what), now_s)
                yield self._change(one, what)

    def _address_of(self, node_id: str) -> str | None:
        one = self._by_node.get(node_id)
        return one.address if one is not None else None

    def _welcome(self, address: str, party: Party, message: Here, now_s: float) -> Presence:
        one = Presence(
            address=address,
            tunnel=tunnel_bytes(address),
            node_id=party.node_id,
            key=party.key,
            counter=message.counter,
            candidates=_kept(message.candidates),
            is_symmetric=message.is_symmetric,
            heard_s=now_s,
            fresh_s=now_s,
            policy_version=self._versions[What.POLICY],
            peers_version=self._versions[What.PEERS],
        )
        self._here[address] = one
        self._by_key[one.key] = one
        self._by_node[one.node_id] = one
        self.wants_look = True
        return one

    def _renew(self, one: Presence, message: Here, now_s: float) -> None:
        one.counter = message.counter
        one.candidates = _kept(message.candidates)
        one.is_symmetric = message.is_symmetric
        if message.is_fresh:
            one.fresh_s = now_s
            one.observed = None
        if one.observed is None:
            self.wants_look = True

    def _forget(self, one: Presence) -> None:
        del self._here[one.address]
        # Another may have them by now: a key or a node that moved to a new address.
        if self._by_key.get(one.key) is one:
            del self._by_key[one.key]
        if self._by_node.get(one.node_id) is one:
            del self._by_node[one.node_id]
        for peer in one.told_of or ():
            self._untell(one, peer)

    def _untell(self, one: Presence, peer: bytes) -> None:
        told = self._told.get(peer)
        if told is not None:
            told.discard(one.address)
            if not told:
                del self._told[peer]

    def _note_heard(self, one: Presence, message: Here) -> None:
        shown = {What.POLICY: message.policy_version, What.PEERS: message.peers_version}
        for what, version in shown.items():
            if version == one.version(what):
                self._unheard.settle((one.address, what))

    def _known(self, one: Presence) -> Outgoing:
        host, port = one.observed or (b"", 0)
        known = Known(
            counter=one.counter,
            observed_host=host,
            observed_port=port,
            policy_version=one.policy_version,
            peers_version=one.peers_version,
        )
        return Outgoing(host=one.address, data=encode(known))

    def _change(self, one: Presence, what: What) -> Outgoing:
        changed = Changed(what=what, version=one.version(what))
        return Outgoing(host=one.address, data=encode(changed))


def _kept(candidates: tuple[Candidate, ...] | None) -> tuple[Candidate, ...] | None:
    """Return what is kept of an endpoint's word: few ports of one host, nothing in our own name."""
    if candidates is None:
        return None
    of_host: dict[bytes, int] = {}
    kept = []
    for one in candidates:
        count = of_host.get(one.host, 0)
        if one.kind is not CandidateKind.OBSERVED and count < MAX_PER_HOST:
            of_host[one.host] = count + 1
            kept.append(one)
    return tuple(kept)
