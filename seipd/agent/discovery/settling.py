"""After a join: to the best server at once, where that is clearly another than the token's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from seipd.agent.choosing import is_clearly_better
from seipd.agent.discovery.finding import measure
from seipd.agent.moving import attach
from seipd.agent.serverlist import save_servers
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seipd.agent.serverlist import KnownServer
    from seipd.agent.state import AgentState

logger = logging.getLogger(__name__)


async def settle(state: AgentState, found: Sequence[KnownServer]) -> str:
    """Go to the best of some servers; return in a sentence why, or nothing where it stays."""
    save_servers(state, found)
    at = state.mesh()["server"]["server_id"]
    measured = await measure(found)
    own = next((one for one in measured if one.server.server_id == at), None)
    for best in measured:
        if own is not None and not is_clearly_better(best.score, own.score):
            return ""
        try:
            await attach(state, best.server.server_id, best.server.at_hand)
        except SeipdError as error:
            logger.warning("%s: %s", best.server.server_id, error)
            continue
        mine = "it does not answer" if own is None else f"{own.score:.0f} there"
        return f"{best.server.server_id} is better: {best.score:.0f}, {mine}"
    return ""
