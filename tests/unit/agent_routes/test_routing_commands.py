"""What seip up refuses of routing, before anything is started."""

from __future__ import annotations

import os

import pytest

from seipd.agent.main import seip_group
from seipd.agent.routes.options import routing_options
from seipd.agent.routes.wishes import RoutingWishes, load_wishes
from seipd.agent.state import AgentState
from seipd.cli.group import run_group
from services.base.storage.files import make_private_dir, write_atomic
from services.kernel import canonical


@pytest.fixture
def state(tmp_path):
    made = AgentState(tmp_path / "seip")
    make_private_dir(made.folder)
    server = {"endpoint": "198.51.100.7:51940", "addresses": ["198.51.100.7:9100"]}
    mesh = {"tunnel_address": "10.64.0.10", "server": server}
    write_atomic(made.folder / "mesh.json", canonical.encode(mesh))
    return made


@pytest.fixture
def seip(state, monkeypatch, capsys):
    for name in [name for name in os.environ if name.startswith("SEIP_")]:
        monkeypatch.delenv(name)

    def seip(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["seip", "--state", str(state.folder), *words])
        status = run_group(seip_group(), "seip")
        return status, capsys.readouterr().err

    return seip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--advertise-routes", "192.168.7.1/24"), "not a prefix"),
        (("--advertise-routes", "0.0.0.0/0"), "too much for a subnet"),
        (("--exit-node", "my gate"), "hostname"),
        (("--exit-node", "gate", "--mode", "hub"), "from end to end alone"),
        (("--mode", "star"), "mesh"),
    ],
)
def test_what_can_t_be_is_said_in_a_line_and_not_remembered(seip, state, words, said) -> None:
    status, err = seip("up", *words)
    assert status == 2
    assert said in err
    assert load_wishes(state) == RoutingWishes()


def test_each_option_is_a_variable_too() -> None:
    import click

    @routing_options
    def command(**_: object) -> None:
        pass

    variables = {one.envvar for one in click.command()(command).params}
    assert variables == {
        "SEIP_ADVERTISE_ROUTES",
        "SEIP_ADVERTISE_EXIT_NODE",
        "SEIP_EXIT_NODE",
        "SEIP_ACCEPT_ROUTES",
        "SEIP_MODE",
    }
