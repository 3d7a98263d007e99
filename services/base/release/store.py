"""Manifests on the disk: one file each below ``releases/``, checked again at every start."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from services.base.release.approval import ReleaseRefusedError, minimum_of
from services.base.release.manifest import MAX_MANIFEST_BYTES, open_manifest, version_text
from services.base.storage import files
from services.kernel.errors import ConflictError, SeipdError

if TYPE_CHECKING:
    from pathlib import Path

    from services.base.release.manifest import Manifest, ReleaseKeys

logger = logging.getLogger(__name__)

MAX_MANIFESTS = 256


class ManifestStore:
    """The manifests that this server believes; ``load`` comes first."""

    def __init__(self, *, folder: Path, keys: ReleaseKeys) -> None:
        self._folder = folder
        self._keys = keys
        self._held: dict[str, Manifest] = {}
        self._documents: dict[str, bytes] = {}

    @property
    def documents(self) -> tuple[bytes, ...]:
        """The same, as they were signed."""
        return tuple(self._documents.values())

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """All that are believed, in no order."""
        return tuple(self._held.values())

    def load(self) -> None:
        """Read every file; one that is not believed (any more) is left where it is and not used.

        Raises:
            StorageError: the disk refused.
        """
        self._held, self._documents = {}, {}
        files.make_private_dir(self._folder)
        for path in sorted(self._folder.glob("*.json")):
            try:
                data = files.read_file(path, MAX_MANIFEST_BYTES)
                manifest = open_manifest(data, self._keys)
            except SeipdError as error:
                logger.warning("%s is not used: %s", path.name, error, extra={"code": error.code})
                continue
            self._held[path.name], self._documents[path.name] = manifest, data

    def believes(self, data: bytes) -> bool:
        """Say whether a manifest is signed by a key that is trusted here."""
        try:
            open_manifest(data, self._keys)
        except SeipdError:
            return False
        return True

    def add(self, data: bytes, *, now_ms: int) -> tuple[Manifest, bool]:
        """Check and keep a manifest; say whether it is a new one.

        Raises:
            WireError: no manifest.
            ManifestRefusedError: it is not believed.
            ReleaseRefusedError: ``release_below_minimum``: another manifest ended that release.
            ConflictError: ``too_many``: there are 256 already.
            StorageError: the disk refused.
        """
        manifest = open_manifest(data, self._keys)
        digest = hashlib.sha256(data).hexdigest()[:16]
        name = f"{version_text(manifest.version)}-{manifest.platform}-{digest}.json"
        if name in self._held:
            return manifest, False
        minimum = minimum_of(self.manifests, now_ms=now_ms)
        if manifest.version < minimum:
            raise ReleaseRefusedError(
                f"{version_text(manifest.version)} was ended: "
                f"{version_text(minimum)} is the oldest that may run",
                code="release_below_minimum",
            )
        if len(self._held) >= MAX_MANIFESTS:
            raise ConflictError(
                f"there are {MAX_MANIFESTS} manifests already",
                code="too_many",
                mend=f"remove those of old releases from {self._folder} and restart the daemon",
            )
        files.write_atomic(self._folder / name, data)
        self._held[name], self._documents[name] = manifest, data
        return manifest, True
