"""Which address this machine has towards the others, when nobody says."""

from __future__ import annotations

import socket

from services.kernel.errors import ConfigError

HIDDEN = "none"
"""What is configured where other servers reach this one at no address of its own."""

# A documentation address (RFC 5737): connecting a datagram socket sends nothing, it only asks the
# routing table which source address would be used.
_ELSEWHERE = ("203.0.113.1", 9)


def public_address_of(configured: str, bind_address: str) -> str:
    """Return the address by which others reach this server, or its own endpoints if it is hidden.

    Raises:
        ConfigError: none is configured and there is no route to anywhere.
    """
    if configured not in {"", HIDDEN}:
        return configured
    if bind_address != "0.0.0.0":  # noqa: S104 (a comparison)
        return bind_address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(_ELSEWHERE)
        except OSError as error:
            raise ConfigError(
                "this machine has no route to the outside, so its address is not known",
                mend="say --public-address ADDRESS",
            ) from error
        address: str = sock.getsockname()[0]
        return address
