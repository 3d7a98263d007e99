"""The servers of the mesh as an endpoint knows them: where they are and how busy.

Whose word this is does not matter: it says where to knock, and who opens has to show the root's
signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from seipd.agent.families import at_hand
from seipd.agent.noting import note
from seipd.agent.private_api import LOST, doors_of
from seipd.client.pinning import pinned_context
from services.base.storage.files import read_private
from services.kernel import canonical
from services.kernel.errors import InputError, SeipdError, WireError
from services.kernel.ids import parse_label, parse_server_id
from services.kernel.places import parse_place
from services.kernel.regions import by_distance
from services.runtime.outbound import HttpClient, Response

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from seipd.agent.state import AgentState

MAX_SERVERS: Final = 2048
MAX_BYTES: Final = 2 << 20
TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownServer:
    """One server; ``load`` is how busy it is, in tenths."""

    server_id: str
    region: str
    address: str
    """``host:port`` of its public HTTPS server."""
    load: float = 0.0
    address6: str | None = None
    """The same over IPv6, where it tells one beside."""

    @property
    def places(self) -> tuple[str, ...]:
        """Where it is, in an order to try: those that this machine has a way to come first."""
        return at_hand((self.address, self.address6))

    @property
    def at_hand(self) -> str:
        """Where to try first."""
        return self.places[0]


class _Load(msgspec.Struct, frozen=True):
    cpu_percent: Annotated[int, msgspec.Meta(ge=0)] = 0


class _Listed(msgspec.Struct, frozen=True):
    server_id: str
    region: str
    address: str | None = None
    address6: str | None = None
    load: _Load | None = None


class _List(msgspec.Struct, frozen=True):
    servers: Annotated[list[_Listed], msgspec.Meta(max_length=MAX_SERVERS)]


def servers_of(value: Any) -> list[KnownServer]:  # noqa: ANN401 (JSON)
    """Return the servers of a list that tells where they are.

    Raises:
        WireError: it is no such list.
    """
    try:
        listed = msgspec.convert(value, _List).servers
        for one in listed:
            parse_server_id(one.server_id)
            parse_label(one.region)
            for text in (one.address, one.address6):
                if text is not None:
                    parse_place(text)
    except (msgspec.ValidationError, InputError, ValueError) as error:
        raise WireError(f"the list of servers is not good: {error}") from error
    return [
        KnownServer(
            server_id=one.server_id,
            region=one.region,
            address=one.address,
            address6=one.address6,
            load=one.load.cpu_percent / 10 if one.load is not None else 0.0,
        )
        for one in listed
        if one.address is not None
    ]


async def fetch_servers(mesh: dict[str, Any]) -> list[KnownServer]:
    """Ask the own server for the list.

    Raises:
        SeipdError: it does not answer, or not with a list.
    """
    context = pinned_context(mesh["authority_pem"])
    (inside, inside_s), (public, _) = doors_of(mesh)
    async with HttpClient(tls=context) as client:
        try:
            answer = await _list_of(client, inside, inside_s)
        except LOST:
            answer = await _list_of(client, public, TIMEOUT_S)
    if answer.status != 200:
        raise WireError("the server does not list the others")
    return servers_of(answer.json())


async def _list_of(client: HttpClient, place: str, timeout_s: float) -> Response:
    return await client.fetch(
        "GET", f"https://{place}/api/servers", timeout_s=timeout_s, max_bytes=MAX_BYTES
    )


def outside(servers: Sequence[KnownServer], inner: Sequence[str]) -> list[KnownServer]:
    """Return the servers that are reached without the tunnel; ``inner`` are its networks."""
    networks = [ip_network(text) for text in inner]

    def is_outside(one: KnownServer) -> bool:
        hosts = [ip_address(parse_place(place)[0]) for place in one.places]
        return any(all(host not in network for network in networks) for host in hosts)

    return [one for one in servers if is_outside(one)]


def nearest(servers: Sequence[KnownServer], region: str | None, *, count: int) -> list[KnownServer]:
    """Return the servers to look at: the own region's, then those of the nearest regions."""
    order = {name: place for place, name in enumerate(by_distance(region, _regions(servers)))}
    ranked = sorted(servers, key=lambda one: (order[one.region], one.load, one.server_id))
    return ranked[:count]


def save_servers(state: AgentState, servers: Sequence[KnownServer]) -> None:
    """Note them: when the own server is dead, it is too late to ask."""
    listed = [
        {
            "server_id": one.server_id,
            "region": one.region,
            "address": one.address,
            "address6": one.address6,
        }
        for one in servers
    ]
    note(_path(state), {"servers": listed})


def load_servers(state: AgentState) -> list[KnownServer]:
    """Return what was written down; nothing where that is not there or damaged."""
    try:
        return servers_of(canonical.decode_object(read_private(_path(state), max_bytes=MAX_BYTES)))
    except (SeipdError, OSError):
        return []


def _regions(servers: Sequence[KnownServer]) -> set[str]:
    return {one.region for one in servers}


def _path(state: AgentState) -> Path:
    return state.folder / "servers.json"
