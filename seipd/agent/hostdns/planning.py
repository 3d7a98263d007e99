"""What is to be said to this machine's resolver. Pure: text in, text out.

Where systemd-resolved answers, the mesh's domains alone go to the gateway. A resolv.conf knows no
domains: there the gateway stands first, and what was there before stands behind it word for word,
so that names go on being found when the server is dead. Nothing is kept elsewhere: the file itself
says what to take out of it again.

    # seip begin FOLDER
    nameserver 10.64.0.1
    options timeout:1
    # seip end
    what was there before; a line that would get in the way begins with "# seip aside "
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from services.edge.resolver.upstreams import nameservers_in

if TYPE_CHECKING:
    from collections.abc import Sequence

BEGIN: Final = "# seip begin "
END: Final = "# seip end"
ASIDE: Final = "# seip aside "
_OPTIONS: Final = "options timeout:1"
_STUBS: Final = ("127.0.0.53", "127.0.0.54")


class Way(Enum):
    """How this machine finds names."""

    RESOLVED = "resolved"
    FILE = "resolv.conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the resolver is to know."""

    gateway: str
    interface: str
    domains: tuple[str, ...]
    """The mesh's, and those that the owner of this machine sends there, too."""


def way_of(resolv_conf: str, nsswitch: str, *, has_resolvectl: bool) -> Way:
    """Return how this machine finds names, by its files."""
    if not has_resolvectl:
        return Way.FILE
    hosts = [line.split() for line in nsswitch.splitlines() if line.startswith("hosts:")]
    if any("resolve" in words for words in hosts):
        return Way.RESOLVED
    asked = [host for host, _ in nameservers_in(resolv_conf)]
    return Way.RESOLVED if asked and asked[0] in _STUBS else Way.FILE


def resolved_commands(wish: Wish) -> list[list[str]]:
    """Return the command lines that send these domains, and nothing else, to the gateway."""
    routed = [f"~{domain}" for domain in wish.domains]
    return [
        ["resolvectl", "dns", wish.interface, wish.gateway],
        ["resolvectl", "domain", wish.interface, *routed],
        ["resolvectl", "default-route", wish.interface, "no"],
    ]


def planned(text: str, *, gateway: str, folder: str) -> str:
    """Return a resolv.conf with the gateway first; planned twice it is the same."""
    before = restored(text, folder=folder)
    block = [f"{BEGIN}{folder}", f"nameserver {gateway}", _OPTIONS, END]
    return "\n".join(block) + "\n" + "".join(map(_beside, before.splitlines(keepends=True)))


def restored(text: str, *, folder: str) -> str:
    """Return a resolv.conf without what ``planned`` put into it, also where that was damaged."""
    begin = f"{BEGIN}{folder}"
    if begin not in text.splitlines():
        return text
    kept: list[str] = []
    expected: list[str] = []
    for line in text.splitlines(keepends=True):
        bare = line.rstrip("\n")
        if bare == begin:
            expected = ["nameserver ", _OPTIONS, END]
            continue
        while expected and not bare.startswith(expected[0]):
            expected.pop(0)
        if expected:
            expected.pop(0)
        else:
            kept.append(line.removeprefix(ASIDE))
    return "".join(kept)


def is_set(text: str, *, gateway: str, folder: str) -> bool:
    """Say whether a resolv.conf is as ``planned`` leaves it."""
    return text == planned(text, gateway=gateway, folder=folder)


def owner_of(text: str) -> str | None:
    """Return the folder of the endpoint that has set a resolv.conf; None where none has."""
    for line in text.splitlines():
        if line.startswith(BEGIN):
            return line.removeprefix(BEGIN)
    return None


def nameservers_beside(text: str, gateway: str) -> Sequence[tuple[str, int]]:
    """Return the machine's own name servers: those that answer when the tunnel is down."""
    return [one for one in nameservers_in(text) if one[0] != gateway]


def _beside(line: str) -> str:
    """Set a line aside that would have the name servers asked in turn."""
    words = line.split()
    return f"{ASIDE}{line}" if words[:1] == ["options"] and "rotate" in words else line
