"""The facts of everybody, this server's own included: what to tell, and what is news. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.kernel.errors import UnavailableError, WireError
from services.kernel.ids import server_id_of
from services.mesh.facts.book import FactBook
from services.mesh.facts.envelope import fact_key, open_envelope, sign_envelope
from services.mesh.facts.kinds import ADDRESS, RELEASE
from services.mesh.facts.payloads import is_loopback
from services.mesh.gossip.addresses import RENEW_MS, Advertisement, address_of, sign_fact
from services.mesh.gossip.codec import MAX_PLAINTEXT_BYTES
from services.mesh.gossip.links import Places
from services.mesh.gossip.messages import MAX_FACTS, Peers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from services.base.crypto.signatures import Signer
    from services.mesh.facts.envelope import Fact
    from services.mesh.gossip.addresses import AddressFact
    from services.mesh.gossip.ports import Moment

_MESSAGE_BYTES: Final = 8  # the array, its type, the list's header
_ITEM_BYTES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """A fact that is news, and whether the place of gossip is."""

    fact: Fact
    moved: bool


class Directory:
    """The book of facts, our own entries in it, and the entries that were not passed on yet."""

    def __init__(
        self,
        *,
        key: Signer,
        mesh_id: bytes,
        key_of: Callable[[str], bytes | None],
        backbone_of: Callable[[str], str | None],
        is_inner: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._key = key
        self._mesh_id = mesh_id
        self._key_of = key_of
        self._backbone_of = backbone_of
        self._is_inner = is_inner
        self._own_id = server_id_of(key.public_key)
        self._own: tuple[Advertisement, int] | None = None
        self._addresses: dict[str, AddressFact] = {}
        self._news: dict[bytes, None] = {}
        self.book = FactBook(mesh_id=mesh_id, key_of=key_of, check=self._check)

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

    def renew(self, now: Moment) -> Fact | None:
        """Sign our own address again if it is old or says something else."""
        if self._own is None or self._key_of(self._own_id) is None:
            return None
        advertisement, gossip_port = self._own
        known = self.address(self._own_id)
        if known is not None and self._says(known) and now.ms - known.issued_ms < RENEW_MS:
            return None
        address = sign_fact(
            self._key,
            self._mesh_id,
            advertisement,
            gossip_port=gossip_port,
            counter=self._next_counter(ADDRESS, now),
            now_ms=now.ms,
        )
        return self._put_own(open_envelope(address.encoded, self._mesh_id))

    def publish(self, kind: int, payload: bytes, lifetime_ms: int, now: Moment) -> Fact:
        """Say something about this server from now on.

        Raises:
            InputError: it is nothing that a fact of this kind may say.
            UnavailableError: this server is not in the roster, so nobody would listen.
        """
        if self._key_of(self._own_id) is None:
            raise UnavailableError("this server is not in the roster")
        return self._put_own(
            sign_envelope(
                self._key,
                self._mesh_id,
                kind=kind,
                payload=payload,
                counter=self._next_counter(kind, now),
                now_ms=now.ms,
                lifetime_ms=lifetime_ms,
            )
        )

    def learn(self, data: bytes, now: Moment, *, stored: bool = False) -> Learnt | None:
        """Take a fact; return it if it is news, to be passed on unless it was ``stored``.

        Raises:
            WireError: malformed, or not to be taken (``FactBook.learn``).
            BadSignatureError: not signed by the server that it is about.
        """
        fact = self.book.learn(data, now_ms=now.ms, stored=stored)
        if fact is None:
            return None
        if not stored:
            self._news[fact_key(fact.server_id, fact.kind)] = None
        return Learnt(fact=fact, moved=fact.kind == ADDRESS and self._note_address(fact))

    def address(self, server_id: str) -> AddressFact | None:
        """Return where a server last said that it is."""
        return self._addresses.get(server_id)

    def addresses(self, now_ms: int) -> Mapping[str, AddressFact]:
        """Return the addresses that hold now, by server."""
        return {name: one for name, one in self._addresses.items() if one.expires_ms > now_ms}

    def keep_only(self, servers: Mapping[str, bytes]) -> None:
        """Forget the servers that are no longer in the roster."""
        self.book.keep_only(servers)
        for gone in self._addresses.keys() - servers.keys():
            del self._addresses[gone]

    def places(self, server_id: str) -> Places:
        """Return where a server may be reached; gossip itself speaks IPv4 alone."""
        fact = self.address(server_id)
        if fact is None:
            return Places(public=None, backbone=None)
        backbone = self._backbone_of(server_id)
        public = (fact.host, fact.gossip_port)
        has_public = ":" not in fact.host and fact.host != backbone and public != self._own_place
        return Places(
            public=public if has_public else None,
            backbone=(backbone, fact.gossip_port) if backbone else None,
        )

    def packed(self, keys: Iterable[bytes], now: Moment) -> list[Peers]:
        """Return the facts with these keys as far as they hold now."""
        facts = [self.book.by_key(key) for key in keys]
        return pack_facts(
            [fact.encoded for fact in facts if fact is not None and fact.holds(now.ms)]
        )

    def greeting(self, now: Moment) -> list[Peers]:
        """Return what this server tells of itself as soon as a session begins: what it runs."""
        return self.packed([fact_key(self._own_id, RELEASE)], now)

    def take_news(self, now: Moment) -> list[Peers]:
        """Return what was learnt since the last call."""
        news = self.packed(self._news, now)
        self._news.clear()
        return news

    @property
    def _own_place(self) -> tuple[str, int] | None:
        return (self._own[0].host, self._own[1]) if self._own is not None else None

    def _check(self, fact: Fact) -> None:
        """Refuse an address that would send everybody's packets to themselves or into the mesh.

        Raises:
            WireError: ``bad_endpoint``.
        """
        if fact.kind != ADDRESS:
            return
        host = address_of(fact).host
        if self._is_inner(host) and host != self._backbone_of(fact.server_id):
            raise WireError("an address inside of the mesh as a public one", code="bad_endpoint")
        own = self._own_place
        if is_loopback(host) and own is not None and not is_loopback(own[0]):
            raise WireError("an address that everybody has", code="bad_endpoint")

    def _put_own(self, fact: Fact) -> Fact:
        self.book.put_own(fact)
        self._news[fact_key(fact.server_id, fact.kind)] = None
        if fact.kind == ADDRESS:
            self._note_address(fact)
        return fact

    def _note_address(self, fact: Fact) -> bool:
        """Keep where a server says that it is; say whether gossip reaches it elsewhere now."""
        known, told = self.address(fact.server_id), address_of(fact)
        self._addresses[fact.server_id] = told
        return known is None or (known.host, known.gossip_port) != (told.host, told.gossip_port)

    def _next_counter(self, kind: int, now: Moment) -> int:
        known = self.book.fact(self._own_id, kind)
        return max(now.ms, known.counter + 1 if known is not None else 0)

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
