"""Going to another server: its proof by the root, this endpoint's signed word, its answer.

The address stays. Nothing is kept unless the other server is the one that was meant, by the keys
that the root signed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from seipd.agent.answer import check_attached
from seipd.agent.believed import load_believed
from seipd.agent.families import mesh_at_hand
from seipd.agent.proving import certified_server
from seipd.client.pinning import pinned_context
from seipd.client.problems import error_of
from seipd.client.session import examine
from seipd.client.trust import KnownRoot, UntrustedServerError
from services.base.ledger.author import Author
from services.kernel.errors import StorageError
from services.kernel.ids import MeshId
from services.runtime.clock import SystemClock
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    from seipd.agent.state import AgentState

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 5.0
STALE: Final = "stale"
STEPS: Final = (1, 15, 240, 3_840)
"""By how much more moves are counted where there were some that this machine does not know of."""


async def attach(state: AgentState, server_id: str, address: str) -> dict[str, Any]:
    """Have another server carry this endpoint; return what ``mesh.json`` holds from then on.

    Args:
        state: of this endpoint.
        server_id: where to go.
        address: ``host:port`` of its public HTTPS server.

    Raises:
        UntrustedServerError: who answers there is not that server of this mesh.
        RefusedError: its keys are not those that the root signed.
        UnreachableError: nobody answers.
        WireError: its answer is not good.
        SeipdError: what the server refused with.
    """
    mesh, keys = state.mesh(), state.keys()
    mesh_id, base = MeshId(mesh["mesh_id"]), f"https://{address}"
    seen = load_believed(state).root
    root = KnownRoot(generation=seen.generation, fingerprint=seen.fingerprint)
    trusted = await examine(base, mesh_id=mesh_id, root=root)
    if trusted.certificate.server_id != server_id:
        raise UntrustedServerError(f"{trusted.certificate.server_id} answers at {address}")
    author = Author(key=keys.identity, mesh_id=mesh_id, clock=SystemClock())
    async with HttpClient(tls=pinned_context(trusted.authority_pem)) as client:
        value, moves = await _ask(state, client, f"{base}/api/attach", author, server_id)
    check_attached(value, mesh)
    moved = {
        **mesh,
        **value,
        "moves": moves,
        "authority_pem": trusted.authority_pem,
        "certificate": trusted.change.value(),
        "chain": [one.value() for one in trusted.chain],
    }
    certified_server(moved)
    _keep(state, moved)
    return mesh_at_hand(moved)


def _keep(state: AgentState, mesh: dict[str, Any]) -> None:
    """Write it down, where the disk takes it: a full one holds nobody at a dead server."""
    try:
        state.save_mesh(mesh)
    except StorageError as error:
        logger.warning("not kept for the next start: %s", error)


async def _ask(
    state: AgentState, client: HttpClient, url: str, author: Author, server_id: str
) -> tuple[dict[str, Any], int]:
    """Say the word; return the answer, and how often this endpoint has moved by it."""
    mesh = state.mesh()
    moves = mesh.get("moves", 0)
    for step in STEPS:
        moves += step
        # Counted before it is said: a word that got lost is never said again with another meaning.
        _keep(state, {**mesh, "moves": moves})
        body = {"node": mesh["node_id"], "server": server_id, "moves": moves}
        record = author.record("tree.attach", body).value()
        answer = await client.fetch("POST", url, json={"record": record}, timeout_s=TIMEOUT_S)
        if answer.status == 200:
            value: dict[str, Any] = answer.json()
            return value, moves
        error = error_of(answer)
        if error.code != STALE or step == STEPS[-1]:
            raise error
        logger.warning(
            "this endpoint has moved since without this machine: its state was put back, or another"
            " machine uses the same keys"
        )
    raise AssertionError("the last step returns or raises")
