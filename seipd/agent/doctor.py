"""Explains a broken path in words, from the near end outwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seipd.agent.hostdns.keeping import FAILED
from seipd.agent.private_api import PrivateApi
from seipd.agent.run import STALE_HANDSHAKE_S, read_status
from seipd.agent.trustlines import REFUSED, REVOKED
from services.kernel.errors import SeipdError
from services.runtime.clock import SystemClock

if TYPE_CHECKING:
    from seipd.agent.state import AgentState


async def examine_endpoint(state: AgentState) -> list[dict[str, Any]]:
    """Return what is wrong, each with ``level``, ``what`` and ``mend``."""
    mesh = state.mesh()
    status = read_status(state)
    if status is None:
        return [_finding("the agent does not run", "sudo seip up")]
    doubt = status["trust"]["server"]
    if doubt["code"] == REVOKED:
        return [_finding(doubt["why"], doubt["mend"])]
    age_s = status["last_handshake_seconds"]
    endpoint = mesh["server"]["endpoint"]
    if age_s is None:
        return [
            _finding(
                f"there never was a handshake with {endpoint}",
                "check that the server runs and that UDP to it is not blocked",
            )
        ]
    if age_s >= STALE_HANDSHAKE_S:
        return [
            _finding(
                f"the last handshake with {endpoint} is {age_s} s ago",
                "check this machine's network, then the server",
            )
        ]
    if doubt["state"] == REFUSED:
        return [_finding(f"what the server shows of its key is false: {doubt['why']}", "")]
    try:
        async with PrivateApi(mesh, state.keys()) as api:
            await api.call("POST", "/api/mesh/heartbeat", {})
    except SeipdError as error:
        return [_finding(f"the tunnel is up but the private API is not: {error}", error.mend)]
    if (names := status["dns"]) is not None and names["state"] == FAILED:
        mend = "seip down, then seip up --no-dns, leaves this machine's resolver alone"
        return [_finding(f"names of the mesh are not found here: {names['why']}", mend)]
    return _certificates(state)


def _certificates(state: AgentState) -> list[dict[str, Any]]:
    from seipd.agent.renewing import overdue
    from services.edge.acme.certfiles import CertificateFiles

    names = overdue(CertificateFiles(state.folder / "certs"), SystemClock().now_ms())
    return [
        _finding(f"the certificate of {name} is not renewed", f"seip cert issue {name} says why")
        for name in names
    ]


def _finding(what: str, mend: str) -> dict[str, Any]:
    return {"level": "error", "what": what, "mend": mend or "ask the server's operator"}
