"""Other programs' firewalls that drop what this machine hands on, whatever ours lets through.

A packet passes where all agree. Docker and ufw drop all that is forwarded and not named; firewalld
refuses what comes in by an interface of no zone. What iptables-legacy holds is not seen here.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Protocol

from services.runtime.nft import NftError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REFUSING: Final = frozenset({("inet", "firewalld")})
"""Tables that refuse by their last rule, not by a policy."""
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*\Z")
_NAMES: Final = re.compile(r'"([^"]+)"')


class Reader(Protocol):
    """The part of nftables that is asked."""

    def run(self, commands: str) -> str:
        """Run commands; return what they print."""

    def read(self, command: str) -> list[dict[str, Any]]:
        """Return the objects that a command lists."""


def dropped_by(nft: Reader, interface: str) -> str:
    """Return which other firewall drops what comes in by an interface to be handed on, or nothing.

    One that names the interface somewhere was told of it: what it does then is its owner's affair.

    Raises:
        NftError: the kernel does not tell.
        UnavailableError: there is no nftables.
    """
    for family, table, chain in _dropping(nft):
        try:
            listed = nft.run(f"list table {family} {table}")
        except NftError:  # it has gone meanwhile
            continue
        if not any(fnmatchcase(interface, name) for name in _NAMES.findall(listed)):
            return f"{family} {table} {chain}"
    return ""


def _dropping(nft: Reader) -> Iterator[tuple[str, str, str]]:
    for one in nft.read("list chains"):
        chain = one.get("chain", {})
        if chain.get("hook") != "forward" or not _PLAIN.match(chain["table"]):
            continue
        if chain.get("policy") == "drop" or (chain["family"], chain["table"]) in _REFUSING:
            yield chain["family"], chain["table"], chain["name"]
