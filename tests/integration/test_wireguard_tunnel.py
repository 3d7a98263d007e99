"""The tunnel between two hosts, with stock WireGuard tools on the far side as the judge."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.base.crypto.agreement import generate_x25519
from services.edge.wireguard import connection, process
from services.edge.wireguard.links import find_link
from services.edge.wireguard.model import InterfacePlan, PeerConfig, Route
from services.edge.wireguard.service import WireGuardService
from services.kernel.errors import StartError
from services.kernel.service import HealthState
from services.runtime.clock import SystemClock
from services.runtime.tasks import TaskOwner
from tests.fakes.hosts import two_hosts
from tests.fakes.listening import listens

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

OURS, THEIRS = generate_x25519(), generate_x25519()
OUR_ADDRESS, THEIR_ADDRESS = "10.64.0.1", "10.64.0.10"
PORT = 51940
PLAN = InterfacePlan(
    addresses=(f"{OUR_ADDRESS}/32",),
    routes=(Route(destination="10.64.0.0/10", source=OUR_ADDRESS),),
    forwarding=True,
)


@pytest.fixture
def hosts():
    with two_hosts("wgt") as (here, there), here.entered():
        yield here, there


def make_service(host, run_dir, **given) -> WireGuardService:
    settings = {
        "interface": host.wireguard,
        "listen_port": PORT,
        "private_key": OURS[0],
        "run_dir": run_dir,
        "clock": SystemClock(),
        "tasks": TaskOwner("test"),
        "plan": PLAN,
    }
    return WireGuardService(**(settings | given))


@pytest.fixture
async def service(hosts, tmp_path):
    service = make_service(hosts[0], tmp_path)
    await service.start()
    yield service
    await service.stop(down=True)
    assert await find_link(hosts[0].wireguard) is None


def far_peer(there) -> PeerConfig:
    return PeerConfig(
        public_key=THEIRS[1],
        endpoint=(there.address, PORT),
        allowed_ips=(f"{THEIR_ADDRESS}/32",),
        keepalive_seconds=25,
    )


@asynccontextmanager
async def stock_peer(host, near):
    """A peer by wireguard-go, wg and ip alone, as a stranger's machine would have it."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", host.name, "wireguard-go", "-f", host.wireguard],
        env={**os.environ, "WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "silent"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not listens(Path(f"/var/run/wireguard/{host.wireguard}.sock")):
            await asyncio.sleep(0.01)
        conf = (
            f"[Interface]\nPrivateKey={base64.b64encode(THEIRS[0]).decode()}\nListenPort={PORT}\n"
            f"[Peer]\nPublicKey={base64.b64encode(OURS[1]).decode()}\n"
            f"Endpoint={near.address}:{PORT}\nAllowedIPs=10.64.0.0/10\n"
        )
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(conf)
            file.flush()
            host.run("wg", "setconf", host.wireguard, file.name)
        host.run("ip", "addr", "add", f"{THEIR_ADDRESS}/32", "dev", host.wireguard)
        host.run("ip", "link", "set", host.wireguard, "mtu", "1420", "up")
        host.run("ip", "route", "add", "10.64.0.0/10", "dev", host.wireguard)
        yield process
    finally:
        process.terminate()
        process.wait()


async def handshake_with(service, key) -> None:
    while (await service.peers())[key].last_handshake_s == 0:
        await asyncio.sleep(0.01)


def ping_once(host, address) -> str:
    return host.run("ping", "-c", "1", "-W", "10", address)


async def test_handshake_ping_and_what_is_told_of_it(hosts, service):
    here, there = hosts
    async with stock_peer(there, here):
        await service.set_peer(far_peer(there))
        await handshake_with(service, THEIRS[1])
        assert "1 received" in ping_once(here, THEIR_ADDRESS)
        assert "1 received" in ping_once(there, OUR_ADDRESS)
        peer = (await service.peers())[THEIRS[1]]
        assert peer.rx_bytes > 0
        assert peer.tx_bytes > 0
        status = service.status()
        assert (status.interface, status.listen_port) == (here.wireguard, PORT)
        assert (status.public_key, status.peer_count) == (OURS[1], 1)
        assert service.health().state is HealthState.OK
        shown = there.run("wg", "show", there.wireguard, "latest-handshakes")
        assert base64.b64encode(OURS[1]).decode() in shown


async def test_a_removed_peer_reaches_nothing_any_more(hosts, service):
    here, there = hosts
    async with stock_peer(there, here):
        await service.set_peer(far_peer(there))
        await handshake_with(service, THEIRS[1])
        await service.remove_peer(THEIRS[1])
        assert await service.peers() == {}
        lost = there.run("ping", "-c", "2", "-i", "0.2", "-W", "1", OUR_ADDRESS, check=False)
        assert "0 received" in lost


async def test_a_reset_gives_a_handshake_where_the_first_one_was_lost(hosts, service):
    here, there = hosts
    await service.set_peer(far_peer(there))  # its first initiation meets nobody
    async with stock_peer(there, here):
        await service.reset_peer(THEIRS[1])
        await handshake_with(service, THEIRS[1])
        assert "1 received" in ping_once(here, THEIR_ADDRESS)


async def test_restarting_the_service_loses_no_ping(hosts, tmp_path):
    here, there = hosts
    first = make_service(here, tmp_path)
    await first.start()
    async with stock_peer(there, here):
        await first.replace_peers({THEIRS[1]: far_peer(there)})
        await handshake_with(first, THEIRS[1])
        index = (await find_link(here.wireguard)).index
        ping = await asyncio.create_subprocess_exec(
            *f"ip netns exec {there.name} ping -i 0.2 -c 15 -W 2 {OUR_ADDRESS}".split(),
            stdout=asyncio.subprocess.PIPE,
        )
        service = first
        for _ in range(5):
            await service.stop()
            service = make_service(here, tmp_path)
            await service.start()
            await service.replace_peers({THEIRS[1]: far_peer(there)})
            await asyncio.sleep(0.4)
        printed, _ = await ping.communicate()
        assert b"15 packets transmitted, 15 received" in printed
        assert (await find_link(here.wireguard)).index == index
        assert service.counters().batches == 0
        await service.stop(down=True)


_DAEMON = """
import asyncio, sys
from pathlib import Path
from services.edge.wireguard.model import InterfacePlan
from services.edge.wireguard.service import WireGuardService
from services.runtime.clock import SystemClock
from services.runtime.tasks import TaskOwner

async def main():
    service = WireGuardService(
        interface=sys.argv[1], listen_port=0, private_key=bytes.fromhex(sys.argv[2]),
        run_dir=Path(sys.argv[3]), clock=SystemClock(), tasks=TaskOwner("test"),
        plan=InterfacePlan(addresses=("10.64.0.1/32",)),
    )
    await service.start()
    print("up", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_cli_02_after_kill_9_the_next_start_adopts_and_down_leaves_nothing(hosts, tmp_path):
    here, _ = hosts
    words = [sys.executable, "-c", _DAEMON, here.wireguard, OURS[0].hex(), str(tmp_path)]
    daemon = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert await asyncio.to_thread(daemon.stdout.readline) == b"up\n"
    index = (await find_link(here.wireguard)).index
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    daemon.stdout.close()
    service = make_service(here, tmp_path, listen_port=0)
    await service.start()
    assert (await find_link(here.wireguard)).index == index
    await service.stop(down=True)
    assert await find_link(here.wireguard) is None
    assert (
        here.run("ip", "route")
        == "10.250.0.0/24 dev eth0 proto kernel scope link src 10.250.0.1 \n"
    )
    assert not Path(f"/var/run/wireguard/{here.wireguard}.sock").exists()


async def test_a_killed_wireguard_go_comes_back_with_everything(hosts, tmp_path):
    here, there = hosts
    service = make_service(here, tmp_path, backend_choice="userspace")
    await service.start()
    async with stock_peer(there, here):
        await service.replace_peers({THEIRS[1]: far_peer(there)})
        await handshake_with(service, THEIRS[1])
        (pid,) = here.wireguard_pids()
        os.kill(pid, signal.SIGKILL)
        while service.counters().restarts == 0:
            await asyncio.sleep(0.01)
        await service.check()
        assert service.health().state is HealthState.OK
        assert service.status().listen_port == PORT
        await handshake_with(service, THEIRS[1])
        assert "1 received" in ping_once(here, THEIR_ADDRESS)
        assert here.run("ip", "route", "get", THEIR_ADDRESS).startswith(
            f"{THEIR_ADDRESS} dev {here.wireguard} src {OUR_ADDRESS}"
        )
        await service.stop(down=True)


async def test_a_wireguard_go_that_hangs_is_replaced(hosts, service, monkeypatch):
    here, _ = hosts
    monkeypatch.setattr(connection, "REPLY_TIMEOUT_S", 0.3)
    monkeypatch.setattr(process, "_TERM_TIMEOUT_S", 0.3)
    if service.status().backend != "userspace":
        pytest.skip("the kernel does not hang")
    await service.replace_peers({THEIRS[1]: far_peer(hosts[1])})
    (pid,) = here.wireguard_pids()
    os.kill(pid, signal.SIGSTOP)
    await service.check()
    (other,) = here.wireguard_pids()
    assert other != pid
    assert set(await service.peers()) == {THEIRS[1]}
    assert service.counters().restarts == 1


async def test_drift_of_peers_addresses_and_routes_is_mended_and_counted(hosts, service):
    here, there = hosts
    await service.replace_peers({THEIRS[1]: far_peer(there)})
    theirs = base64.b64encode(THEIRS[1]).decode()
    stranger = base64.b64encode(generate_x25519()[1]).decode()
    here.run("wg", "set", here.wireguard, "peer", theirs, "allowed-ips", "10.99.0.0/16")
    here.run("wg", "set", here.wireguard, "peer", stranger, "allowed-ips", "10.98.0.0/16")
    here.run("ip", "addr", "del", f"{OUR_ADDRESS}/32", "dev", here.wireguard)
    here.run("ip", "link", "set", here.wireguard, "mtu", "1300")
    await service.check()
    peers = await service.peers()
    assert set(peers) == {THEIRS[1]}
    assert peers[THEIRS[1]].allowed_ips == (f"{THEIR_ADDRESS}/32",)
    assert OUR_ADDRESS in here.run("ip", "addr", "show", "dev", here.wireguard)
    assert "mtu 1420" in here.run("ip", "link", "show", "dev", here.wireguard)
    assert "10.64.0.0/10" in here.run("ip", "route")
    assert service.counters().drift_mended >= 5
    before = service.counters().drift_mended
    await service.check()
    assert service.counters().drift_mended == before


async def test_five_thousand_peers_go_in_one_batch(service):
    crowd = {
        key: PeerConfig(public_key=key, allowed_ips=(f"10.65.{n >> 8}.{n & 255}/32",))
        for n in range(5000)
        for key in [(n + 1).to_bytes(32, "big")]
    }
    await service.replace_peers(crowd)
    assert service.counters().batches == 1
    assert len(await service.peers()) == 5000


async def test_a_new_plan_replaces_what_the_old_one_added_and_nothing_else(hosts, service):
    here, _ = hosts
    here.run("ip", "route", "add", "192.0.2.0/24", "dev", here.wireguard)
    await service.set_plan(
        InterfacePlan(
            addresses=("10.64.16.1/20", "172.16.0.9/32", "fd00::1/64"),
            routes=(
                Route(destination="172.16.0.0/22", source="172.16.0.9"),
                Route(destination="fd00::/48", source="fd00::1"),
            ),
            mtu=1380,
        )
    )
    shown = here.run("ip", "-br", "addr", "show", "dev", here.wireguard)
    assert OUR_ADDRESS not in shown.replace("10.64.16.1", "")
    assert all(text in shown for text in ("10.64.16.1/20", "172.16.0.9/32", "fd00::1/64"))
    routes = here.run("ip", "route")
    assert f"172.16.0.0/22 dev {here.wireguard} proto 94 scope link src 172.16.0.9" in routes
    assert "10.64.0.0/10" not in routes
    assert "192.0.2.0/24" in routes
    assert "fd00::/48" in here.run("ip", "-6", "route")
    assert "1380" in here.run("ip", "link", "show", "dev", here.wireguard)


async def test_a_forwarding_host_carries_packets_between_its_peers(hosts, service):
    here, _ = hosts
    forwarding = Path(f"/proc/sys/net/ipv4/conf/{here.wireguard}/forwarding")
    assert forwarding.read_text() == "1\n"
    forwarding.write_text("0")
    await service.check()
    assert forwarding.read_text() == "1\n"


async def test_cli_04_a_route_of_another_is_refused_and_stays(hosts, tmp_path):
    here, _ = hosts
    here.run("ip", "route", "add", "10.64.0.0/10", "dev", "eth0")
    service = make_service(here, tmp_path)
    with pytest.raises(StartError) as caught:
        await service.start()
    assert (caught.value.code, caught.value.service) == ("route_in_use", "wireguard")
    assert caught.value.mend
    assert await find_link(here.wireguard) is None
    assert "10.64.0.0/10 dev eth0" in here.run("ip", "route")
    assert service.health().state is HealthState.FAILED


async def test_cli_01_without_net_admin_nothing_is_made(hosts, tmp_path):
    here, _ = hosts
    script = _DAEMON.replace('print("up", flush=True)', "").replace(
        "    await service.start()\n",
        "    try:\n        await service.start()\n"
        "    except Exception as e:\n        print(e.code, e.service, e.mend)\n        return\n",
    )
    words = [sys.executable, "-c", script, here.wireguard, OURS[0].hex(), str(tmp_path)]
    done = subprocess.run(
        ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("needs_cap_net_admin wireguard run as root"), done.stderr
    assert await find_link(here.wireguard) is None
    assert list(tmp_path.iterdir()) == []


async def test_cli_01_without_any_wireguard_the_mend_is_named(hosts, tmp_path, monkeypatch):
    here, _ = hosts
    monkeypatch.setenv("PATH", str(tmp_path))
    service = make_service(here, tmp_path, backend_choice="userspace")
    with pytest.raises(StartError) as caught:
        await service.start()
    assert caught.value.code == "no_wireguard"
    assert "wireguard-go" in caught.value.mend
    assert await find_link(here.wireguard) is None
    assert list(tmp_path.iterdir()) == []


async def test_a_wireguard_go_that_does_not_start_says_why(hosts, tmp_path, monkeypatch):
    here, _ = hosts
    program = tmp_path / "bin" / "wireguard-go"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\n[ "$LOG_LEVEL" = error ] && echo "the TUN device is on fire"\nexit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(StartError, match="the TUN device is on fire"):
        await make_service(here, tmp_path, backend_choice="userspace").start()
    assert await find_link(here.wireguard) is None
