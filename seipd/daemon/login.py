"""How a server of the mesh proves itself to another over HTTPS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.edge.auth.sessions import auth_input
from services.kernel.errors import ForbiddenError, UnreachableError
from services.kernel.ids import b64u_decode, b64u_encode, parse_server_id

if TYPE_CHECKING:
    from services.base.crypto.signatures import Signer
    from services.kernel.ids import MeshId
    from services.runtime.outbound import HttpClient, Response


async def login_server(client: HttpClient, base: str, *, mesh_id: MeshId, key: Signer) -> str:
    """Return a token for the identity key of a server of the mesh.

    Raises:
        ForbiddenError: the other does not know the key.
        UnreachableError: it does not answer, or answers something else.
    """
    given = _object(await client.fetch("POST", f"{base}/api/auth/challenge", json={}))
    nonce = b64u_decode(given["nonce"])
    signature = key.sign(auth_input(mesh_id, parse_server_id(given["server_id"]), nonce))
    answer = {
        "key": b64u_encode(key.public_key),
        "nonce": given["nonce"],
        "signature": b64u_encode(signature),
    }
    return str(_object(await client.fetch("POST", f"{base}/api/auth", json=answer))["token"])


def _object(answer: Response) -> dict[str, Any]:
    if answer.status in {401, 403}:
        raise ForbiddenError("authentication refused")
    value = answer.json()
    if answer.status != 200 or not isinstance(value, dict):
        raise UnreachableError(f"authentication refused with status {answer.status}")
    return value
