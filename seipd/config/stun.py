"""The settings of addresses by which others reach this server, and of who is asked for them."""

from __future__ import annotations

from services.edge.stun.asking import parse_servers
from services.kernel.errors import SeipdError
from services.mesh.facts.payloads import check_host, check_host6


def bad_stun(*, servers: str, alternate: str, public6: str) -> list[tuple[str, str]]:
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
    try:
        if public6:
            check_host6(public6)
    except SeipdError as error:
        faults.append(("public_address6", f"is wrong: {error}"))
    return faults
