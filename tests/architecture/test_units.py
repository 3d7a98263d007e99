"""The units as systemd itself judges them, and what a restart must not take away."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from seipd.signerd.main import EXIT_USAGE, signer
from seipd.signerd.secret_files import KMS_CREDENTIAL, PIN_CREDENTIAL

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "systemd").glob("*.service"))
DROP_INS = sorted((ROOT / "systemd").glob("seipd-signer-*.conf"))
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def service_of(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # systemd's keys keep their case
    parser.read(ROOT / "systemd" / name)
    return parser["Service"]


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_are_hardened(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=29", str(unit)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-300:]
    exposure = re.search(r"exposure level for .*: ([0-9.]+)", done.stdout)
    assert exposure is not None
    assert float(exposure[1]) < 3.0


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_are_understood_by_systemd(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    said = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        # The programs are not installed where this is tested.
        if "is not executable: No such file or directory" not in line
    ]
    assert said == []


def test_the_tunnel_outlives_a_restart_of_the_daemon() -> None:
    unit = service_of("seipd.service")
    assert unit["KillMode"] == "process"
    assert unit["RuntimeDirectory"] == "wireguard"
    assert unit["RuntimeDirectoryPreserve"] == "yes"


def test_the_daemon_has_the_two_capabilities_of_a_network_and_no_more() -> None:
    unit = service_of("seipd.service")
    assert unit["User"] == "seipd"
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert set(unit[key].split()) == {"CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"}


def test_the_signer_is_another_user_without_network_or_capabilities() -> None:
    unit = service_of("seipd-signer.service")
    assert unit["User"] == "seipd-signer"
    assert unit["CapabilityBoundingSet"] == ""
    assert unit["PrivateNetwork"] == "yes"
    assert unit["RestrictAddressFamilies"] == "AF_UNIX"
    assert "AmbientCapabilities" not in unit


def test_each_unlock_secret_reaches_its_own_program_only() -> None:
    daemon, signer = service_of("seipd.service"), service_of("seipd-signer.service")
    assert daemon["LoadCredential"] == "seipd-unlock:/var/lib/seipd.unlock"
    assert signer["LoadCredential"] == "seipd-signer-unlock:/var/lib/seipd-signer.unlock"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_refused_system_call_is_an_error_and_not_the_end(unit: Path) -> None:
    # wireguard-go raises its limit of open files as it starts: killed for it, it brings no tunnel.
    assert service_of(unit.name)["SystemCallErrorNumber"] == "EPERM"


def test_sgn_09_a_signer_that_is_wrongly_set_up_is_not_started_again_and_again() -> None:
    # Each start is one try of a token's PIN, and it allows a few.
    assert service_of("seipd-signer.service")["RestartPreventExitStatus"] == str(EXIT_USAGE)


@needs_systemd
@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_the_signer_with_its_keys_elsewhere_is_hardened_too(tmp_path, drop_in: Path) -> None:
    unit = tmp_path / "seipd-signer.service"
    shutil.copy(ROOT / "systemd" / unit.name, unit)
    (tmp_path / f"{unit.name}.d").mkdir()
    shutil.copy(drop_in, tmp_path / f"{unit.name}.d")
    test_units_are_understood_by_systemd(unit)
    test_units_are_hardened(unit)


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_the_signer_s_drop_ins_say_options_that_there_are(drop_in: Path) -> None:
    lines = drop_in.read_text(encoding="utf-8").splitlines()
    said = [line.partition("=")[2] for line in lines if line.startswith("Environment=")]
    variables = {one.strip('"').partition("=")[0] for one in said}
    assert variables <= {str(option.envvar) for option in signer.commands["run"].params}
    if drop_in.name == "seipd-signer-peers.conf":
        assert "SEIPD_SIGNER_LISTEN" in variables
        return
    assert "SEIPD_SIGNER_PROVIDER" in variables
    credentials = [line.partition("=")[2] for line in lines if line.startswith("LoadCredential=")]
    assert credentials[0] == "", "else systemd asks for the secret of sealed files"
    assert credentials[1].split(":")[0] in {PIN_CREDENTIAL, KMS_CREDENTIAL}


def test_a_server_without_a_root_key_starts_no_signer() -> None:
    text = (ROOT / "systemd" / "seipd-signer.service").read_text(encoding="utf-8")
    assert "ConditionPathExists=/var/lib/seipd-signer/keys.json\n" in text


def test_an_agent_that_stops_leaves_the_control_sockets_of_others() -> None:
    assert service_of("seip.service")["RuntimeDirectoryPreserve"] == "yes"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--bogus"], "usage: scripts/up"),
        (["--join"], "--join wants a token"),
        (["--join", "not-a-token"], "--join wants a token"),
    ],
    ids=["unknown option", "no token", "no token of ours"],
)
def test_up_refuses_what_it_does_not_understand_before_it_changes_anything(
    arguments: list[str], told: str
) -> None:
    done = subprocess.run(
        [str(ROOT / "scripts" / "up"), *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert told in done.stderr
