"""Where everybody is, this server included: what to tell of it, and to whom it is news. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.kernel.ids import server_id_of
from services.mesh.gossip.addresses import (
    RENEW_MS,
    AddressBook,
    AddressFact,
    Advertisement,
    sign_fact,
)
from services.mesh.gossip.codec import MAX_PLAINTEXT_BYTES
from services.mesh.gossip.links import Places
from services.mesh.gossip.messages import MAX_FACTS, Peers, id_of_raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from services.base.crypto.signatures import Signer
    from services.mesh.gossip.addresses import Learnt
    from services.mesh.gossip.ports import Moment

_MESSAGE_BYTES: Final = 8  # the array, its type, the list's header
_ITEM_BYTES: Final = 3


class Directory:
    """The address book, our own entry in it, and the entries that were not passed on yet."""

    def __init__(
        self,
        *,
        key: Signer,
        mesh_id: bytes,
        key_of: Callable[[str], bytes | None],
        backbone_of: Callable[[str], str | None],
    ) -> None:
        self._key = key
        self._mesh_id = mesh_id
        self._key_of = key_of
        self._backbone_of = backbone_of
        self._own_id = server_id_of(key.public_key)
        self._own: tuple[Advertisement, int] | None = None
        self._news: dict[str, None] = {}
        self.book = AddressBook(mesh_id=mesh_id, key_of=key_of)

    @property
    def has_news(self) -> bool:
        """Whether there is anything to pass on."""
        return bool(self._news)

    def announce(self, advertisement: Advertisement, gossip_port: int, now: Moment) -> None:
        """Say from now on that this server is there.

        Raises:
            InputError: a host that is no address, or a region that is no label.
        """
        self._own = (advertisement, gossip_port)
        self.renew(now)

    def renew(self, now: Moment) -> None:
        """Sign our own fact again if it is old or says something else."""
        if self._own is None or self._key_of(self._own_id) is None:
            return
        advertisement, gossip_port = self._own
        known = self.book.fact(self._own_id)
        if known is not None and self._says(known) and now.ms - known.issued_ms < RENEW_MS:
            return
        fact = sign_fact(
            self._key,
            self._mesh_id,
            advertisement,
            gossip_port=gossip_port,
            counter=max(now.ms, known.counter + 1 if known is not None else 0),
            now_ms=now.ms,
        )
        self.learn(fact.encoded, now)

    def learn(self, data: bytes, now: Moment, *, stored: bool = False) -> Learnt | None:
        """Take a fact; return it if it is news, to be passed on unless it was ``stored``.

        Raises:
            WireError: malformed, or of a server that is not in the roster.
            BadSignatureError: not signed by the server that it is about.
        """
        learnt = self.book.learn(data, now_ms=now.ms, stored=stored)
        if learnt is not None and not stored:
            self._news[learnt.fact.server_id] = None
        return learnt

    def places(self, server_id: str) -> Places:
        """Return where a server may be reached; gossip itself speaks IPv4 alone."""
        fact = self.book.fact(server_id)
        if fact is None:
            return Places(public=None, backbone=None)
        backbone = self._backbone_of(server_id)
        return Places(
            public=None if ":" in fact.host else (fact.host, fact.gossip_port),
            backbone=(backbone, fact.gossip_port) if backbone else None,
        )

    def packed(self, keys: Iterable[bytes], now: Moment) -> list[Peers]:
        """Return the facts with these keys as far as they hold now."""
        facts = [self.book.fact(id_of_raw(key[:-1])) for key in keys]
        return pack_facts(
            [fact.encoded for fact in facts if fact is not None and fact.expires_ms > now.ms]
        )

    def take_news(self) -> list[Peers]:
        """Return what was learnt since the last call."""
        facts = [self.book.fact(name) for name in self._news]
        self._news.clear()
        return pack_facts([fact.encoded for fact in facts if fact is not None])

    def _says(self, fact: AddressFact) -> bool:
        told = Advertisement(
            host=fact.host,
            http_port=fact.http_port,
            wireguard_port=fact.wireguard_port,
            region=fact.region,
        )
        return self._own == (told, fact.gossip_port)


def pack_facts(facts: Sequence[bytes]) -> list[Peers]:
    """Return as few messages as these facts fit in."""
    messages = []
    group: list[bytes] = []
    used = _MESSAGE_BYTES
    for fact in facts:
        need = len(fact) + _ITEM_BYTES
        if group and (used + need > MAX_PLAINTEXT_BYTES or len(group) == MAX_FACTS):
            messages.append(Peers(facts=tuple(group)))
            group, used = [], _MESSAGE_BYTES
        group.append(fact)
        used += need
    if group:
        messages.append(Peers(facts=tuple(group)))
    return messages
