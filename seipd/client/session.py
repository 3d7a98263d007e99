"""Reaching a server that a token names, and believing it only by the root's fingerprint."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from seipd.client.trust import KnownRoot, TrustedServer, UntrustedServerError, trust_server
from services.kernel.errors import SeipdError, UnreachableError
from services.runtime.clock import SystemClock
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    from services.kernel.ids import MeshId
    from services.kernel.invitations import Invitation

TRY_TIMEOUT_S = 5.0


async def reach_server(invitation: Invitation) -> tuple[str, TrustedServer]:
    """Return the base URL of the token's issuing server and the proof that it is the one.

    Raises:
        UntrustedServerError: somebody answers who can't show that the root stands behind it.
        UnreachableError: nobody answers.
    """
    failures: list[SeipdError] = []
    for address in invitation.addresses:
        base = f"https://{address}"
        try:
            trusted = await examine_server(base, invitation)
        except SeipdError as error:
            failures.append(error)
            continue
        if trusted.certificate.server_id == invitation.server_id:
            return base, trusted
    untrusted = [one for one in failures if isinstance(one, UntrustedServerError)]
    if untrusted:
        raise untrusted[0]
    raise UnreachableError(
        f"the server that issued this token can't be reached at {', '.join(invitation.addresses)}",
        mend="check the network and that its daemon runs, then try again",
    )


async def examine_server(base: str, invitation: Invitation) -> TrustedServer:
    """Ask a server for its proof and check it against the token's root.

    Raises:
        UntrustedServerError: the proof is wrong.
        UnreachableError: it does not answer.
    """
    known = KnownRoot(
        generation=invitation.root_generation, fingerprint=invitation.root_fingerprint
    )
    return await examine(base, mesh_id=invitation.mesh_id, root=known)


async def examine(base: str, *, mesh_id: MeshId, root: KnownRoot) -> TrustedServer:
    """Ask a server for its proof and check it against a root key that is known.

    Raises:
        UntrustedServerError: the proof is wrong.
        UnreachableError: it does not answer.
    """
    blind = ssl.create_default_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    async with HttpClient(tls=blind) as client:
        answer = await client.fetch("GET", f"{base}/api/tls/status", timeout_s=TRY_TIMEOUT_S)
    shown = answer.json() if answer.status == 200 else None
    if not isinstance(shown, dict):
        raise UntrustedServerError(f"{base} is no server of a mesh")
    return trust_server(
        shown, mesh_id=mesh_id, server_id=None, root=root, now_ms=SystemClock().now_ms()
    )
