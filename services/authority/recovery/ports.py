"""What recovery needs of the root and of the signer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

    from services.authority.ports import Json
    from services.base.signing import recovery_wire as wire
    from services.kernel.records import Record
    from services.kernel.signing import Signer


class Root(Protocol):
    """The root as this server reaches it."""

    @property
    def holds_root(self) -> bool:
        """Whether the signer here has the root key in force."""

    def turn(self) -> asyncio.Lock:
        """Return the lock under which roster changes are prepared and submitted."""

    async def sign_record(self, kind: str, body: Json) -> Record:
        """Return a record that the root signed.

        Raises:
            UnavailableError: ``signer_unavailable``.
        """


class RecoverySigner(Protocol):
    """The signer's calls about recovery keys; each raises UnavailableError where it is away."""

    async def deal(self, request: wire.DealRequest) -> wire.DealReply:
        """Make a recovery key and deal it."""

    async def write(self, request: wire.WriteRequest) -> wire.WriteReply:
        """Make a recovery key and write it to a file."""

    async def begin(self, request: wire.BeginRequest) -> wire.BeginReply:
        """Make a one-time key, or go on with one; NotFoundError where that is forgotten."""

    async def finish(self, request: wire.FinishRequest) -> wire.EndorseReply:
        """Rebuild a recovery key and endorse a claim."""

    async def endorse(self, request: wire.EndorseRequest) -> wire.EndorseReply:
        """Endorse a claim by an offline file."""


class SignerHost(Protocol):
    """The signer of this machine, which may be there only from now on."""

    @property
    def address(self) -> str | None:
        """Where the signer listens; None while there is none."""

    async def holds_root(self) -> bool:
        """Say whether the signer here has the root key in force."""

    async def ready(self, key_id: str) -> None:
        """Have a signer that holds a key of this name; each is made once.

        Raises:
            ConfigError: there can't be one.
            UnavailableError: ``signer_unavailable``.
        """

    async def signer(self) -> Signer:
        """Return what signs, once ``ready`` returned."""

    async def desk(self) -> RecoverySigner:
        """Return the calls about recovery keys, once ``ready`` returned."""

    async def adopt(self) -> None:
        """Let this server act for the root from now on."""
