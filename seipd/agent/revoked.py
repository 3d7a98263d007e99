"""Asks every server that is known whether the root took this endpoint's own server out."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

from seipd.agent.believed import seen_root
from services.kernel.errors import SeipdError
from services.kernel.ids import MeshId
from services.mesh.proofs.errors import RefusedError
from services.mesh.proofs.removal import RosterWalk
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_S: Final = 3.0
MAX_PAGES: Final = 16
MAX_PAGE_BYTES: Final = 2 << 20


class RevocationWatch:
    """Remembers of each address up to which change of the roster it was asked."""

    def __init__(self, mesh: dict[str, Any]) -> None:
        self._mesh_id = MeshId(mesh["mesh_id"])
        self._server_id: str = mesh["server"]["server_id"]
        self._root = seen_root(mesh)
        self._seen = {address: self._walk() for address in mesh["server"]["addresses"]}

    async def look(self) -> bool:
        """Say whether anybody shows that the root removed the server; believe the root alone."""
        # What is shown carries the root's signature: whose TLS it came over is of no matter.
        anyone = ssl.create_default_context()
        anyone.check_hostname = False
        anyone.verify_mode = ssl.CERT_NONE
        async with HttpClient(tls=anyone) as client:
            for address in self._seen:
                try:
                    if await self._shows(client, address):
                        return True
                except SeipdError:
                    continue
        return False

    async def _shows(self, client: HttpClient, address: str) -> bool:
        for _ in range(MAX_PAGES):
            walk = self._seen[address]
            url = f"https://{address}/api/servers/changes/{walk.number}"
            records = await self._page(client, url)
            try:
                is_removed = walk.shows_removal(records, self._server_id)
            except RefusedError:
                self._seen[address] = self._walk()
                raise
            if is_removed or not records:
                return is_removed
        return False

    def _walk(self) -> RosterWalk:
        return RosterWalk(self._mesh_id, self._root)

    async def _page(self, client: HttpClient, url: str) -> Sequence[object]:
        answer = await client.fetch("GET", url, timeout_s=TIMEOUT_S, max_bytes=MAX_PAGE_BYTES)
        value = answer.json() if answer.status == 200 else None
        records = value.get("charter") if isinstance(value, dict) else None
        if not isinstance(records, list):
            raise RefusedError("it shows no roster")
        return records
