"""Settings as an operator gets them wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

from seipd.config.load import load_settings
from services.kernel.errors import ConfigError


def load(tmp_path, text="", flags=None, environment=None, mode=0o644):
    path = tmp_path / "seipd.toml"
    path.write_text(text)
    path.chmod(mode)
    return load_settings(flags=flags or {}, environment=environment or {}, config=path)


def test_flag_beats_environment_beats_file_beats_default(tmp_path) -> None:
    text = "http_port = 1001\ngossip_port = 1002\nwireguard_port = 1003\n"
    environment = {"SEIPD_HTTP_PORT": "2001", "SEIPD_GOSSIP_PORT": "2002"}
    settings = load(tmp_path, text, {"http_port": "3001"}, environment)
    assert (settings.http_port, settings.gossip_port) == (3001, 2002)
    assert (settings.wireguard_port, settings.private_http_port) == (1003, 9101)
    assert settings.sources["private_http_port"] == "default"


def test_cfg_01_an_unknown_key_is_told_with_a_suggestion(tmp_path) -> None:
    with pytest.raises(ConfigError, match="http_prot") as raised:
        load(tmp_path, "\nhttp_prot = 1\n")
    assert "http_port" in str(raised.value)


def test_cfg_02_all_faults_are_told_at_once(tmp_path) -> None:
    text = 'http_port = 70000\nwireguard_backend = "magic"\ngossip_interval_s = -1\nregion = "Ä"\n'
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    for name in ("http_port", "wireguard_backend", "gossip_interval_s", "region"):
        assert name in str(raised.value)


@pytest.mark.parametrize("value", ["true", "1.5", '"x"', "[]", '"1_0"', '"+1"', "-1"])
def test_cfg_02_ports_that_are_none(tmp_path, value) -> None:
    with pytest.raises(ConfigError, match="http_port"):
        load(tmp_path, f"http_port = {value}\n")


def test_cfg_06_a_file_that_everybody_may_write_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="written by"):
        load(tmp_path, "http_port = 1\n", mode=0o666)


def test_cfg_02_the_command_line_exits_2_in_one_line(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "seipd", "--data-root", str(tmp_path), "run", "--http-port", "x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_cli_08_a_closed_pipe_and_a_plain_locale_are_no_traceback() -> None:
    done = subprocess.run(  # noqa: S602 (a pipe is what is tested)
        f"{sys.executable} -m seipd --help | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        env={"LANG": "C", "COLUMNS": "20", "PATH": "/usr/bin:/bin"},
        cwd="/",
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


def test_cli_07_a_data_root_of_nobody_is_told(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "seipd", "--data-root", str(tmp_path / "none"), "status"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "start it with" in done.stderr
