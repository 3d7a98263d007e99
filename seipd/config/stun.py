"""The settings of STUN: who is asked, and the second address of this server."""

from __future__ import annotations

from services.edge.stun.asking import parse_servers
from services.kernel.errors import SeipdError
from services.mesh.facts.payloads import check_host


def bad_stun(*, servers: str, alternate: str) -> list[tuple[str, str]]:
    """Return what is wrong, by setting: name and why."""
    faults = []
    try:
        parse_servers(servers)
    except SeipdError as error:
        faults.append(("stun_servers", f"is wrong: {error}"))
    try:
        if alternate:
            check_host(alternate)
    except SeipdError as error:
        faults.append(("stun_alternate_address", f"is wrong: {error}"))
    return faults
