"""Reaching a server that a token names, and believing it only by the root's fingerprint."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from seipd.client.trust import KnownRoot, TrustedServer, UntrustedServerError, trust_server
from services.kernel.errors import SeipdError, UnreachableError, WireError
from services.runtime.clock import SystemClock
from services.runtime.outbound import HttpClient, Response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.kernel.ids import MeshId
    from services.kernel.invitations import Invitation

TRY_TIMEOUT_S = 5.0
MAX_CLOCK_OFF_MS: Final = 60_000


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
    now_ms = SystemClock().now_ms()
    ahead_ms = _ahead_ms(answer.headers.get("Date", ""), now_ms)
    if not isinstance(shown := _object_in(answer), dict):
        raise UntrustedServerError(
            f"{base} is no server of a mesh",
            mend="where this network asks one to sign in first (a hotel's), do that in a browser;"
            " else check the address",
        )
    with blaming_clock(ahead_ms):
        trusted = trust_server(shown, mesh_id=mesh_id, server_id=None, root=root, now_ms=now_ms)
    return replace(trusted, clock_ahead_ms=ahead_ms)


@contextlib.contextmanager
def blaming_clock(ahead_ms: int) -> Iterator[None]:
    """Have what fails within say that this machine's clock is off, where it is.

    Certificates are not valid yet or no more, and records have expired, for whoever has the wrong
    time: none of those errors would say so.

    Raises:
        SeipdError: as within.
    """
    try:
        yield
    except SeipdError as error:
        if abs(ahead_ms) > MAX_CLOCK_OFF_MS:
            way = "ahead of" if ahead_ms > 0 else "behind"
            error.mend = (
                f"this machine's clock is {abs(ahead_ms) // 1000} s {way} the server's: set it,"
                " as by timedatectl set-ntp true, then try again"
            )
        raise


def _ahead_ms(date: str, now_ms: int) -> int:
    """Return how far this clock is ahead of an HTTP date; 0 where there is none.

    Nobody proved that date: it is good for a hint, and nothing is decided by it.
    """
    try:
        return now_ms - int(parsedate_to_datetime(date).timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0


def _object_in(answer: Response) -> object:
    """Return what came, if it is JSON: a page for people to sign in at is not."""
    try:
        return answer.json() if answer.status == 200 else None
    except WireError:
        return None
