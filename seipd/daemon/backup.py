"""``seipd backup``: a consistent copy of a data root in one file, while the daemon runs or not.

Feeds only grow, and what is published of them stays. Of each the journal is read first, then the
checkpoint, then the tiles that it signs: what is published meanwhile is in the journal that was
read, or left out. The state file is read before any feed, so that it never speaks of more.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from seipd import __version__
from seipd.config.paths import Paths
from seipd.daemon.archive import (
    FORMAT_VERSION,
    KIND,
    LEFT_OUT,
    MANIFEST,
    NEEDED,
    SETTINGS,
    Manifest,
    Member,
    require_all,
)
from seipd.daemon.genesis import MAX_CHAIN_BYTES, verify_charter
from services.base.ledger.checkpoint import parse_checkpoint
from services.base.ledger.journal import JOURNAL
from services.base.ledger.note import parse_note
from services.base.ledger.prefix import PREFIX, parse_prefix
from services.base.ledger.store import CHECKPOINT
from services.base.ledger.tiles import tiles_between
from services.base.storage.files import (
    FILE_MODE,
    TEMPORARY_PREFIX,
    fsync_dir,
    read_file,
    storage_error,
)
from services.kernel import canonical
from services.kernel.errors import ConflictError, CorruptError, NotFoundError, SeipdError
from services.kernel.ids import parse_key, server_id_of
from services.kernel.records import record_from_value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from services.base.ledger.roster import Charter
    from services.kernel.clock import Clock

MAX_SMALL_BYTES: Final = 256 << 20
SMALL_BYTES: Final = 1 << 20
ATTEMPTS: Final = 20
PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A file of the backup: its bytes, or where they lie if they never change, or its handle.

    What is replaced by a new file keeps its bytes for whoever holds the old one open.
    """

    name: str
    data: bytes = b""
    path: Path | None = None
    handle: BinaryIO | None = None

    def opened(self) -> BinaryIO:
        if self.handle is not None:
            self.handle.seek(0)
            return os.fdopen(os.dup(self.handle.fileno()), "rb")
        return io.BytesIO(self.data) if self.path is None else self.path.open("rb")

    def close(self) -> None:
        if self.handle is not None:
            self.handle.close()

    def member(self) -> Member:
        digest, size = hashlib.sha256(), 0
        with self.opened() as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
                size += len(piece)
        return Member(name=self.name, size=size, sha256=digest.hexdigest())


def write_backup(
    data_root: Path, target: Path, *, clock: Clock, settings_file: Path | None = None
) -> dict[str, Any]:
    """Write the backup of a data root; the target is whole or not there.

    Returns:
        ``mesh_id``, ``root_fingerprint``, ``server_id``, ``file``, ``bytes``, ``feeds``.

    Raises:
        ConflictError: ``file_exists``: nothing is written over.
        NotFoundError: the data root belongs to no mesh.
        CorruptError: the data root is damaged.
        StorageError: the disk refused.
    """
    if target.exists() or target.is_symlink():
        raise ConflictError(
            f"{target} exists already", code="file_exists", mend="choose another name"
        )
    if target.absolute().is_relative_to(data_root.absolute()):
        raise ConflictError(
            "a backup does not lie in what it is of", code="bad_path", mend="choose another folder"
        )
    pieces, feeds = _gathered(data_root, settings_file)
    manifest = _manifest(Paths(data_root), pieces, feeds, clock)
    require_all(NEEDED, (one.name for one in pieces))
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{target.name}")
    try:
        size = _written(temporary, manifest, pieces)
        # Not a rename: whoever made that file meanwhile keeps it.
        os.link(temporary, target)
        fsync_dir(target.absolute().parent)
    except FileExistsError as error:
        raise ConflictError(f"{target} exists already", code="file_exists") from error
    except OSError as error:
        raise storage_error(error, f"write {target}") from error
    finally:
        temporary.unlink(missing_ok=True)
        for one in pieces:
            one.close()
    return {
        "mesh_id": manifest.mesh_id,
        "root_fingerprint": manifest.mesh_id,
        "server_id": manifest.server_id,
        "file": str(target),
        "bytes": size,
        "feeds": manifest.feeds,
    }


def _manifest(paths: Paths, pieces: list[_Piece], feeds: dict[str, int], clock: Clock) -> Manifest:
    charter = _charter(paths)
    key = read_file(paths.identity / "keypair.pub", 256).decode("ascii", "replace").strip()
    server_id = server_id_of(parse_key(key))
    certificate = charter.last_certificate(server_id)
    if certificate is None:
        raise NotFoundError(f"the roster does not name {server_id}", code="no_mesh")
    return Manifest(
        v=FORMAT_VERSION,
        kind=KIND,
        version=__version__,
        created_ms=clock.now_ms(),
        mesh_id=charter.genesis.mesh_id,
        server_id=server_id,
        domain=charter.genesis.domain,
        region=certificate.region,
        epoch=certificate.epoch,
        feeds=feeds,
        members=[one.member() for one in pieces],
    )


