"""What the service needs of a WireGuard implementation; both backends pass one suite of tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from services.kernel.errors import UnavailableError

if TYPE_CHECKING:
    from services.edge.wireguard.model import DeviceSnapshot, PeerChanges


class DeviceGoneError(UnavailableError):
    """The device went away; it has to be opened again and told everything."""

    default_code = "wireguard_gone"


class DeviceRefusedError(UnavailableError):
    """The device took a request in part or not at all."""

    default_code = "wireguard_refused"


class Backend(Protocol):
    """One WireGuard device by one name. Calls come one at a time, but for ``read``.

    It is constructed with ``on_gone``, which it calls when it notices that the device went away.
    """

    kind: ClassVar[str]

    async def open(self, *, private_key: bytes, listen_port: int) -> bool:
        """Have the device up with this key and port (0: one that is free).

        A device of ours that is there already keeps its peers and sessions. Returns whether it was
        made just now. On failure nothing that was made is left behind.

        Raises:
            SeipdError: ``interface_in_use``, ``port_in_use``, ``no_wireguard`` and the like.
        """

    async def adopt(self, own_key: bytes | None) -> bool:
        """Take over the device of ours that an earlier run left; False when there is none.

        Raises:
            ConflictError: ``interface_in_use``: there is one, and it is not ours.
        """

    async def apply(self, changes: PeerChanges) -> None:
        """Carry out one transaction and wait for the device's answer.

        Raises:
            DeviceGoneError: the device is away.
            DeviceRefusedError: a part may have been carried out.
        """

    async def read(self) -> DeviceSnapshot:
        """Read the whole device.

        Raises:
            DeviceGoneError: the device is away.
        """

    async def close(self) -> None:
        """Let go of the device and leave it running."""

    async def remove(self) -> None:
        """End the device that was opened or adopted; nothing else is ever touched."""
