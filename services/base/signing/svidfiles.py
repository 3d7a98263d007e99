"""The files by which a process shows its SVID: a chain, a private key and a trust bundle.

Whoever renews them (a SPIRE agent's helper, an operator) puts new ones in their place; they are
read again when they have changed, and a set that does not fit together changes nothing.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from services.base.spiffe.bundle import MAX_BUNDLE_BYTES, Bundle, parse_bundle
from services.base.spiffe.ids import SpiffeError, SpiffeId
from services.base.spiffe.svid import parse_svid
from services.base.storage.files import read_file, read_private
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

MAX_PEM_BYTES = 64 * 1024
LOOK_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SvidFiles:
    """Where the three lie."""

    chain: Path
    key: Path
    bundle: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a process shows, and by what it checks others."""

    spiffe_id: SpiffeId
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    bundle: Bundle

    @property
    def roots_pem(self) -> bytes:
        """The authorities of the bundle."""
        return b"".join(one.public_bytes(Encoding.PEM) for one in self.bundle.authorities)


def read_shown(files: SvidFiles) -> Shown:
    """Read the three files.

    Raises:
        SpiffeError: ``bad_svid``, ``bad_bundle``; ``key_mismatch``: the key is not the chain's.
        KeyPermissionsError: others can read the private key.
        NotFoundError: one of them is not there.
        StorageError: the disk refused.
    """
    chain_pem = read_file(files.chain, MAX_PEM_BYTES)
    key_pem = read_private(files.key, MAX_PEM_BYTES)
    svid = parse_svid(chain_pem)
    try:
        public = load_pem_private_key(key_pem, password=None).public_key()
    except (ValueError, TypeError) as error:
        raise SpiffeError(f"{files.key} is no private key in PEM", code="bad_svid") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if public.public_bytes(*form) != svid.leaf.public_key().public_bytes(*form):
        raise SpiffeError(f"{files.key} is not the key of {files.chain}", code="key_mismatch")
    bundle = read_file(files.bundle, MAX_BUNDLE_BYTES)
    return Shown(
        spiffe_id=svid.spiffe_id,
        chain_pem=chain_pem,
        key_pem=key_pem,
        bundle=parse_bundle(bundle, trust_domain=svid.spiffe_id.trust_domain),
    )


class SvidSource:
    """The newest good set of files; ``current`` may be called by any thread.

    Raises:
        SeipdError: as ``read_shown``: the first set must be good.
    """

    def __init__(
        self,
        files: SvidFiles,
        *,
        monotonic_s: Callable[[], float],
        interval_s: float = LOOK_INTERVAL_S,
    ) -> None:
        self._files = files
        self._monotonic_s = monotonic_s
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._looked_s = monotonic_s()
        self._marks = self._marked()
        self._shown = read_shown(files)

    def current(self) -> Shown:
        """Return what is to be shown now."""
        with self._lock:
            now_s = self._monotonic_s()
            if now_s - self._looked_s < self._interval_s:
                return self._shown
            self._looked_s = now_s
            marks = self._marked()
            if marks != self._marks:
                self._marks = marks
                self._take()
            return self._shown

    def _take(self) -> None:
        try:
            shown = read_shown(self._files)
        except SeipdError as error:
            logger.warning("the SVID's files: %s", error, extra={"code": error.code})
            return
        before, after = self._shown.bundle.sequence, shown.bundle.sequence
        if shown.spiffe_id.trust_domain != self._shown.spiffe_id.trust_domain:
            logger.warning("the new SVID is of another trust domain: restart to change it")
        elif before is not None and (after is None or after < before):
            logger.warning("the new bundle is older than the one in use")
        else:
            self._shown = shown
            logger.info("the SVID and its bundle were read again")

    def _marked(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(
            _mark(path) for path in (self._files.chain, self._files.key, self._files.bundle)
        )


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
