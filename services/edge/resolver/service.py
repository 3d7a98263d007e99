"""The resolver for endpoints: completes what the name server has no answer for.

The name server's sockets are its own. It looks up for endpoints alone, each has so many questions
in flight at most, and two that ask the same wait for one answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from services.edge.dns.wire import CLASS_IN, Flag, QueryError, Rcode, Type, parse_query
from services.edge.resolver.cache import AnswerCache
from services.edge.resolver.exchange import exchange
from services.edge.resolver.messages import (
    Answer,
    Asked,
    asked_in,
    encode_answer,
    limit_of,
    loose_end,
    parse_answer,
)
from services.edge.resolver.upstreams import Ranking, nameservers_in, not_ourselves
from services.kernel.errors import SeipdError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from services.edge.dns.wire import Query
    from services.edge.resolver.routing import Route, Routes
    from services.kernel.clock import Clock
    from services.runtime.udp import Address

logger = logging.getLogger(__name__)

READ_AGAIN_S: Final = 30.0
WHOLE_S: Final = 5.0
ROUNDS: Final = 2
FAILED_S: Final = 5.0
"""How long nobody is asked again about a name after all failed (RFC 9520)."""
MAX_FLIGHT: Final = 1024
MAX_FLIGHT_PER_SOURCE: Final = 64
_META_TYPES: Final = range(128, 256)
# Type and class of an alias, as they stand in each.
_ALIAS: Final = b"\0\5\0\1"
_DS: Final = 43
_DS_TAIL: Final = b"\0\x2b\0\1"
_UNUSABLE: Final = Answer(rcode=Rcode.SERVFAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverSettings:
    """Whom to ask."""

    upstreams: tuple[Address, ...] | None
    """None: the name servers of this machine."""
    own: Collection[str]
    """Addresses of this machine's name server, which is never asked."""
    is_inner: Callable[[IPv4Address | IPv6Address], bool]
    """Whether an address lies inside of the mesh: no name of others may lead there."""
    resolv_conf: Path


