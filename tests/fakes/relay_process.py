"""A relay as a process of its own, for tests: told what to do by lines on its stdin.

    python -m tests.fakes.relay_process '{"hosts": ["0.0.0.0"], "port": 9103, "kernel": true, ...}'

It answers each line with one: {"do": "status"}, {"do": "revoke", "key": hex}, {"do": "look"}.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import msgspec

from services.edge.relay.keys import box_private_key
from services.edge.relay.service import RelayService
from services.edge.relay.settings import RelaySettings
from services.kernel.targets import PRIVATE_NETWORKS, why_refused
from services.runtime.clock import SystemClock
from tests.fakes.relay_book import MESH, RELAY_ID, SERVER


def relay_of(told: dict) -> RelayService:
    settings = RelaySettings(
        relay_id=RELAY_ID,
        mesh_id=MESH,
        box_private=box_private_key(bytes(32)),
        hosts=tuple(told["hosts"]),
        port=told["port"],
        may_use_kernel=told["kernel"],
    )
    return RelayService(
        settings=settings,
        is_server=lambda key: key == SERVER.public_key,
        is_welcome=lambda key: True,
        why_refused=lambda host, port: why_refused(
            host, port, mesh_ranges=(), on_link=PRIVATE_NETWORKS
        ),
        clock=SystemClock(),
    )


async def main(told: dict) -> None:
    relay = relay_of(told)
    await relay.start()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    say({"port": relay.port, "box_key": relay.box_key.hex()})
    while line := await reader.readline():
        command = msgspec.json.decode(line)
        if command["do"] == "revoke":
            relay.revoked(bytes.fromhex(command["key"]))
        elif command["do"] == "look":
            await relay._running.carrier.look()
        status = msgspec.to_builtins(relay.status())
        say({**status, "detail": relay.health().detail})
    await relay.stop()


def say(value: dict) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(msgspec.json.decode(sys.argv[1])))
