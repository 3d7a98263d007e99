"""The endpoints that may get a tunnel of their own: those that a proof was shown of.

The server lists those of one's own customer, and tells of any other that the rules let one talk to
when it is asked for an address. Each is proved before its key is used, and remembered. Who is new
has a proof only after some seconds, so it is asked again. Who stands in no list is met directly
only while this endpoint holds to the rules itself: no server does it for the two then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Final, Protocol

from seipd.agent.answer import peers_of
from seipd.agent.private_api import PrivateApi
from seipd.agent.proving import Prover
from seipd.agent.reporting import report_lie
from seipd.agent.trustlines import BELIEVED, PROVEN, REFUSED
from services.kernel.addr import assignable, slice_of, tunnel6
from services.kernel.errors import NotFoundError, SeipdError
from services.kernel.ids import MeshId, parse_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.agent.proving import Verdict
    from seipd.agent.state import AgentState
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

AGAIN_S: Final = (0.5,) * 8 + (4.0,) * 10 + (60.0,)
"""Without a proof after a minute, somebody's clock or the witnesses are the reason."""
AT_ONCE: Final = 48
"""So many peers are proved before anything goes to them."""
STALE_S: Final = 600.0
UNLISTED_S: Final = (2.0, 5.0, 20.0)
"""Who joined elsewhere just now is known here in a moment."""
FEWEST_S: Final = 1.0
"""Between two visits: a server answers 300 questions a minute."""
UNLISTED_GAP_S: Final = 5.0
MAX_UNLISTED: Final = 1024
LOOKUPS_AT_ONCE: Final = 64
LOOK_S: Final = 5.0
MAX_LOOKED_UP: Final = 512
"""Twice as many as there are paths."""


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
        keeps_rules: Callable[[], bool],
    ) -> None:
        """Prepare.

        Args:
            state: of this endpoint.
            signer_count: how many servers have to sign what a proof stands on.
            clock: the clock.
            keeps_rules: says whether this endpoint holds what comes in to the rules.
        """
        self._state = state
        self._mesh_id = MeshId(state.mesh()["mesh_id"])
        self._signer_count = signer_count
        self._clock = clock
        self._keeps_rules = keeps_rules
        self._listeners: list[Listener] = []
        self._listed: dict[str, dict[str, Any]] = {}
        self._looked_up: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._asked: dict[str, None] = {}
        self._proved: dict[str, Peer] = {}
        self._why: dict[str, str] = {}
        self._unlisted_s: dict[str, list[float]] = {}
        self._listed_s = self._gap_s = 0.0
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
        """Return the IPv4 tunnel address of a peer that is known, by either of its two.

        Who is not known is asked for, now and then.
        """
        found = self._address4(address)
        if found is None or self._known(found) is not None:
            return found
        if self._keeps_rules():
            if self._is_due(found):
                self._look_up(found)
        elif self._clock.monotonic_s() >= self._gap_s and self._is_due(found):
            self._gap_s = self._clock.monotonic_s() + UNLISTED_GAP_S
            self.changed()
        return None

    def _is_due(self, address: str) -> bool:
        """Say whether it is time to ask for an address that is not known, and note that it is."""
        now_s = self._clock.monotonic_s()
        if len(self._unlisted_s) >= MAX_UNLISTED:
            last_s = now_s - UNLISTED_S[-1]
            self._unlisted_s = {one: at for one, at in self._unlisted_s.items() if at[-1] > last_s}
        asked_s = self._unlisted_s.get(address, [])
        if asked_s and now_s < asked_s[-1] + UNLISTED_S[min(len(asked_s), len(UNLISTED_S)) - 1]:
            return False
        if not asked_s and len(self._unlisted_s) >= MAX_UNLISTED:
            return False
        self._unlisted_s[address] = [*asked_s, now_s][-len(UNLISTED_S) :]
        return True

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
        if self._known(address) is None:
            self._is_stale = self._is_stale or not self._keeps_rules()
            self._look_up(address)
        if address not in self._proved and (now or address not in self._wanted):
            self._wanted.add(address)
            self._news.set()

    def changed(self) -> None:
        """Have the list fetched anew."""
        self._is_stale = True
        self.rules_changed()

    def rules_changed(self) -> None:
        """Have it looked whether who stands in no list may still be met."""
        self._asked |= dict.fromkeys(self._looked_up)
        self._news.set()

    async def run(self) -> None:
        """List and prove until cancelled."""
        tries_count = 0
        while True:
            self._news.clear()
            if self._clock.monotonic_s() - self._listed_s > STALE_S:
                self._is_stale = True
            if not self._keeps_rules():
                self._forget_unlisted()
            if self._is_stale or self._wanted or self._asked:
                try:
                    await self._work()
                except SeipdError as error:
                    logger.info("no peers are proved: %s", error)
                await asyncio.sleep(FEWEST_S)
            is_waiting = bool(self._wanted or self._asked) or self._is_stale
            tries_count = tries_count + 1 if is_waiting else 0
            pause_s = AGAIN_S[min(tries_count, len(AGAIN_S)) - 1] if is_waiting else STALE_S
            pause_s = min(pause_s, LOOK_S) if self._looked_up else pause_s
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
            if self._asked and self._keeps_rules():
                await self._take_lookups(api, mesh["node_id"])
            self._wanted = {one for one in self._wanted if self._may_come(one)}
            wanted = [one for one in map(self._known, sorted(self._wanted)) if one is not None]
            for judged in await prover.peers(api, wanted) if wanted else ():
                self._take(judged)
        for subject, verdict in lies.items():
            logger.error("%s: %s: %s", REFUSED, subject, verdict.why)
            now_ms = self._clock.now_ms()
            await report_lie(mesh, keys, subject=subject, verdict=verdict, now_ms=now_ms)

    def _take_list(self, listed: list[dict[str, Any]]) -> None:
        self._listed = {one["address"]: one for one in listed}
        for address in self._listed.keys() & self._looked_up.keys():
            del self._looked_up[address]
        self._listed_s = self._clock.monotonic_s()
        for address in list(self._proved):
            self._compare(address)
        if len(listed) <= AT_ONCE:
            self._wanted |= self._listed.keys() - self._proved.keys()

    async def _take_lookups(self, api: PrivateApi, node_id: str) -> None:
        asked = list(self._asked)[:LOOKUPS_AT_ONCE]
        body = {"addresses": asked}
        try:
            told = peers_of(await api.call("POST", f"/api/mesh/peers/{node_id}", body))
        except NotFoundError:
            # A server of an earlier version tells of nobody.
            told = []
        found = {one["address"]: one for one in told}
        for address in asked:
            self._asked.pop(address, None)
            self._looked_up.pop(address, None)
            if address in found and address not in self._listed:
                self._looked_up[address] = found[address]
                self._wanted |= {address} - self._proved.keys()
            self._compare(address)
        while len(self._looked_up) > MAX_LOOKED_UP:
            self._compare(self._looked_up.popitem(last=False)[0])

    def _forget_unlisted(self) -> None:
        """Meet nobody any more whom only servers hold to the rules."""
        unlisted, self._looked_up, self._asked = self._looked_up, OrderedDict(), {}
        for address in unlisted:
            self._compare(address)

    def _compare(self, address: str) -> None:
        """Let go of a proof that is of another endpoint than the server tells of now."""
        peer = self._proved.get(address)
        if peer is None or _peer_of(self._known(address)) == peer:
            return
        del self._proved[address]
        for listener in self._listeners:
            listener.peer_gone(peer)
        if self._known(address) is not None:
            self._wanted.add(address)

    def _known(self, address: str) -> dict[str, Any] | None:
        return self._listed.get(address) or self._looked_up.get(address)

    def _may_come(self, address: str) -> bool:
        return self._known(address) is not None or address in self._asked

    def _look_up(self, address: str) -> None:
        if self._keeps_rules() and len(self._asked) < MAX_LOOKED_UP:
            self._asked[address] = None
            self._news.set()

    def _address4(self, address: str) -> str | None:
        """Return the IPv4 kin of a tunnel address; None for what is no endpoint's."""
        text = address
        if ":" in address:
            kin = IPv4Address(int(IPv6Address(address)) & 0xFFFFFFFF)
            if tunnel6(self._mesh_id, kin) != IPv6Address(address):
                return None
            text = str(kin)
        found = IPv4Address(text)
        return text if assignable(slice_of(found), found) else None

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
