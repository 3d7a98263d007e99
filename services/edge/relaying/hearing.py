"""What servers tell each other of relays: which voices count, and which are told. Pure.

A fact has room for ten voices, so a server tells them in turns and the others keep what they heard
for a while. Of one relay a server tells two voices at most, and of another server two at most are
heard: that is one less than it takes to suspend a relay, so no server that lies can do it alone.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.edge.relaying.reputation import Quality, joined, score
from services.mesh.facts.payloads import MAX_PART, MAX_RELAY_VOICES, RelayVoice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

OWN_VOICE: Final = b""
"""What a server found out by asking relays itself."""
TOLD_OF_ONE: Final = 2
KEPT_S: Final = 7200.0
MAX_RELAYS_HEARD: Final = 1024
"""Of how many relays one server is heard."""

_PURPOSE: Final = b"seipd/relay-voice/v1\0"
RAW_BYTES: Final = 8

Voices = dict[bytes, Quality]
"""By name: eight bytes for a customer, none for a server's own."""


def voice_name(customer: str) -> bytes:
    """Return the bytes that stand for a customer."""
    return hashlib.sha256(_PURPOSE + customer.encode("utf-8")).digest()[:RAW_BYTES]


def raw_relay(relay_id: str) -> bytes:
    """Return the eight bytes that stand for a relay in facts."""
    return uuid.UUID(relay_id).bytes[:RAW_BYTES]


@dataclass(frozen=True, slots=True)
class _Heard:
    quality: Quality
    at_s: float


class Hearing:
    """What other servers told, by relay and server; all of it bounded."""

    def __init__(self) -> None:
        self._held: dict[bytes, dict[str, dict[bytes, _Heard]]] = {}
        self._told_by: dict[str, dict[bytes, None]] = {}

    def learn(self, server_id: str, voices: Iterable[RelayVoice], now_s: float) -> None:
        """Take what a server tells; of one relay the two voices that it told last are kept."""
        relays = self._told_by.setdefault(server_id, {})
        for one in voices:
            heard = self._held.setdefault(one.relay, {}).setdefault(server_id, {})
            heard.pop(one.voice, None)
            heard[one.voice] = _Heard(quality_told(one), now_s)
            if len(heard) > TOLD_OF_ONE:
                del heard[next(iter(heard))]
            relays.pop(one.relay, None)
            relays[one.relay] = None
            if len(relays) > MAX_RELAYS_HEARD:
                self._forget(server_id, next(iter(relays)))

    def keep_only(self, is_server: Callable[[str], bool], now_s: float) -> None:
        """Forget servers that are gone, and what is old."""
        for server_id, relays in list(self._told_by.items()):
            is_here = is_server(server_id)
            for relay in list(relays):
                heard = self._held[relay][server_id]
                for name in [name for name, one in heard.items() if one.at_s <= now_s - KEPT_S]:
                    del heard[name]
                if not heard or not is_here:
                    self._forget(server_id, relay)
            if not relays:
                del self._told_by[server_id]

    def of_relay(self, relay: bytes) -> list[dict[str, Quality]]:
        """Return what each server told of a relay, by the name of the voice.

        A server's own voice goes by the server, a customer's by the customer: who told it does not
        make another one of it.
        """
        return [
            {name.hex() or server_id: one.quality for name, one in heard.items()}
            for server_id, heard in self._held.get(relay, {}).items()
        ]

    def _forget(self, server_id: str, relay: bytes) -> None:
        del self._told_by[server_id][relay]
        servers = self._held[relay]
        del servers[server_id]
        if not servers:
            del self._held[relay]


def reputation_of(own: Mapping[bytes, Quality], told: Iterable[Mapping[str, Quality]]) -> float:
    """Return what follows of a server's own voices on a relay, and of those that others told."""
    mine = {name.hex() or "own": quality for name, quality in own.items()}
    return score(joined([mine, *told]))


def worth_telling(held: Mapping[bytes, Voices], turn: int) -> tuple[RelayVoice, ...]:
    """Return the voices to tell in the next fact: of two a relay as many as there is room for.

    Args:
        held: the voices on each relay.
        turn: counts up from fact to fact, so that everyone's turn comes.
    """
    wanted = [
        _told(relay, name, quality)
        for relay, voices in sorted(held.items())
        for name, quality in _two_of(voices)
    ]
    if not wanted:
        return ()
    start = turn * MAX_RELAY_VOICES % len(wanted) if len(wanted) > MAX_RELAY_VOICES else 0
    chosen = [*wanted, *wanted][start : start + min(MAX_RELAY_VOICES, len(wanted))]
    return tuple(sorted(chosen, key=lambda one: (one.relay, one.voice)))


def quality_told(told: RelayVoice) -> Quality:
    """Return a voice as it was told."""
    return Quality(
        uptime=told.uptime / MAX_PART,
        delivery=told.delivery / MAX_PART,
        evenness=told.evenness / MAX_PART,
        rating=None if told.rating is None else told.rating / MAX_PART,
    )


def _two_of(voices: Voices) -> list[tuple[bytes, Quality]]:
    """A server's own voice and that of the customer in the middle; without it two in the middle."""
    own = [(OWN_VOICE, voices[OWN_VOICE])] if OWN_VOICE in voices else []
    others = sorted(
        ((name, one) for name, one in voices.items() if name != OWN_VOICE),
        key=lambda pair: (score([pair[1]] * 3), pair[0]),
    )
    room = TOLD_OF_ONE - len(own)
    start = max(len(others) - room, 0) // 2
    return [*own, *others[start : start + room]]


def _told(relay: bytes, name: bytes, quality: Quality) -> RelayVoice:
    return RelayVoice(
        relay=relay,
        voice=name,
        uptime=round(quality.uptime * MAX_PART),
        delivery=round(quality.delivery * MAX_PART),
        evenness=round(quality.evenness * MAX_PART),
        rating=None if quality.rating is None else round(quality.rating * MAX_PART),
    )
