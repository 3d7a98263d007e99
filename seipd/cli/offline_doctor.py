"""What ``doctor`` can say while no daemon answers: it reads the data root, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seipd.config.paths import Paths
from seipd.daemon.genesis import load_charter
from seipd.daemon.owner import as_owner_of
from services.base.ledger.feed import feed_verifier
from services.base.ledger.fsck import verify_log
from services.base.ledger.roster import Charter
from services.base.storage.files import read_private
from services.kernel.errors import CorruptError, SeipdError

if TYPE_CHECKING:
    from pathlib import Path

    from seipd.config.model import Settings
    from services.kernel.certificates import ServerCertificate

_MAX_FILE_BYTES = 64 << 20


def examine_offline(settings: Settings) -> list[dict[str, Any]] | None:
    """Return the findings, or None where a daemon answers and knows better."""
    with as_owner_of(settings.data_root):
        return _examine(Paths(settings.data_root))


def _examine(paths: Paths) -> list[dict[str, Any]] | None:
    if paths.socket.exists():
        return None
    findings = [_finding("error", "the daemon does not run", "start it with seipd run")]
    try:
        records = load_charter(paths.identity)
    except SeipdError as error:
        return [*findings, _finding("error", str(error), error.mend)]
    charter = Charter(records[0])
    for record in records[1:]:
        charter.offer(record)
    for name in ("keypair.enc", "session_key.enc"):
        try:
            read_private(paths.identity / name, max_bytes=_MAX_FILE_BYTES)
        except SeipdError as error:
            findings.append(_finding("error", f"identity/{name}: {error}", error.mend))
    for certificate in charter.servers().values():
        for place, label in _places(paths, certificate):
            findings += _check_log(place, label, charter, certificate)
    return findings


def _places(paths: Paths, certificate: ServerCertificate) -> list[tuple[Path, str]]:
    server_id = certificate.server_id
    copy = paths.ledger / "feeds" / server_id
    if copy.exists():
        return [(copy, f"ledger/feeds/{server_id}")]
    own = paths.ledger / "feed"
    return [(own, "ledger/feed")] if (own / "checkpoint").exists() else []


def _check_log(
    place: Path, label: str, charter: Charter, certificate: ServerCertificate
) -> list[dict[str, Any]]:
    verifier = feed_verifier(charter.genesis.mesh_id, certificate)
    mend = "restore this folder from a backup; a copy of another's feed may simply be removed"
    try:
        verify_log(place, verifier, verifier.name)
    except CorruptError as error:
        return [_finding("error", f"{label}/{error.path}: {error}", error.mend or mend)]
    except SeipdError as error:
        return [_finding("error", f"{label}: {error}", error.mend or mend)]
    return []


def _finding(level: str, what: str, mend: str) -> dict[str, Any]:
    return {"level": level, "what": what, "mend": mend}
