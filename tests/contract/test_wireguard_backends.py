"""What every WireGuard backend must do, run on each that works on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from services.base.crypto.agreement import generate_x25519
from services.edge.wireguard.choose import kernel_has_wireguard, remove_leftover
from services.edge.wireguard.diff import compare, step, whole
from services.edge.wireguard.kernel import KernelBackend
from services.edge.wireguard.links import find_link
from services.edge.wireguard.model import PeerChanges, PeerConfig
from services.edge.wireguard.userspace import UserspaceBackend
from services.kernel.errors import ConflictError
from tests.fakes.hosts import two_hosts

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

PRIVATE, PUBLIC = generate_x25519()


@pytest.fixture
def host():
    with two_hosts("wgt") as (one, _), one.entered():
        yield one


@pytest.fixture(params=[UserspaceBackend, KernelBackend], ids=["userspace", "kernel"])
async def make(request, host, tmp_path):
    if request.param is KernelBackend and not await kernel_has_wireguard():
        pytest.skip("this kernel has no WireGuard")
    made = []

    def make(run_dir=tmp_path):
        gone = []
        backend = request.param(
            interface=host.wireguard, run_dir=run_dir, on_gone=lambda: gone.append(True)
        )
        backend.gone = gone
        made.append(backend)
        return backend

    yield make
    for backend in made:
        await backend.remove()


def peer(number: int, **fields) -> PeerConfig:
    given = {"allowed_ips": (f"10.64.{number >> 8}.{number & 255}/32",)} | fields
    return PeerConfig(public_key=number.to_bytes(32, "big"), **given)


def adding(*peers: PeerConfig) -> PeerChanges:
    return PeerChanges(upsert=tuple(whole(one) for one in peers))


async def agrees(backend, *peers: PeerConfig) -> bool:
    there = (await backend.read()).peers
    return not compare({one.public_key: one for one in peers}, there)


async def test_opens_with_key_and_a_free_port_and_is_up(make, host):
    backend = make()
    assert await backend.open(private_key=PRIVATE, listen_port=0)
    snapshot = await backend.read()
    assert snapshot.public_key == PUBLIC
    assert snapshot.listen_port > 0
    assert snapshot.peers == {}
    assert (await find_link(host.wireguard)).is_up


async def test_opens_on_the_port_that_was_asked_for(make):
    backend = make()
    await backend.open(private_key=PRIVATE, listen_port=51940)
    assert (await backend.read()).listen_port == 51940


async def test_reads_back_what_was_applied(make):
    full = peer(
        1,
        endpoint=("192.0.2.1", 51940),
        allowed_ips=("10.64.0.10/32", "10.80.0.0/20", "fd00::10/128"),
        keepalive_seconds=25,
        preshared_key=bytes(range(32)),
    )
    bare = peer(2, endpoint=("2001:db8::7", 4500), allowed_ips=())
    backend = make()
    await backend.open(private_key=PRIVATE, listen_port=0)
    await backend.apply(adding(full, bare))
    there = (await backend.read()).peers
    assert set(there) == {full.public_key, bare.public_key}
    got = there[full.public_key]
    assert got.endpoint == full.endpoint
    assert got.allowed_ips == full.allowed_ips
    assert got.keepalive_seconds == 25
    assert got.preshared_key == full.preshared_key
    assert (got.last_handshake_s, got.rx_bytes) == (0, 0)
    assert there[bare.public_key].endpoint == bare.endpoint
    assert there[bare.public_key].allowed_ips == ()


async def test_changes_one_thing_and_leaves_the_rest(make):
    before = peer(1, endpoint=("192.0.2.1", 51940), keepalive_seconds=25)
    backend = make()
    await backend.open(private_key=PRIVATE, listen_port=0)
    await backend.apply(adding(before, peer(2)))
    after = peer(1, endpoint=("192.0.2.9", 1), allowed_ips=("10.64.0.1/32", "10.64.0.9/32"))
    await backend.apply(PeerChanges(upsert=(step(before, after),)))
    got = (await backend.read()).peers[after.public_key]
    assert got.endpoint == after.endpoint
    assert got.allowed_ips == after.allowed_ips
    assert got.keepalive_seconds == 0
    assert await agrees(backend, after, peer(2))


async def test_ipm_08_an_address_moves_with_the_removal_of_its_peer(make):
    backend = make()
    await backend.open(private_key=PRIVATE, listen_port=0)
    await backend.apply(adding(peer(1)))
    heir = peer(2, allowed_ips=peer(1).allowed_ips)
    await backend.apply(PeerChanges(remove=(peer(1).public_key,), upsert=(whole(heir),)))
    assert await agrees(backend, heir)


async def test_two_peers_swap_their_prefixes(make):
    one, two = peer(1), peer(2)
    backend = make()
    await backend.open(private_key=PRIVATE, listen_port=0)
    await backend.apply(adding(one, two))
    after = [peer(1, allowed_ips=two.allowed_ips), peer(2, allowed_ips=one.allowed_ips)]
    changes = (step(one, after[0]), step(two, after[1]))
    await backend.apply(PeerChanges(upsert=changes))
    assert await agrees(backend, *after)


async def test_a_peer_is_made_anew_in_one_transaction(make):
    config = peer(1, endpoint=("192.0.2.1", 51940), keepalive_seconds=25)
    backend = make()
    await backend.open(private_key=PRIVATE, listen_port=0)
    await backend.apply(adding(config))
    await backend.apply(PeerChanges(remove=(config.public_key,), upsert=(whole(config),)))
    assert await agrees(backend, config)
    assert (await backend.read()).peers[config.public_key].endpoint == config.endpoint


async def test_a_thousand_peers_and_a_thousand_prefixes(make):
    crowd = [peer(n, keepalive_seconds=25) for n in range(1, 1001)]
    wide = peer(
        2000, allowed_ips=tuple(sorted(f"10.70.{n >> 8}.{n & 255}/32" for n in range(1000)))
    )
    backend = make()
    await backend.open(private_key=PRIVATE, listen_port=0)
    await backend.apply(adding(*crowd, wide))
    assert await agrees(backend, *crowd, wide)


async def test_closing_leaves_it_up_and_the_next_adopts_it_with_its_peers(make, host):
    first = make()
    await first.open(private_key=PRIVATE, listen_port=0)
    port = (await first.read()).listen_port
    await first.apply(adding(peer(1)))
    index = (await find_link(host.wireguard)).index
    await first.close()
    second = make()
    assert not await second.open(private_key=PRIVATE, listen_port=0)
    assert (await find_link(host.wireguard)).index == index
    assert (await second.read()).listen_port == port
    assert await agrees(second, peer(1))


async def test_cli_02_adopts_by_its_key_when_the_note_is_lost(make, tmp_path):
    first = make()
    await first.open(private_key=PRIVATE, listen_port=0)
    await first.close()
    for note in tmp_path.glob("*.json"):
        note.unlink()
    assert not await make().open(private_key=PRIVATE, listen_port=0)


async def test_cli_02_adopts_by_its_note_and_sets_the_new_key(make):
    first = make()
    await first.open(private_key=generate_x25519()[0], listen_port=0)
    await first.close()
    second = make()
    assert not await second.open(private_key=PRIVATE, listen_port=0)
    assert (await second.read()).public_key == PUBLIC


async def test_cli_04_a_device_of_another_is_refused_and_left_alone(make, tmp_path, host):
    other = make(tmp_path / "other")
    (tmp_path / "other").mkdir()
    key = generate_x25519()
    await other.open(private_key=key[0], listen_port=0)
    ours = make()
    with pytest.raises(ConflictError) as caught:
        await ours.open(private_key=PRIVATE, listen_port=0)
    assert caught.value.code == "interface_in_use"
    await ours.remove()
    assert (await other.read()).public_key == key[1]


async def test_cli_04_an_interface_of_another_kind_is_refused_and_left_alone(make, host):
    host.run("ip", "tuntap", "add", "dev", host.wireguard, "mode", "tun")
    backend = make()
    with pytest.raises(ConflictError) as caught:
        await backend.open(private_key=PRIVATE, listen_port=0)
    assert caught.value.code == "interface_in_use"
    await backend.remove()
    assert await find_link(host.wireguard) is not None


async def test_cli_04_a_port_in_use_is_named_and_nothing_is_left(make, host, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 51940))
        backend = make()
        with pytest.raises(ConflictError) as caught:
            await backend.open(private_key=PRIVATE, listen_port=51940)
    assert caught.value.code == "port_in_use"
    assert "51940" in str(caught.value)
    assert "ip_local_reserved_ports" in caught.value.mend
    assert await find_link(host.wireguard) is None


async def test_cli_04_an_adopted_device_keeps_its_port_when_the_new_one_is_taken(make, host):
    first = make()
    await first.open(private_key=PRIVATE, listen_port=51940)
    await first.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 51941))
        with pytest.raises(ConflictError) as caught:
            await make().open(private_key=PRIVATE, listen_port=51941)
    assert caught.value.code == "port_in_use"
    assert await find_link(host.wireguard) is not None


async def test_removing_leaves_no_trace(make, host, tmp_path):
    backend = make()
    await backend.open(private_key=PRIVATE, listen_port=0)
    await backend.remove()
    assert await find_link(host.wireguard) is None
    assert not Path(f"/var/run/wireguard/{host.wireguard}.sock").exists()
    assert list(tmp_path.glob("*.json")) == []


async def test_cli_02_what_a_killed_run_left_can_be_removed_later(make, host, tmp_path):
    backend = make()
    await backend.open(private_key=PRIVATE, listen_port=0)
    await backend.close()
    there = {"interface": host.wireguard, "run_dir": tmp_path, "public_key": PUBLIC}
    assert await remove_leftover(**there)
    assert await find_link(host.wireguard) is None
    assert not await remove_leftover(**there)


async def test_opens_again_after_somebody_deleted_the_interface(make, host):
    backend = make()
    await backend.open(private_key=PRIVATE, listen_port=0)
    subprocess.run(["ip", "link", "del", host.wireguard], check=True)
    assert await backend.open(private_key=PRIVATE, listen_port=0)
    assert (await backend.read()).public_key == PUBLIC
