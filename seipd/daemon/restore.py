"""``seipd restore``: a backup becomes a data root; nothing of it counts before all of it is good.

The files are unpacked into a folder of their own, each checked against the manifest, every feed
opened and verified; only then do they move to their places, the identity last. Without it there is
no mesh here, so whatever interrupts this leaves nothing that could start.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
from typing import TYPE_CHECKING, Any, Final

from seipd.config.paths import Paths
from seipd.daemon.archive import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    BackupError,
    Manifest,
    Member,
    decode_manifest,
    require_all,
)
from seipd.daemon.genesis import load_charter, verify_charter
from seipd.daemon.owner import as_owner_of
from seipd.daemon.restored import Restored, write_restored
from services.base.ledger.copies import open_feed
from services.base.storage.files import (
    DIR_MODE,
    FILE_MODE,
    fsync_dir,
    make_private_dir,
    storage_error,
)
from services.base.storage.root import DataRoot
from services.kernel.errors import ConflictError, NotFoundError, SeipdError
from services.kernel.ids import ServerId, parse_key, parse_server_id, server_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

STAGING: Final = "restoring"
PIECE_BYTES: Final = 1 << 20
_MADE_BY_OPENING: Final = frozenset({"lock", "schema", "run"})


def restore_backup(source: Path, data_root: Path) -> dict[str, Any]:
    """Make an empty data root what a backup says.

    Returns:
        ``mesh_id``, ``root_fingerprint``, ``server_id``, ``created_ms``, ``feeds``, ``files``.

    Raises:
        ConflictError: ``not_empty``: the data root holds something; ``locked``: a daemon runs.
        NotFoundError: there is no such file.
        BackupError: it is no backup, damaged, or not whole; nothing was changed.
        CorruptError: a feed in it is damaged.
        StorageError: the disk refused.
    """
    try:
        file = source.open("rb")
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {source}") from error
    except OSError as error:
        raise storage_error(error, f"read {source}") from error
    with file, as_owner_of(data_root), DataRoot(data_root) as root:
        _require_empty(data_root)
        staging = root.directory(STAGING)
        try:
            manifest = _unpacked(file, staging)
            _verify(staging, manifest)
            ended = Restored(epoch=manifest.epoch, created_ms=manifest.created_ms)
            write_restored(staging / "identity", ended)
            _move(staging, data_root)
        except OSError as error:
            raise storage_error(error, f"restore to {data_root}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return {
        "mesh_id": manifest.mesh_id,
        "root_fingerprint": manifest.mesh_id,
        "server_id": manifest.server_id,
        "created_ms": manifest.created_ms,
        "feeds": manifest.feeds,
        "files": len(manifest.members),
    }


def _require_empty(data_root: Path) -> None:
    found = sorted(one.name for one in data_root.iterdir() if one.name not in _MADE_BY_OPENING)
    if STAGING in found:
        raise ConflictError(
            f"an interrupted restore lies in {data_root}",
            code="not_empty",
            mend=f"remove {', '.join(found)} there, and try again",
        )
    if found:
        raise ConflictError(
            f"{data_root} is not empty: it holds {', '.join(found[:3])}",
            code="not_empty",
            mend="choose another --data-root, or move that folder away",
        )


def _unpacked(file: BinaryIO, staging: Path) -> Manifest:
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            members = iter(tar)
            manifest = _read_manifest(tar, members)
            _unpack_all(tar, members, manifest, staging)
            return manifest
    except (tarfile.TarError, EOFError, UnicodeError, ValueError) as error:
        raise BackupError(f"this is no backup: {error}") from error


def _read_manifest(tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo]) -> Manifest:
    first = next(members, None)
    if first is None or first.name != MANIFEST or not first.isreg():
        raise BackupError("this is no backup: it does not begin with a manifest")
    if first.size > MAX_MANIFEST_BYTES:
        raise BackupError("the manifest is too large")
    data = tar.extractfile(first)
    return decode_manifest(data.read() if data is not None else b"")


def _unpack_all(
    tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo], manifest: Manifest, staging: Path
) -> None:
    due = {one.name: one for one in manifest.members}
    with contextlib.suppress(tarfile.ReadError):  # cut short: what is missing is named below
        for info in members:
            wanted = due.get(info.name)
            if wanted is None:
                raise BackupError(
                    f"the backup holds what its manifest does not name: {info.name[:64]!r}",
                    code="bad_path",
                )
            if not info.isreg() or info.size != wanted.size:
                raise BackupError(f"{wanted.name} is not a file of {wanted.size} bytes")
            data = tar.extractfile(info)
            if data is not None and _unpack(data, wanted, staging):
                del due[wanted.name]
    require_all(due, ())


def _unpack(data: Any, wanted: Member, staging: Path) -> bool:  # noqa: ANN401 (tarfile's)
    """Write one file; say whether all of it was there."""
    target = staging / wanted.name
    make_private_dir(target.parent)
    digest, size = hashlib.sha256(), 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, FILE_MODE), "wb") as file:
        os.fchmod(file.fileno(), FILE_MODE)
        while piece := data.read(PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if size == wanted.size and digest.hexdigest() != wanted.sha256:
        raise BackupError(
            f"{wanted.name} is damaged", code="backup_damaged", mend="take another backup"
        )
    return size == wanted.size


def _verify(staging: Path, manifest: Manifest) -> None:
    """Check that the root signed what the roster says, and every feed as far as it reaches."""
    paths = Paths(staging)
    charter = verify_charter(load_charter(paths.identity), manifest.mesh_id)  # type: ignore[arg-type]
    text = (paths.identity / "keypair.pub").read_text(encoding="ascii").strip()
    own_id = server_id_of(parse_key(text))
    if own_id != manifest.server_id:
        raise BackupError("the identity is not that of the manifest")
    for path, size in manifest.feeds.items():
        name = _author(path, own_id)
        certificate = charter.last_certificate(name) if name is not None else None
        if certificate is None:
            continue  # nobody reads it: put aside, or of one that the roster does not name yet
        log = open_feed(staging / "ledger", charter.genesis.mesh_id, certificate, own_id)
        try:
            if size:
                log.verify()
        finally:
            log.close()


def _author(path: str, own_id: ServerId) -> ServerId | None:
    if path == "ledger/feed":
        return own_id
    try:
        return parse_server_id(path.removeprefix("ledger/feeds/"))
    except SeipdError:
        return None


def _move(staging: Path, data_root: Path) -> None:
    """Put everything in its place: the identity last, for with it there is a mesh here."""
    for folder, _, _ in os.walk(staging):
        fsync_dir(staging / folder)
    names = sorted(one.name for one in staging.iterdir())
    for name in sorted(names, key=lambda name: name == "identity"):
        if name == "schema":
            (data_root / name).unlink(missing_ok=True)
        (staging / name).rename(data_root / name)
        fsync_dir(data_root)
    data_root.chmod(DIR_MODE)
