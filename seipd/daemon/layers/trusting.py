"""The trust policy as the daemon runs it: what gossip and attestation saw is its evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.authority.governance import parameters
from services.authority.trust.attested import AttestationBook
from services.authority.trust.policy import Attested
from services.authority.trust.service import TrustService

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from seipd.daemon.layers.attesting import Attesting
    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground
    from seipd.daemon.layers.releasing import ReleasesSeen
    from services.authority.governance.service import GovernanceService
    from services.authority.trust.attested import News
    from services.authority.trust.policy import Released
    from services.base.ledger.service import LedgerService
    from services.kernel.clock import Clock
    from services.kernel.ids import ServerId
    from services.mesh.gossip.service import GossipService

LOOK_EVERY_INTERVALS = 10


class SeenHere:
    """What this server saw of the others; satisfies Sources."""

    def __init__(
        self,
        *,
        ledger: LedgerService,
        gossip: GossipService,
        releases: ReleasesSeen,
        asked: Callable[[], Collection[bytes]],
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._gossip = gossip
        self._releases = releases
        self._asked = asked
        self._clock = clock
        self._book = AttestationBook()

    def hear(self, news: News) -> None:
        """Take what came of asking a server for a quote, which may be a new one."""
        self._watch()
        self._book.hear(news)

    def begin(self) -> None:
        """Go by the roster as it is now."""
        self._releases.watch(self._ledger.charter.servers())
        self._watch()
        self._peers = {one.server_id: one for one in self._gossip.peers()}

    def _watch(self) -> None:
        # An hour without a quote is held against those alone who were asked for one.
        self._book.watch(self._asked(), now_ms=self._steady_ms())

    def uptime(self, server_id: ServerId) -> tuple[int | None, int]:
        """Return how many of a thousand checks another server answered, and of how many checks."""
        peer = self._peers.get(server_id)
        if peer is None or peer.uptime is None:
            return None, 0
        return int(1000 * peer.uptime), peer.checks

    def attested(self, server_id: ServerId) -> Attested:
        """Return what is known of a server's hardware."""
        key = self._ledger.charter.key_of(server_id)
        return Attested() if key is None else self._book.of(key, now_ms=self._steady_ms())

    def _steady_ms(self) -> int:
        return int(self._clock.monotonic_s() * 1000)

    def released(self, server_id: ServerId) -> Released:
        """Return what is known of what a server runs."""
        return self._releases.of(server_id)


def trust_of(
    ground: Ground,
    base: BaseLayer,
    governance: GovernanceService,
    gossip: GossipService,
    releases: ReleasesSeen,
    attesting: Attesting,
) -> TrustService:
    """Return what looks at every server, and says what it holds of it."""
    seen = SeenHere(
        ledger=base.ledger,
        gossip=gossip,
        releases=releases,
        asked=attesting.asked,
        clock=ground.clock,
    )
    attesting.service.subscribe(seen.hear)
    return TrustService(
        ledger=base.ledger,
        author=base.author,
        sources=seen,
        least_permille=lambda: governance.number(parameters.TIER1_UPTIME),
        interval_s=LOOK_EVERY_INTERVALS * ground.settings.gossip_interval_s,
    )
