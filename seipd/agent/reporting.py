"""Tells the servers that one of them showed something false; whoever can be reached is told."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Final

from services.kernel.errors import SeipdError
from services.kernel.ids import MeshId
from services.mesh.proofs.report import signed_report
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    from seipd.agent.proving import Verdict
    from seipd.agent.state import AgentKeys

TIMEOUT_S: Final = 3.0


async def report_lie(
    mesh: dict[str, Any], keys: AgentKeys, *, subject: str, verdict: Verdict, now_ms: int
) -> int:
    """Send a report to every server that is known; return how many took it."""
    value = signed_report(
        keys.identity,
        MeshId(mesh["mesh_id"]),
        server=mesh["server"]["server_id"],
        subject=subject,
        code=verdict.code,
        what=verdict.why,
        now_ms=now_ms,
    )
    # It is signed and no secret: whoever answers may have it, so nobody's certificate is checked.
    anyone = ssl.create_default_context()
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    async with HttpClient(tls=anyone) as client, asyncio.TaskGroup() as group:
        told = [
            group.create_task(_told(client, address, value), name=f"report-{address}")
            for address in mesh["server"]["addresses"]
        ]
    return sum(one.result() for one in told)


async def _told(client: HttpClient, address: str, value: dict[str, Any]) -> bool:
    try:
        answer = await client.fetch(
            "POST", f"https://{address}/api/mesh/report", json=value, timeout_s=TIMEOUT_S
        )
    except SeipdError:
        return False
    return answer.status == 201
