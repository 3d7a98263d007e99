"""The form of a backup: a tar whose first member says what all others must be. Pure.

    manifest.json      canonical JSON: {created_ms, domain, epoch, feeds, kind, members, mesh_id,
                       region, server_id, v, version}
    identity/… ledger/… certs/… schema      as they lie below the data root
    settings/seipd.toml                     the settings of then, if there was such a file

``members`` names each file with size and SHA-256, ``feeds`` how many entries of each feed are in
it. Every member is a regular file. The unlock secret and the root key are never in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from services.kernel import canonical
from services.kernel.errors import InputError, SeipdError
from services.kernel.ids import parse_mesh_id, parse_server_id

if TYPE_CHECKING:
    from collections.abc import Iterable

KIND: Final = "seipd-backup"
FORMAT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
SETTINGS: Final = "settings/seipd.toml"
MAX_MANIFEST_BYTES: Final = 256 << 20
MAX_MEMBER_BYTES: Final = 4 << 30
MAX_NAME_CHARS: Final = 512
# The queue of jobs is written while it is copied, and a clone must not do its jobs again.
QUEUE: Final = ("jobs.db", "jobs.db-wal", "jobs.db-shm")
LEFT_OUT: Final = frozenset({"lock", "restoring", "run", *QUEUE})
NEEDED: Final = (
    "identity/keypair.enc",
    "identity/keypair.pub",
    "identity/root_chain.json",
    "ledger/feed/checkpoint",
    "schema",
)

_COMPONENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,198}\Z")


class BackupError(InputError):
    """A file that is no good backup."""

    default_code = "bad_backup"


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file of a backup."""

    name: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a backup holds, of whom, and from when."""

    v: int
    kind: str
    version: str
    created_ms: int
    mesh_id: str
    server_id: str
    domain: str
    region: str
    epoch: int
    feeds: dict[str, int]
    members: list[Member]

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return canonical.encode(msgspec.to_builtins(self))


def decode_manifest(data: bytes) -> Manifest:
    """Check a manifest.

    Raises:
        BackupError: malformed, of a later version, or with a name that leads elsewhere.
    """
    try:
        manifest = msgspec.convert(canonical.decode_canonical(data), Manifest)
        parse_mesh_id(manifest.mesh_id)
        parse_server_id(manifest.server_id)
    except (msgspec.ValidationError, SeipdError) as error:
        raise BackupError(f"the manifest is no good: {error}") from error
    if manifest.kind != KIND or manifest.v != FORMAT_VERSION:
        raise BackupError(
            f"this is {manifest.kind[:20]} {manifest.v}, not {KIND} {FORMAT_VERSION}",
            mend="restore it with the seipd that wrote it",
        )
    if not 1 <= manifest.epoch < 1 << 32:
        raise BackupError("the epoch is out of range")
    for one in manifest.members:
        check_name(one.name)
        if not 0 <= one.size <= MAX_MEMBER_BYTES or len(one.sha256) != 64:
            raise BackupError(f"the manifest says no good size or hash of {one.name}")
    names = [one.name for one in manifest.members]
    if len(set(names)) != len(names):
        raise BackupError("the manifest names a file twice")
    require_all(NEEDED, names)
    return manifest


def require_all(wanted: Iterable[str], found: Iterable[str]) -> None:
    """Refuse a backup that lacks something.

    Raises:
        BackupError: ``backup_incomplete``; names what is missing.
    """
    missing = sorted(set(wanted) - set(found))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise BackupError(
            f"the backup is not whole: {', '.join(missing[:3])}{more} missing",
            code="backup_incomplete",
            mend="take another backup; nothing was written",
        )


def check_name(name: str) -> None:
    """Refuse the name of a member that is not one of ours.

    Raises:
        BackupError: ``bad_path``.
    """
    parts = name.split("/")
    plain = all(_COMPONENT.match(part) for part in parts)
    if not plain or parts[0] in LEFT_OUT or len(name) > MAX_NAME_CHARS:
        raise BackupError(f"no file of ours is called {name[:64]!r}", code="bad_path")
