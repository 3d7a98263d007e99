"""Whether a UDP port is free, asked before anything is made."""

from __future__ import annotations

import errno
import socket

from services.kernel.errors import ConflictError


def port_in_use(port: int) -> ConflictError:
    """Return the error that names a taken port and how to get it back."""
    return ConflictError(
        f"UDP port {port} is in use by another program",
        code="port_in_use",
        mend=(
            f"find it with `ss -ulpn sport = :{port}`; if the system lent the port out, reserve it:"
            f" sysctl -w net.ipv4.ip_local_reserved_ports={port}; or choose another port"
        ),
    )


def check_port_free(port: int) -> None:
    """Check that WireGuard can have this UDP port; 0 always is.

    Raises:
        ConflictError: ``port_in_use``.
    """
    if port == 0:
        return
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(("", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise port_in_use(port) from error
            # Without IPv6 there is nothing to be taken.
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