def _charter(paths: Paths) -> Charter:
    # Not read as a secret of ours: root may take the backup of a daemon that is another user.
    try:
        data = read_file(paths.identity / "root_chain.json", MAX_CHAIN_BYTES)
    except NotFoundError:
        raise NotFoundError(
            "this data root belongs to no mesh yet",
            code="no_mesh",
            mend="there is nothing to back up",
        ) from None
    value = canonical.decode_canonical(data)
    if not isinstance(value, list):
        raise CorruptError("root_chain.json is no list", path="identity/root_chain.json")
    return verify_charter([record_from_value(one) for one in value])


def _gathered(root: Path, settings_file: Path | None) -> tuple[list[_Piece], dict[str, int]]:
    logs = sorted(one.parent for one in (root / "ledger").rglob(JOURNAL))
    plain = [path for path in _files(root) if not any(path.is_relative_to(log) for log in logs)]
    # The state file speaks of feeds: it has to be older than what is kept of them.
    found = (_plain_piece(root, path) for path in plain)
    pieces = [piece for piece in found if piece is not None]
    feeds: dict[str, int] = {}
    for log in logs:
        size, kept = _log_pieces(root, log)
        if not log.is_relative_to(root / "ledger" / "audit"):
            feeds[str(log.relative_to(root))] = size
        pieces += kept
    if settings_file is not None and settings_file.is_file():
        pieces.append(_Piece(name=SETTINGS, data=read_file(settings_file, MAX_SMALL_BYTES)))
    return pieces, feeds


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        here = root / folder
        left_out = LEFT_OUT if here == root else frozenset()
        folders[:] = sorted(set(folders) - left_out)
        plain = sorted(name for name in set(names) - left_out if not name.startswith("."))
        yield from (here / name for name in plain)


def _plain_piece(root: Path, path: Path) -> _Piece | None:
    name = str(path.relative_to(root))
    if path.is_file() and not path.is_symlink() and path.stat().st_size > SMALL_BYTES:
        return _Piece(name=name, handle=path.open("rb"))
    data = _still_there(path)
    return None if data is None else _Piece(name=name, data=data)


def _still_there(path: Path) -> bytes | None:
    try:
        return read_file(path, MAX_SMALL_BYTES)
    except NotFoundError:
        return None


def _log_pieces(root: Path, folder: Path) -> tuple[int, list[_Piece]]:
    """Return how much is published of a log, and its files."""
    for _ in range(ATTEMPTS - 1):
        try:
            return _log_once(root, folder)
        except CorruptError:
            continue  # published meanwhile: the partial tiles are others now
    return _log_once(root, folder)


def _log_once(root: Path, folder: Path) -> tuple[int, list[_Piece]]:
    base = folder.relative_to(root)
    found = {name: _still_there(folder / name) for name in (JOURNAL, PREFIX, CHECKPOINT)}
    pieces = [
        _Piece(name=f"{base}/{name}", data=data) for name, data in found.items() if data is not None
    ]
    size = _published_size(base, found[CHECKPOINT], found[PREFIX])
    for ref in tiles_between(0, size):
        path, whole = folder / ref.path(), folder / ref.full.path()
        if ref == ref.full and path.is_file():
            pieces.append(_Piece(name=f"{base}/{ref.path()}", path=path))
        elif ref != ref.full and (data := _still_there(path)) is not None:
            pieces.append(_Piece(name=f"{base}/{ref.path()}", data=data))
        elif whole.is_file():
            pieces.append(_Piece(name=f"{base}/{ref.full.path()}", path=whole))
        else:
            raise CorruptError(
                f"{base}/{ref.path()} is missing",
                path=f"{base}/{ref.path()}",
                code="ledger_corrupt",
                mend="seipd ledger verify tells what is damaged",
            )
    return size, pieces


def _published_size(base: Path, checkpoint: bytes | None, prefix: bytes | None) -> int:
    """Return how far the tiles reach; the signatures are checked by whoever opens the log."""
    try:
        signed = parse_checkpoint(parse_note(checkpoint).text).size if checkpoint else 0
        return max(signed, parse_prefix(prefix).size if prefix else 0)
    except SeipdError as error:
        raise CorruptError(f"{base}: {error}", path=f"{base}/{CHECKPOINT}") from error


def _written(temporary: Path, manifest: Manifest, pieces: list[_Piece]) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, FILE_MODE)
        head = _Piece(name=MANIFEST, data=manifest.encode())
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for piece, member in zip(
                [head, *pieces], [head.member(), *manifest.members], strict=True
            ):
                info = tarfile.TarInfo(member.name)
                info.size, info.mode = member.size, FILE_MODE
                with piece.opened() as data:
                    tar.addfile(info, data)
        file.flush()
        os.fsync(descriptor)
        return file.tell()
