"""Values in one spelling, or not at all; what is asked of the machine before anything is made."""

from __future__ import annotations

import asyncio

import pytest

from services.edge.wireguard import network, userspace
from services.edge.wireguard.choose import require_net_admin
from services.edge.wireguard.model import (
    InterfacePlan,
    PeerConfig,
    Route,
    SideTable,
    canonical_prefixes,
    check_interface_name,
)
from services.edge.wireguard.ownership import Ownership
from services.edge.wireguard.userspace import check_socket_dir
from services.kernel.errors import ForbiddenError, InputError, UnavailableError

KEY = bytes(range(32))


@pytest.mark.parametrize(
    "fields",
    [
        {"public_key": KEY[:31]},
        {"preshared_key": KEY + KEY},
        {"endpoint": ("vpn.example.org", 51940)},
        {"endpoint": ("2001:DB8::1", 51940)},
        {"endpoint": ("fe80::1%eth0", 51940)},
        {"endpoint": ("192.0.2.1", 0)},
        {"endpoint": ("192.0.2.1", 65536)},
        {"keepalive_seconds": -1},
        {"keepalive_seconds": 65536},
        {"allowed_ips": ("10.64.0.1",)},
        {"allowed_ips": ("10.64.0.1/20",)},
        {"allowed_ips": ("10.64.0.2/32", "10.64.0.1/32")},
        {"allowed_ips": ("10.64.0.1/32", "10.64.0.1/32")},
        {"allowed_ips": ("FD00::1/128",)},
    ],
)
def test_a_peer_that_is_not_well_written_is_refused(fields):
    with pytest.raises(InputError):
        PeerConfig(**({"public_key": KEY} | fields))


def test_prefixes_come_out_sorted_each_once():
    given = ["fd00:0::1/128", "10.64.0.2/32", "10.64.0.1", "10.64.0.2/32"]
    assert canonical_prefixes(given) == ("10.64.0.1/32", "10.64.0.2/32", "fd00::1/128")


@pytest.mark.parametrize(
    "fields",
    [
        {"addresses": ("10.64.0.1",)},
        {"addresses": ("seip0",)},
        {"mtu": 1279},
        {"routes": (Route(destination="10.64.0.0/10"), Route(destination="10.64.0.0/10"))},
    ],
)
def test_a_plan_that_is_not_well_written_is_refused(fields):
    with pytest.raises(InputError):
        InterfacePlan(**fields)


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 16, "-f", "wg 0", "w\n"])
def test_an_interface_name_is_one_the_kernel_takes(name):
    with pytest.raises(InputError):
        check_interface_name(name)


def test_secrets_have_no_repr():
    assert repr(KEY) not in repr(PeerConfig(public_key=KEY[::-1], preshared_key=KEY))


def test_cli_01_without_net_admin_the_mend_is_named(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tseipd\nCapEff:\t0000000000000400\n")
    with pytest.raises(ForbiddenError) as caught:
        require_net_admin(status)
    assert caught.value.code == "needs_cap_net_admin"
    assert "CAP_NET_ADMIN" in caught.value.mend
    status.write_text("CapEff:\t0000000000001400\n")
    require_net_admin(status)


def test_a_folder_that_wireguard_go_could_not_use_is_named(tmp_path):
    with pytest.raises(UnavailableError) as caught:
        check_socket_dir(tmp_path / "missing" / "wireguard")
    assert caught.value.code == "wireguard_socket_dir"
    assert "RuntimeDirectory=wireguard" in caught.value.mend
    check_socket_dir(tmp_path / "wireguard")


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"{}", b'{"index":"7"}', b"\xff"])
def test_a_damaged_note_claims_nothing(note, tmp_path):
    (tmp_path / "wireguard-wg9.json").write_bytes(note)
    ownership = Ownership(interface="wg9", backend="kernel", run_dir=tmp_path)

    class Link:
        index = 7

    assert not ownership.is_noted(Link())
    ownership.made(Link())
    assert ownership.is_noted(Link())
    other = Ownership(interface="wg9", backend="userspace", run_dir=tmp_path)
    assert not other.is_noted(Link())


async def test_the_files_of_a_killed_one_go_and_nobody_elses(tmp_path, monkeypatch):
    monkeypatch.setattr(userspace, "SOCKET_DIR", tmp_path)
    socket, note = tmp_path / "wg9.sock", tmp_path / "wireguard-wg9.json"
    socket.touch()
    there = {"interface": "wg9", "run_dir": tmp_path, "on_gone": lambda: None}
    await userspace.UserspaceBackend(**there).forget_gone()
    assert socket.exists(), "nothing says that it was ours"
    note.write_bytes(b"{}")
    await userspace.UserspaceBackend(**there).forget_gone()
    assert list(tmp_path.iterdir()) == []


async def test_a_socket_that_somebody_listens_at_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(userspace, "SOCKET_DIR", tmp_path)
    (tmp_path / "wireguard-wg9.json").write_bytes(b"{}")
    server = await asyncio.start_unix_server(lambda *_: None, tmp_path / "wg9.sock")
    async with server:
        made = userspace.UserspaceBackend(interface="wg9", run_dir=tmp_path, on_gone=lambda: None)
        await made.forget_gone()
        assert (tmp_path / "wg9.sock").exists()


def test_without_ipv6_the_rest_stays_and_what_is_closed_stays_closed():
    plan = InterfacePlan(
        addresses=("10.64.0.9/32", "fd00::9/128"),
        routes=(Route(destination="10.64.0.0/10"), Route(destination="fd00::/64")),
        side=SideTable(
            routes=(Route(destination="0.0.0.0/0"), Route(destination="::/0")),
            closed=("0.0.0.0/0", "::/0"),
        ),
    )
    left = plan.without_ipv6()
    assert left.addresses == ("10.64.0.9/32",)
    assert left.routes == (Route(destination="10.64.0.0/10"),)
    assert left.side is not None
    assert left.side.routes == (Route(destination="0.0.0.0/0"),)
    assert left.side.closed == ("0.0.0.0/0", "::/0")
    assert InterfacePlan().without_ipv6() == InterfacePlan()


@pytest.mark.parametrize(("said", "expected"), [("0\n", True), ("1\n", False), (None, False)])
def test_who_has_ipv6_is_seen_by_its_setting(tmp_path, monkeypatch, said, expected):
    monkeypatch.setattr(network, "_SYSCTL", tmp_path)
    conf = tmp_path / "ipv6" / "conf" / "wg9"
    if said is not None:
        conf.mkdir(parents=True)
        (conf / "disable_ipv6").write_text(said)
    assert network.has_ipv6("wg9") is expected
