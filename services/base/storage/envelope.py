r"""Signed JSON files: name, version and content are all inside the signature.

    {"key", "name", "sig", "value", "version"}    canonical JSON
    sig = Ed25519( "seipd/file/v1\0" || mesh id, 32 bytes || the same object without sig )

A file put back under another name, or from an older version, is found out. A damaged file is moved
aside and never taken for an empty one: ``load`` goes on refusing until somebody puts a good file in
its place, or removes the one that was moved aside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.base.crypto.signatures import Signer, verify
from services.base.storage import files
from services.kernel import canonical
from services.kernel.errors import CorruptError, InputError, NotFoundError, WireError
from services.kernel.ids import b64u_encode, parse_key, parse_signature

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from services.kernel.ids import MeshId

PURPOSE_FILE = b"seipd/file/v1\0"
MAX_FILE_BYTES = 64 * 1024 * 1024

_FIELDS = frozenset({"key", "name", "sig", "value", "version"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a signed file says, and whose key says so."""

    value: Any
    version: int
    key: bytes


def wrap(
    name: str, value: canonical.JsonValue, signer: Signer, mesh_id: MeshId, version: int
) -> bytes:
    """Return the bytes of a signed file; ``name`` is its path relative to the data root.

    Raises:
        BadJsonError: the value has no canonical form.
    """
    unsigned = {
        "key": b64u_encode(signer.public_key),
        "name": name,
        "value": value,
        "version": version,
    }
    signature = signer.sign(_signing_input(mesh_id, unsigned))
    return canonical.encode({**unsigned, "sig": b64u_encode(signature)})


def unwrap(
    data: bytes,
    *,
    name: str,
    keys: Collection[bytes],
    mesh_id: MeshId,
    min_version: int = 0,
) -> Envelope:
    """Check a signed file.

    Raises:
        CorruptError: ``corrupt``: not such a file; ``sig_invalid``: by a key that is not (or no
            longer) one of ``keys``, for another file or mesh, or changed; ``rollback_detected``:
            older than ``min_version``.
    """
    value = _parse(data, name)
    try:
        key, signature = parse_key(value["key"]), parse_signature(value.pop("sig"))
    except InputError as error:
        raise CorruptError(f"{name}: {error}", path=name) from error
    if key not in keys:
        raise CorruptError(f"{name} is signed by a key not trusted", path=name, code="sig_invalid")
    if not verify(key, _signing_input(mesh_id, value), signature):
        raise CorruptError(f"the signature of {name} is not good", path=name, code="sig_invalid")
    if value["name"] != name:
        raise CorruptError(
            f"{name} holds what was signed as another file", path=name, code="sig_invalid"
        )
    if value["version"] < min_version:
        raise CorruptError(
            f"{name} is version {value['version']}, {min_version} was there already",
            path=name,
            code="rollback_detected",
        )
    return Envelope(value=value["value"], version=value["version"], key=key)


def load(
    path: Path,
    *,
    name: str,
    keys: Collection[bytes],
    mesh_id: MeshId,
    now_ms: int,
    min_version: int = 0,
) -> Envelope:
    """Read and check a signed file; move it aside if it is not good.

    Raises:
        NotFoundError: it never was there.
        CorruptError: as for ``unwrap``; or it is gone because it was moved aside before.
        UnsafeFileError: a link, a device, a folder, or a file with a second name.
        TooLargeError: over 64 MiB.
        StorageError: the disk refused.
    """
    try:
        data = files.read_file(path, MAX_FILE_BYTES)
    except NotFoundError:
        if aside := sorted(path.parent.glob(f"{path.name}.corrupt-*")):
            raise CorruptError(
                f"{name} was damaged and moved aside to {aside[-1].name}",
                path=name,
                mend=f"restore {path} from a backup, or remove {aside[-1]} to do without it",
            ) from None
        raise
    try:
        return unwrap(data, name=name, keys=keys, mesh_id=mesh_id, min_version=min_version)
    except CorruptError as error:
        aside_path = quarantine(path, now_ms)
        error.mend = f"restore {path} from a backup; the bad file is now {aside_path.name}"
        raise


def quarantine(path: Path, now_ms: int) -> Path:
    """Move a damaged file aside, durably, and return its new path.

    Raises:
        StorageError: the disk refused.
    """
    target = path.with_name(f"{path.name}.corrupt-{now_ms}")
    try:
        path.rename(target)
    except OSError as error:
        raise files.storage_error(error, f"move {path} aside") from error
    files.fsync_dir(path.parent)
    return target


def _parse(data: bytes, name: str) -> dict[str, Any]:
    try:
        value = canonical.decode_canonical(data)
    except WireError as error:
        raise CorruptError(f"{name}: {error}", path=name) from error
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise CorruptError(f"{name} is not a signed file", path=name)
    texts = (value["key"], value["name"], value["sig"])
    if not all(type(text) is str for text in texts) or type(value["version"]) is not int:
        raise CorruptError(f"{name} is not a signed file", path=name)
    return value


def _signing_input(mesh_id: MeshId, unsigned: dict[str, Any]) -> bytes:
    return PURPOSE_FILE + bytes.fromhex(mesh_id) + canonical.encode(unsigned)
