"""From who carries what to the routes of this machine. Pure."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from seipd.agent.marks import FWMARK
from seipd.agent.routes.book import EVERYTHING
from services.edge.wireguard.model import Route, SideTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seipd.agent.routes.book import RouteBook

MAX_EXCEPTED = 256


def side_table(
    mesh: dict[str, Any], book: RouteBook, *, wants_exit: bool, servers: Iterable[str]
) -> SideTable:
    """Return the routes into the tunnel beyond those of the mesh.

    Whoever wants an exit has everything closed where there is none, so that nothing goes out by
    another way unseen. The servers are reached past it: they are where a way out is asked for.

    Args:
        mesh: what ``mesh.json`` holds.
        book: who carries what.
        wants_exit: whether everything is to go through an exit.
        servers: ``host:port`` of the servers that are known.
    """
    into = [*book.subnets(), *(EVERYTHING if book.exit_address is not None else ())]
    routes = tuple(Route(destination=text, source=_source(mesh, text)) for text in into)
    covered = [ip_network(text) for text in (*into, *(EVERYTHING if wants_exit else ()))]
    hosts = dict.fromkeys(_host(place) for place in (mesh["server"]["endpoint"], *servers))
    excepted = [
        str(ip_network(host))
        for host in hosts
        if any(ip_address(host) in network for network in covered)
    ]
    return SideTable(
        routes=routes,
        past_mark=FWMARK,
        excepted=tuple(excepted[:MAX_EXCEPTED]),
        closed=EVERYTHING if wants_exit else (),
    )


def _source(mesh: dict[str, Any], prefix: str) -> str:
    source: str = mesh["tunnel_address6" if ":" in prefix else "tunnel_address"]
    return source


def _host(place: str) -> str:
    return place.rpartition(":")[0].strip("[]")
