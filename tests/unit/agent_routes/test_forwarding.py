"""Forwarding is set where it is needed, and put back as it was."""

from __future__ import annotations

import pytest

from seipd.agent.routes import forwarding
from seipd.agent.routes.forwarding import Forwarding


@pytest.fixture
def machine(tmp_path):
    """A machine with two interfaces, on which nothing is forwarded."""
    net = tmp_path / "net"
    for name in ("all", "eth0", "seip1"):
        for family in ("ipv4", "ipv6"):
            folder = net / family / "conf" / name
            folder.mkdir(parents=True)
            (folder / "forwarding").write_text("0\n")
        (net / "ipv6/conf" / name / "accept_ra").write_text("1\n")
    return net


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "run"
    made.mkdir(mode=0o700)
    return made


def forward(here: Forwarding, *interfaces: str, ipv6: bool = False) -> str:
    return here.ensure(here.between(interfaces, ipv6=ipv6))


def values(net) -> dict[str, str]:
    return {str(one.relative_to(net)): one.read_text().strip() for one in net.rglob("*/*/*/*")}


def test_what_is_set_is_put_back(machine, folder) -> None:
    before = values(machine)
    here = Forwarding(folder, net=machine)
    assert forward(here, "eth0", "seip1") == ""
    assert forward(here, "eth0", "seip1") == ""
    changed = {name for name, value in values(machine).items() if value != before[name]}
    assert changed == {"ipv4/conf/eth0/forwarding", "ipv4/conf/seip1/forwarding"}
    here.restore()
    assert values(machine) == before
    assert list(folder.iterdir()) == []


def test_a_router_of_ipv6_goes_on_listening_to_routers(machine, folder) -> None:
    before = values(machine)
    here = Forwarding(folder, net=machine)
    assert forward(here, "eth0", "seip1", ipv6=True) == ""
    assert values(machine)["ipv6/conf/all/forwarding"] == "1"
    assert values(machine)["ipv6/conf/eth0/accept_ra"] == "2"
    here.restore()
    assert values(machine) == before


def test_a_newer_kernel_forwards_by_interface(machine, folder) -> None:
    (machine / "ipv6/conf/eth0/force_forwarding").write_text("0\n")
    assert forward(Forwarding(folder, net=machine), "eth0", ipv6=True) == ""
    assert values(machine)["ipv6/conf/eth0/force_forwarding"] == "1"
    assert values(machine)["ipv6/conf/all/forwarding"] == "0"


def test_what_is_needed_no_more_is_put_back_at_once(machine, folder) -> None:
    before = values(machine)
    here = Forwarding(folder, net=machine)
    forward(here, "eth0", "seip1")
    forward(here, "seip1")
    changed = {name for name, value in values(machine).items() if value != before[name]}
    assert changed == {"ipv4/conf/seip1/forwarding"}
    here.ensure({})
    assert values(machine) == before


def test_cli_02_the_next_run_puts_back_what_a_killed_one_set(machine, folder) -> None:
    before = values(machine)
    forward(Forwarding(folder, net=machine), "eth0", ipv6=False)
    forward(Forwarding(folder, net=machine), "seip1", ipv6=False)
    Forwarding(folder, net=machine).restore()
    assert values(machine) == before


def test_what_was_noted_before_a_boot_is_not_put_back(machine, folder, monkeypatch) -> None:
    forward(Forwarding(folder, net=machine), "eth0", ipv6=False)
    monkeypatch.setattr(forwarding, "_boot", lambda: "another")
    Forwarding(folder, net=machine).restore()
    assert values(machine)["ipv4/conf/eth0/forwarding"] == "1"


def test_what_can_t_be_set_is_said(machine, folder) -> None:
    setting = machine / "ipv4/conf/eth0/forwarding"
    setting.unlink()
    setting.symlink_to("/proc/self/stat")  # nobody writes there
    assert "can't be set to 1" in forward(Forwarding(folder, net=machine), "eth0", ipv6=False)
