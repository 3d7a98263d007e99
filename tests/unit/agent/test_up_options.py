"""`seip up` beside an agent that runs: what it would not follow is refused, not passed over."""

from __future__ import annotations

import os

import pytest

from seipd.agent import background
from seipd.agent.main import seip_group
from seipd.agent.state import AgentState
from seipd.agent.wanted import Tunnel
from seipd.cli.group import run_group
from services.base.storage.files import make_private_dir, write_atomic
from services.kernel import canonical

RUNNING = {
    "backend": "userspace",
    "dns": None,
    "routes": {"mode": "mesh"},
    "options": Tunnel(interface="seip1", backend="auto", signer_count=0).words(),
}


@pytest.fixture
def seip(tmp_path, monkeypatch, capsys):
    state = AgentState(tmp_path / "seip")
    make_private_dir(state.folder)
    server = {"endpoint": "198.51.100.7:51940", "addresses": ["198.51.100.7:9100"]}
    mesh = {"tunnel_address": "10.64.0.10", "server": server}
    write_atomic(state.folder / "mesh.json", canonical.encode(mesh))
    for name in [name for name in os.environ if name.startswith("SEIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(background, "read_status", lambda _: RUNNING)
    monkeypatch.setattr(background, "start_in_background", lambda *_: RUNNING)

    def seip(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["seip", "--state", str(state.folder), *words])
        status = run_group(seip_group(), "seip")
        return status, capsys.readouterr().err

    return seip


@pytest.mark.parametrize(
    "words",
    [
        ("--no-dns",),
        ("--wireguard-interface", "wg7"),
        ("--dns-domain", "corp.example.org"),
        ("--mtu", "1300"),
    ],
)
def test_other_options_than_the_running_agents_are_refused(seip, words) -> None:
    status, err = seip("up", *words)
    assert status == 6
    assert "seip down first" in err


@pytest.mark.parametrize("words", [(), ("--wireguard-interface", "seip1")])
def test_the_same_or_none_are_none_of_its_business(seip, words) -> None:
    assert seip("up", *words)[0] == 0


@pytest.mark.parametrize("count", ["0", "-3", "x"])
def test_a_ping_is_asked_for_a_number_of_times(seip, count) -> None:
    assert seip("ping", "e2", "-c", count)[0] == 2


@pytest.mark.parametrize("mtu", ["1279", "8921", "x"])
def test_an_mtu_has_room_for_ipv6_and_fits_jumbo_frames(seip, mtu) -> None:
    assert seip("up", "--mtu", mtu)[0] == 2


def test_what_was_chosen_goes_along_to_the_agent() -> None:
    words = Tunnel(interface="seip1", backend="auto", signer_count=0, mtu=1300).words()
    assert words[-2:] == ["--mtu", "1300"]
