"""To which endpoints packets go: the kernel notes their addresses, and forgets them after a while.

An nftables set, filled by packets on their way into the tunnel; no packet is touched. Where there
is no nftables, nobody knows who is talked to.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from services.edge.punch.messages import PORT
from services.kernel.errors import SeipdError
from services.runtime.nft import Nft, is_available

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

KEPT_S: Final = 30
"""How long a path is kept after that is for whoever wants it."""
MAX_NOTED: Final = 4096


class Firewall(Protocol):
    """The part of nftables that is needed."""

    def run(self, commands: str) -> str:
        """Run commands as one transaction.

        Raises:
            SeipdError: they were refused.
        """

    def read(self, command: str) -> list[dict[str, Any]]:
        """Return what a list command lists.

        Raises:
            SeipdError: it was refused.
        """


class Talkers:
    """The set of one tunnel interface. Calls block for a moment."""

    def __init__(self, firewall: Firewall, interface: str) -> None:
        self._firewall = firewall
        self._interface = interface
        self._table = "seip_talk_" + re.sub(r"[^A-Za-z0-9]", "_", interface)

    def begin(self, networks: Iterable[str]) -> None:
        """Note packets to these networks from now on, beginning with an empty set.

        Raises:
            SeipdError: nftables refused.
        """
        self._firewall.run(table_text(self._table, self._interface, networks))

    def end(self) -> None:
        """Note nothing any more; may be called twice.

        Raises:
            SeipdError: nftables refused.
        """
        # Made before it is deleted, since deleting what is not there is an error.
        self._firewall.run(f"table inet {self._table}\ndelete table inet {self._table}\n")

    def addresses(self) -> list[str]:
        """Return the destinations of the last half minute.

        Raises:
            SeipdError: nftables refused, or the table was deleted.
        """
        found: list[str] = []
        for name in ("v4", "v6"):
            listed = self._firewall.read(f"list set inet {self._table} {name}")
            found += addresses_in(listed)
        return found


def remove_leftover_talkers(interface: str) -> None:
    """Remove the table that a killed agent left."""
    if not is_available():
        return
    nft = Nft()
    try:
        Talkers(nft, interface).end()
    except SeipdError as error:
        logger.info("who was talked to is still noted: %s", error)
    finally:
        nft.close()


def table_text(table: str, interface: str, networks: Iterable[str]) -> str:
    """Return the transaction that makes the table anew."""
    families = {False: [], True: []}  # type: dict[bool, list[str]]
    for network in networks:
        families[":" in network].append(network)
    rules = "".join(
        f'    oifname "{interface}" {word} daddr {{ {", ".join(listed)} }}'
        f" update @{name} {{ {word} daddr }}\n"
        for name, word, listed in (("v4", "ip", families[False]), ("v6", "ip6", families[True]))
        if listed
    )
    flags = f"flags dynamic,timeout; timeout {KEPT_S}s; size {MAX_NOTED};"
    return (
        f"table inet {table}\n"
        f"delete table inet {table}\n"
        f"table inet {table} {{\n"
        f"  set v4 {{ type ipv4_addr; {flags} }}\n"
        f"  set v6 {{ type ipv6_addr; {flags} }}\n"
        "  chain out {\n"
        "    type filter hook postrouting priority 10; policy accept;\n"
        # What measures a path is no wish for one.
        f"    udp sport {PORT} udp dport {PORT} return\n"
        f"{rules}"
        "  }\n"
        "}\n"
    )


def addresses_in(listed: Iterable[dict[str, Any]]) -> list[str]:
    """Return the elements of the sets in what nftables lists."""
    found = []
    for one in listed:
        for element in one.get("set", {}).get("elem", ()):
            value = element.get("elem", {}).get("val") if isinstance(element, dict) else element
            if isinstance(value, str):
                found.append(value)
    return found
