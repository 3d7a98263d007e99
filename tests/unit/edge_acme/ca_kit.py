"""A server whose CA is a double, and what it said to that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.kernel import canonical
from services.kernel.ids import b64u_decode
from tests.fakes.acme_server import Server, Zone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.fake_ca import FakeCa


def payload_in(data: bytes) -> dict[str, Any]:
    """Return what a signed request says."""
    sent: str = canonical.decode_object(data)["payload"]
    return canonical.decode_object(b64u_decode(sent))


def server_of(ca: FakeCa, folder: Path, directory: str = "") -> Server:
    return Server(
        folder,
        directory=directory or f"{ca.base}/dir",
        ca_file=ca.ca_file,
        zone=Zone(),
    )
