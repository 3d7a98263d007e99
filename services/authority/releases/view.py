"""Release manifests as all servers hold them; which keys are believed each server's settings say.

    release/manifest/<digest>   {by, manifest}       the digest is SHA-256 of the manifest, in hex
    release/key/<release key>   {digests: [...]}     of one release key, in order
    release/by/<server id>      {digests: [...]}     brought by one server, in order

Kind: ``release.manifest`` {manifest}, the signed document itself, by any server on its own feed:
it carries its own weight. A manifest with a higher minimum version takes the place of all that it
ends, of the same release key alone; what a key has ended does not come back. So there is
room for those in use: 256 of a key, 64 brought by one server.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from services.authority.trust.tiers import Right, may
from services.base.release.manifest import ReleaseKeys, open_manifest
from services.kernel import canonical
from services.kernel.errors import InputError, RejectedError, SeipdError
from services.kernel.ids import b64u_encode, parse_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.base.release.manifest import Manifest
    from services.kernel.ids import ServerId
    from services.kernel.views import Appliers, FoldContext, StateReader, StateWriter

VIEW: Final = "release"
MANIFEST_KIND: Final = "release.manifest"
MAX_OF_KEY: Final = 256
MAX_OF_SERVER: Final = 64

_MANIFEST: Final = "manifest/"


def digest_of(data: bytes) -> str:
    """Return what names a manifest."""
    return hashlib.sha256(data).hexdigest()


def is_held(state: StateReader, data: bytes) -> bool:
    """Say whether a manifest is in the ledger."""
    return state.get(VIEW, _MANIFEST + digest_of(data)) is not None


def document_in(key: str, value: dict[str, Any] | None) -> bytes | None:
    """Return the manifest in an object of this view; None where the object is no manifest."""
    if value is None or not key.startswith(_MANIFEST):
        return None
    return canonical.encode(value["manifest"])


def _manifest(context: FoldContext, body: dict[str, Any]) -> None:
    data, author = _document(body), _require_server(context)
    manifest, state, digest = _opened(data), context.state, digest_of(data)
    if state.get(VIEW, _MANIFEST + digest) is not None:
        raise RejectedError("this manifest is here", code="no_change")
    key = f"key/{b64u_encode(manifest.release_key)}"
    of_key, of_server = _digests(state, key), _digests(state, f"by/{author}")
    held = {one: _opened(_held(state, one)) for one in of_key}
    minimum = max(
        (one.minimum_version for one in held.values() if one.issued_ms <= context.stamp_ms),
        default=(0, 0, 0),
    )
    if manifest.version < minimum:
        raise RejectedError("a newer manifest ended this release", code="release_below_minimum")
    ended = {one for one, old in held.items() if _ends(manifest, old, context.stamp_ms)}
    if len(set(of_key) - ended) >= MAX_OF_KEY:
        raise RejectedError(f"there are {MAX_OF_KEY} of this release key", code="too_many")
    if len(set(of_server) - ended) >= MAX_OF_SERVER:
        raise RejectedError(f"{author} brought {MAX_OF_SERVER} already", code="too_many")
    for one in ended:
        _forget(state, one)
    state.put(VIEW, _MANIFEST + digest, {"by": author, "manifest": body["manifest"]})
    _write(state, key, {*of_key, digest} - ended)
    _write(state, f"by/{author}", {*_digests(state, f"by/{author}"), digest})


def _ends(newer: Manifest, older: Manifest, stamp_ms: int) -> bool:
    """Say whether one manifest makes another superfluous: its release may run no more.

    The minimum that the older one set is kept by the newer one.
    """
    return (
        newer.issued_ms <= stamp_ms
        and older.version < newer.minimum_version
        and older.minimum_version <= newer.minimum_version
    )


def _forget(state: StateWriter, digest: str) -> None:
    brought_by = f"by/{state.get(VIEW, _MANIFEST + digest)['by']}"
    state.delete(VIEW, _MANIFEST + digest)
    _write(state, brought_by, set(_digests(state, brought_by)) - {digest})


def _document(body: dict[str, Any]) -> bytes:
    if body.keys() != {"manifest"} or not isinstance(body["manifest"], dict):
        raise InputError(f"{MANIFEST_KIND} holds one manifest")
    return canonical.encode(body["manifest"])


def _opened(data: bytes) -> Manifest:
    """Return a manifest that is well signed by the key that it names, whoever's that is."""
    named = canonical.decode_object(data).get("release_key")
    if not isinstance(named, str):
        raise InputError("a manifest names its release key")
    try:
        return open_manifest(data, ReleaseKeys(trusted=frozenset({parse_key(named)})))
    except SeipdError as error:
        raise RejectedError(str(error), code=error.code) from error


def _held(state: StateReader, digest: str) -> bytes:
    return canonical.encode(state.get(VIEW, _MANIFEST + digest)["manifest"])


def _digests(state: StateReader, key: str) -> list[str]:
    found = state.get(VIEW, key)
    return list(found["digests"]) if found is not None else []


def _write(state: StateWriter, key: str, digests: Iterable[str]) -> None:
    listed = sorted(digests)
    if listed:
        state.put(VIEW, key, {"digests": listed})
    else:
        state.delete(VIEW, key)


def _require_server(context: FoldContext) -> ServerId:
    author = context.author
    if context.record.actor != author.key:
        raise RejectedError("a server speaks for itself", code="rejected_unauthorised")
    if not may(context.state, context.roster, author.server_id, Right.WRITE):
        raise RejectedError(f"{author.server_id} is untrusted", code="rejected_unauthorised")
    return author.server_id


APPLIERS: Appliers = {MANIFEST_KIND: _manifest}
