"""Closes the way out at boot, before there is a network, where everything is to go through an exit.

What it leaves is what a killed agent leaves: nothing goes out until the agent is up and has its
exit, or somebody says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seipd.agent.routes.book import EMPTY
from seipd.agent.routes.planning import side_table
from seipd.agent.routes.wishes import load_wishes
from seipd.agent.serverlist import load_servers
from services.edge.wireguard import sidetable

if TYPE_CHECKING:
    from typing import Any

    from seipd.agent.state import AgentState
    from services.edge.wireguard.model import SideTable


def closed_table(state: AgentState, mesh: dict[str, Any]) -> SideTable:
    """Return the routes that let nothing out but to the servers, to networks at hand, and marked.

    Raises:
        CorruptError: nobody knows what is wished.
    """
    return side_table(
        mesh,
        EMPTY,
        wants_exit=bool(load_wishes(state).exit_node),
        servers=server_places(state, mesh),
    )


def server_places(state: AgentState, mesh: dict[str, Any]) -> list[str]:
    """Return ``host:port`` of the servers that are known."""
    places = [mesh["server"]["endpoint"], *mesh["server"]["addresses"]]
    return places + [place for one in load_servers(state) for place in one.places]


async def close_early(state: AgentState, interface: str) -> bool:
    """Close it, where an exit is wished; return whether so. Not beside a running agent.

    Raises:
        SeipdError: the kernel refused, or nobody knows what is wished.
    """
    table = closed_table(state, state.mesh())
    if not table.closed:
        return False
    await sidetable.ensure(interface, None, table)
    return True
