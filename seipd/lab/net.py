"""Namespaces, cables and the bridge, by ip(8) and nft(8)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from seipd.lab.plan import is_socket_of, partition_rules
from services.kernel.errors import ConfigError, InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seipd.lab.plan import Host, LabPlan

SOCKETS = Path("/var/run/wireguard")
CONFIGS = Path("/etc/netns")
MAX_NAME_SERVERS = 3
PREFIX_BITS = 24
END_TIMEOUT_S = 8.0
_POLL_S = 0.1


def run(*words: str, stdin: str | None = None) -> str:
    """Run a program; return what it printed.

    Raises:
        ConfigError: the program is not installed.
        UnavailableError: it failed; the message says what it said.
    """
    try:
        done = subprocess.run(  # noqa: S603 (fixed programs, our own names)
            words, input=stdin, capture_output=True, text=True, check=False, timeout=60
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f"{words[0]} is not installed", mend="apt-get install iproute2 nftables"
        ) from error
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise UnavailableError(f"{' '.join(words[:6])}: {said}", code="lab_failed")
    return done.stdout


def build(plan: LabPlan, hosts: Iterable[Host]) -> None:
    """Make the bridge, and a namespace with a cable for each of these hosts."""
    run("ip", "netns", "add", plan.switch)
    run("ip", "-n", plan.switch, "link", "add", "br0", "type", "bridge")
    run("ip", "-n", plan.switch, "link", "set", "br0", "up")
    for host in hosts:
        _connect(plan, host)
        give_resolver(plan, host)


def give_resolver(plan: LabPlan, host: Host) -> None:
    """Give a host a resolv.conf of its own, which ``ip netns exec`` puts in the place of /etc's.

    Endpoints ask the servers; those have nobody to ask, since a lab is not on the Internet.
    """
    folder = CONFIGS / host.namespace
    folder.mkdir(parents=True)
    asked = () if host.is_server else plan.servers[:MAX_NAME_SERVERS]
    lines = [f"nameserver {server.address}" for server in asked]
    (folder / "resolv.conf").write_text("".join(f"{line}\n" for line in ("# of a lab", *lines)))


def _connect(plan: LabPlan, host: Host) -> None:
    run("ip", "netns", "add", host.namespace)
    run("ip", "-n", host.namespace, "link", "set", "lo", "up")
    cable = ("type", "veth", "peer", "name", "eth0", "netns", host.namespace)
    run("ip", "-n", plan.switch, "link", "add", f"v-{host.name}", *cable)
    run("ip", "-n", plan.switch, "link", "set", f"v-{host.name}", "master", "br0", "up")
    inside = ("ip", "-n", host.namespace)
    run(*inside, "addr", "add", f"{host.address}/{PREFIX_BITS}", "dev", "eth0")
    run(*inside, "link", "set", "eth0", "up")


def partition(one: Host, other: Host) -> None:
    """Cut two hosts apart, both ways, at both ends.

    Raises:
        InputError: they are the same.
    """
    if one == other:
        raise InputError(f"{one.name} can't be cut from itself", mend="name two hosts")
    for here, there in ((one, other), (other, one)):
        run(*here.enter(), "nft", "-f", "-", stdin=partition_rules(there.address))


def heal(hosts: Iterable[Host]) -> int:
    """Take every partition away; return how many ends were cut."""
    count = 0
    for host in hosts:
        for line in run(*host.enter(), "nft", "list", "tables").splitlines():
            name = line.split()[-1] if line else ""
            if name.startswith("seiplab-"):
                run(*host.enter(), "nft", "delete", "table", "inet", name)
                count += 1
    return count


def namespaces(prefix: str) -> list[str]:
    """Return the namespaces of a lab that are there."""
    listed = (line.split()[0] for line in run("ip", "netns", "list").splitlines() if line)
    return [name for name in listed if name.startswith(f"{prefix}-")]


def pids(namespace: str) -> list[int]:
    """Return the processes inside a namespace."""
    return [int(text) for text in run("ip", "netns", "pids", namespace).split()]


def remove(prefix: str) -> list[str]:
    """End every process inside a lab's namespaces and remove them; return their names.

    It goes by what is there, not by what was planned: so it also clears up after a crash.
    """
    left = namespaces(prefix)
    for number in (signal.SIGTERM, signal.SIGKILL):
        _end_all(left, number)
    for name in left:
        run("ip", "netns", "del", name)
    for folder in CONFIGS.glob(f"{prefix}-*"):
        shutil.rmtree(folder)
    if SOCKETS.is_dir():
        for path in SOCKETS.iterdir():
            if is_socket_of(prefix, path.name):
                path.unlink(missing_ok=True)
    return left


def _end_all(names: Iterable[str], number: signal.Signals) -> None:
    """Signal every process once, also one that another starts before it ends; wait for the last.

    A daemon that is to stop starts its wireguard-go again if that ended before it.
    """
    told: set[int] = set()
    deadline = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < deadline:
        left = {pid for name in names for pid in pids(name)}
        if not left:
            return
        for pid in left - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        told |= left
        time.sleep(_POLL_S)
