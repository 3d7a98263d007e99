"""The names by which a domain leads to its servers, and what they say. Pure.

    _config.seip.<domain>                       PTR to each region's list
    _config.<region>.seip.<domain>              PTR to each healthy server's text
    _config.<server>.<region>.seip.<domain>     TXT v=sp1 http=9100 … region=<r> load=<tenths>
    <server>.<region>.seip.<domain>             A

Nothing of it has to be true: it says where to knock, and who opens has to show the root's word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seipd.agent.serverlist import KnownServer
from services.kernel.dnsnames import text_of
from services.kernel.errors import InputError, WireError
from services.kernel.ids import parse_decimal, parse_label, parse_server_id
from services.kernel.places import place_text
from services.kernel.regions import by_distance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

VERSION: Final = "sp1"
MAX_LOAD: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a server's text says, as far as a client needs it."""

    http_port: int
    load: int


def regions_name(domain: str) -> str:
    """Return the name of the list of regions."""
    return f"_config.seip.{domain}"


def region_name(region: str, domain: str) -> str:
    """Return the name of the list of a region's servers."""
    return f"_config.{region}.seip.{domain}"


def server_name(server_id: str, region: str, domain: str) -> str:
    """Return the public name of a server."""
    return f"{server_id}.{region}.seip.{domain}"


def regions_in(targets: Iterable[bytes], domain: str) -> list[str]:
    """Return the regions that a list points to; what is no region is left out."""
    return _labels_in(targets, f".seip.{domain}", parse_label)


def servers_in(targets: Iterable[bytes], region: str, domain: str) -> list[str]:
    """Return the servers that a region's list points to; what is no server is left out."""
    return _labels_in(targets, f".{region}.seip.{domain}", parse_server_id)


def parse_config(text: str) -> Config:
    """Parse a server's text; what later versions add to it may be there, too.

    Raises:
        WireError: no such text.
    """
    words = dict(word.partition("=")[::2] for word in text.split())
    try:
        if words.get("v") != VERSION:
            raise InputError("another version")
        port, load = parse_decimal(words["http"]), parse_decimal(words.get("load", "0"))
        if not 1 <= port <= 65_535:
            raise InputError("no port")
    except (InputError, KeyError) as error:
        raise WireError(f"a server says nothing useful of itself: {text[:80]!r}") from error
    return Config(http_port=port, load=min(load, MAX_LOAD))


def to_look_at(
    listed: Mapping[str, Sequence[str]], region: str | None, *, count: int
) -> list[tuple[str, str]]:
    """Return the servers to look at, with their regions: the own region's, then the nearest ones'.

    Where the own region is not known, the first of each region come first: they tell which is near.
    """
    order = by_distance(region, listed)
    if region is not None:
        pairs = [(one, name) for name in order for one in listed[name]]
        return pairs[:count]
    rounds = max((len(servers) for servers in listed.values()), default=0)
    spread = [
        (listed[name][number], name)
        for number in range(rounds)
        for name in order
        if number < len(listed[name])
    ]
    return spread[:count]


def known_server(server_id: str, region: str, hosts: Sequence[str], config: Config) -> KnownServer:
    """Return a server as the agent remembers it; of ``hosts`` the first of each version of IP."""
    places = [place_text(host, config.http_port) for host in hosts]
    return KnownServer(
        server_id=server_id,
        region=region,
        address=places[0],
        address6=places[1] if len(places) > 1 else None,
        load=float(config.load),
    )


def _labels_in(targets: Iterable[bytes], tail: str, parse: Callable[[str], str]) -> list[str]:
    found = []
    for target in targets:
        text = text_of(target.lower())
        label = text.removeprefix("_config.").removesuffix(tail)
        if text != f"_config.{label}{tail}":
            continue
        try:
            found.append(parse(label))
        except InputError:
            continue
    return list(dict.fromkeys(found))
