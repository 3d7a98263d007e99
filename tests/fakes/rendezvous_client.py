"""A program for an endpoint: speaks rendezvous by words on stdin, tells on stdout.

python -m tests.fakes.rendezvous_client ADDRESS GATEWAY INTERFACE
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from typing import TYPE_CHECKING

from seipd.agent.paths.rendezvous import Rendezvous
from services.edge.punch.messages import CandidateKind, SignalCode, candidate
from services.runtime.clock import SystemClock

if TYPE_CHECKING:
    from services.edge.punch.messages import Known, Meet, What, Why


def tell(event: str, **facts: object) -> None:
    """Print one event with its time."""
    print(json.dumps({"event": event, "at_s": time.monotonic(), **facts}), flush=True)  # noqa: T201


class Teller:
    """Satisfies Listener."""

    def known(self, known: Known) -> None:
        tell("known", observed=known.observed)

    def meet(self, meet: Meet) -> None:
        tell(
            "meet",
            peer=meet.peer_address,
            key=meet.key.hex(),
            candidates=[[one.kind.name, *one.endpoint] for one in meet.candidates],
            is_symmetric=meet.is_symmetric,
            offers=[one.ticket.hex() for one in meet.offers],
        )

    def nothing(self, peer: str, why: Why) -> None:
        tell("nothing", peer=peer, why=why.name)

    def signalled(self, peer: str, code: SignalCode) -> None:
        tell("signalled", peer=peer, code=code.name)

    def changed(self, what: What) -> None:
        tell("changed", what=what.name)


async def obey(rendezvous: Rendezvous, words: list[str]) -> None:
    """Do one thing."""
    match words:
        case ["call", peer, *relays]:
            tell("called", peer=peer)
            rendezvous.call(peer, [bytes.fromhex(one) for one in relays])
        case ["signal", peer, code]:
            rendezvous.signal(peer, SignalCode[code])
        case ["echo", address]:
            tell("echoed", address=address, seconds=await rendezvous.echo(address))
        case ["candidates", *pairs]:
            split = [pair.rsplit("|", 1) for pair in pairs]
            said = [candidate(CandidateKind.LOCAL, host, int(port)) for host, port in split]
            rendezvous.set_candidates(said, is_symmetric=False)
        case ["refresh"]:
            rendezvous.refresh()


async def main() -> None:
    """Speak until stdin ends."""
    address, gateway, interface = sys.argv[1:]
    rendezvous = Rendezvous(
        address=address,
        gateway=gateway,
        interface=interface,
        clock=SystemClock(),
        rng=secrets.SystemRandom(),
    )
    teller = Teller()
    rendezvous.subscribe(teller)
    rendezvous.subscribe_changed(teller.changed)
    await rendezvous.start()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await obey(rendezvous, line.decode().split())
    await rendezvous.stop()


if __name__ == "__main__":
    asyncio.run(main())
