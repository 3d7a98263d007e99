"""A relay between two endpoints that have no other way, in namespaces; real WireGuard at the ends.

a  198.18.1.2 ------ 198.18.1.1  r  198.18.2.1 ------ 198.18.2.2  b
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import msgspec

from seipd.agent.paths.rawport import Kind, RawPort
from seipd.agent.paths.relaying import Relaying
from services.base.crypto.agreement import generate_x25519
from services.edge.punch.messages import RelayOffer
from services.edge.relay.tickets import sign_ticket
from services.runtime.clock import SystemClock
from tests.fakes.hosts import Host
from tests.fakes.listening import listens
from tests.fakes.relay_book import HOUR_MS, MESH, RELAY_ID, SERVER

WAIT_S = 30.0
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (in a namespace of its own)


@contextmanager
def three_hosts(*, forwards: bool = False):
    """Give a, the relay's host and b; the relay's host forwards nothing unless told."""
    tag = secrets.token_hex(3)
    names = {name: f"rl-{tag}-{name}" for name in "arb"}
    a, relay, b = (
        Host(name=names[name], address=address, wireguard=f"rl{tag}{name}")
        for name, address in (("a", "198.18.1.2"), ("r", "198.18.1.1"), ("b", "198.18.2.2"))
    )
    try:
        for host in (a, relay, b):
            _run("ip", "netns", "add", host.name)
            host.run("ip", "link", "set", "lo", "up")
        for at, host in ((1, a), (2, b)):
            _run(
                *f"ip -n {host.name} link add eth0 type veth peer name eth{at}".split(),
                "netns",
                relay.name,
            )
            host.run(*f"ip addr add 198.18.{at}.2/24 dev eth0".split())
            host.run(*f"ip addr add 2001:db8:{at}::2/64 dev eth0 nodad".split())
            host.run("ip", "link", "set", "eth0", "up")
            relay.run(*f"ip addr add 198.18.{at}.1/24 dev eth{at}".split())
            relay.run(*f"ip addr add 2001:db8:{at}::1/64 dev eth{at} nodad".split())
            relay.run("ip", "link", "set", f"eth{at}", "up")
            host.run(*f"ip route add default via 198.18.{at}.1".split())
            host.run(*f"ip -6 route add default via 2001:db8:{at}::1".split())
        value = int(forwards)
        relay.run(
            "sysctl", "-qw", f"net.ipv4.ip_forward={value}", f"net.ipv6.conf.all.forwarding={value}"
        )
        yield a, relay, b
    finally:
        for host in (a, relay, b):
            for pid in _pids(host):
                os.kill(pid, signal.SIGKILL)
            Path(f"/var/run/wireguard/{host.wireguard}.sock").unlink(missing_ok=True)
            subprocess.run(["ip", "netns", "del", host.name], check=False, capture_output=True)


class RelayProcess:
    """The relay; spoken to over its stdin."""

    def __init__(self, host: Host, *, kernel: bool, port: int = 9103) -> None:
        told = msgspec.json.encode({"hosts": EVERYWHERE, "port": port, "kernel": kernel})
        self._process = subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                host.name,
                sys.executable,
                "-m",
                "tests.fakes.relay_process",
                told,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        started = self._read()
        self.port, self.box_key = started["port"], bytes.fromhex(started["box_key"])

    def ask(self, do: str, **more) -> dict:
        self._process.stdin.write(msgspec.json.encode({"do": do, **more}).decode() + "\n")
        self._process.stdin.flush()
        return self._read()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.wait(20)

    def offer(
        self, a: Endpoint, b: Endpoint, *, host4="198.18.1.1", host6="", **changed
    ) -> RelayOffer:
        values = {
            "relay_id": RELAY_ID,
            "box_key": self.box_key,
            "nonce": secrets.token_bytes(16),
            "keys": (a.public, b.public),
            "now_ms": SystemClock().now_ms(),
            "lifetime_ms": HOUR_MS,
            "rate_kbits": 10_000_000,
            "customer": bytes(16),
        }
        return RelayOffer(
            relay_id=RELAY_ID,
            host4=ip_address(host4).packed if host4 else b"",
            host6=ip_address(host6).packed if host6 else b"",
            control_port=self.port,
            box_key=self.box_key,
            ticket=sign_ticket(SERVER, MESH, **(values | changed)),
        )

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        assert line, "the relay ended"
        return msgspec.json.decode(line)


@dataclass
class Endpoint:
    """wireguard-go, and an agent's port and relaying beside it."""

    host: Host
    tunnel: str
    port: int = 51820
    told: list = field(default_factory=list)

    def __post_init__(self) -> None:
        self.private, self.public = generate_x25519()
        self.raw = RawPort(inner=())
        self.relaying = Relaying(
            port=self, wireguard_private=self.private, listener=self, clock=SystemClock()
        )
        self.raw.attach(Kind.RELAY, self.relaying.received)

    def up(self, other: Endpoint) -> None:
        """Have a tunnel to the other, with no word on where it is."""
        name = self.host.wireguard
        subprocess.Popen(
            ["ip", "netns", "exec", self.host.name, "wireguard-go", "-f", name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _until_there(Path(f"/var/run/wireguard/{name}.sock"))
        key = base64.b64encode(self.private).decode()
        subprocess.run(
            ["wg", "set", name, "listen-port", str(self.port), "private-key", "/dev/stdin"],
            input=key,
            text=True,
            check=True,
        )
        _run("wg", "set", name, "peer", _text(other.public), "allowed-ips", f"{other.tunnel}/32")
        self.host.run("ip", "addr", "add", f"{self.tunnel}/24", "dev", name)
        self.host.run("ip", "link", "set", name, "up", "mtu", "1400")
        self.other = other
        with self.host.entered():
            self.raw.open(self.port)

    def move(self, port: int) -> None:
        """Send from another port from now on, as behind a router that has lost its mapping."""
        self.port = port
        _run("wg", "set", self.host.wireguard, "listen-port", str(port))
        with self.host.entered():
            self.raw.open(port)

    def send(self, data: bytes, address) -> None:
        with self.host.entered():
            self.raw.send(data, address)

    def relay_bound(self, peer_key, relay_id, address) -> None:
        """Go there; as the agent does, one end alone begins the handshake."""
        self.told.append(("bound", address))
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        keepalive = "5" if self.public < peer_key else "0"
        _run(
            *("wg", "set", self.host.wireguard, "peer", _text(peer_key)),
            *("endpoint", f"{host}:{address[1]}", "persistent-keepalive", keepalive),
        )

    def relay_lost(self, peer_key, relay_id, why) -> None:
        self.told.append(("lost", why))

    def relay_usage(self, peer_key, relay_id, statement) -> None:
        self.told.append(("usage", statement))

    def pings(self, count: int = 1, wait: int = 1) -> int:
        """Ping the other through the tunnel; return how many answers came."""
        done = self.host.run(
            *f"ping -n -q -i 0.2 -c {count} -W {wait} {self.other.tunnel}".split(), check=False
        )
        received = [part for part in done.split(",") if "received" in part]
        return int(received[0].split()[0]) if received else 0


async def until(holds, *, wait_s: float = WAIT_S) -> None:
    async with asyncio.timeout(wait_s):
        while not holds():
            await asyncio.sleep(0.05)


def _until_there(path: Path) -> None:
    for _ in range(500):
        if listens(path):
            return
        subprocess.run(["sleep", "0.02"], check=True)
    raise AssertionError(f"nobody listens at {path}")


def _pids(host: Host) -> list[int]:
    done = subprocess.run(
        ["ip", "netns", "pids", host.name], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in done.stdout.split()]


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=30)
