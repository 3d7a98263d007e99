"""The CA as this server deals with it: an account, and talks that block in threads of their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from services.base.jobs.model import TryLaterError
from services.edge.acme.account import Account
from services.kernel.errors import UnreachableError
from services.runtime.blocking import in_thread
from services.runtime.ssrf import is_public

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from services.edge.acme.account import AccountStore, ExternalBinding
    from services.edge.acme.conversation import Conversation
    from services.edge.acme.network import SafeNetwork
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S: Final = 30.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaSettings:
    """Which CA, and how this server is known there."""

    directory: str
    email: str = ""
    ca_file: Path | None = None
    """The root that the CA's own TLS certificate is judged by; none: those of the public Web."""
    user_agent: str = "seipd"


class Talk:
    """One conversation; a call that does not end is cut."""

    def __init__(self, network: SafeNetwork, account: Account | None = None) -> None:
        self._network = network
        self.account = account
        """In whose name; None: in nobody's."""
        self._conversation: Conversation | None = None

    async def open(self, url: str) -> None:
        """Read the directory."""
        from services.edge.acme.conversation import Conversation

        self._conversation = await self._in_thread(lambda: Conversation.open(self._network, url))

    async def call(self, ask: Callable[[Conversation], T]) -> T:
        """Ask the CA something.

        Raises:
            SeipdError: it refuses, does not answer, or answers what is none.
        """
        conversation = self._conversation
        if conversation is None:
            raise UnreachableError("the conversation has not begun", code="ca_unreachable")
        return await self._in_thread(lambda: ask(conversation))

    def close(self) -> None:
        """End it."""
        self._network.abort()
        self._network.session.close()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        from services.edge.acme.network import translated

        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await in_thread(call, name="acme")
        except TimeoutError:
            raise UnreachableError(
                "the CA does not answer in time", code="ca_unreachable"
            ) from None
        except Exception as error:
            raise translated(error) from error


class Authority:
    """One CA."""

    def __init__(
        self,
        *,
        settings: CaSettings,
        accounts: AccountStore,
        binding: Callable[[], ExternalBinding | None],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._binding = binding
        self._clock = clock
        self._lock = asyncio.Lock()
        self._account: Account | None = None

    @property
    def notice(self) -> str:
        """What an operator has to know of the account."""
        return self._accounts.notice

    @property
    def directory(self) -> str:
        """Where the CA is."""
        return self._settings.directory

    @contextlib.asynccontextmanager
    async def talk(self) -> AsyncIterator[Talk]:
        """Begin a conversation in the name of this server's account.

        Raises:
            SeipdError: the CA can't be reached, refuses the account, or the disk refuses.
        """
        async with self._lock:
            account = self._account or await self._load_account()
        talk = Talk(await self._network(account.key_pem), account)
        try:
            await talk.open(self._settings.directory)
            account = await self._registered(talk, account)
            await talk.call(lambda ca: ca.use(account))
            yield talk
        finally:
            talk.close()

    @contextlib.asynccontextmanager
    async def stranger(self) -> AsyncIterator[Talk]:
        """Begin a conversation without an account, to ask what anybody may ask."""
        talk = Talk(await self._network(None))
        try:
            await talk.open(self._settings.directory)
            yield talk
        finally:
            talk.close()

    async def forget_account(self, talk: Talk) -> None:
        """Give the account of a conversation up: the CA did, too.

        Several conversations may find that out, and some when there is another account already.
        """
        async with self._lock:
            if _is_same(self._account, talk.account):
                self._account = None
                await asyncio.to_thread(self._accounts.forget, self._settings.directory)

    async def _load_account(self) -> Account:
        from services.edge.acme.conversation import key_to_pem, new_key

        binding = self._binding()
        kid = binding.kid if binding is not None else ""
        held = await asyncio.to_thread(self._accounts.load, self._settings.directory, kid)
        if held is None:
            held = Account(
                directory=self._settings.directory,
                url="",
                key_pem=key_to_pem(new_key()),
                eab_kid=kid,
            )
            # Before the CA hears of it: an account whose key is lost can't be used or ended.
            await asyncio.to_thread(self._accounts.save, held)
        self._account = held
        return held

    async def _registered(self, talk: Talk, account: Account) -> Account:
        async with self._lock:
            if not _is_same(self._account, account):
                raise TryLaterError(
                    "this server got another account meanwhile", after_s=1.0, code="account_gone"
                )
            if self._account is not None and self._account.url:
                return self._account
            from services.edge.acme.conversation import key_from_pem

            binding = self._binding()
            key = key_from_pem(account.key_pem)
            url = await talk.call(lambda ca: ca.register(key, self._settings.email, binding))
            made = Account(
                directory=account.directory,
                url=url,
                key_pem=account.key_pem,
                eab_kid=account.eab_kid,
            )
            await asyncio.to_thread(self._accounts.save, made)
            logger.info("there is an account at %s now", account.directory)
            self._account = made
            return made

    async def _network(self, key_pem: bytes | None) -> SafeNetwork:
        return await asyncio.to_thread(self._make_network, key_pem)

    def _make_network(self, key_pem: bytes | None) -> SafeNetwork:
        # In a thread, and here: to load acme takes longer than the loop may stand still.
        from services.edge.acme.conversation import key_from_pem
        from services.edge.acme.network import SafeNetwork

        settings = self._settings
        return SafeNetwork(
            key=key_from_pem(key_pem) if key_pem is not None else None,
            ca_file=settings.ca_file,
            may_reach=is_public if settings.ca_file is None else _is_no_trap,
            clock=self._clock,
            user_agent=settings.user_agent,
        )


def _is_same(one: Account | None, other: Account | None) -> bool:
    return one is not None and other is not None and one.key_pem == other.key_pem


def _is_no_trap(address: IPv4Address | IPv6Address) -> bool:
    """Say whether a CA of one's own network may be there: not at a cloud's metadata service."""
    return not (address.is_link_local or address.is_multicast or address.is_unspecified)
