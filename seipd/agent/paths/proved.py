"""The endpoints that may get a tunnel of their own: those that a proof was shown of.

The server lists them; each is proved before its key is used, and remembered. Who is new has a proof
only after some seconds, so it is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final, Protocol

from seipd.agent.answer import peers_of
from seipd.agent.private_api import PrivateApi
from seipd.agent.proving import Prover
from seipd.agent.reporting import report_lie
from seipd.agent.trustlines import BELIEVED, PROVEN, REFUSED
from services.kernel.addr import assignable, slice_of
from services.kernel.errors import SeipdError
from services.kernel.ids import parse_key

if TYPE_CHECKING:
    from seipd.agent.proving import Verdict
    from seipd.agent.state import AgentState
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

AGAIN_S: Final = (1.5,) * 8 + (5.0,) * 10 + (60.0,)
"""Without a proof after a minute, somebody's clock or the witnesses are the reason."""
AT_ONCE: Final = 48
"""So many peers are proved before anything goes to them."""
STALE_S: Final = 600.0
UNLISTED_S: Final = 60.0
UNLISTED_GAP_S: Final = 5.0
MAX_UNLISTED: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another endpoint as it was proved."""

    node_id: str
    name: str
    address: str
    address6: str
    key: bytes


class Listener(Protocol):
    """What wants to know who may get a tunnel."""

    def peer_proved(self, peer: Peer) -> None:
        """This one may from now on."""

    def peer_gone(self, peer: Peer) -> None:
        """This one may no more; it, or another at its address, may be proved again."""


class ProvedPeers:
    """Lists and proves the other endpoints while the tunnel is up."""

    def __init__(
        self,
        *,
        state: AgentState,
        signer_count: int,
        clock: Clock,
    ) -> None:
        self._state = state
        self._signer_count = signer_count
        self._clock = clock
        self._listeners: list[Listener] = []
        self._listed: dict[str, dict[str, Any]] = {}
        self._by_address6: dict[str, str] = {}
        self._proved: dict[str, Peer] = {}
        self._why: dict[str, str] = {}
        self._unlisted_s: dict[str, float] = {}
        self._gap_s = 0.0
        self._wanted: set[str] = set()
        self._is_stale = True
        self._news = asyncio.Event()

    def subscribe(self, listener: Listener) -> None:
        """Tell this one, too."""
        self._listeners.append(listener)

    def find(self, address: str) -> Peer | None:
        """Return a peer that was proved, by its IPv4 tunnel address."""
        return self._proved.get(address)

    def address_of(self, address: str) -> str | None:
        """Return the IPv4 tunnel address of a listed peer, by either of its two.

        For one that is not listed the list is fetched anew, now and then: it may be new.
        """
        found = self._by_address6.get(address, address)
        if found in self._listed:
            return found
        now_s = self._clock.monotonic_s()
        is_due = now_s >= max(self._unlisted_s.get(address, 0.0), self._gap_s)
        if is_due and _may_be_endpoint(address) and len(self._unlisted_s) < MAX_UNLISTED:
            self._unlisted_s[address] = now_s + UNLISTED_S
            self._gap_s = now_s + UNLISTED_GAP_S
            self.changed()
        return None

    @property
    def counts(self) -> dict[str, int]:
        """How many are listed, and proved."""
        return {"listed": len(self._listed), "proved": len(self._proved)}

    @property
    def proved(self) -> list[Peer]:
        """All that were proved."""
        return list(self._proved.values())

    def why_not(self, address: str) -> str:
        """Return why there is no proof of a peer."""
        return self._why.get(address, "")

    def want(self, address: str, *, now: bool = False) -> None:
        """Have this one proved; ``now``: at once, though it was asked for before."""
        if address not in self._listed:
            self._is_stale = True
        if address not in self._proved and (now or address not in self._wanted):
            self._wanted.add(address)
            self._news.set()

    def changed(self) -> None:
        """Have the list fetched anew."""
        self._is_stale = True
        self._news.set()

    async def run(self) -> None:
        """List and prove until cancelled."""
        fetched_s, tries_count = self._clock.monotonic_s(), 0
        while True:
            self._news.clear()
            if self._clock.monotonic_s() - fetched_s > STALE_S:
                self._is_stale = True
            if self._is_stale or self._wanted:
                try:
                    await self._work()
                    fetched_s = self._clock.monotonic_s()
                except SeipdError as error:
                    logger.info("no peers are proved: %s", error)
            is_waiting = bool(self._wanted) or self._is_stale
            tries_count = tries_count + 1 if is_waiting else 0
            pause_s = AGAIN_S[min(tries_count, len(AGAIN_S)) - 1] if is_waiting else STALE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
                    tries_count = 0

    async def _work(self) -> None:
        mesh, keys = self._state.mesh(), self._state.keys()
        lies: dict[str, Verdict] = {}
        prover = Prover(
            state=self._state,
            keys=keys,
            signer_count=self._signer_count,
            clock=self._clock,
            on_lie=lies.__setitem__,
        )
        async with PrivateApi(mesh, keys) as api:
            if self._is_stale:
                self._is_stale = False
                try:
                    listed = peers_of(await api.call("GET", f"/api/mesh/peers/{mesh['node_id']}"))
                except SeipdError:
                    self._is_stale = True
                    raise
                self._take_list(listed)
            wanted = [self._listed[one] for one in sorted(self._wanted) if one in self._listed]
            self._wanted -= {one for one in self._wanted if one not in self._listed}
            for judged in await prover.peers(api, wanted) if wanted else ():
                self._take(judged)
        for subject, verdict in lies.items():
            logger.error("%s: %s: %s", REFUSED, subject, verdict.why)
            now_ms = self._clock.now_ms()
            await report_lie(mesh, keys, subject=subject, verdict=verdict, now_ms=now_ms)

    def _take_list(self, listed: list[dict[str, Any]]) -> None:
        self._listed = {one["address"]: one for one in listed}
        self._by_address6 = {one["address6"]: one["address"] for one in listed}
        now_s = self._clock.monotonic_s()
        self._unlisted_s = {one: at_s for one, at_s in self._unlisted_s.items() if at_s > now_s}
        for address, peer in list(self._proved.items()):
            if _peer_of(self._listed.get(address)) != peer:
                del self._proved[address]
                for listener in self._listeners:
                    listener.peer_gone(peer)
                self._wanted.add(address)
        if len(listed) <= AT_ONCE:
            self._wanted |= self._listed.keys() - self._proved.keys()

    def _take(self, judged: dict[str, Any]) -> None:
        address, peer = judged["address"], _peer_of(judged)
        if judged["trust"] in (PROVEN, BELIEVED) and peer is not None:
            self._wanted.discard(address)
            self._why.pop(address, None)
            self._proved[address] = peer
            for listener in self._listeners:
                listener.peer_proved(peer)
            return
        self._why[address] = judged["why"]
        if judged["trust"] == REFUSED:
            self._wanted.discard(address)


def _may_be_endpoint(address: str) -> bool:
    """Servers have the first addresses of each slice; what has no IPv4 address is none of ours."""
    if ":" in address:
        return False
    found = IPv4Address(address)
    return assignable(slice_of(found), found)


def _peer_of(one: dict[str, Any] | None) -> Peer | None:
    if one is None:
        return None
    return Peer(
        node_id=one["node_id"],
        name=one["name"],
        address=one["address"],
        address6=one["address6"],
        key=parse_key(one["wireguard_key"]),
    )
