"""Who wants to hear what gossip learns."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from services.mesh.gossip.effects import AddressChanged, FactLearnt, MemberChanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.mesh.facts.envelope import Fact
    from services.mesh.membership.states import State

logger = logging.getLogger(__name__)

Told = AddressChanged | FactLearnt | MemberChanged


class Listeners:
    """Callbacks, called in the order in which they came."""

    def __init__(self) -> None:
        self.addresses: list[Callable[[str], None]] = []
        self.facts: list[Callable[[Fact], None]] = []
        self.members: list[Callable[[str, State], None]] = []

    def tell(self, news: Told) -> None:
        """Tell everybody who asked for it."""
        match news:
            case AddressChanged():
                for on_address in self.addresses:
                    on_address(news.server_id)
            case FactLearnt():
                for on_fact in self.facts:
                    on_fact(news.fact)
            case MemberChanged():
                logger.info("%s is %s now", news.server_id, news.new.value)
                for on_member in self.members:
                    on_member(news.server_id, news.new)
