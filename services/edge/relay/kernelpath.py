"""The data path in the kernel: sessions as elements of nftables maps.

Every method blocks for as long as the kernel takes, so the service calls them in a thread, one at a
time. The kernel only passes on what arrives by an interface that forwards. Where one did not before
us it is told to, and our table then drops everything else that would be forwarded from there: the
fence goes up before the gate is opened, and comes down after it was shut.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.edge.relay import tables
from services.edge.relay.model import DATA_PORTS, Link, Unlink
from services.kernel.errors import UnavailableError
from services.runtime.nft import Nft, NftError, is_available

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.edge.relay.model import Side

logger = logging.getLogger(__name__)

_NET: Final = Path("/proc/sys/net")
_PASSED: Final = re.compile(r"bytes (\d+) : 0x([0-9a-f]{8})")
_PACKETS: Final = re.compile(r"counter (taken|sent) \{\s*packets (\d+)")
_QUOTED: Final = re.compile(r'"([^"]+)"')
_BATCH: Final = 500

Gate = tuple[str, str]
"""A family and an interface that forwards because of us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the kernel has counted."""

    bytes_by_direction: dict[int, int]
    """Since the direction was linked."""
    taken_packets: int
    sent_packets: int
    """Since the last look; as many as were taken, unless another firewall drops them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Let what one side sends reach our sockets, or no longer."""

    side: Side
    wanted: bool


Change = Link | Unlink | Leave


class KernelPath:
    """Programs the table; knows nothing that the book does not know, too."""

    def __init__(self, *, table: str, first_port: int) -> None:
        self._table = table
        self._first_port = first_port
        self._nft: Nft | None = None
        self._here: set[str] = set()
        self._opened: set[Gate] = set()

    def open(self) -> None:
        """Make the table; what a daemon that was killed has left there goes.

        Raises:
            UnavailableError: nftables is not there, or not for us.
            NftError: the kernel can't do it.
        """
        if not is_available():
            raise UnavailableError("nftables can't be used here", code="nft_unavailable")
        self._nft = Nft()
        # What a daemon that was killed has opened is ours to fence in and to shut.
        self._opened = opened_in(self._nft, self._table)
        self._make()

    def close(self) -> None:
        """Remove the table and shut what was opened for it; may be called twice."""
        nft, self._nft = self._nft, None
        if nft is None:
            return
        shut(self._opened)
        self._opened.clear()
        try:
            nft.run(tables.teardown(self._table))
        except NftError as error:
            logger.warning("the relay's table stays: %s", error)
        nft.close()

    def arrive(self, host: str, interface: str) -> bool:
        """Take what arrives for one of the relay's addresses by an interface.

        Returns:
            Whether the kernel passes on what comes from there.
        """
        if not self._forwards(host, interface):
            return False
        if host not in self._here:
            self._run(tables.here(self._table, host))
            self._here.add(host)
        return True

    def apply(self, changes: list[Change]) -> None:
        """Make changes in order, as one transaction.

        Raises:
            NftError: none of them was made.
        """
        self._run("\n".join(self._text(one) for one in changes))

    def set_rates(self, rates: Iterable[tuple[Link, tuple[int, int]]]) -> None:
        """Change how fast sessions may be; with each comes what it has passed so far.

        Raises:
            NftError: one of them is not there.
        """
        lines = [
            tables.rate(self._table, one, rate_kbits=one.rate_kbits, passed=passed)
            for one, passed in rates
        ]
        for at in range(0, len(lines), _BATCH):
            self._run("\n".join(lines[at : at + _BATCH]))

    def rebuild(self, links: Iterable[Link], left: Iterable[Side]) -> None:
        """Make the table anew with these sessions: another program has taken it away.

        Raises:
            NftError: the kernel refused.
        """
        self._make()
        for host in self._here:
            self._run(tables.here(self._table, host))
        lines = [tables.link(self._table, one, rate_kbits=one.rate_kbits) for one in links]
        lines += [tables.by_program(self._table, side, wanted=True) for side in left]
        for at in range(0, len(lines), _BATCH):
            self._run("\n".join(lines[at : at + _BATCH]))

    def read(self) -> Seen:
        """Return all counters.

        Raises:
            NftError: ``nft_missing``: another program has removed the table.
        """
        passed: dict[int, int] = {}
        packets = {"taken": 0, "sent": 0}
        for family in tables.FAMILIES.values():
            listed = self._run(f"list map {family} {self._table} party")
            passed.update(_passed(listed))
            counters = self._run(tables.counted(self._table, family))
            for name, text in _PACKETS.findall(counters):
                packets[name] += int(text)
        return Seen(
            bytes_by_direction=passed,
            taken_packets=packets["taken"],
            sent_packets=packets["sent"],
        )

    def _text(self, change: Change) -> str:
        if isinstance(change, Link):
            return tables.link(self._table, change, rate_kbits=change.rate_kbits)
        if isinstance(change, Unlink):
            return tables.unlink(self._table, change)
        return tables.by_program(self._table, change.side, wanted=change.wanted)

    def _make(self) -> None:
        last = self._first_port + DATA_PORTS - 1
        lines = [tables.setup(self._table, self._first_port, last)]
        lines += [tables.opened(self._table, *gate) for gate in sorted(self._opened)]
        self._run("\n".join(lines))

    def _forwards(self, host: str, interface: str) -> bool:
        gate = (tables.family_of(host), interface)
        if gate[0] == "ip6" and _read(_NET / "ipv6/conf/all/forwarding") == "1":
            return True
        value = _read(_switch(gate))
        if value != "0":
            return value == "1"
        self._run(tables.opened(self._table, *gate))
        self._opened.add(gate)
        if not _write(_switch(gate), "1"):
            return False
        logger.info("%s forwards now, what the relay carries and nothing else", interface)
        return True

    def _run(self, commands: str) -> str:
        if self._nft is None:
            raise UnavailableError("the relay's table is closed", code="nft_unavailable")
        return self._nft.run(commands) if commands else ""


def opened_in(nft: Nft, table: str) -> set[Gate]:
    """Return what a table that is there keeps a fence around."""
    gates: set[Gate] = set()
    for family in tables.FAMILIES.values():
        try:
            listed = nft.run(tables.list_opened(table, family))
        except NftError:
            continue
        gates.update((family, name) for name in _QUOTED.findall(listed))
    return gates


def shut(gates: Iterable[Gate]) -> None:
    """Let these interfaces forward no more."""
    for gate in gates:
        _write(_switch(gate), "0")


def remove_leftover(table: str) -> bool:
    """Remove a table that a daemon left when it was killed; say whether there was one.

    Raises:
        NftError: it can't be removed.
    """
    if not is_available():
        return False
    nft = Nft()
    try:
        listed = nft.run("list chains").splitlines()
        there = any(f"table {family} {table} {{" in listed for family in tables.FAMILIES.values())
        if there:
            shut(opened_in(nft, table))
            nft.run(tables.teardown(table))
    finally:
        nft.close()
    return there


def _switch(gate: Gate) -> Path:
    family, interface = gate
    if family == "ip":
        return _NET / "ipv4/conf" / interface / "forwarding"
    return _NET / "ipv6/conf" / interface / "force_forwarding"


def _passed(listed: str) -> dict[int, int]:
    found = _PASSED.findall(listed)
    return {tables.direction_of(int(mark, 16)): int(text) for text, mark in found}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _write(path: Path, value: str) -> bool:
    try:
        path.write_text(value, encoding="ascii")
    except OSError:
        return False
    return True
