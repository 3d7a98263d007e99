"""What a relay keeps on its disk.

key            its Ed25519 seed, base64url, 0600: who has it is the relay
mesh.json      {mesh_id, servers: [host:port, ...]}
charter.json   {charter}: the root's word on the servers, as far as it was shown
introduction   the text that an operator registers
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from services.authority.relays.introductions import (
    check_place,
    introduced,
    introduction_from_text,
)
from services.base.crypto.agreement import x25519_public
from services.base.crypto.signatures import SigningKey, generate_signing_key
from services.base.storage.files import make_private_dir, read_private, write_atomic
from services.edge.relay.keys import box_private_key
from services.kernel import canonical
from services.kernel.errors import CorruptError, InputError, NotFoundError, SeipdError
from services.kernel.ids import MeshId, b64u_decode, b64u_encode, parse_mesh_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from services.authority.relays.introductions import Introduction

KEY: Final = "key"
MESH: Final = "mesh.json"
CHARTER: Final = "charter.json"
INTRODUCTION: Final = "introduction"
MAX_KEY_BYTES: Final = 64
MAX_MESH_BYTES: Final = 1 << 20
MAX_CHARTER_BYTES: Final = 64 << 20
MAX_TEXT_BYTES: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where others reach a relay."""

    host: str
    host6: str
    port: int
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownMesh:
    """The mesh that a relay carries for, and where servers of it were."""

    mesh_id: MeshId
    servers: tuple[str, ...]


class RelayHome:
    """The folder of one relay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self) -> SigningKey:
        """Return the relay's key; the first time it is made.

        Raises:
            CorruptError: the file is damaged.
            ConfigError: others may read it, or the folder is not ours.
            StorageError: the disk refused.
        """
        make_private_dir(self._folder)
        path = self._folder / KEY
        if not path.exists():
            write_atomic(path, b64u_encode(generate_signing_key().seed).encode("ascii"))
        try:
            return SigningKey(b64u_decode(read_private(path, MAX_KEY_BYTES).decode("ascii")))
        except (InputError, ValueError) as error:
            raise CorruptError("the relay's key is damaged", path=KEY) from error

    def mesh(self) -> KnownMesh | None:
        """Return the mesh; None before the first start.

        Raises:
            CorruptError: the file is damaged.
        """
        try:
            value = canonical.decode_object(read_private(self._folder / MESH, MAX_MESH_BYTES))
            return KnownMesh(
                mesh_id=parse_mesh_id(value["mesh_id"]), servers=tuple(map(str, value["servers"]))
            )
        except NotFoundError:
            return None
        except (InputError, KeyError, TypeError) as error:
            raise CorruptError(f"{MESH} is damaged", path=MESH) from error

    def save_mesh(self, mesh: KnownMesh) -> None:
        """Remember the mesh and its servers."""
        make_private_dir(self._folder)
        value: dict[str, Any] = {"mesh_id": mesh.mesh_id, "servers": list(mesh.servers)}
        write_atomic(self._folder / MESH, canonical.encode(value))

    def charter(self) -> list[object]:
        """Return the roster as it was last seen; nothing where it is lost or damaged."""
        try:
            data = read_private(self._folder / CHARTER, MAX_CHARTER_BYTES)
            found = canonical.decode_object(data).get("charter")
        except SeipdError:
            return []
        return found if isinstance(found, list) else []

    def save_charter(self, values: Sequence[object]) -> None:
        """Remember the roster."""
        value: dict[str, Any] = {"charter": list(values)}
        write_atomic(self._folder / CHARTER, canonical.encode(value))

    def introduction(self, key: SigningKey, mesh_id: MeshId, where: Where, now_ms: int) -> str:
        """Return the text to register; it is made anew only if something in it changed.

        Raises:
            InputError: an address or a port that nobody would take.
        """
        box = x25519_public(box_private_key(key.seed))

        def made(at_ms: int) -> Introduction:
            return introduced(
                key,
                mesh_id,
                box=box,
                host=where.host,
                host6=where.host6,
                port=where.port,
                region=where.region,
                now_ms=at_ms,
            )

        held = self._held_introduction()
        if held is not None and made(held.made_ms) == held:
            return held.text()
        fresh = made(now_ms)
        check_place(fresh, ())
        text = fresh.text()
        write_atomic(self._folder / INTRODUCTION, text.encode("ascii"))
        return text

    def _held_introduction(self) -> Introduction | None:
        try:
            data = read_private(self._folder / INTRODUCTION, MAX_TEXT_BYTES)
            return introduction_from_text(data.decode("ascii", errors="replace"))
        except SeipdError:
            return None
