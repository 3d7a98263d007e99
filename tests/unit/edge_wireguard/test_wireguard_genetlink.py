"""The kernel's attributes: what we encode reads back the same, however many messages it takes."""

from __future__ import annotations

import base64
import struct

import pytest
from pyroute2.netlink.generic.wireguard import wgmsg

from services.edge.wireguard import genetlink
from services.edge.wireguard.diff import compare, whole
from services.edge.wireguard.model import PeerChanges, PeerConfig
from services.kernel.errors import WireError

KEY = bytes(range(32))
DEVICE_KEY = b"\x07" * 32


def peer(number: int, **fields) -> PeerConfig:
    return PeerConfig(public_key=number.to_bytes(32, "big"), **fields)


def through_the_wire(peers: list) -> wgmsg:
    """Encode one message and decode its bytes, as the other side of netlink would."""
    message = wgmsg()
    message["attrs"] = [
        ["WGDEVICE_A_PUBLIC_KEY", base64.b64encode(DEVICE_KEY).decode()],
        ["WGDEVICE_A_LISTEN_PORT", 51940],
        ["WGDEVICE_A_PEERS", peers],
    ]
    message.encode()
    assert len(message.data) < 2**16
    back = wgmsg(message.data)
    back.decode()
    return back


def read_back(changes: PeerChanges):
    return genetlink.snapshot(through_the_wire(peers) for peers in genetlink.set_messages(changes))


def test_a_whole_peer_reads_back():
    full = peer(
        1,
        endpoint=("192.0.2.1", 51940),
        allowed_ips=("10.64.0.10/32", "10.80.0.0/20", "fd00::10/128"),
        keepalive_seconds=25,
        preshared_key=KEY,
    )
    other = peer(2, endpoint=("2001:db8::7", 4500))
    snapshot = read_back(PeerChanges(upsert=(whole(full), whole(other))))
    assert (snapshot.public_key, snapshot.listen_port) == (DEVICE_KEY, 51940)
    assert not compare({full.public_key: full, other.public_key: other}, snapshot.peers)
    assert snapshot.peers[full.public_key].endpoint == full.endpoint
    assert snapshot.peers[other.public_key].endpoint == other.endpoint


def test_a_zero_preshared_key_is_none():
    peers = [
        {
            "attrs": [
                ["WGPEER_A_PUBLIC_KEY", base64.b64encode(KEY).decode()],
                ["WGPEER_A_PRESHARED_KEY", base64.b64encode(bytes(32)).decode()],
            ]
        }
    ]
    assert genetlink.snapshot([through_the_wire(peers)]).peers[KEY].preshared_key is None


@pytest.mark.slow
def test_thousands_of_peers_take_several_messages_none_too_long():
    crowd = {
        config.public_key: config
        for n in range(2000)
        for config in [peer(n + 1, allowed_ips=(f"10.64.{n >> 8}.{n & 255}/32",))]
    }
    changes = PeerChanges(upsert=tuple(whole(config) for config in crowd.values()))
    assert len(list(genetlink.set_messages(changes))) > 1
    assert not compare(crowd, read_back(changes).peers)


def test_a_peer_with_many_prefixes_is_cleared_once_and_extended():
    wide = peer(1, allowed_ips=tuple(sorted(f"fd00::{n:x}/128" for n in range(1, 1500))))
    messages = list(genetlink.set_messages(PeerChanges(upsert=(whole(wide),))))
    names = [[name for name, _ in peers[0]["attrs"]] for peers in messages]
    assert "WGPEER_A_FLAGS" in names[0]
    assert all("WGPEER_A_FLAGS" not in later for later in names[1:])
    assert "WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL" in names[-1]
    assert not compare({wide.public_key: wide}, read_back(PeerChanges(upsert=(whole(wide),))).peers)


def test_removals_come_first_and_say_only_that():
    changes = PeerChanges(remove=(KEY,), upsert=(whole(peer(1)),))
    (peers,) = genetlink.set_messages(changes)
    assert peers[0]["attrs"] == [
        ["WGPEER_A_PUBLIC_KEY", base64.b64encode(KEY).decode()],
        ["WGPEER_A_FLAGS", 1],
    ]


def test_nothing_to_say_is_no_message():
    assert list(genetlink.set_messages(PeerChanges())) == []


def test_a_key_that_is_none_is_refused():
    class Message:
        def get_attr(self, name):
            return b"c2hvcnQ=" if name == "WGDEVICE_A_PUBLIC_KEY" else None

    with pytest.raises(WireError):
        genetlink.snapshot([Message()])


def test_the_endpoint_has_the_layout_of_a_sockaddr():
    changes = PeerChanges(upsert=(whole(peer(1, endpoint=("192.0.2.1", 51940))),))
    (peers,) = genetlink.set_messages(changes)
    message = through_the_wire(peers)
    assert struct.pack("!H4B", 51940, 192, 0, 2, 1) in bytes(message.data)
