"""Looks at every server again and again, and as a witness says what it holds of each."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from services.authority.trust.policy import (
    Evidence,
    Finding,
    Outcome,
    Streak,
    examine,
    verdict_due,
    worst,
)
from services.authority.trust.tiers import (
    PROOF_VIEW,
    RIGHTS,
    TIER_VIEW,
    Tier,
    rules_of,
    said_tier,
    tier_of,
)
from services.authority.trust.verdicts import VERDICT_KIND, given
from services.kernel.errors import SeipdError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.authority.ports import Json, Ledger
    from services.authority.trust.ports import Sources
    from services.base.ledger.author import Author
    from services.kernel.ids import ServerId
    from services.kernel.records import Record

logger = logging.getLogger(__name__)

AT_ONCE = 32


@dataclass(slots=True)
class _Seen:
    """What was found at the newest look at one server."""

    streak: Streak = field(default_factory=Streak)
    findings: list[Finding] = field(default_factory=list)
    evidence: Evidence | None = None


class TrustService:
    """Tells tiers and reasons; gives verdicts where this server is a witness."""

    name: ClassVar[str] = "trust"

    def __init__(
        self,
        *,
        ledger: Ledger,
        author: Author,
        sources: Sources,
        least_permille: Callable[[], int],
        interval_s: float,
    ) -> None:
        self._ledger = ledger
        self._author = author
        self._sources = sources
        self._least_permille = least_permille
        self._interval_s = interval_s
        self._seen: dict[ServerId, _Seen] = {}
        self._health = Health(state=HealthState.STOPPED)
        self._tasks = TaskOwner("trust", on_crash=self._on_crash)

    async def start(self) -> None:
        """Begin to look."""
        self._health = Health(state=HealthState.OK)
        self._tasks.spawn(self._look_forever(), name="trust-look")

    async def stop(self) -> None:
        """Look no more; may be called twice."""
        self._health = Health(state=HealthState.STOPPED)
        await self._tasks.close()

    def health(self) -> Health:
        """Say what was in the way of a verdict, if anything."""
        return self._health

    def tier(self, server_id: ServerId) -> Tier:
        """Return the tier of a server."""
        charter = self._ledger.charter
        return tier_of(self._ledger.state, charter.at(charter.number), server_id)

    def describe(self, server_id: ServerId) -> Json:
        """Return tier, rights and reasons: what was found here, and the witnesses' verdicts."""
        tier = self.tier(server_id)
        seen = self._seen.get(server_id, _Seen())
        held = self._ledger.state.get(TIER_VIEW, server_id) or {"verdicts": {}}
        is_known = tier is not Tier.UNTRUSTED
        return {
            "tier": tier.value,
            "may": sorted(right.value for right in RIGHTS[tier]),
            "warning": is_known and seen.streak.is_warning,
            "checks": [one.value() for one in seen.findings] if is_known else [],
            "verdicts": {
                name: {**one, "counts": name in self._witnesses()}
                for name, one in sorted(held["verdicts"].items())
            },
        }

    def rules(self) -> Json:
        """Return what this mesh demands of tier 1."""
        rules = rules_of(self._ledger.state)
        return {**rules.value(), "over_uptime_permille": self._least_permille()}

    async def look(self) -> None:
        """Look at every server, and give the verdicts that are due."""
        charter, state = self._ledger.charter, self._ledger.state
        self._sources.begin()
        servers = [one for one in charter.servers() if state.get(PROOF_VIEW, one) is None]
        self._seen = {one: self._look_at(one) for one in servers}
        own = self._ledger.server_id
        if own not in self._witnesses() or own not in self._seen:
            return
        due = [record for one in servers if (record := self._due(one)) is not None]
        if due:
            await self._ledger.name_roster()
        for at in range(0, len(due), AT_ONCE):
            await self._ledger.submit(due[at : at + AT_ONCE])

    def _look_at(self, server_id: ServerId) -> _Seen:
        permille, checks = self._sources.uptime(server_id)
        evidence = Evidence(
            checks=checks,
            uptime_permille=permille,
            attested=self._sources.attested(server_id),
            released=self._sources.released(server_id),
            is_own=server_id == self._ledger.server_id,
        )
        rules = rules_of(self._ledger.state)
        findings = examine(evidence, rules, least_permille=self._least_permille())
        before = self._seen.get(server_id, _Seen())
        return _Seen(before.streak.after(worst(findings)), findings, evidence)

    def _due(self, server_id: ServerId) -> Record | None:
        state, seen = self._ledger.state, self._seen[server_id]
        held = state.get(TIER_VIEW, server_id)
        tier = verdict_due(
            seen.streak,
            given=given(held, self._ledger.server_id),
            tier=said_tier(state, server_id).value,
        )
        if tier is None or seen.evidence is None:
            return None
        reasons = [one.code for one in seen.findings if one.outcome is not Outcome.GOOD]
        logger.info("%s is of tier %d by what is seen here", server_id, tier)
        body: dict[str, Any] = {
            "server": server_id,
            "tier": tier,
            "reasons": reasons,
            "evidence": seen.evidence.value(),
        }
        return self._author.record(VERDICT_KIND, body)

    def _witnesses(self) -> tuple[ServerId, ...]:
        charter = self._ledger.charter
        return charter.witnesses_at(charter.number)

    async def _look_forever(self) -> None:
        while True:
            try:
                await self.look()
                self._health = Health(state=HealthState.OK)
            except SeipdError as error:
                # It is tried again at the next look; nobody depends on one verdict.
                self._health = Health(state=HealthState.OK, detail=f"no verdict given: {error}")
                logger.debug("no verdict was given: %s", error)
            await asyncio.sleep(self._interval_s)

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._health = Health(state=HealthState.FAILED, detail=f"{task} ended: {error!r}")
