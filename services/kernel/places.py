"""Places as text: ``198.51.100.1:9100``, ``[2001:db8::1]:9100`` (RFC 3986's brackets). Pure."""

from __future__ import annotations

from ipaddress import ip_address

from services.kernel.errors import InputError

Place = tuple[str, int]
"""An IP address and a port."""

MAX_PORT_DIGITS = 5


def place_text(host: str, port: int) -> str:
    """Return how a place is written."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_place(text: str) -> Place:
    """Read an address and a port.

    Raises:
        InputError: ``bad_address``: something else, or not in its one spelling.
    """
    host, _, port = text.rpartition(":")
    has_brackets = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if has_brackets else host
    try:
        address = ip_address(host)
    except ValueError as error:
        raise _bad(text) from error
    # What stands after a percent sign, an IPv6 zone, may be anything.
    if "%" in host or str(address) != host or (address.version == 6) != has_brackets:
        raise _bad(text)
    return host, parse_port(port)


def parse_port(text: str) -> int:
    """Read a port's number.

    Raises:
        InputError: ``bad_address``: none, 0, or not in its one spelling.
    """
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_PORT_DIGITS
    if not is_number or text.startswith("0") or int(text) > 65535:
        raise InputError(f"{text[:60]!r} is not a port", code="bad_address")
    return int(text)


def family_of(host: str) -> int:
    """Return which version of IP an address is of: 4 or 6."""
    return 6 if ":" in host else 4


def _bad(text: str) -> InputError:
    return InputError(
        f"{text[:60]!r} is not an address and a port",
        code="bad_address",
        mend="write 198.51.100.1:9100 or [2001:db8::1]:9100",
    )