class ResolverService:
    """Looks up names for endpoints; satisfies Recursion."""

    name: ClassVar[str] = "resolver"

    def __init__(self, *, settings: ResolverSettings, routes: Routes, clock: Clock) -> None:
        self._settings = settings
        self._routes = routes
        self._clock = clock
        self._cache = AnswerCache()
        self._ranking = Ranking()
        self._flight: Counter[str] = Counter()
        self._pending: dict[tuple[Asked, Route], asyncio.Task[Answer]] = {}
        self._tasks = TaskOwner("resolver")
        self._state = HealthState.STOPPED
        self._counts = dict.fromkeys(("looked_up", "refused", "failed"), 0)

    async def start(self) -> None:
        """Find out whom to ask."""
        await self._find_upstreams()
        if self._settings.upstreams is None:
            self._tasks.spawn(self._find_forever(), name="resolver-upstreams")
        self._state = HealthState.OK

    async def stop(self) -> None:
        """Look up no more; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()

    def health(self) -> Health:
        """Say who is asked."""
        asked = ", ".join(host for host, _ in self._routes.upstreams)
        return Health(state=self._state, detail=f"asks {asked or 'nobody'}")

    def counters(self) -> Mapping[str, int]:
        """Return every number that only grows by its name; the names are fixed."""
        return {**self._counts, "cache_hits": self._cache.hit_count}

    @property
    def flight_count(self) -> int:
        """How many questions of endpoints wait for an answer."""
        return self._flight.total()

    @property
    def cached_count(self) -> int:
        """How many answers are kept."""
        return len(self._cache)

    def complete(
        self, data: bytes, answer: bytes, source: str, *, stream: bool
    ) -> bytes | asyncio.Future[bytes]:
        """Return what an endpoint is told, soon where it has to be looked up.

        Args:
            data: what was asked.
            answer: of the name server.
            source: who asked, by an address inside of the mesh.
            stream: whether it asked over TCP.
        """
        if not answer[2] & 1 or not self._routes.serves(source):
            return answer
        rcode = answer[3] & 0xF
        if rcode != Rcode.REFUSED and _ALIAS not in answer and _DS_TAIL not in data:
            return _with_recursion(answer)
        try:
            query = parse_query(data)
        except QueryError:
            return answer
        if query.qclass != CLASS_IN or (query.qtype in _META_TYPES and query.qtype != Type.ANY):
            return answer
        asked = asked_in(query)
        if rcode == Rcode.REFUSED:
            return self._begin(query, asked, None, source, stream=stream)
        return self._go_on(query, asked, answer, source, stream=stream) or _with_recursion(answer)

    def _go_on(
        self, query: Query, asked: Asked, answer: bytes, source: str, *, stream: bool
    ) -> bytes | asyncio.Future[bytes] | None:
        """Look up what an answer of the mesh leads to; None where it is all there is to say."""
        local = parse_answer(answer, asked, answer[:2], query.name, stream=True)
        if local is None:
            return None
        if _is_the_parents(asked, local) and self._routes.route(asked.name, source).upstreams:
            return self._begin(query, asked, None, source, stream=stream)
        end = loose_end(local, asked)
        if end is None:
            return None
        return self._begin(query, replace(asked, name=end), local, source, stream=stream)

    def _begin(
        self, query: Query, asked: Asked, local: Answer | None, source: str, *, stream: bool
    ) -> bytes | asyncio.Future[bytes]:
        """Answer from what is kept, or ask; ``local`` is what stands before what is looked up."""
        route = self._routes.route(asked.name, source)
        limit = limit_of(query, stream=stream)
        kept = self._cache.get((asked, route), now_s=self._clock.monotonic_s())
        if kept is not None:
            return encode_answer(query, _joined(local, kept[0]), age_s=kept[1], limit=limit)
        if (
            self._flight[source] >= MAX_FLIGHT_PER_SOURCE
            or self._flight.total() >= MAX_FLIGHT
            or not route.upstreams
        ):
            self._counts["refused"] += 1
            return encode_answer(query, _UNUSABLE, limit=limit)
        self._flight[source] += 1

        async def soon() -> bytes:
            found = await self._look_up(asked, route)
            return encode_answer(query, _joined(local, found), limit=limit)

        task = self._tasks.spawn(soon(), name="resolver-question")
        task.add_done_callback(lambda _: self._landed(source))
        return task

    def _landed(self, source: str) -> None:
        self._flight[source] -= 1
        if not self._flight[source]:
            del self._flight[source]

    async def _look_up(self, asked: Asked, route: Route) -> Answer:
        """Ask once for all who want to know the same now."""
        key = (asked, route)
        pending = self._pending.get(key)
        if pending is None:
            pending = self._tasks.spawn(self._ask_in_turn(asked, route), name="resolver-upstream")
            self._pending[key] = pending
            pending.add_done_callback(lambda _: self._pending.pop(key, None))
        return await asyncio.shield(pending)

    async def _ask_in_turn(self, asked: Asked, route: Route) -> Answer:
        self._counts["looked_up"] += 1
        try:
            async with asyncio.timeout(WHOLE_S):
                for upstream in self._ranking.ranked(route.upstreams) * ROUNDS:
                    found = await self._ask(upstream, asked)
                    if found is not None:
                        return self._kept(asked, route, found)
        except TimeoutError:
            pass
        self._counts["failed"] += 1
        now_s = self._clock.monotonic_s()
        self._cache.put((asked, route), _UNUSABLE, now_s=now_s, ttl_s=FAILED_S)
        return _UNUSABLE

    async def _ask(self, upstream: Address, asked: Asked) -> Answer | None:
        """Return what one says; None where that is nothing to go by."""
        try:
            found = await exchange(upstream, asked)
        except SeipdError as error:
            logger.debug("upstream: %s", error)
            found = _UNUSABLE
        if found.rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
            self._ranking.failed(upstream, now_s=self._clock.monotonic_s())
            return None
        self._ranking.answered(upstream)
        return found

    def _kept(self, asked: Asked, route: Route, found: Answer) -> Answer:
        if not route.is_split:
            found = found.without_addresses(self._settings.is_inner)
        self._cache.put((asked, route), found, now_s=self._clock.monotonic_s())
        return found

    async def _find_forever(self) -> None:
        while True:
            await asyncio.sleep(READ_AGAIN_S)
            await self._find_upstreams()

    async def _find_upstreams(self) -> None:
        """Go by the setting, or by this machine's own resolv.conf as it is now."""
        settings = self._settings
        upstreams = settings.upstreams
        if upstreams is None:
            try:
                text = await asyncio.to_thread(settings.resolv_conf.read_text, errors="replace")
            except OSError:
                text = ""
            upstreams = nameservers_in(text)
        usable = not_ourselves(upstreams, settings.own)
        if usable != self._routes.upstreams:
            self._routes.upstreams = usable
            self._cache.clear()


def _joined(local: Answer | None, found: Answer) -> Answer:
    if local is None:
        return found
    return replace(found, answers=(*local.answers, *found.answers))


def _is_the_parents(asked: Asked, local: Answer) -> bool:
    """Say whether it is the zone above that answers: for what is at the top of ours, about DS."""
    if asked.rtype != _DS or local.answers:
        return False
    return any(one.rtype == Type.SOA and one.name == asked.name for one in local.authority)


def _with_recursion(answer: bytes) -> bytes:
    """Say that questions are looked up here."""
    return answer[:3] + bytes([answer[3] | Flag.RA]) + answer[4:]
