"""Is what a server runs an approved release? One question over all manifests. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.base.release.manifest import parse_version, version_text
from services.kernel.errors import ForbiddenError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.release.manifest import Manifest, Version


class ReleaseRefusedError(ForbiddenError):
    """What a server runs is not approved."""

    default_code = "release_unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a server says that it runs."""

    version: str
    platform: str
    python: str
    measurement: str


def minimum_of(manifests: Sequence[Manifest], *, now_ms: int) -> Version:
    """Return the lowest version that may run: the highest of all manifests that were issued.

    One that has expired counts still: time does not bring an ended release back.
    """
    return max(
        (one.minimum_version for one in manifests if one.issued_ms <= now_ms), default=(0, 0, 0)
    )


def approve(running: Running, manifests: Sequence[Manifest], *, now_ms: int) -> Manifest:
    """Return the manifest that approves of what runs.

    Raises:
        ReleaseRefusedError: ``release_below_minimum``, ``release_unknown``,
            ``release_other_platform``, ``release_other_version``, ``manifest_expired`` or
            ``manifest_not_yet``.
    """
    minimum = minimum_of(manifests, now_ms=now_ms)
    if _version_of(running) < minimum:
        raise _refused(
            "release_below_minimum",
            f"{running.version} is older than {version_text(minimum)}, the oldest that may run",
        )
    fitting = [one for one in manifests if running.measurement in one.measurements]
    if not fitting:
        raise _refused("release_unknown", "no manifest has this measurement")
    here = [
        one for one in fitting if (one.platform, one.python) == (running.platform, running.python)
    ]
    if not here:
        raise _refused("release_other_platform", "the manifest is for another platform or Python")
    same = [one for one in here if version_text(one.version) == running.version]
    if not same:
        raise _refused("release_other_version", "the measurement is of another version than told")
    newest = max(same, key=lambda one: one.expires_ms)
    if now_ms >= newest.expires_ms:
        raise _refused("manifest_expired", "the manifest of this release has expired")
    if now_ms < newest.issued_ms:
        raise _refused("manifest_not_yet", "the manifest of this release was issued after now")
    return newest


def _version_of(running: Running) -> Version:
    try:
        return parse_version(running.version)
    except InputError as error:
        raise _refused("release_unknown", f"a server that runs {running.version[:32]!r}") from error


def _refused(code: str, what: str) -> ReleaseRefusedError:
    return ReleaseRefusedError(what, code=code)
