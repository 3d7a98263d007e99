"""Asks again and again for proofs while the tunnel is up, for the status; reports what is false."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from seipd.agent.private_api import PrivateApi
from seipd.agent.proving import Prover, Verdict
from seipd.agent.reporting import report_lie
from seipd.agent.trustlines import BELIEVED, PROVEN, REFUSED, WAITING
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from seipd.agent.state import AgentKeys, AgentState
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

SOON_S: Final = 3.0
AGAIN_S: Final = 30.0

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

    @property
    def trust(self) -> dict[str, Any]:
        """What is held now."""
        return {**self._held, "wanted": self._signer_count, "reported": len(self._told)}

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
