"""Whatever endpoints say in whatever order, the book and the data path fit together."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.edge.relay.messages import NO_TOKEN, Bound, Verb
from services.edge.relay.model import Granted, Link, Tell, Unlink
from tests.fakes.relay_book import NOW_MS, Played, book_of, key_of, ticket_for

KEYS = [key_of(at) for at in range(1, 5)]
ADDRESSES = [("198.18.1.1", 5000), ("198.18.1.1", 5001), ("203.0.113.5", 5000), ("10.0.0.1", 99)]
pairs = st.sampled_from([(a, b) for a in KEYS for b in KEYS if a != b])
addresses = st.sampled_from(ADDRESSES)


def refused(host: str, port: int) -> str | None:
    return "private" if host.startswith("10.") else None


class Sessions(RuleBasedStateMachine):
    """Endpoints that bind from everywhere, against a path that is told of links alone."""

    def __init__(self) -> None:
        super().__init__()
        self.played = Played(book_of(why_refused=refused, sessions=5, sessions_per_client=3))
        self.granted: dict = {}
        self.linked: dict[int, Link] = {}

    def follow(self, effects) -> None:
        for one in effects:
            if isinstance(one, Link):
                assert one.number not in self.linked
                assert one.a.place.port == one.b.place.port
                self.linked[one.number] = one
            elif isinstance(one, Unlink):
                there = self.linked.pop(one.number)
                assert (there.a, there.b) == (one.a, one.b)

    @rule(pair=pairs, address=addresses, host=st.sampled_from(["198.18.0.1", "198.18.0.2"]))
    def allocate(self, pair, address, host) -> None:
        ticket = ticket_for(*pair)
        granted = self.played.allocate(ticket, pair[0], address, host=host)
        self.follow(self.played.effects)
        if isinstance(granted, Granted):
            self.granted[pair] = granted

    @rule(pair=pairs, address=addresses, verb=st.sampled_from(Verb), has_token=st.booleans())
    def say(self, pair, address, verb, has_token) -> None:
        granted = self.granted.get(pair)
        if granted is None:
            return
        token = granted.token if has_token else NO_TOKEN
        effects = self.played.say(granted, address, verb, token=token)
        self.follow(effects)
        for one in effects:
            if isinstance(one, Tell) and isinstance(one.answer, Bound):
                assert one.address[0] != "10.0.0.1" or one.answer.state == 0

    @rule(key=st.sampled_from(KEYS))
    def revoke(self, key) -> None:
        self.follow(self.played.book.revoke(key))

    @rule(seconds=st.integers(1, 70))
    def wait(self, seconds) -> None:
        self.played.now_s += seconds
        self.follow(self.played.book.sweep(now_ms=NOW_MS, now_s=self.played.now_s))

    @invariant()
    def the_path_carries_what_the_book_says(self) -> None:
        book = self.played.book
        says = {number: book.sides(number) for number in book.numbers()}
        assert {number: one for number, one in says.items() if one is not None} == self.linked

    @invariant()
    def one_address_at_one_port_is_one_direction(self) -> None:
        seen: dict = {}
        for number in self.played.book.numbers():
            for direction in (2 * number, 2 * number + 1):
                party = self.played.book.party(direction)
                if party.address is None:
                    continue
                assert party.place.bound[party.address] == direction
                assert party.address[0] != "10.0.0.1"
                where = (party.place, party.address)
                assert where not in seen
                seen[where] = direction

    @invariant()
    def no_client_has_two_sessions_at_one_port(self) -> None:
        for key in KEYS:
            numbers = self.played.book.numbers()
            parties = [self.played.book.party(2 * n + side) for n in numbers for side in (0, 1)]
            ports = [p.place.port for p in parties if p.key == key and p.place is not None]
            assert len(ports) == len(set(ports)) <= 3

    @invariant()
    def there_are_no_more_than_allowed(self) -> None:
        assert len(self.played.book) <= 5


TestSessions = Sessions.TestCase
TestSessions.settings = settings(stateful_step_count=40, deadline=None)
