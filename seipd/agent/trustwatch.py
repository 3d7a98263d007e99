"""Asks again and again for proofs while the tunnel is up, for the status; reports what is false."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from seipd.agent.private_api import PrivateApi
from seipd.agent.proving import Prover, Verdict
from seipd.agent.reporting import report_lie
from seipd.agent.revoked import RevocationWatch
from seipd.agent.trustlines import BELIEVED, PROVEN, REFUSED, REVOKED, WAITING
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from seipd.agent.state import AgentKeys, AgentState
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

SOON_S: Final = 3.0
AGAIN_S: Final = 30.0
STALE_S: Final = 120

_SESSION_IS_GOOD: Final = frozenset(
    {"", "unproven", "too_few_signers", "not_of_now", "no_agreed_state"}
)
_AT_FIRST: Final = Verdict(
    state=BELIEVED, code="unproven", why="by the root's certificate; no map proof yet"
)


class TrustWatch:
    """Holds what the status shows of trust."""

    def __init__(
        self,
        *,
        state: AgentState,
        mesh: dict[str, Any],
        keys: AgentKeys,
        signer_count: int,
        clock: Clock,
    ) -> None:
        self._mesh = mesh
        self._keys = keys
        self._clock = clock
        self._signer_count = signer_count
        self._lies: dict[tuple[str, str], Verdict] = {}
        self._told: set[tuple[str, str]] = set()
        self._prover = Prover(
            state=state, keys=keys, signer_count=signer_count, clock=clock, on_lie=self._note
        )
        self._held: dict[str, Any] = {
            "server": _AT_FIRST.value(),
            "own": Verdict(state=WAITING, code="unproven", why="no map proof yet").value(),
            "signers": [],
            "needed": None,
            "agreed_ms": None,
            "state_hash": None,
        }
        self._connected = asyncio.Event()
        self._revoked: Verdict | None = None
        self._has_looked = False

    @property
    def trust(self) -> dict[str, Any]:
        """What is held now."""
        both = {name: self._as_of_now(self._held[name]) for name in ("server", "own")}
        if self._revoked is not None:
            both["server"] = self._revoked.value()
        return {**self._held, **both, "wanted": self._signer_count, "reported": len(self._told)}

    @property
    def is_revoked(self) -> bool:
        """Whether the root removed the server."""
        return self._revoked is not None

    def _as_of_now(self, verdict: dict[str, str]) -> dict[str, str]:
        """Return a verdict as it stands now: what was proven a while ago is believed."""
        age_s = (self._clock.now_ms() - (self._held["agreed_ms"] or 0)) // 1000
        if verdict["state"] != PROVEN or age_s < STALE_S:
            return verdict
        why = f"the last proof is {age_s} s old"
        return Verdict(state=BELIEVED, code="not_of_now", why=why).value()

    def note_tunnel(self, *, connected: bool) -> None:
        """Note whether the tunnel carries traffic: without it nobody can be asked."""
        if connected:
            self._connected.set()
        else:
            self._connected.clear()

    async def run(self) -> None:
        """Ask until cancelled, in one session for as long as that is good."""
        while True:
            await self._connected.wait()
            try:
                async with PrivateApi(self._mesh, self._keys) as api:
                    await self._ask_while_good(api)
            except SeipdError as error:
                logger.info("no session for proofs: %s", error)
            await asyncio.sleep(SOON_S)

    async def mind_roster(self, on_revoked: Callable[[], Awaitable[None]]) -> None:
        """Ask, while the server is not proven, whether the root removed it; at once drop it then.

        Its own word is not needed for that, and a server that was revoked would not give it.
        """
        roster = RevocationWatch(self._mesh)
        while self._revoked is None:
            await asyncio.sleep(SOON_S if not self._has_looked else AGAIN_S)
            if self.trust["server"]["state"] == PROVEN:
                continue
            self._has_looked = True
            if await roster.look():
                logger.error("the root removed %s from the mesh", self._mesh["server"]["server_id"])
                self._revoked = Verdict(
                    state=REFUSED,
                    code=REVOKED,
                    why="the root removed this server from the mesh",
                    mend="seip leave, and join another server with a new invitation",
                )
                # Where WireGuard does not answer now, the wish stays and is tried again.
                with contextlib.suppress(SeipdError):
                    await on_revoked()

    async def _ask_while_good(self, api: PrivateApi) -> None:
        while self._connected.is_set():
            self._held = await self._prover.own(api)
            await self._report()
            held = self._held["server"]
            if held["state"] != REFUSED and held["code"] not in _SESSION_IS_GOOD:
                return
            states = {self._held[name]["state"] for name in ("server", "own")}
            await asyncio.sleep(AGAIN_S if states == {PROVEN} else SOON_S)

    def _note(self, subject: str, verdict: Verdict) -> None:
        self._lies[subject, verdict.code] = verdict

    async def _report(self) -> None:
        """Tell of each lie once, as soon as somebody takes it."""
        lies, self._lies = self._lies, {}
        for (subject, code), verdict in lies.items():
            if (subject, code) in self._told:
                continue
            logger.error("%s: %s: %s", REFUSED, subject, verdict.why)
            now_ms = self._clock.now_ms()
            if await report_lie(
                self._mesh, self._keys, subject=subject, verdict=verdict, now_ms=now_ms
            ):
                self._told.add((subject, code))
