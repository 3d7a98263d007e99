"""The endpoint's calls to its server's private API, through the tunnel, in a session of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seipd.client.pinning import pinned_context
from seipd.client.problems import error_of
from services.edge.auth.sessions import auth_input
from services.kernel.errors import UnavailableError, UnreachableError
from services.kernel.ids import MeshId, b64u_decode, b64u_encode, parse_server_id
from services.kernel.places import parse_place
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    from types import TracebackType

    from seipd.agent.state import AgentKeys

TIMEOUT_S = 10.0
LOST = (UnavailableError, UnreachableError)
INSIDE_TIMEOUT_S = 3.0
"""Where there is a tunnel it answers by then; what is asked for needs one anyway."""


def doors_of(mesh: dict[str, Any]) -> list[tuple[str, float]]:
    """Return where the server's public HTTPS is, and for how long to wait there.

    Through the tunnel first: some networks let WireGuard through and not that port.
    """
    public = mesh["server"]["addresses"][0]
    inside = f"{mesh['gateway']}:{parse_place(public)[1]}"
    return [(inside, INSIDE_TIMEOUT_S), (public, TIMEOUT_S)]


class PrivateApi:
    """Authenticates at the server's public port; asks on the private one."""

    def __init__(self, mesh: dict[str, Any], keys: AgentKeys) -> None:
        self._mesh = mesh
        self._keys = keys
        context = pinned_context(mesh["authority_pem"])
        self._client = HttpClient(tls=context)
        self._token = ""

    async def __aenter__(self) -> PrivateApi:
        """Open the client."""
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self._client.__aexit__(kind, error, trace)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401 (JSON)
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:  # noqa: ANN401 (JSON)
        """Make one authenticated request.

        Raises:
            UnreachableError: the tunnel or the server is down.
            SeipdError: what the server refused with.
        """
        if not self._token:
            self._token = await self._login()
        url = f"https://{self._mesh['gateway']}:{self._mesh['private_port']}{path}"
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = await self._client.fetch(
            method, url, json=body, headers=headers, timeout_s=timeout_s
        )
        if answer.status >= 400:
            raise error_of(answer)
        return answer.json()

    async def _login(self) -> str:
        (inside, inside_s), (public, public_s) = doors_of(self._mesh)
        try:
            return await self._login_at(inside, inside_s)
        except LOST:
            return await self._login_at(public, public_s)

    async def _login_at(self, place: str, timeout_s: float) -> str:
        base = f"https://{place}"
        given = await self._client.fetch(
            "POST", f"{base}/api/auth/challenge", json={}, timeout_s=timeout_s
        )
        if given.status != 200:
            raise error_of(given)
        challenge = given.json()
        named = parse_server_id(challenge["server_id"])
        if named != self._mesh["server"]["server_id"]:
            raise UnreachableError("another server answers at that address")
        signed = auth_input(MeshId(self._mesh["mesh_id"]), named, b64u_decode(challenge["nonce"]))
        body = {
            "key": b64u_encode(self._keys.identity.public_key),
            "nonce": challenge["nonce"],
            "signature": b64u_encode(self._keys.identity.sign(signed)),
        }
        answer = await self._client.fetch(
            "POST", f"{base}/api/auth", json=body, timeout_s=timeout_s
        )
        if answer.status != 200:
            raise error_of(answer)
        return str(answer.json()["token"])
