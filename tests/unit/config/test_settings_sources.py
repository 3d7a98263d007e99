"""Where settings come from, who wins, and what is refused in which words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from seipd.cli.exits import exit_status_of
from seipd.cli.options import network_options, range_options
from seipd.config.check import refuse_other_ranges
from seipd.config.load import load_settings
from seipd.config.model import PORTS, BadSettingsError, Settings
from seipd.config.paths import Paths
from services.kernel.addr import default_ranges, ranges_from_value
from services.kernel.errors import ConfigError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "seipd.toml"

    def write(text, mode=0o644):
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def load(config=None, environment=None, **flags):
    return load_settings(flags=flags, environment=environment or {}, config=config)


def refused(*args, **kwargs) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)
    assert exit_status_of(caught.value) == 2
    return caught.value


def test_each_setting_tells_where_it_came_from(file):
    path = file('http-port = 1\ngossip_port = 1\nregion = "ap-east"\nwireguard-port = 1\n')
    environment = {"SEIPD_HTTP_PORT": "2", "SEIPD_GOSSIP_PORT": "2"}
    settings = load(path, environment, http_port="3", domain=None)
    assert (settings.http_port, settings.gossip_port, settings.wireguard_port) == (3, 2, 1)
    told = {
        "http_port": "--http-port",
        "gossip_port": "SEIPD_GOSSIP_PORT",
        "wireguard_port": str(path),
        "region": str(path),
        "private_http_port": "default",
        "domain": "default",
    }
    assert {name: settings.sources[name] for name in told} == told


def test_the_file_may_be_named_by_the_environment(file, tmp_path):
    path = file("http-port = 1234")
    assert load(None, {"SEIPD_CONFIG": str(path)}).http_port == 1234
    other = tmp_path / "other.toml"
    other.write_text("http-port = 4321")
    assert load(other, {"SEIPD_CONFIG": str(path)}).http_port == 4321


def test_every_option_of_the_command_line_is_a_setting_a_variable_and_a_key(file):
    @network_options
    @range_options
    def command():
        pass

    options = {one.name for one in command.__click_params__}
    assert options <= {one.name for one in dataclasses.fields(Settings)}
    contract = {
        "bind_address", "public_address", "wireguard_interface", "wireguard_backend", "tls",
        "signer", "tunnel_range", "backbone_range", "private_range", "shared_range", *PORTS,
    }  # fmt: skip
    assert contract <= options
    for name in PORTS:
        assert getattr(load(file(f"{name.replace('_', '-')} = 7")), name) == 7
        assert getattr(load(None, {f"SEIPD_{name.upper()}": "7"}), name) == 7


def test_cfg_01_an_unknown_key_is_refused_with_its_line_and_the_nearest_name(file):
    path = file('# mine\n\n  gosip-port = 9102\ndomain = "mesh.example"\n[relay]\nshare = 1\n')
    error = refused(path)
    assert f"{path}:3: unknown key gosip-port, did you mean gossip_port?" in str(error)
    assert f"{path}:5: unknown key relay" in str(error)


def test_cfg_01_a_variable_that_is_nearly_ours_is_refused_one_of_another_program_is_not():
    error = refused(None, {"SEIPD_HTTP_PROT": "9100"})
    assert "SEIPD_HTTP_PROT: unknown, did you mean SEIPD_HTTP_PORT?" in str(error)
    assert load(None, {"SEIPD_KILLS": "20", "PATH": "/bin"}).http_port == 9100


def test_cfg_02_all_faults_are_told_at_once_each_with_its_place(file):
    path = file(
        'htpp-port = 1\nhttp-port = "many"\ngossip-port = 65536\nwireguard-port = -1\n'
        'gossip_interval_s = nan\ndomain = "Not A Domain"\n'
    )
    environment = {"SEIPD_LOG_LEVEL": "loud"}
    error = refused(path, environment, wireguard_backend="magic", tunnel_range="10.0.0.0/40")
    places = [fault.partition(": ")[0] for fault in str(error).split("; ")]
    assert sorted(places) == sorted(
        [
            *(f"{path}:{number}" for number in range(1, 7)),
            "SEIPD_LOG_LEVEL",
            "--wireguard-backend",
            "--tunnel-range",
        ]
    )


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"http_port": "9101"}, "private_http_port is 9101, as is http_port"),
        ({"gossip_port": 51940}, "wireguard_port"),
        ({"http_port": "65536"}, "65535"),
        ({"http_port": "9_100"}, "whole number"),
        ({"http_port": "09100"}, "whole number"),
        ({"http_port": "٣"}, "whole number"),
        ({"http_port": True}, "whole number"),
        ({"http_port": ""}, "whole number"),
        ({"http_port": "9" * 5000}, "whole number"),
        ({"gossip_interval_s": "inf"}, "seconds"),
        ({"gossip_interval_s": "nan"}, "seconds"),
        ({"gossip_interval_s": 0}, "seconds"),
        ({"allow_insecure_same_user": "maybe"}, "true or false"),
        ({"allow_insecure_same_user": 2}, "true or false"),
        ({"data_root": ""}, "a path"),
        ({"data_root": "a\0b"}, "a path"),
        ({"bind_address": "localhost"}, "bind_address"),
        ({"bind_address": "010.0.0.1"}, "bind_address"),
        ({"wireguard_interface": "../../etc"}, "interface name"),
        ({"wireguard_interface": "sixteen-letters-"}, "interface name"),
        ({"wireguard_mtu": 1279}, "1280 to 8920, or 0"),
        ({"wireguard_mtu": "8921"}, "1280 to 8920, or 0"),
        ({"region": "eu\nforged"}, "region"),
        ({"region": "eu\n"}, "region"),
        ({"domain": "mesh.example\n"}, "domain"),
        ({"domain": "a.b\x1b[31m"}, "domain"),
        ({"tls": "letsencrypt"}, "self-signed"),
        ({"tls": "files"}, "tls_certificate_file"),
        ({"acme_directory": "http://ca.example/dir"}, "acme_directory"),
        ({"acme_directory": "letsencript"}, "acme_directory"),
        ({"acme_email": "a@b\nforged"}, "acme_email"),
        ({"acme_eab_kid": "kid"}, "acme_eab_key_file"),
        ({"acme_eab_key_file": "/f"}, "acme_eab_kid"),
        ({"tunnel_range": "10.64.0.1/10"}, "tunnel_range"),
        ({"backbone_range": "10.64.0.0/22"}, "overlaps"),
        ({"tunnel_range": "10.64.0.0/21"}, "slices"),
    ],
)
def test_cfg_02_what_is_wrong_is_refused_on_one_line(values, word):
    text = str(refused(None, {}, **values))
    assert word in text
    assert text.isprintable()


def test_port_zero_may_be_asked_for_by_several():
    settings = load(None, {}, **dict.fromkeys(PORTS, "0"))
    assert [getattr(settings, name) for name in PORTS] == [0] * len(PORTS)


def test_cfg_06_a_file_that_everybody_may_write_is_refused_before_it_is_read(file):
    path = file("this is not toml at all", mode=0o666)
    error = refused(path)
    assert error.code == "key_permissions"
    assert error.mend == f"chmod o-w {path}"


def test_a_file_that_was_named_must_be_there(tmp_path):
    error = refused(tmp_path / "gone.toml")
    assert "No such file" in str(error)
    assert "--config" in error.mend


@pytest.mark.parametrize(
    "data", [b"= broken", b"\xff\xfe", b"#" * ((1 << 20) + 1), b'http-port = 1\n"http-port" = 2']
)
def test_a_file_that_is_no_toml_is_refused(tmp_path, data):
    path = tmp_path / "seipd.toml"
    path.write_bytes(data)
    path.chmod(0o600)
    assert str(path) in str(refused(path))


def test_settings_made_directly_are_judged_the_same():
    with pytest.raises(BadSettingsError) as caught:
        Settings(http_port=70000, log_format="xml")
    assert [name for name, _ in caught.value.faults] == ["log_format", "http_port"]


def test_ranges_are_facts_of_the_mesh_and_others_are_refused_where_they_were_given():
    others = ranges_from_value({**default_ranges().value(), "tunnel": "100.64.0.0/10"})
    refuse_other_ranges(load(), others)
    refuse_other_ranges(load(None, {}, tunnel_range="100.64.0.0/10"), others)
    with pytest.raises(ConfigError) as caught:
        refuse_other_ranges(load(None, {"SEIPD_TUNNEL_RANGE": "10.64.0.0/10"}), others)
    assert exit_status_of(caught.value) == 2
    assert "SEIPD_TUNNEL_RANGE" in str(caught.value)
    assert "100.64.0.0/10" in str(caught.value)


def test_what_opens_the_keys_lies_outside_the_data_root():
    paths = Paths(Path("/var/lib/seipd"))
    assert str(paths.unlock) == "/var/lib/seipd.unlock"
    assert str(paths.signer_unlock) == "/var/lib/seipd-signer.unlock"
    assert str(paths.signer_socket) == "/var/lib/seipd-signer/run/signer.sock"
    for secret in (paths.unlock, paths.signer_unlock, paths.signer_state):
        assert not secret.is_relative_to(paths.root)
    assert paths.socket == Path("/var/lib/seipd/run/seipd.sock")
