"""Which name servers are asked for what is not the mesh's own. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from services.authority.splitdns.view import DNS_PORT, parse_upstream
from services.kernel.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from services.runtime.udp import Address

MAX_UPSTREAMS: Final = 6
NOBODY: Final = "none"
_MAX_FAILED: Final = 1024


def parse_upstreams(text: str) -> tuple[Address, ...] | None:
    """Return what the setting names; None where it leaves that to the machine.

    Raises:
        InputError: ``bad_upstream``.
    """
    if not text.strip():
        return None
    if text.strip() == NOBODY:
        return ()
    found = tuple(parse_upstream(one.strip()) for one in text.split(","))
    if len(found) > MAX_UPSTREAMS:
        raise InputError(f"at most {MAX_UPSTREAMS} name servers", code="bad_upstream")
    return found


def nameservers_in(resolv_conf: str) -> tuple[Address, ...]:
    """Return the name servers of a resolv.conf(5); lines that name none are left out."""
    found: list[Address] = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = ip_address(words[1])
        except ValueError:
            continue
        found.append((str(address), DNS_PORT))
    return tuple(dict.fromkeys(found))[:MAX_UPSTREAMS]


def not_ourselves(upstreams: Iterable[Address], own: Collection[str]) -> tuple[Address, ...]:
    """Return those that are not this very name server: it would ask itself for ever."""
    return tuple(one for one in upstreams if one[0] not in own)


class Ranking:
    """Asks those last that failed last."""

    def __init__(self) -> None:
        self._failed_s: dict[Address, float] = {}

    def ranked(self, upstreams: Sequence[Address]) -> list[Address]:
        """Return them in the order in which they are to be asked."""
        return sorted(upstreams, key=lambda one: self._failed_s.get(one, 0.0))

    def failed(self, upstream: Address, *, now_s: float) -> None:
        """Note that one gave no answer."""
        if len(self._failed_s) >= _MAX_FAILED:
            self._failed_s.clear()
        self._failed_s[upstream] = now_s

    def answered(self, upstream: Address) -> None:
        """Note that one did."""
        self._failed_s.pop(upstream, None)
