"""Endpoints of a NAT laboratory that talk through the tunnel, and the table of their paths."""

from __future__ import annotations

import contextlib
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from services.kernel import canonical
from services.kernel.errors import SeipdError
from tests.fakes.namespaces import udp_in
from tests.fakes.natlab import permits_direct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from seipd.lab.plan import Host
    from tests.fakes.natlab import Kind, NatLab

SETTLED_S = 120.0
"""Half a minute of it is for proofs: who joined just now has none."""
REACHED_S = 10.0
POLL_S = 0.25
PORT = 40_000

Pair = tuple[str, str]


def until(true: Callable[[], bool], within_s: float) -> bool:
    """Look again and again until it is so; whether it became so in time."""
    deadline_s = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(POLL_S)
    return True


def say(line: str) -> None:
    """Print what a person wants to see, with pytest -s."""
    print(line)  # noqa: T201


def paths_of(host: Host) -> dict[str, dict[str, Any]]:
    """Return the paths of an endpoint by the other's name, as its running agent tells them."""
    try:
        told = canonical.decode_object((host.data_root / "run" / "status.json").read_bytes())
    except (SeipdError, OSError):
        return {}
    return {one["name"]: one for one in told["paths"]["held"]}


def _tunnel_address(host: Host) -> str:
    """Return what the join answered; ``seip status`` would ask the server for all peers."""
    mesh = canonical.decode_object((host.data_root / "mesh.json").read_bytes())
    return str(mesh["tunnel_address"])


class Talk:
    """All endpoints of a lab, each with a socket at its tunnel address."""

    def __init__(self, lab: NatLab) -> None:
        self._lab = lab
        self._open = ExitStack()
        endpoints = lab.plan.endpoints
        self.addresses = {host.name: _tunnel_address(host) for host in endpoints}
        self._socks = {
            host.name: self._open.enter_context(
                udp_in(host.namespace, self.addresses[host.name], PORT)
            )
            for host in endpoints
        }

    def __enter__(self) -> Talk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def say(self, one: str, other: str) -> None:
        """Send a datagram from ``one`` to ``other``."""
        self._socks[one].sendto(one.encode(), (self.addresses[other], PORT))

    def reaches(self, one: str, other: str, within_s: float = POLL_S) -> bool:
        """Say whether a datagram that is sent now goes from ``one`` to ``other``."""
        sock = self._socks[other]
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while sock.recv(100):
                pass
        self.say(one, other)
        sock.settimeout(within_s)
        try:
            while sock.recv(100) != one.encode():
                pass
        except TimeoutError:
            return False
        return True

    def path(self, one: str, other: str) -> dict[str, Any]:
        """Return the path from ``one`` to ``other``."""
        nothing = {"path": "none", "why": "", "endpoint": ""}
        return paths_of(self._lab.plan.host(one)).get(other, nothing)

    def settle(self, expected: Mapping[Pair, str]) -> bool:
        """Say to each other until the paths are those, each way; whether they become so in time."""

        both = {**{pair[::-1]: path for pair, path in expected.items()}, **expected}

        def is_so() -> bool:
            for one, other in expected:
                self.say(one, other)
            held = {host.name: paths_of(host) for host in self._lab.plan.endpoints}
            return all(
                held[one].get(other, {}).get("path") == path for (one, other), path in both.items()
            )

        return until(is_so, SETTLED_S)

    def require_table(self, pairs: Mapping[Pair, tuple[Kind, Kind]]) -> None:
        """Print by which path each pair talks, and require that of the books, and that it talks."""
        expected = {
            pair: "direct" if permits_direct(*kinds) else "relay" for pair, kinds in pairs.items()
        }
        began_s = time.monotonic()
        is_settled = self.settle(expected)
        say(f"\nafter {time.monotonic() - began_s:.1f} s: from, to, expected, reached, why")
        found = {pair: self.path(*pair) for pair in pairs}
        for pair, (one, other) in pairs.items():
            path = found[pair]
            say(f"{one:28}{other:28}{expected[pair]:8}{path['path']:8}{path['why']}")
        assert is_settled, [pair for pair in pairs if found[pair]["path"] != expected[pair]]
        for one, other in (*pairs, *(pair[::-1] for pair in pairs)):
            assert until(lambda: self.reaches(one, other), REACHED_S), (one, other)  # noqa: B023
