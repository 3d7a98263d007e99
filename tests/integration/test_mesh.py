"""A mesh as its users see it: two servers, endpoints, real WireGuard."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from seipd.lab import net
from services.kernel.errors import ConflictError

if TYPE_CHECKING:
    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def on(lab: Lab, name: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    host = lab.plan.host(name)
    return subprocess.run(
        [*host.enter(), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=check,
        env=lab.environment(host),
    )


def until(probe, seconds: float = 40.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.2)
    return probe()


def hashes(lab: Lab) -> set[str]:
    return {lab.status(host)["state_hash"] for host in lab.plan.servers}


def test_an_endpoint_of_one_server_pings_an_endpoint_of_another(lab: Lab) -> None:
    done = on(lab, "e1", "ping", "-c", "3", "-W", "2", lab.tunnel_address("e2"))
    assert " 0% packet loss" in done.stdout
    shakes = on(lab, "s1", "wg", "show", lab.plan.host("s1").interface, "latest-handshakes").stdout
    assert [int(line.split()[1]) > 0 for line in shakes.splitlines()] == [True, True]


def test_a_server_says_how_it_is_as_a_table_and_as_json(lab: Lab) -> None:
    server = lab.plan.host("s1")
    known = lab.status(server)
    shown = lab.seipd_json(server, "status")
    same = ("server_id", "mesh_id", "healthy", "tunnel_address", "backbone_address", "slices")
    assert [shown[name] for name in same] == [known[name] for name in same]
    table = on(lab, "s1", "seipd", "status").stdout
    assert re.search(rf"server +{known['server_id']}", table)
    assert re.search(r"healthy +yes", table)


def test_both_servers_hold_the_same_state(lab: Lab) -> None:
    assert until(lambda: len(hashes(lab)) == 1)
    first, second = (lab.status(host) for host in lab.plan.servers)
    assert first["feeds"] == second["feeds"]
    assert first["mesh_id"] == second["mesh_id"]


def test_prv_03_the_private_api_answers_in_the_tunnel_and_nowhere_else(lab: Lab) -> None:
    ca = lab.plan.host("e1").data_root / "mesh-ca.pem"
    curl = (
        "curl",
        "-sS",
        "--max-time",
        "5",
        "--cacert",
        str(ca),
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    )
    assert on(lab, "e1", *curl, "https://10.64.0.1:9101/openapi.json").stdout == "200"
    assert on(lab, "e1", *curl, "https://10.64.0.1:9101/api/tree/root").stdout == "401"
    public = lab.plan.host("s1").address
    assert on(lab, "e1", *curl, f"https://{public}:9101/", check=False).returncode == 7
    for path in ("/api/tree/root", "/api/status", "/metrics", "/api/ipam"):
        assert on(lab, "e1", *curl, f"https://{public}:9100{path}").stdout == "404"


def test_each_server_shows_how_much_the_other_has_to_do(lab: Lab) -> None:
    def all_known(host) -> bool:
        listed = lab.seipd_json(host, "servers")
        return len(listed) == 2 and all(one["load"] for one in listed)

    for host in lab.plan.servers:
        assert until(lambda host=host: all_known(host))


def test_seip_shows_the_others_of_its_customer(lab: Lab) -> None:
    listed = on(lab, "e1", "seip", "peers", "--json").stdout
    assert f'"{lab.tunnel_address("e2")}"' in listed
    status = on(lab, "e1", "seip", "status", "--json").stdout
    assert re.search(r'"connected": true', status)
    assert on(lab, "e1", "seip", "ping", "e2", "-c", "1").returncode == 0
    assert on(lab, "e1", "seip", "doctor").stdout == "nothing is wrong\n"


def test_a_stock_client_does_the_same_with_the_printed_file(lab: Lab, tmp_path) -> None:
    host, interface = lab.plan.host("e2"), lab.plan.host("e2").interface
    config = on(lab, "e2", "seip", "config").stdout
    on(lab, "e2", "seip", "down", "--wireguard-interface", interface)
    wg_file = tmp_path / "stock.conf"
    kept = [line for line in config.splitlines() if not line.startswith(("Address", "MTU"))]
    wg_file.write_text("\n".join(kept) + "\n")
    stock = f"{interface}x"
    daemon = subprocess.Popen([*host.enter(), "wireguard-go", "-f", stock])
    try:
        assert until((net.SOCKETS / f"{stock}.sock").exists)
        on(lab, "e2", "wg", "setconf", stock, str(wg_file))
        address = re.search(r"Address = (\S+),", config)[1]
        on(lab, "e2", "ip", "addr", "add", address, "dev", stock)
        on(lab, "e2", "ip", "link", "set", stock, "up")
        on(lab, "e2", "ip", "route", "add", "10.64.0.0/10", "dev", stock)
        done = on(lab, "e2", "ping", "-c", "3", "-W", "7", lab.tunnel_address("e1"), check=False)
        assert " 0% packet loss" in done.stdout
    finally:
        daemon.terminate()
        daemon.wait()
        on(lab, "e2", "seip", "up", "--wireguard-interface", interface)


def test_restarting_either_daemon_loses_no_ping(lab: Lab) -> None:
    target = lab.tunnel_address("e2")
    host = lab.plan.host("e1")
    on(lab, "e1", "ping", "-c", "1", "-W", "5", target)
    ping = subprocess.Popen(
        [*host.enter(), "ping", "-i", "0.2", "-c", "75", target], stdout=subprocess.PIPE, text=True
    )
    for server in lab.plan.servers:
        lab.stop_server(server)
        lab.start_server(server)
    said, _ = ping.communicate(timeout=60)
    assert "75 packets transmitted, 75 received" in said


def test_the_ledger_verifies_and_a_flipped_byte_is_named(lab: Lab) -> None:
    assert on(lab, "s1", "seipd", "ledger", "verify").returncode == 0
    server = lab.plan.host("s1")
    tiles = sorted((server.data_root / "ledger" / "feed" / "tile" / "entries").rglob("*"))
    victim = [path for path in tiles if path.is_file()][-1]
    good = victim.read_bytes()
    victim.write_bytes(good[:40] + bytes([good[40] ^ 1]) + good[41:])
    try:
        done = on(lab, "s1", "seipd", "ledger", "verify", check=False)
        assert done.returncode == 1
        assert str(victim.relative_to(server.data_root)) in done.stdout
    finally:
        victim.write_bytes(good)
    assert on(lab, "s1", "seipd", "ledger", "verify").returncode == 0


def test_ipm_01_cut_servers_go_on_and_agree_when_healed(lab: Lab) -> None:
    """Both sides let endpoints in while cut apart; no address is given twice."""
    first, second = lab.plan.servers
    before = {row["tunnel_address"] for row in lab.overview()}
    net.partition(first, second)
    made = []
    try:
        for server in (first, second):
            token = lab.invite(server, "endpoint", "--uses", "10")
            host = lab.plan.endpoints[lab.plan.servers.index(server)]
            for number in range(10):
                state = lab.plan.folder / f"extra-{server.name}-{number}"
                done = on(
                    lab,
                    host.name,
                    "seip",
                    "--state",
                    str(state),
                    "join",
                    token,
                    "--name",
                    f"x-{server.name}-{number}",
                    "--json",
                )
                made.append(re.search(r'"tunnel_address": "([0-9.]+)"', done.stdout)[1])
        assert len(hashes(lab)) == 2
    finally:
        net.heal(lab.plan.hosts)
    assert len(set(made)) == 20
    assert not set(made) & before
    assert until(lambda: len(hashes(lab)) == 1, 30.0)
    for address in made:
        assert '"settled": true' in until(
            lambda address=address: (
                said
                if '"settled": true'
                in (said := on(lab, "s1", "seipd", "explain", address, "--json").stdout)
                else None
            )
        )


def test_pub_12_pub_13_a_token_that_is_used_up_altered_or_for_another_role(lab: Lab) -> None:
    server = lab.plan.host("s1")
    token = lab.invite(server, "endpoint")
    states = [str(lab.plan.folder / f"pub-{number}") for number in range(3)]
    on(lab, "e1", "seip", "--state", states[0], "join", token, "--name", "pub-a")
    again = on(lab, "e1", "seip", "--state", states[0], "join", token, check=False)
    assert again.returncode == 6
    used = on(
        lab, "e1", "seip", "--state", states[1], "join", token, "--name", "pub-b", check=False
    )
    assert used.returncode == 6
    assert "used up" in used.stderr
    altered = token[:-3] + ("aaa" if token[-3:] != "aaa" else "bbb")
    bad = on(lab, "e1", "seip", "--state", states[1], "join", altered, check=False)
    assert bad.returncode in (2, 4)
    assert bad.stderr.startswith("error: ")
    assert "Traceback" not in bad.stderr
    wrong = on(
        lab, "e1", "seip", "--state", states[2], "join", lab.invite(server, "server"), check=False
    )
    assert wrong.returncode in (2, 4)
    assert "for a server" in wrong.stderr


def test_leaving_frees_the_address(lab: Lab) -> None:
    server, interface = lab.plan.host("s1"), lab.plan.host("e1").interface
    state = str(lab.plan.folder / "leaver")
    leaver = ("seip", "--state", state)
    on(lab, "e1", *leaver, "join", lab.invite(server, "endpoint"), "--name", "leaver")
    peers_before = lab.status(server)["wireguard"]["peers"]
    refused = on(lab, "e1", *leaver, "leave", "--wireguard-interface", "nosuch0", check=False)
    assert refused.returncode == 4
    on(lab, "e1", "seip", "down", "--wireguard-interface", interface)
    try:
        on(lab, "e1", *leaver, "up", "--wireguard-interface", interface)
        done = on(lab, "e1", *leaver, "leave", "--wireguard-interface", interface)
    finally:
        on(lab, "e1", "seip", "up", "--wireguard-interface", interface)
    assert "left the mesh" in done.stdout
    assert until(lambda: lab.status(server)["wireguard"]["peers"] == peers_before - 1)
    assert on(lab, "s1", "seipd", "explain", "leaver", check=False).returncode == 5


def test_cli_10_a_second_daemon_on_the_same_data_root_is_refused(lab: Lab) -> None:
    done = on(lab, "s1", "seipd", "run", check=False)
    assert done.returncode == 6
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lab_that_is_up_is_not_built_twice(lab: Lab) -> None:
    with pytest.raises(ConflictError, match="there is a lab"):
        lab.up(lambda line: None)
