r"""Release manifests: those who make releases say which measurements are one of theirs. Pure.

    {"expires_ms", "issued_ms", "measurements": [hex, …], "minimum_version", "platform", "python",
     "release_key", "signature", "version"}
    signed: "seipd/release-manifest/v1\0" || canonical JSON without the signature

A manifest is of one platform and one Python. Several measurements are builds of its interpreter.
``minimum_version`` ends older releases: from then on their manifests approve of nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.base.crypto.signatures import verify
from services.base.release.measurement import DIGEST_BYTES
from services.kernel import canonical
from services.kernel.errors import ForbiddenError, InputError, WireError
from services.kernel.ids import SIGNATURE_BYTES, b64u_decode, b64u_encode, parse_key

if TYPE_CHECKING:
    from services.base.crypto.signatures import Signer

MAX_MANIFEST_BYTES: Final = 16 * 1024
MAX_MEASUREMENTS: Final = 64

_PURPOSE: Final = b"seipd/release-manifest/v1\0"
_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\Z")
_PLATFORM: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_HEX: Final = re.compile(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}\Z")
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]

Version = tuple[int, int, int]


class ManifestRefusedError(ForbiddenError):
    """A well-formed manifest that is not believed."""

    default_code = "manifest_bad_signature"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One release on one platform."""

    version: Version
    platform: str
    python: str
    measurements: tuple[str, ...]
    minimum_version: Version
    issued_ms: int
    expires_ms: int
    release_key: bytes


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    platform: str
    python: str
    measurements: list[str]
    minimum_version: str
    issued_ms: _Time
    expires_ms: _Time
    release_key: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseKeys:
    """Who may sign manifests, and who may no more."""

    trusted: frozenset[bytes]
    retired: frozenset[bytes] = frozenset()


def parse_version(text: str) -> Version:
    """Parse ``major.minor.patch``.

    Raises:
        InputError: ``bad_version``.
    """
    match = _VERSION.match(text)
    if match is None:
        raise InputError(f"{text[:32]!r} is no version like 1.2.3", code="bad_version")
    major, minor, patch = (int(part) for part in match.groups())
    return major, minor, patch


def version_text(version: Version) -> str:
    """Return a version as people write it."""
    return ".".join(str(part) for part in version)


def sign_manifest(
    signer: Signer,
    *,
    version: Version,
    platform: str,
    python: str,
    measurements: tuple[str, ...],
    minimum_version: Version,
    issued_ms: int,
    expires_ms: int,
) -> bytes:
    """Return the bytes of a signed manifest.

    Raises:
        WireError: a field is not of its form.
    """
    value = {
        "version": version_text(version),
        "platform": platform,
        "python": python,
        "measurements": sorted(measurements),
        "minimum_version": version_text(minimum_version),
        "issued_ms": issued_ms,
        "expires_ms": expires_ms,
        "release_key": b64u_encode(signer.public_key),
    }
    signature = signer.sign(_PURPOSE + canonical.encode(value))
    data = canonical.encode(value | {"signature": b64u_encode(signature)})
    _parse(data)
    return data


def open_manifest(data: bytes, keys: ReleaseKeys) -> Manifest:
    """Parse a manifest and check who signed it.

    Raises:
        WireError: ``bad_message``: no manifest; ``bad_json`` and ``non_canonical``.
        ManifestRefusedError: ``manifest_unknown_key``, ``manifest_retired_key`` or
            ``manifest_bad_signature``.
    """
    manifest, signature, signed = _parse(data)
    key = manifest.release_key
    if key in keys.retired:
        raise ManifestRefusedError(
            "the manifest is signed by a retired key", code="manifest_retired_key"
        )
    if key not in keys.trusted:
        raise ManifestRefusedError(
            f"the manifest is signed by {b64u_encode(key)}, which is no release key here",
            code="manifest_unknown_key",
            mend="name the key in the settings if it is who makes your releases",
        )
    if not verify(key, signed, signature):
        raise ManifestRefusedError("the manifest's signature is not good")
    return manifest


def _parse(data: bytes) -> tuple[Manifest, bytes, bytes]:
    if len(data) > MAX_MANIFEST_BYTES:
        raise WireError(f"a manifest of {len(data)} bytes")
    value: Any = canonical.decode_canonical(data)
    try:
        wire = msgspec.convert(value, _Wire)
        manifest = Manifest(
            version=parse_version(wire.version),
            platform=_like(_PLATFORM, wire.platform),
            python=_like(_PLATFORM, wire.python),
            measurements=tuple(_like(_HEX, text) for text in wire.measurements),
            minimum_version=parse_version(wire.minimum_version),
            issued_ms=wire.issued_ms,
            expires_ms=wire.expires_ms,
            release_key=parse_key(wire.release_key),
        )
        signature = b64u_decode(wire.signature)
    except (msgspec.ValidationError, InputError) as error:
        raise WireError(f"no manifest: {error}") from error
    in_order = list(manifest.measurements) == sorted(set(manifest.measurements))
    if not in_order or not 1 <= len(manifest.measurements) <= MAX_MEASUREMENTS:
        raise WireError(f"a manifest has 1 to {MAX_MEASUREMENTS} measurements, each once, in order")
    if manifest.issued_ms >= manifest.expires_ms or len(signature) != SIGNATURE_BYTES:
        raise WireError("a manifest expires after it is issued, and is signed")
    if manifest.minimum_version > manifest.version:
        raise WireError("a manifest that ends its own release")
    value.pop("signature")
    return manifest, signature, _PURPOSE + canonical.encode(value)


def _like(pattern: re.Pattern[str], text: str) -> str:
    if pattern.match(text) is None:
        raise InputError(f"{text[:80]!r} is not of its form")
    return text
