"""At which single addresses to answer where a machine's whole port is not to be had. Pure."""

from __future__ import annotations

from typing import Final

LOOPBACK4: Final = "127.0.0.1"


def single_addresses(public: str, out: str) -> tuple[str, ...]:
    """Return this machine's IPv4 addresses that questions come to: from here, and from outside.

    Args:
        public: by which others reach it; behind a NAT it is not this machine's own.
        out: by which it reaches others; nothing where it reaches nobody.
    """
    found = (LOOPBACK4, out, public if ":" not in public else "")
    return tuple(dict.fromkeys(filter(None, found)))
