"""Endpoints of a lab that use a relay by hand: their calls, and their side of a session."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import time
import uuid
from itertools import count
from typing import TYPE_CHECKING, Any

from seipd.agent.state import AgentState
from services.edge.auth.sessions import auth_input
from services.edge.relay.client import Offer, Phase, RelayClient
from services.kernel.ids import b64u_decode, b64u_encode
from tests.fakes.namespaces import udp_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seipd.lab.mesh import Lab
    from seipd.lab.plan import Host

GATEWAY = "10.64.0.1"
WIREGUARD_DATA = b"\x04\x00\x00\x00"


class PrivateCalls:
    """What an endpoint asks of its server, through its tunnel."""

    def __init__(self, lab: Lab, name: str, server: str = "s1") -> None:
        self.host: Host = lab.plan.host(name)
        self.keys = AgentState(self.host.data_root).keys()
        self.mesh = AgentState(self.host.data_root).mesh()
        self._public = f"https://{lab.plan.host(server).address}:9100"
        self._token = ""

    def call(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Return the status and the answer."""
        if not self._token:
            self._token = self._login()
        url = f"https://{GATEWAY}:9101{path}"
        return self._curl(url, body, "-H", f"Authorization: Bearer {self._token}")

    def _login(self) -> str:
        _, given = self._curl(f"{self._public}/api/auth/challenge", {})
        signed = auth_input(given["mesh_id"], given["server_id"], b64u_decode(given["nonce"]))
        answer = {
            "key": b64u_encode(self.keys.identity.public_key),
            "nonce": given["nonce"],
            "signature": b64u_encode(self.keys.identity.sign(signed)),
        }
        _, session = self._curl(f"{self._public}/api/auth", answer)
        token: str = session["token"]
        return token

    def _curl(self, url: str, body: Any, *more: str) -> tuple[int, Any]:
        words = ["curl", "-ks", "--max-time", "5", "-w", "\n%{http_code}", *more]
        if body is not None:
            words += ["-d", json.dumps(body)]
        done = subprocess.run(
            [*self.host.enter(), *words, url],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        text, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(text)


def offer_of(value: dict[str, Any]) -> Offer:
    """Return an offer of the API as the client takes it."""
    hosts = tuple(host for host in (value["host"], value["host6"]) if host)
    return Offer(
        relay_id=uuid.UUID(value["relay_id"]).bytes,
        hosts=hosts,
        port=value["port"],
        box_key=b64u_decode(value["box"]),
        ticket=b64u_decode(value["ticket"]),
    )


class SideOfSession:
    """One endpoint's socket, and its client at a relay."""

    def __init__(self, calls: PrivateCalls, offer: Offer) -> None:
        self.socket = udp_in(calls.host.namespace, calls.host.address)
        self.socket.setblocking(False)
        self.client = RelayClient(
            offer=offer,
            private_key=calls.keys.wireguard_private,
            counters=count(time.time_ns()),
            random_bytes=secrets.token_bytes,
        )
        self.came: list[bytes] = []
        self._send(self.client.begin(time.monotonic()))

    @property
    def phase(self) -> Phase:
        return self.client.phase

    def turn(self) -> None:
        """Take what came, and send what is due."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, address = self.socket.recvfrom(2048)
                if data.startswith(b"seiR"):
                    self._send(self.client.receive(data, address[:2], time.monotonic()))
                else:
                    self.came.append(data)
        self._send(self.client.tick(time.monotonic()))

    def say(self, text: bytes) -> None:
        """Send what looks like a packet of WireGuard's to the other side."""
        assert self.client.data_address is not None
        self.socket.sendto(WIREGUARD_DATA + text, self.client.data_address)

    def ask_usage(self) -> None:
        self._send(self.client.ask_usage(time.monotonic()))

    def _send(self, datagrams: Sequence[tuple[bytes, tuple[str, int]]]) -> None:
        for data, address in datagrams:
            with contextlib.suppress(OSError):
                self.socket.sendto(data, address)
