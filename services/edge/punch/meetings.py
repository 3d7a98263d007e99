"""Who meets whom: the calls of endpoints, here and between servers. Pure.

The caller repeats its call until it hears of the meeting, so nothing but what the one who is called
is told is repeated here. A call that comes again is the same meeting, with the same offers: for a
few seconds it is remembered. Two who call each other at once have one meeting. Between two servers
the one of the caller asks the one that carries the other; each judges what its own endpoint is told
of.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from services.edge.punch.book import Outgoing
from services.edge.punch.messages import (
    Nothing,
    Pass,
    Passed,
    Refused,
    Why,
    encode,
    host_text,
)
from services.edge.punch.telling import Side, fitted, side_of, versions_of
from services.kernel.budget import Budget

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from services.edge.punch.book import Book, Presence
    from services.edge.punch.messages import Call, Message, RelayOffer
    from services.edge.punch.parties import Parties, Party
    from services.edge.punch.telling import Teller
    from services.kernel.ids import ServerId

MEETING_S: Final = 5.0
MAX_MEETINGS: Final = 8192
SERVER_ASKS_PER_S: Final = 500.0
SERVER_ASKS_AT_ONCE: Final = 2000.0


class Policy(Protocol):
    """Who may reach whom, by the ids of their nodes."""

    def may_meet(self, one: str, other: str, /) -> bool:
        """Say whether packets between the two are let through at all."""


class Offers(Protocol):
    """Gives out tickets for relays."""

    def offers(
        self,
        one: str,
        other: str,
        excluded: Collection[bytes],
        versions: Sequence[Collection[int]],
        /,
    ) -> Sequence[RelayOffer]:
        """Return the relays that would carry for two nodes, best first; two at most.

        ``versions``: of IP, that each of the two is seen by from outside, as far as that is known.
        """


class NoOffers:
    """There are no relays; satisfies Offers."""

    def offers(
        self,
        one: str,
        other: str,
        excluded: Collection[bytes],
        versions: Sequence[Collection[int]],
        /,
    ) -> Sequence[RelayOffer]:
        """Return none."""
        return ()


_Pair = tuple[bytes, bytes]


@dataclass(slots=True, kw_only=True)
class _Meeting:
    """A call that was taken a moment ago."""

    number: int
    """Of the call as its sender counts."""
    made_s: float
    answer: Outgoing
    """What the call is answered with where it comes again."""
    told: Outgoing | None = None
    """What the one who was called was told, if it is here."""
    asked: Pass | None = None
    """What another server was asked, while it has not answered."""


class Meetings:
    """Brings endpoints together that are in the book, and those of other servers with them."""

    def __init__(
        self, *, book: Book, parties: Parties, policy: Policy, offers: Offers, teller: Teller
    ) -> None:
        self._book = book
        self._parties = parties
        self._policy = policy
        self._offers = offers
        self._teller = teller
        self._called: OrderedDict[_Pair, _Meeting] = OrderedDict()
        self._passed: OrderedDict[_Pair, _Meeting] = OrderedDict()
        self._budgets: dict[ServerId, Budget] = {}
        self.counts = dict.fromkeys(("met", "passed", "refused"), 0)

    def call(self, caller: Presence, message: Call, now_s: float) -> list[Outgoing]:
        """Take the call of an endpoint that is here."""
        pair = caller.tunnel, message.peer
        held = self._recent(self._called, pair, caller, now_s)
        if held is not None and held.number == message.counter:
            return [held.answer]
        told = self._told_already(caller, message, now_s)
        if told is not None:
            return [told]
        if not caller.may_ask(1.0, now_s):
            return self._no(caller, message.peer, Why.BUSY)
        party = self._parties.party(host_text(message.peer))
        if party is None or party.carrier is None or party.node_id == caller.node_id:
            return self._no(caller, message.peer, Why.UNKNOWN)
        if not self._policy.may_meet(caller.node_id, party.node_id):
            return self._no(caller, message.peer, Why.FORBIDDEN)
        if not self._book.is_settled(caller, now_s):
            # The device is being read; the caller asks again in a moment.
            return []
        if party.carrier != self._parties.own_id:
            return self._ask(party.carrier, caller, message, party, now_s)
        return self._bring_together(caller, message, now_s)

    def on_pass(self, server_id: ServerId, message: Pass, now_s: float) -> list[Outgoing]:
        """Take a call that another server passes on."""
        pair = message.caller, message.peer
        caller = self._parties.party(host_text(message.caller))
        if caller is None or caller.carrier != server_id or not self._may_pass(server_id, now_s):
            return []
        called = self._book.get(host_text(message.peer))
        held = self._recent(self._passed, pair, called, now_s)
        if held is not None and held.number == message.serial:
            return [held.answer]
        own = self._recent(self._called, (message.peer, message.caller), called, now_s)
        if own is not None and own.asked is not None and message.peer < message.caller:
            # Both called at once: the call of the lower address is the meeting.
            return []
        why = self._why_not(caller, called, message, now_s)
        if why is not None:
            self.counts["refused"] += 1
            return self._answer(server_id, _refused(message, why))
        if called is None or not self._book.is_settled(called, now_s):
            return []
        return self._meet_from_afar(server_id, caller, called, message, now_s)

    def on_passed(self, server_id: ServerId, message: Passed) -> list[Outgoing]:
        """Take another server's word that its endpoint was told."""
        held, caller = self._asked(server_id, message)
        if held is None or caller is None or held.asked is None:
            return []
        party = self._parties.party(host_text(message.peer))
        if party is None:
            return []
        other = Side(
            tunnel=message.peer,
            key=party.key,
            candidates=message.candidates,
            is_symmetric=message.is_symmetric,
            observed=message.observed,
        )
        held.answer = self._teller.meet(
            side_of(caller), other, held.asked.offers, self._teller.next_serial()
        )
        held.asked = None
        self._book.note_told(caller, message.peer)
        return [held.answer]

    def on_refused(self, server_id: ServerId, message: Refused) -> list[Outgoing]:
        """Take another server's word that its endpoint is not told."""
        held, caller = self._asked(server_id, message)
        if held is None or caller is None:
            return []
        del self._called[message.caller, message.peer]
        return self._no(caller, message.peer, message.why)

    def _told_already(self, caller: Presence, message: Call, now_s: float) -> Outgoing | None:
        """Return what the caller was told a moment ago since the other one called."""
        if message.excluded:
            return None
        pair = message.peer, caller.tunnel
        for meetings in (self._called, self._passed):
            held = self._recent(meetings, pair, caller, now_s)
            if held is not None and held.told is not None:
                return held.told
        return None

    def _bring_together(self, caller: Presence, message: Call, now_s: float) -> list[Outgoing]:
        called = self._book.get(host_text(message.peer))
        if called is None or called.candidates is None:
            return self._no(caller, message.peer, Why.AWAY)
        if not self._book.is_settled(called, now_s):
            return []
        if not called.may_be_met(now_s):
            return self._no(caller, message.peer, Why.BUSY)
        serial, one, other = self._teller.next_serial(), side_of(caller), side_of(called)
        versions = versions_of(one), versions_of(other)
        offers = tuple(
            self._offers.offers(caller.node_id, called.node_id, message.excluded, versions)
        )
        told = self._teller.meet(other, one, offers, serial)
        answer = self._teller.meet(one, other, offers, serial)
        self._teller.repeat(told, caller.tunnel, serial, now_s)
        meeting = _Meeting(number=message.counter, made_s=now_s, answer=answer, told=told)
        _remember(self._called, (caller.tunnel, called.tunnel), meeting)
        self._book.note_told(caller, called.tunnel)
        self._book.note_told(called, caller.tunnel)
        self.counts["met"] += 1
        return [told, answer]

    def _ask(
        self, carrier: ServerId, caller: Presence, message: Call, party: Party, now_s: float
    ) -> list[Outgoing]:
        side = side_of(caller)
        # Of the other only its own server knows by what it is seen.
        offers = self._offers.offers(
            caller.node_id, party.node_id, message.excluded, [versions_of(side)]
        )
        asked = fitted(
            Pass(
                serial=self._teller.next_serial(),
                caller=caller.tunnel,
                peer=message.peer,
                candidates=side.candidates,
                is_symmetric=side.is_symmetric,
                observed=side.observed,
                offers=tuple(offers),
            )
        )
        out = self._answer(carrier, asked)
        if not out:
            return self._no(caller, message.peer, Why.UNREACHABLE)
        meeting = _Meeting(number=message.counter, made_s=now_s, answer=out[0], asked=asked)
        _remember(self._called, (caller.tunnel, message.peer), meeting)
        self.counts["passed"] += 1
        return out

    def _why_not(
        self, caller: Party, called: Presence | None, message: Pass, now_s: float
    ) -> Why | None:
        party = self._parties.party(host_text(message.peer))
        if party is None:
            return Why.UNKNOWN
        if party.carrier != self._parties.own_id or called is None or called.candidates is None:
            return Why.AWAY
        if not self._policy.may_meet(caller.node_id, party.node_id):
            return Why.FORBIDDEN
        if self._book.is_settled(called, now_s) and not called.may_be_met(now_s):
            return Why.BUSY
        return None

    def _meet_from_afar(
        self, server_id: ServerId, caller: Party, called: Presence, message: Pass, now_s: float
    ) -> list[Outgoing]:
        one = Side(
            tunnel=message.caller,
            key=caller.key,
            candidates=message.candidates,
            is_symmetric=message.is_symmetric,
            observed=message.observed,
        )
        other, serial = side_of(called), self._teller.next_serial()
        told = self._teller.meet(other, one, message.offers, serial)
        self._teller.repeat(told, message.caller, serial, now_s)
        self._book.note_told(called, message.caller)
        passed = Passed(
            serial=message.serial,
            caller=message.caller,
            peer=message.peer,
            candidates=other.candidates,
            is_symmetric=other.is_symmetric,
            observed=other.observed,
        )
        answer = self._answer(server_id, fitted(passed))
        if answer:
            meeting = _Meeting(number=message.serial, made_s=now_s, answer=answer[0], told=told)
            _remember(self._passed, (message.caller, message.peer), meeting)
        self.counts["met"] += 1
        return [told, *answer]

    def _asked(
        self, server_id: ServerId, message: Passed | Refused
    ) -> tuple[_Meeting | None, Presence | None]:
        """Return the call that a server answers, if it is the one that was asked."""
        held = self._called.get((message.caller, message.peer))
        if held is None or held.asked is None or held.asked.serial != message.serial:
            return None, None
        if self._parties.backbone_of(server_id) != held.answer.host:
            return None, None
        return held, self._book.get(host_text(message.caller))

    def _may_pass(self, server_id: ServerId, now_s: float) -> bool:
        budget = self._budgets.get(server_id)
        if budget is None:
            budget = self._budgets[server_id] = Budget(
                rate_per_s=SERVER_ASKS_PER_S, burst=SERVER_ASKS_AT_ONCE, now_s=now_s
            )
        return budget.spend(1.0, now_s)

    def _recent(
        self,
        meetings: OrderedDict[_Pair, _Meeting],
        pair: _Pair,
        one: Presence | None,
        now_s: float,
    ) -> _Meeting | None:
        """Return a meeting that still counts: young, and from since an endpoint came here."""
        held = meetings.get(pair)
        if held is None or one is None or now_s - held.made_s >= MEETING_S:
            return None
        return held if held.made_s >= one.fresh_s else None

    def _no(self, caller: Presence, peer: bytes, why: Why) -> list[Outgoing]:
        self.counts["refused"] += 1
        data = encode(Nothing(peer=peer, why=why))
        return [Outgoing(host=caller.address, data=data)]

    def _answer(self, server_id: ServerId, message: Message) -> list[Outgoing]:
        host = self._parties.backbone_of(server_id)
        return [Outgoing(host=host, data=encode(message))] if host is not None else []


def _refused(message: Pass, why: Why) -> Refused:
    return Refused(serial=message.serial, caller=message.caller, peer=message.peer, why=why)


def _remember(meetings: OrderedDict[_Pair, _Meeting], pair: _Pair, meeting: _Meeting) -> None:
    meetings.pop(pair, None)
    meetings[pair] = meeting
    if len(meetings) > MAX_MEETINGS:
        meetings.popitem(last=False)
