"""Explains a broken path in words: tries what can be tried, and lets ``diagnosis`` say."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Final

from seipd.agent.answer import stun_ports_of
from seipd.agent.background import TOLD_S, read_status
from seipd.agent.diagnosis import (
    NOTE,
    Finding,
    Reach,
    is_bad,
    outside_findings,
    overlap_findings,
    reach_findings,
    trust_findings,
)
from seipd.agent.hostdns.keeping import FAILED
from seipd.agent.lock import running_agent
from seipd.agent.mtu.findings import size_findings
from seipd.agent.mtu.probing import Echoes, search
from seipd.agent.private_api import PrivateApi
from seipd.agent.roaming import knock
from seipd.agent.routes.carrying import near_networks
from seipd.agent.routes.findings import routes_findings
from seipd.agent.uplink import way_to
from seipd.client.pinning import pinned_context
from services.edge.stun.client import inquire
from services.edge.wireguard.network import has_ipv6
from services.kernel.errors import SeipdError
from services.kernel.places import parse_place
from services.runtime.clock import SystemClock
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    from seipd.agent.state import AgentState

UDP_S: Final = 2.0
CLOCK_TIMEOUT_S: Final = 3.0


async def examine_endpoint(state: AgentState) -> list[Finding]:
    """Return what is wrong, and what is worth a word."""
    mesh = state.mesh()
    status = read_status(state)
    if status is None and running_agent(state) is not None:
        return [_hangs(state, "anything")]
    if status is None:
        return [Finding(code="agent_down", what="the agent does not run", mend="sudo seip up")]
    if status.get("told_seconds", 0) >= TOLD_S:
        return [_hangs(state, f"for {status['told_seconds']} s")]
    found = trust_findings(status["trust"]["server"])
    if found:
        return found
    reach = await try_server(mesh)
    silent_s = status.get("silent_seconds", 0)
    found = reach_findings(reach, status["last_handshake_seconds"], silent_s=silent_s)
    if not is_bad(found):
        found += overlap_findings(await near_networks(status["interface"]), mesh)
    if is_bad(found):
        return found
    sizes = await _sizes(mesh, status)
    if is_bad(sizes):
        return [*found, *sizes]
    return [
        *found,
        *sizes,
        *(await _private_api(state, mesh)),
        *_names(status["dns"]),
        *_ipv6(status["interface"]),
        *_certificates(state),
        *outside_findings(reach, status["outside"]),
        *routes_findings(status),
    ]


def _hangs(state: AgentState, since: str) -> Finding:
    return Finding(
        code="agent_silent",
        what=f"the agent runs and has not told {since} of how it does: it hangs, or its disk takes"
        " nothing any more",
        mend=f"see that there is room at {state.run}; seip down, then seip up",
    )


async def try_server(mesh: dict[str, Any]) -> Reach:
    """Try what leads to the server beside the tunnel."""
    endpoint: str = mesh["server"]["endpoint"]
    host = endpoint.rpartition(":")[0].strip("[]")
    async with asyncio.TaskGroup() as group:
        way = group.create_task(way_to(host))
        tcp = group.create_task(_answers_tcp(mesh))
        clock = group.create_task(_asked_by_tls(mesh))
        udp = group.create_task(_asked(mesh, host))
    answers_udp, is_symmetric = udp.result()
    is_foreign, clock_ahead_ms = clock.result()
    return Reach(
        endpoint=endpoint,
        has_way=way.result() is not None,
        answers_tcp=tcp.result(),
        answers_udp=answers_udp,
        is_symmetric=is_symmetric,
        is_foreign=is_foreign,
        clock_ahead_ms=clock_ahead_ms,
    )


async def _answers_tcp(mesh: dict[str, Any]) -> bool:
    return await knock(*parse_place(mesh["server"]["addresses"][0])) is not None


async def _asked(mesh: dict[str, Any], host: str) -> tuple[bool, bool]:
    """Return whether the server's STUN answers, and whether it sees two ports of one socket."""
    inquiry = await inquire(
        [(host, port) for port in stun_ports_of(mesh)],
        family=6 if ":" in host else 4,
        deadline_s=UDP_S,
    )
    seen = inquiry.seen()
    # What it says of a machine in its own network is of no use to others, but an answer.
    answers = seen is not None or inquiry.ignored_count > 0
    return answers, seen is not None and seen.is_symmetric


async def _asked_by_tls(mesh: dict[str, Any]) -> tuple[bool, int | None]:
    """Return whether another answers in the server's place, and by how much this clock is ahead.

    None where the server does not say.
    """
    clock = SystemClock()
    try:
        async with HttpClient(tls=pinned_context(mesh["authority_pem"])) as client:
            asked_ms = clock.now_ms()
            answer = await client.fetch(
                "POST",
                f"https://{mesh['server']['addresses'][0]}/api/auth/challenge",
                json={},
                timeout_s=CLOCK_TIMEOUT_S,
            )
            now_ms = (asked_ms + clock.now_ms()) // 2
            value = answer.json()
    except SeipdError as error:
        return isinstance(error.__cause__, ssl.CertificateError), None
    said = value.get("now_ms") if isinstance(value, dict) else None
    return False, now_ms - said if isinstance(said, int) else None


async def _sizes(mesh: dict[str, Any], status: dict[str, Any]) -> list[Finding]:
    """Try whether large packets come through as small ones do."""
    echoes = Echoes(mesh["gateway"], status["interface"])
    try:
        found = await search(status["mtu"]["bytes"], echoes)
    except OSError:
        return []
    return size_findings(status["mtu"], found)


async def _private_api(state: AgentState, mesh: dict[str, Any]) -> list[Finding]:
    try:
        async with PrivateApi(mesh, state.keys()) as api:
            await api.call("POST", "/api/mesh/heartbeat", {})
    except SeipdError as error:
        what = f"the tunnel is up but the private API is not: {error}"
        return [Finding(code="api_silent", what=what, mend=error.mend or "seip down, then seip up")]
    return []


def _names(names: dict[str, Any] | None) -> list[Finding]:
    if names is None or names["state"] != FAILED:
        return []
    return [
        Finding(
            code="dns",
            what=f"names of the mesh are not found here: {names['why']}",
            mend="seip down, then seip up --no-dns, leaves this machine's resolver alone",
        )
    ]


def _ipv6(interface: str) -> list[Finding]:
    if has_ipv6(interface):
        return []
    return [
        Finding(
            code="no_ipv6",
            level=NOTE,
            what=f"IPv6 is turned off on this machine, for {interface} at least: others are reached"
            " at their IPv4 addresses in the mesh, not at those of IPv6",
            mend="sysctl net.ipv6.conf.all.disable_ipv6=0, if that is wanted",
        )
    ]


def _certificates(state: AgentState) -> list[Finding]:
    from seipd.agent.renewing import overdue
    from services.edge.acme.certfiles import CertificateFiles

    names = overdue(CertificateFiles(state.folder / "certs"), SystemClock().now_ms())
    return [
        Finding(
            code="certificate_overdue",
            what=f"the certificate of {name} is not renewed",
            mend=f"seip cert issue {name} says why",
        )
        for name in names
    ]
