"""What this server runs, which release manifests it believes, and a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seipd.api.routes import Access, Route
from services.base.release.manifest import version_text
from services.kernel.errors import ForbiddenError, InputError, UnavailableError
from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply
    from services.base.release.manifest import Manifest
    from services.base.release.service import ReleaseService


MAX_REFUSED = 1000


def _shown(manifest: Manifest) -> dict[str, Any]:
    return {
        "version": version_text(manifest.version),
        "platform": manifest.platform,
        "python": manifest.python,
        "measurements": list(manifest.measurements),
        "minimum_version": version_text(manifest.minimum_version),
        "issued_ms": manifest.issued_ms,
        "expires_ms": manifest.expires_ms,
        "release_key": b64u_encode(manifest.release_key),
    }


def _running(release: ReleaseService) -> dict[str, Any]:
    """Return what runs here, and whether a manifest approves of it or why none does."""
    try:
        measured, running = release.measured, release.running
    except UnavailableError as error:
        return {"approved": False, "code": error.code, "detail": str(error)}
    value = {
        "version": running.version,
        "platform": running.platform,
        "python": running.python,
        "measurement": running.measurement,
        "altered": list(measured.altered[:32]),
        "strays": list(measured.stray_names[:32]),
    }
    try:
        release.approve(running)
    except ForbiddenError as error:
        return {**value, "approved": False, "code": error.code, "detail": str(error)}
    return {**value, "approved": True, "code": None, "detail": None}


async def _manifests(call: Call) -> Reply:
    release = call.services.release
    newest_first = sorted(release.manifests, key=lambda one: one.version, reverse=True)
    return {
        "running": _running(release),
        "manifests": [_shown(manifest) for manifest in newest_first],
    }


async def _add(call: Call) -> Reply:
    manifest, is_new = await call.services.release.add(call.body)
    return {"new": is_new, **_shown(manifest)}


async def _refused(call: Call) -> Reply:
    text = call.query("limit", "100")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= MAX_REFUSED:
        raise InputError(f"a limit is 1 to {MAX_REFUSED}")
    return {"refused": await call.services.release.refused(int(text))}


async def _fetch(call: Call) -> Reply:
    return {"new_count": await call.services.release.fetch()}


ROUTES = (
    Route(
        method="GET",
        path="/api/attestation/manifests",
        handler=_manifests,
        summary="What runs here and whether it is approved; the release manifests believed",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/attestation/manifests",
        handler=_add,
        summary="Take a release manifest, as it was signed",
        access=Access.OPERATOR,
        is_text=True,
    ),
    Route(
        method="GET",
        path="/api/attestation/manifests/refused",
        handler=_refused,
        summary="Which release manifests were refused here, when and with which code",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/attestation/fetch",
        handler=_fetch,
        summary="Fetch release manifests from the releases URL now",
        access=Access.OPERATOR,
    ),
)
