"""The text protocol: what is sent, and that any bytes give a value or WireError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto.agreement import generate_x25519
from services.edge.wireguard import uapi
from services.edge.wireguard.model import PeerChanges, PeerStatus, PeerUpsert
from services.kernel.errors import WireError

KEY = bytes(range(32))
PRIVATE, PUBLIC = generate_x25519()

REPLY = (
    f"private_key={PRIVATE.hex()}\nlisten_port=51940\nfwmark=0\n"
    f"public_key={KEY.hex()}\npreshared_key={'00' * 32}\nprotocol_version=1\n"
    "endpoint=[2001:db8::1]:51940\nlast_handshake_time_sec=1700000000\n"
    "last_handshake_time_nsec=5\ntx_bytes=10\nrx_bytes=20\n"
    "persistent_keepalive_interval=25\nallowed_ip=10.64.0.11/32\nallowed_ip=10.64.0.10/32\n"
    f"public_key={PUBLIC.hex()}\npreshared_key={'11' * 32}\nendpoint=192.0.2.1:7\n"
    "persistent_keepalive_interval=0\nerrno=0\n\n"
).encode()


def test_reads_what_wireguard_go_answers():
    snapshot = uapi.parse_get_reply(REPLY)
    assert snapshot.public_key == PUBLIC
    assert snapshot.listen_port == 51940
    assert snapshot.peers[KEY] == PeerStatus(
        public_key=KEY,
        endpoint=("2001:db8::1", 51940),
        allowed_ips=("10.64.0.10/32", "10.64.0.11/32"),
        keepalive_seconds=25,
        last_handshake_s=1700000000,
        rx_bytes=20,
        tx_bytes=10,
    )
    assert snapshot.peers[PUBLIC].preshared_key == b"\x11" * 32
    assert snapshot.peers[PUBLIC].endpoint == ("192.0.2.1", 7)


def test_a_device_without_key_has_none():
    assert uapi.parse_get_reply(b"errno=0\n\n").public_key is None
    assert uapi.parse_get_reply(b"private_key=" + b"0" * 64 + b"\nerrno=0\n\n").public_key is None


def test_says_removals_first_and_the_keepalive_last():
    changes = PeerChanges(
        remove=(PUBLIC,),
        upsert=(
            PeerUpsert(
                public_key=KEY,
                endpoint=("2001:db8::1", 51940),
                allowed_ips=("10.64.0.10/32",),
                keepalive_seconds=25,
                set_preshared_key=True,
            ),
        ),
    )
    assert (
        uapi.encode_set(changes, private_key=PRIVATE, listen_port=0)
        == (
            f"set=1\nprivate_key={PRIVATE.hex()}\nlisten_port=0\n"
            f"public_key={PUBLIC.hex()}\nremove=true\n"
            f"public_key={KEY.hex()}\npreshared_key={'00' * 32}\nendpoint=[2001:db8::1]:51940\n"
            "replace_allowed_ips=true\nallowed_ip=10.64.0.10/32\n"
            "persistent_keepalive_interval=25\n\n"
        ).encode()
    )


def test_reads_the_errno_of_a_set():
    assert uapi.parse_set_reply(b"errno=0\n\n") == 0
    assert uapi.parse_set_reply(b"errno=-98\n\n") == -98


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\n\n",
        b"errno=0\n",
        b"errno=00\n\n",
        b"errno=-22\n\n",
        b"errno=\xd9\xa0\n\n",
        b"listen_port=70000\nerrno=0\n\n",
        b"listen_port=+1\nerrno=0\n\n",
        b"public_key=zz\nerrno=0\n\n",
        b"public_key=" + KEY.hex().upper().encode() + b"\nerrno=0\n\n",
        REPLY.replace(b"10.64.0.10/32", b"10.64.0.10/20"),
        REPLY.replace(b"192.0.2.1:7", b"192.0.2.1"),
        REPLY.replace(b"[2001:db8::1]:51940", b"2001:db8::1:51940"),
        REPLY.replace(PUBLIC.hex().encode(), KEY.hex().encode()),
        REPLY[:-10] + b"\n\n",
    ],
)
def test_refuses_what_wireguard_never_says(reply):
    with pytest.raises(WireError):
        uapi.parse_get_reply(reply)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_value_or_a_wire_error(data):
    for parse in (uapi.parse_get_reply, uapi.parse_set_reply):
        try:
            parse(data)
        except WireError:
            continue


@given(st.integers(0, len(REPLY) - 1), st.binary(min_size=1, max_size=3))
def test_a_damaged_reply_is_a_value_or_a_wire_error(at, junk):
    try:
        uapi.parse_get_reply(REPLY[:at] + junk + REPLY[at + len(junk) :])
    except WireError:
        return


def test_secrets_do_not_print():
    snapshot = uapi.parse_get_reply(REPLY)
    assert PRIVATE.hex() not in repr(snapshot)
    assert repr(b"\x11" * 32) not in repr(snapshot)
