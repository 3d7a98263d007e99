"""Hosts for integration tests: network namespaces joined by a cable, gone when the test ends."""

from __future__ import annotations

import ctypes
import os
import secrets
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Host:
    """A network namespace with one address towards the other host."""

    name: str
    address: str
    wireguard: str

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command inside and return what it printed."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{words}: {done.stderr or done.stdout}")
        return done.stdout

    def wireguard_pids(self) -> list[int]:
        """The wireguard-go processes of this host."""
        pids = _ip("netns", "pids", self.name, check=False).split()
        return [int(pid) for pid in pids if _is_of(int(pid), self.wireguard)]

    @contextmanager
    def entered(self):
        """Be inside: what this thread opens and starts from now on is the host's."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/var/run/netns/{self.name}", os.O_RDONLY)
        try:
            _setns(there)
            yield self
        finally:
            _setns(home)
            os.close(there)
            os.close(home)


@contextmanager
def two_hosts(prefix: str):
    """Give two hosts with a cable between them."""
    tag = secrets.token_hex(3)
    hosts = [
        Host(name=f"{prefix}-{tag}-{n}", address=f"10.250.0.{n}", wireguard=f"{prefix}{tag}{n}")
        for n in (1, 2)
    ]
    try:
        for host in hosts:
            _ip("netns", "add", host.name)
            _ip("-n", host.name, "link", "set", "lo", "up")
        left, right = hosts
        _ip("-n", left.name, *f"link add eth0 type veth peer name eth0 netns {right.name}".split())
        for host in hosts:
            _ip("-n", host.name, *f"addr add {host.address}/24 dev eth0".split())
            _ip("-n", host.name, "link", "set", "eth0", "up")
        yield hosts
    finally:
        for host in hosts:
            for pid in host.wireguard_pids():
                os.kill(pid, 9)
            Path(f"/var/run/wireguard/{host.wireguard}.sock").unlink(missing_ok=True)
            _ip("netns", "del", host.name, check=False)


def _is_of(pid: int, interface: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return words.startswith(b"wireguard-go\0") and interface.encode() in words.split(b"\0")


def _ip(*words: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=False)
    if check and done.returncode:
        raise AssertionError(f"ip {words}: {done.stderr}")
    return done.stdout


def _setns(handle: int) -> None:
    if _libc.setns(handle, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
