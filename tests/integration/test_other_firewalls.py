"""Another program's firewall that drops what is handed on is found, by the kernel's own answers."""

from __future__ import annotations

import os
import secrets
import subprocess

import pytest

from services.runtime.nft import Nft
from services.runtime.nftothers import dropped_by
from tests.fakes.hosts import Host

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

FORWARD = "type filter hook forward priority filter; policy"


@pytest.fixture
def host():
    name = f"of{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    host = Host(name=name, address="", wireguard="seip0")
    try:
        with host.entered():
            nft = Nft()
            yield lambda *words: host.run("nft", " ".join(words)), nft
            nft.close()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_what_docker_and_ufw_set_is_found_until_it_names_the_interface(host) -> None:
    run, nft = host
    assert dropped_by(nft, "seip0") == ""
    run("table ip filter { chain FORWARD {", FORWARD, "accept; }; chain DOCKER-USER { }; }")
    assert dropped_by(nft, "seip0") == ""
    run("flush ruleset; table ip filter { chain FORWARD {", FORWARD, "drop; }; }")
    run('add rule ip filter FORWARD iifname "docker0" accept')
    assert dropped_by(nft, "seip0") == "ip filter FORWARD"
    run('add rule ip filter FORWARD iifname "seip*" accept')
    assert dropped_by(nft, "seip0") == ""
    assert dropped_by(nft, "wg0") == "ip filter FORWARD"


def test_an_interface_of_no_zone_of_firewalld_is_found(host) -> None:
    run, nft = host
    run("table inet firewalld { chain filter_FORWARD {", FORWARD, "accept; reject; }; }")
    assert dropped_by(nft, "seip0") == "inet firewalld filter_FORWARD"
    run('insert rule inet firewalld filter_FORWARD iifname "seip0" accept')
    assert dropped_by(nft, "seip0") == ""
