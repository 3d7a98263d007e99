"""Serves peers over mutual TLS, by TCP or a unix socket: the two calls of the signer, no others."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seipd.signerd.lifecycle import make_room
from seipd.signerd.peers import PeerDoor
from seipd.signerd.server import SigningServicer, new_server, running
from services.base.signing.svidfiles import SvidFiles, SvidSource
from services.kernel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from seipd.signerd.desk import Desk
    from services.kernel.clock import Clock

MAX_PORT = 65_535
UNIX = "unix:/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where to listen, what to show, and whom to answer with which scopes."""

    address: str
    files: SvidFiles
    allowed: Mapping[str, frozenset[str] | None]


def listening_of(
    address: str | None,
    *,
    svid: Path | None,
    svid_key: Path | None,
    bundle: Path | None,
    allowed: Mapping[str, frozenset[str] | None],
) -> Listening | None:
    """Check the options that go together; None where none was given.

    Raises:
        ConfigError: ``bad_listen``: one is missing, or the address is neither an IP address and a
            port nor ``unix:`` and an absolute path.
    """
    given = (address, svid, svid_key, bundle)
    if not any(given) and not allowed:
        return None
    if address is None or svid is None or svid_key is None or bundle is None:
        raise ConfigError(
            "to be asked from other machines takes an address and an SVID",
            code="bad_listen",
            mend="give --listen, --svid, --svid-key and --bundle together",
        )
    files = SvidFiles(chain=svid, key=svid_key, bundle=bundle)
    if address.startswith(UNIX):
        return Listening(address=address, files=files, allowed=allowed)
    host, _, port = address.rpartition(":")
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError as error:
        raise _bad(address) from error
    if not (port.isascii() and port.isdecimal() and int(port) <= MAX_PORT):
        raise _bad(address)
    return Listening(address=address, files=files, allowed=allowed)


@contextlib.asynccontextmanager
async def serve_peers(
    desk: Desk, listening: Listening, clock: Clock, *, interval_s: float = 1.0
) -> AsyncIterator[int]:
    """Serve while the context lasts; give the port, which a unix socket has none of.

    Anybody may connect to such a socket, as to a port: who asks is told by the certificate.

    Raises:
        ConfigError: ``bad_listen``: somebody else has that port.
        SeipdError: the SVID's files are not good, or the bundle holds no authority.
    """
    source = SvidSource(listening.files, monotonic_s=clock.monotonic_s, interval_s=interval_s)
    if not source.current().bundle.authorities:
        raise ConfigError(
            "the bundle holds no authority", code="bad_listen", mend="wait for one that does"
        )
    door = PeerDoor(source, allowed=listening.allowed, clock=clock)
    server = new_server(SigningServicer(desk, door.identify))
    if listening.address.startswith(UNIX):
        make_room(_path(listening))
    try:
        port = server.add_secure_port(listening.address, door.credentials())
    except RuntimeError as error:
        raise ConfigError(f"can't listen on {listening.address}", code="bad_listen") from error
    async with running(server):
        if listening.address.startswith(UNIX):
            _path(listening).chmod(0o666)
        yield port


def _path(listening: Listening) -> Path:
    return Path(listening.address.removeprefix("unix:"))


def _bad(address: str) -> ConfigError:
    return ConfigError(
        f"not an IP address and a port: {address[:80]}",
        code="bad_listen",
        mend="write --listen 192.0.2.1:9107, [2001:db8::1]:9107 or unix:/run/signer.sock",
    )
