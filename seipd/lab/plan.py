"""What a lab consists of: names, addresses, folders and command lines. Pure.

Hosts are network namespaces whose cables end in one bridge, which lies in a namespace of its own:
nothing of a lab appears in the machine's own network. Interface names are unique for each host,
since wireguard-go's control sockets are shared by the whole machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.kernel.errors import InputError, NotFoundError

DEFAULT_FOLDER = Path("/run/seipd-lab")
DEFAULT_PREFIX = "seiplab"
MAX_SERVERS = 64
MAX_ENDPOINTS = 128
_NETWORK = "198.18.0"
_FIRST_SERVER = 11
_FIRST_ENDPOINT = 101
_PREFIX = re.compile(r"[A-Za-z0-9]{1,8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One namespace: a server or an endpoint."""

    name: str
    namespace: str
    address: str
    interface: str
    folder: Path

    @property
    def is_server(self) -> bool:
        """Whether a daemon runs there."""
        return self.name.startswith("s")

    @property
    def data_root(self) -> Path:
        """The daemon's data root, or the endpoint's state."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """Where its daemon writes."""
        return self.folder / "log"

    def enter(self) -> list[str]:
        """Return the words that run a command on this host."""
        return ["ip", "netns", "exec", self.namespace]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabPlan:
    """All hosts of a lab."""

    prefix: str
    folder: Path
    server_count: int
    endpoint_count: int

    def __post_init__(self) -> None:
        """Check the sizes and the prefix."""
        if not 1 <= self.server_count <= MAX_SERVERS:
            raise InputError(f"a lab has 1 to {MAX_SERVERS} servers")
        if not 0 <= self.endpoint_count <= MAX_ENDPOINTS:
            raise InputError(f"a lab has at most {MAX_ENDPOINTS} endpoints")
        check_prefix(self.prefix)

    @property
    def switch(self) -> str:
        """The namespace of the bridge."""
        return f"{self.prefix}-net"

    @property
    def servers(self) -> tuple[Host, ...]:
        """s1, s2, …."""
        return tuple(
            self._host(f"s{number + 1}", _FIRST_SERVER + number)
            for number in range(self.server_count)
        )

    @property
    def endpoints(self) -> tuple[Host, ...]:
        """e1, e2, …."""
        return tuple(
            self._host(f"e{number + 1}", _FIRST_ENDPOINT + number)
            for number in range(self.endpoint_count)
        )

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Servers, then endpoints."""
        return (*self.servers, *self.endpoints)

    def host(self, name: str) -> Host:
        """Return a host by its name.

        Raises:
            NotFoundError: there is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        names = ", ".join(host.name for host in self.hosts)
        raise NotFoundError(f"the lab has no host {name[:20]}", mend=f"it has {names}")

    def server_of(self, number: int) -> Host:
        """Return the server that endpoint ``number`` (from 0) joins: each in turn."""
        return self.servers[number % self.server_count]

    def value(self) -> dict[str, Any]:
        """Return the JSON object of the lab's file."""
        return {
            "prefix": self.prefix,
            "servers": self.server_count,
            "endpoints": self.endpoint_count,
        }

    def _host(self, name: str, number: int) -> Host:
        return Host(
            name=name,
            namespace=f"{self.prefix}-{name}",
            address=f"{_NETWORK}.{number}",
            interface=f"{self.prefix}{name}",
            folder=self.folder / name,
        )


def check_prefix(prefix: str) -> None:
    """Check the prefix of a lab's namespaces and interfaces.

    Raises:
        InputError: an interface's name would not hold it.
    """
    if not _PREFIX.fullmatch(prefix):
        raise InputError("a lab's prefix is 1 to 8 letters and digits")


def is_socket_of(prefix: str, name: str) -> bool:
    """Say whether a file is the control socket of an interface of the lab of this prefix."""
    return re.fullmatch(rf"{re.escape(prefix)}[se][0-9]+x?\.sock", name) is not None


def plan_from_value(value: dict[str, Any], folder: Path) -> LabPlan:
    """Return the plan of the lab's file that lies in ``folder``.

    Raises:
        InputError: malformed.
    """
    try:
        return LabPlan(
            prefix=value["prefix"],
            folder=folder,
            server_count=value["servers"],
            endpoint_count=value["endpoints"],
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"lab.json: {error}") from error


def partition_rules(other: str) -> str:
    """Return the nftables table by which a host neither hears nor reaches another."""
    table = f"seiplab-{other.replace('.', '-')}"
    return (
        f"table inet {table} {{\n"
        f"  chain in {{ type filter hook input priority -300; ip saddr {other} drop; }}\n"
        f"  chain out {{ type filter hook output priority -300; ip daddr {other} drop; }}\n"
        "}\n"
    )
