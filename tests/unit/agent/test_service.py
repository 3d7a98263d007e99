"""``seip service``: what is written for systemd, and what systemd is told."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from click.testing import CliRunner

from seipd.agent import background, service_command
from seipd.agent.main import seip_group
from seipd.agent.routes import closing
from seipd.agent.unit import DEFAULT_STATE, early_text, unit_text
from services.kernel.errors import (
    ConfigError,
    ConflictError,
    ForbiddenError,
    InputError,
    UnavailableError,
)

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ["/opt/seipd/venv/bin/seip"]
STATE = PurePosixPath("/var/lib/seip")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with a systemctl that writes down what it is told, and fails if told to."""
    told = tmp_path / "told"
    programs = tmp_path / "bin"
    programs.mkdir()
    systemctl = programs / "systemctl"
    systemctl.write_text(
        f'#!/bin/sh\necho "$*" >>{told}\n'
        f'if [ -e {tmp_path}/fails ]; then echo "it is masked" >&2; exit 1; fi\n'
    )
    systemctl.chmod(0o755)
    units = tmp_path / "units"
    units.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(service_command, "UNITS", units)
    monkeypatch.setattr(service_command, "RUNNING", units)
    monkeypatch.setattr(service_command, "_program", lambda: PROGRAM)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(background, "stop_agent", lambda state: stops.append(state.folder))
    stops: list[Path] = []
    return tmp_path, told, units / "seip.service", stops


def seip(*words: str):
    return CliRunner().invoke(seip_group(), ["--state", str(STATE), *words], catch_exceptions=False)


def test_the_unit_of_the_package_is_the_one_that_is_installed() -> None:
    made = unit_text(program=PROGRAM, words=["run"], state=DEFAULT_STATE)
    assert made == (ROOT / "systemd" / "seip.service").read_text(encoding="utf-8")
    made = early_text(program=PROGRAM, words=["close"], state=DEFAULT_STATE)
    assert made == (ROOT / "systemd" / "seip-closed.service").read_text(encoding="utf-8")


def test_what_closes_the_way_out_at_boot_comes_before_the_network_and_with_the_agent() -> None:
    early = early_text(program=PROGRAM, words=["close"], state=DEFAULT_STATE)
    assert "Before=network-pre.target" in early
    assert "Wants=network-pre.target" in early
    assert "DefaultDependencies=no" in early
    assert "ConditionPathExists=/var/lib/seip/routing.json\n" in early
    assert "Also=seip-closed.service\n" in unit_text(
        program=PROGRAM, words=["run"], state=DEFAULT_STATE
    )


def test_close_says_what_it_did_and_leaves_a_running_agent_alone(tmp_path, monkeypatch) -> None:
    closed: list[str] = []

    async def close_early(state, interface):
        closed.append(interface)
        return True

    monkeypatch.setattr(closing, "close_early", close_early)
    words = ["--state", str(tmp_path), "close", "--wireguard-interface", "wg7"]
    done = CliRunner().invoke(seip_group(), words, catch_exceptions=False)
    assert (done.output, closed) == ("closed until the agent has its exit\n", ["wg7"])
    monkeypatch.setattr(background, "read_status", lambda state: {"pid": 1})
    with pytest.raises(ConflictError, match="the agent runs"):
        CliRunner().invoke(seip_group(), words, catch_exceptions=False)
    assert closed == ["wg7"]


def test_the_agent_may_use_raw_sockets_and_no_other_power_beside_the_network_s() -> None:
    made = unit_text(program=PROGRAM, words=["run"], state=DEFAULT_STATE)
    assert "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW\n" in made
    assert "WantedBy=multi-user.target\n" in made


def test_install_writes_the_options_and_starts_it(machine) -> None:
    _, told, unit, stops = machine
    done = seip("service", "install", "--wireguard-interface", "wg7", "--no-dns")
    assert done.output == "installed; it runs, and starts at boot\n"
    line = next(one for one in unit.read_text().splitlines() if one.startswith("ExecStart="))
    assert line.startswith("ExecStart=/opt/seipd/venv/bin/seip --state /var/lib/seip --signers 0 ")
    assert " run " in line
    assert "--wireguard-interface wg7" in line
    assert "--no-dns" in line
    assert unit.stat().st_mode & 0o777 == 0o644
    early = unit.with_name("seip-closed.service").read_text()
    assert "--state /var/lib/seip close --wireguard-interface wg7\n" in early
    assert told.read_text().splitlines() == [
        "daemon-reload",
        "stop seip.service",
        "enable --now seip.service",
    ]
    assert stops == [Path(STATE)], "an agent of seip up makes room"


def test_remove_stops_it_and_takes_the_unit_away(machine) -> None:
    _, told, unit, _ = machine
    seip("service", "install")
    told.unlink()
    assert seip("service", "remove").output == "removed\n"
    assert not unit.exists()
    assert not unit.with_name("seip-closed.service").exists()
    assert told.read_text().splitlines() == ["disable --now seip.service", "daemon-reload"]
    assert seip("service", "remove").output == "it was not installed\n"


def test_what_systemd_says_is_passed_on(machine) -> None:
    folder, *_ = machine
    (folder / "fails").touch()
    with pytest.raises(UnavailableError, match="systemctl daemon-reload: it is masked"):
        seip("service", "install")


def test_without_systemd_or_root_nothing_is_written(machine, monkeypatch) -> None:
    folder, told, unit, _ = machine
    monkeypatch.setattr(service_command, "RUNNING", folder / "none")
    with pytest.raises(ConfigError) as caught:
        seip("service", "install")
    assert caught.value.code == "no_systemd"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ForbiddenError):
        seip("service", "install")
    assert not unit.exists()
    assert not told.exists()


@pytest.mark.parametrize("state", ["/home/anna/seip", "/root/.seip", "/run/user/7/seip"])
def test_a_state_that_the_service_would_not_see_is_refused(state: str) -> None:
    with pytest.raises(InputError, match="does not see"):
        unit_text(program=PROGRAM, words=["run"], state=PurePosixPath(state))
    with pytest.raises(InputError, match="does not see"):
        unit_text(program=["/home/anna/bin/seip"], words=["run"], state=STATE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_odd_words_stay_one_word_each_and_systemd_understands_the_unit(tmp_path) -> None:
    state = PurePosixPath("/srv/an odd %name")
    made = unit_text(program=["/bin/true"], words=['a "b" $c', "%d"], state=state)
    assert r'ExecStart=/bin/true "a \"b\" $$c" "%%d"' in made
    unit = tmp_path / "seip.service"
    unit.write_text(made)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    assert done.stdout + done.stderr == ""


def test_a_word_can_t_bring_a_line_of_its_own() -> None:
    with pytest.raises(InputError):
        unit_text(program=PROGRAM, words=["a\nExecStartPre=/bin/evil"], state=STATE)
