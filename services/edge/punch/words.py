"""Carries a word from one endpoint to another, and its receipt back. Pure; remembers nothing.

Who sends a word repeats it until the receipt comes; what is lost on the way is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.edge.punch.book import Outgoing
from services.edge.punch.messages import (
    Carried,
    Carry,
    Signal,
    Signalled,
    encode,
    host_text,
)

if TYPE_CHECKING:
    from services.edge.punch.book import Book, Presence
    from services.edge.punch.meetings import Policy
    from services.edge.punch.messages import Message
    from services.edge.punch.parties import Parties
    from services.kernel.ids import ServerId

WORD_COST: Final = 0.5


class Words:
    """Passes words on."""

    def __init__(self, *, book: Book, parties: Parties, policy: Policy) -> None:
        self._book = book
        self._parties = parties
        self._policy = policy
        self.count = 0

    def signal(self, sender: Presence, message: Signal, now_s: float) -> list[Outgoing]:
        """Pass a word of an endpoint that is here on."""
        return self._on(
            sender,
            message.peer,
            Signal(counter=message.counter, peer=sender.tunnel, code=message.code),
            Carry(
                sender=sender.tunnel,
                receiver=message.peer,
                counter=message.counter,
                code=message.code,
            ),
            now_s,
        )

    def signalled(self, receiver: Presence, message: Signalled, now_s: float) -> list[Outgoing]:
        """Pass the receipt of a word back to whose word it was."""
        return self._on(
            receiver,
            message.peer,
            Signalled(counter=message.counter, peer=receiver.tunnel),
            Carried(sender=message.peer, receiver=receiver.tunnel, counter=message.counter),
            now_s,
        )

    def on_carry(self, server_id: ServerId, message: Carry) -> list[Outgoing]:
        """Take a word that another server passes on."""
        word = Signal(counter=message.counter, peer=message.sender, code=message.code)
        return self._from(server_id, message.sender, message.receiver, word)

    def on_carried(self, server_id: ServerId, message: Carried) -> list[Outgoing]:
        """Take a receipt that another server passes back."""
        receipt = Signalled(counter=message.counter, peer=message.receiver)
        return self._from(server_id, message.receiver, message.sender, receipt)

    def _on(
        self, sender: Presence, peer: bytes, here: Message, afar: Message, now_s: float
    ) -> list[Outgoing]:
        party = self._parties.party(host_text(peer))
        if party is None or party.carrier is None or not sender.may_ask(WORD_COST, now_s):
            return []
        if not self._policy.may_meet(sender.node_id, party.node_id):
            return []
        if party.carrier == self._parties.own_id:
            return self._to(peer, here)
        host = self._parties.backbone_of(party.carrier)
        return [Outgoing(host=host, data=encode(afar))] if host is not None else []

    def _from(
        self, server_id: ServerId, sender: bytes, receiver: bytes, message: Message
    ) -> list[Outgoing]:
        """Believe a server what it says for an endpoint that it carries."""
        one = self._parties.party(host_text(sender))
        other = self._book.get(host_text(receiver))
        if one is None or one.carrier != server_id or other is None:
            return []
        if not self._policy.may_meet(one.node_id, other.node_id):
            return []
        return self._to(receiver, message)

    def _to(self, peer: bytes, message: Message) -> list[Outgoing]:
        one = self._book.get(host_text(peer))
        if one is None:
            return []
        self.count += 1
        return [Outgoing(host=one.address, data=encode(message))]
