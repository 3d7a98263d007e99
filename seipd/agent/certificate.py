"""A certificate for this endpoint's name: the key is made here and never leaves.

    certs/<name>/bundle.pem    key, certificate, chain
    certs/<name>/pending.key   the key of the newest request

The server orders it at its CA by our request, and sees no more than the public key.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from seipd.agent.private_api import PrivateApi
from services.edge.acme.certfiles import CertificateFiles, Installed
from services.edge.acme.checking import check_chain
from services.edge.acme.renewal import Advice, standing_of
from services.edge.acme.requesting import public_key_of, request_of
from services.kernel.errors import CorruptError, SeipdError, UnavailableError
from services.kernel.ids import b64u_encode
from services.runtime.clock import SystemClock

if TYPE_CHECKING:
    from seipd.agent.state import AgentState

POLL_S: Final = 1.0


async def issue_certificate(
    state: AgentState, name: str, *, wait_s: float, force: bool = False
) -> Installed:
    """Return a certificate for a name of this endpoint: the one it has, while that is not due.

    Raises:
        UnavailableError: ``not_issued``: the CA has not issued it in that time; the order goes on.
        SeipdError: what the server refuses with, or the tunnel is down.
    """
    files, clock = CertificateFiles(state.folder / "certs"), SystemClock()
    # First: where there is no mesh nothing is left behind.
    mesh, keys = state.mesh(), state.keys()
    held = _held(files, name)
    if held is not None and not force:
        standing = standing_of(held.leaf, files.advice(name), clock.now_ms())
        if not standing.is_due:
            return held
    key = _key(files, name, held)
    public_key = public_key_of(key)
    body = {"name": name, "request": b64u_encode(request_of(key, name))}
    async with PrivateApi(mesh, keys) as api:
        shown = await api.call("POST", "/api/certs/issue", body)
        try:
            async with asyncio.timeout(wait_s):
                while not _is_ours(shown, name, public_key, clock.now_ms()):
                    _refuse_given_up(shown)
                    await asyncio.sleep(POLL_S)
                    shown = await api.call("GET", f"/api/certs/{name}")
        except TimeoutError:
            why = f": {shown['error']}" if shown["error"] else ""
            raise UnavailableError(
                f"the CA has not issued it yet{why}", code="not_issued", mend="say it again later"
            ) from None
    files.install(name, shown["certificate"].encode("ascii"), key)
    installed = files.load(name)
    if installed is None:
        raise CorruptError("what was written is not there", path=f"certs/{name}")
    return installed


async def learn_when_due(state: AgentState, name: str) -> None:
    """Ask the server when the CA wants a certificate renewed, and remember it.

    Raises:
        SeipdError: the server is not reached, or the disk refuses.
    """
    files = CertificateFiles(state.folder / "certs")
    async with PrivateApi(state.mesh(), state.keys()) as api:
        shown = await api.call("GET", f"/api/certs/{name}")
    held, due_ms = _held(files, name), shown.get("renew_at_ms")
    # A server that it came to since knows nothing of this one.
    if held is None or shown.get("fingerprint") != held.leaf.fingerprint or type(due_ms) is not int:
        return
    advice = Advice(
        fingerprint=held.leaf.fingerprint, start_ms=due_ms, end_ms=due_ms, ask_again_ms=0
    )
    if files.advice(name) != advice:
        files.save_advice(name, advice)


def bundle_of(state: AgentState, name: str) -> str:
    """Return where the key and the certificate of a name lie."""
    return str(CertificateFiles(state.folder / "certs").bundle_path(name))


def _held(files: CertificateFiles, name: str) -> Installed | None:
    try:
        return files.load(name)
    except CorruptError:
        return None


def _key(files: CertificateFiles, name: str, held: Installed | None) -> bytes:
    """Return the key of a request that is under way, or a new one."""
    pending = files.pending_key(name)
    if pending is not None and (held is None or held.key_pem != pending):
        return pending
    return files.new_key(name)


def _is_ours(shown: dict[str, Any], name: str, public_key: bytes, now_ms: int) -> bool:
    """Say whether the server has a good certificate for our key; it may have an older one."""
    if not isinstance(shown.get("certificate"), str):
        return False
    try:
        chain = shown["certificate"].encode("ascii")
        check_chain(chain, name=name, public_key=public_key, now_ms=now_ms)
    except (SeipdError, UnicodeEncodeError):
        return False
    return True


def _refuse_given_up(shown: dict[str, Any]) -> None:
    if "ordered" not in shown["state"] and shown["error"]:
        raise UnavailableError(f"the order failed: {shown['error']}", code="not_issued")
