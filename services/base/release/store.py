"""Manifests on the disk: one file each below ``releases/``, checked again at every start."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

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

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """All that are believed, in no order."""
        return tuple(self._held.values())

    def load(self) -> None:
        """Read every file; one that is not believed (any more) is left where it is and not used.

        Raises:
            StorageError: the disk refused.
        """
        self._held = {}
        files.make_private_dir(self._folder)
        for path in sorted(self._folder.glob("*.json")):
            try:
                manifest = open_manifest(files.read_file(path, MAX_MANIFEST_BYTES), self._keys)
            except SeipdError as error:
                logger.warning("%s is not used: %s", path.name, error, extra={"code": error.code})
                continue
            self._held[path.name] = manifest

    def add(self, data: bytes) -> tuple[Manifest, bool]:
        """Check and keep a manifest; say whether it is a new one.

        Raises:
            WireError: no manifest.
            ManifestRefusedError: it is not believed.
            ConflictError: ``too_many``: there are 256 already.
            StorageError: the disk refused.
        """
        manifest = open_manifest(data, self._keys)
        digest = hashlib.sha256(data).hexdigest()[:16]
        name = f"{version_text(manifest.version)}-{manifest.platform}-{digest}.json"
        if name in self._held:
            return manifest, False
        if len(self._held) >= MAX_MANIFESTS:
            raise ConflictError(
                f"there are {MAX_MANIFESTS} manifests already",
                code="too_many",
                mend=f"remove those of old releases from {self._folder} and restart the daemon",
            )
        files.write_atomic(self._folder / name, data)
        self._held[name] = manifest
        return manifest, True
