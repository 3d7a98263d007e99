"""What an endpoint remembers: its keys, and what its server told it when it joined.

keys.json     {identity, wireguard}: two private keys, 0600; made before the first request, so
              that a repeated join is the same endpoint
mesh.json     the answer to the join, the mesh id, and the root's word on the server's keys
believed.json what was proved of the peers (see ``believed``)
servers.json  where the servers of the mesh are (see ``serverlist``)
routing.json  what is wanted of subnets, exits and the mode (see ``routes.wishes``)
policy.json   what may reach this endpoint (see ``policy``)
mesh-ca.pem   the TLS authority of its server, for curl and browsers
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seipd.agent.families import mesh_at_hand
from services.base.crypto.agreement import generate_x25519, x25519_public
from services.base.crypto.signatures import SigningKey, generate_signing_key
from services.base.storage.files import make_private_dir, read_private, write_atomic
from services.kernel import canonical
from services.kernel.errors import CorruptError, ForbiddenError, NotFoundError, SeipdError
from services.kernel.ids import b64u_decode, b64u_encode

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES = 1 << 20
MAX_STATUS_BYTES = 1 << 18
_TOLD = (
    "mesh.json",
    "mesh-ca.pem",
    "believed.json",
    "servers.json",
    "policy.json",
    "routing.json",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentKeys:
    """The private keys of this endpoint."""

    identity: SigningKey
    wireguard_private: bytes = field(repr=False)

    @property
    def wireguard_public(self) -> bytes:
        """The public half of the WireGuard key."""
        return x25519_public(self.wireguard_private)


class AgentState:
    """The folder of one endpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def run(self) -> Path:
        """The agent's pid, status and log."""
        return self.folder / "run"

    @property
    def ca_path(self) -> Path:
        """The TLS authority for people's own programs."""
        return self.folder / "mesh-ca.pem"

    @property
    def joined(self) -> bool:
        """Whether this endpoint belongs to a mesh."""
        return _is_there(self.folder / "mesh.json")

    def keys(self, *, create: bool = False) -> AgentKeys:
        """Return the keys; with ``create`` make them once.

        Raises:
            ForbiddenError: the folder is somebody else's.
            NotFoundError: there are none.
            CorruptError: the file is damaged.
        """
        path = self.folder / "keys.json"
        is_there = _is_there(path)
        if not is_there and not create:
            raise _not_joined()
        make_private_dir(self.folder)
        if not is_there:
            private, _ = generate_x25519()
            made = {
                "identity": b64u_encode(generate_signing_key().seed),
                "wireguard": b64u_encode(private),
            }
            write_atomic(path, canonical.encode(made))
        try:
            value = canonical.decode_object(read_private(path, max_bytes=MAX_FILE_BYTES))
            return AgentKeys(
                identity=SigningKey(b64u_decode(value["identity"])),
                wireguard_private=b64u_decode(value["wireguard"]),
            )
        except (KeyError, TypeError) as error:
            raise CorruptError(
                "keys.json is damaged", path="keys.json", mend="join again"
            ) from error

    def mesh(self) -> dict[str, Any]:
        """Return what the join answered, with the server's addresses that are of use here now.

        Raises:
            ForbiddenError: the folder is somebody else's.
            NotFoundError: this endpoint has not joined.
            CorruptError: the file is damaged.
        """
        path = self.folder / "mesh.json"
        if not _is_there(path):
            raise _not_joined()
        try:
            value = canonical.decode_object(read_private(path, max_bytes=MAX_FILE_BYTES))
            return mesh_at_hand(value)
        except (SeipdError, LookupError) as error:
            raise CorruptError(
                f"mesh.json: {error}", path="mesh.json", mend="seip leave, then join again"
            ) from error

    def save_mesh(self, value: dict[str, Any]) -> None:
        """Remember the answer to a join."""
        write_atomic(self.ca_path, str(value["authority_pem"]).encode("ascii"), mode=0o644)
        write_atomic(self.folder / "mesh.json", canonical.encode(value))

    def forget(self) -> None:
        """Remove everything, keys last."""
        for name in (*_TOLD, "keys.json"):
            (self.folder / name).unlink(missing_ok=True)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError as error:
        raise ForbiddenError(
            f"{path.parent} is not yours to read", mend="use sudo, as for seip up"
        ) from error


def _not_joined() -> NotFoundError:
    return NotFoundError(
        "this machine has not joined a mesh",
        code="no_mesh",
        mend="sudo seip join TOKEN, with a token of seipd invite endpoint",
    )
