"""The options of seipd-signer: which provider, and what it needs to be opened."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

from seipd.signerd.choosing import ProviderSettings, provider_of
from seipd.signerd.providers.https import parse_endpoint
from seipd.signerd.providers.kms import KmsProvider
from seipd.signerd.providers.kms_api import alias_of, parse_region
from seipd.signerd.providers.pkcs11 import Pkcs11Provider
from seipd.signerd.providers.software import SoftwareProvider
from seipd.signerd.secret_files import read_access_key, read_pin
from services.base.crypto.signatures import verify
from services.kernel.errors import SeipdError
from tests.fakes.fake_kms import REGION, FakeKms

UNLOCK = b"an unlock secret of forty bytes, or more"
OLD, NEW = "platform/root-1", "platform/root-2"
ACCESS_KEY = "[default]\naws_access_key_id = AKIA\naws_secret_access_key = se%cret=\n"


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def private(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


def error_of(call, *arguments, **options) -> SeipdError:
    with pytest.raises(SeipdError) as caught:
        call(*arguments, **options)
    assert caught.value.mend or caught.value.code in {"key_permissions", "no_pin"}
    return caught.value


def choose(folder: Path, **settings: str):
    return provider_of(
        ProviderSettings(**settings), folder=folder, unlock_file=folder / "signer.unlock"
    )


def test_the_unlock_secret_comes_from_a_credential_or_a_private_file(tmp_path, monkeypatch) -> None:
    file = tmp_path / "signer.unlock"
    assert error_of(choose, tmp_path).code == "no_unlock"
    file.write_bytes(UNLOCK)
    file.chmod(0o644)
    assert error_of(choose, tmp_path).code == "key_permissions"
    file.chmod(0o600)
    assert isinstance(choose(tmp_path), SoftwareProvider)
    file.unlink()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "seipd-signer-unlock").write_bytes(UNLOCK)
    assert isinstance(choose(tmp_path, provider="software"), SoftwareProvider)


def test_a_token_needs_its_library_its_label_and_its_pin_and_no_unlock_secret(tmp_path) -> None:
    pin_file = private(tmp_path / "pin", "271828\n")
    whole = {
        "provider": "pkcs11",
        "pkcs11_module": "/usr/lib/softhsm/libsofthsm2.so",
        "pkcs11_token": "seipd",
        "pkcs11_pin_file": pin_file,
    }
    assert isinstance(choose(tmp_path, **whole), Pkcs11Provider)
    for name, code in (
        ("pkcs11_module", "bad_provider"),
        ("pkcs11_token", "bad_provider"),
        ("pkcs11_pin_file", "no_pin"),
    ):
        error = error_of(choose, tmp_path, **{k: v for k, v in whole.items() if k != name})
        assert error.code == code
        assert f"--{name.replace('_', '-')}" in str(error) + error.mend
    assert error_of(choose, tmp_path, **whole | {"pkcs11_module": "soft.so"}).code == "bad_module"


def test_kms_needs_a_region_and_an_access_key(tmp_path) -> None:
    file = private(tmp_path / "aws", ACCESS_KEY)
    whole = {"provider": "kms", "kms_region": "eu-central-1", "kms_credentials_file": file}
    assert isinstance(choose(tmp_path, **whole), KmsProvider)
    for change, code in (
        ({"kms_region": ""}, "bad_provider"),
        ({"kms_region": "Frankfurt"}, "bad_region"),
        ({"kms_credentials_file": ""}, "no_access_key"),
        ({"kms_credentials_file": str(tmp_path / "none")}, "no_access_key"),
        ({"kms_endpoint": "http://kms.example"}, "bad_endpoint"),
        ({"kms_alias_prefix": "seipd root/"}, "bad_provider"),
        ({"kms_alias_prefix": "x" * 65}, "bad_provider"),
    ):
        assert error_of(choose, tmp_path, **whole | change).code == code


def test_keys_of_before_sign_on_from_their_sealed_files_beside_new_ones(tmp_path) -> None:
    kms = FakeKms()
    private(tmp_path / "signer.unlock", UNLOCK.decode())
    before = choose(tmp_path)
    old_key = before.generate(OLD)
    before.close()

    file = private(tmp_path / "aws", kms.credentials_file())
    settings = {"provider": "kms", "kms_region": REGION, "kms_endpoint": kms.endpoint}
    settings["kms_credentials_file"] = file
    moved = choose(tmp_path, **settings)
    assert moved.generate(OLD) == moved.public_key(OLD) == old_key
    new_key = moved.generate(NEW)
    assert [key.description for key in kms.keys.values()] == [f"seipd-signer {NEW}"]
    for handle, public_key in ((OLD, old_key), (NEW, new_key)):
        assert verify(public_key, b"words", moved.sign(handle, b"words"))
    moved.close()

    (tmp_path / "signer.unlock").unlink()
    error = error_of(choose, tmp_path, **settings)
    assert error.code == "no_unlock"
    assert f"remove {tmp_path}/keys" in error.mend
    shutil.rmtree(tmp_path / "keys")
    alone = choose(tmp_path, **settings)
    assert isinstance(alone, KmsProvider)
    assert alone.public_key(NEW) == new_key
    assert error_of_unknown(alone) == "key_unknown"
    alone.close()
    kms.close()


def error_of_unknown(provider) -> str:
    with pytest.raises(SeipdError) as caught:
        provider.sign(OLD, b"words")
    return caught.value.code


def test_an_unknown_provider_is_refused(tmp_path) -> None:
    assert error_of(choose, tmp_path, provider="tape").code == "bad_provider"


def test_a_pin_is_one_line_of_its_file(tmp_path) -> None:
    for number, (text, pin) in enumerate((("271828", "271828"), ("a b\r\n", "a b"))):
        file = Path(private(tmp_path / f"pin{number}", text))
        assert read_pin(file) == pin
    for number, text in enumerate(("", "\n", "12\n34\n", "x" * 257, "12\x0034")):
        file = Path(private(tmp_path / f"bad{number}", text))
        assert error_of(read_pin, file).code == "no_pin"
    (tmp_path / "raw").touch(mode=0o600)
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    assert error_of(read_pin, tmp_path / "raw").code == "no_pin"


def test_a_pin_that_others_can_read_is_refused(tmp_path) -> None:
    file = Path(private(tmp_path / "pin", "271828\n"))
    file.chmod(0o640)
    assert error_of(read_pin, file).code == "key_permissions"


def test_the_credential_of_the_unit_goes_before_a_file(tmp_path, monkeypatch) -> None:
    file = Path(private(tmp_path / "pin", "of the file"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_pin(file) == "of the file"
    (tmp_path / "seipd-signer-pin").write_text("of the unit\n")
    assert read_pin(file) == read_pin(None) == "of the unit"


def test_an_access_key_is_read_as_aws_s_own_programs_read_it(tmp_path) -> None:
    key = read_access_key(Path(private(tmp_path / "a", ACCESS_KEY)))
    assert (key.access_key_id, key.secret_access_key, key.session_token) == ("AKIA", "se%cret=", "")
    longer = ACCESS_KEY + "aws_session_token = tok/en==\n\n[other]\nregion = x\n"
    assert read_access_key(Path(private(tmp_path / "b", longer))).session_token == "tok/en=="


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AKIA se%cret=",
        "[default]\n",
        "[other]\n" + ACCESS_KEY[10:],
        ACCESS_KEY * 2,
        "\xff[default",
    ],
)
def test_a_damaged_access_key_is_refused_and_not_quoted(tmp_path, text) -> None:
    error = error_of(read_access_key, Path(private(tmp_path / "a", text)))
    assert error.code == "no_access_key"
    assert "se%cret=" not in f"{error}{error.__cause__}{error.mend}"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://kms.eu-central-1.amazonaws.com", "kms.eu-central-1.amazonaws.com"),
        ("https://vpce-1.kms.eu-central-1.vpce.amazonaws.com:8443/", None),
        ("http://127.0.0.1:4566", "127.0.0.1:4566"),
        ("http://[::1]:4566", "[::1]:4566"),
    ],
)
def test_an_endpoint_is_https_or_on_the_loopback(url, host) -> None:
    endpoint = parse_endpoint(url)
    assert endpoint.tls is url.startswith("https")
    assert endpoint.host_header == (host or "vpce-1.kms.eu-central-1.vpce.amazonaws.com:8443")


@pytest.mark.parametrize(
    "url",
    [
        "", "kms.eu-central-1.amazonaws.com", "http://kms.eu-central-1.amazonaws.com",
        "https://", "https://a/b", "https://a?b", "https://a#b", "https://u:p@a", "ftp://a",
        "https://a:port", "https://[::1", "http://127.0.0.1.evil.example",
    ],
)  # fmt: skip
def test_any_other_endpoint_is_refused(url) -> None:
    assert error_of(parse_endpoint, url).code == "bad_endpoint"


def test_regions_as_aws_names_them() -> None:
    for region in ("eu-central-1", "us-gov-west-1", "ap-southeast-5", "us-iso-east-1"):
        assert parse_region(region) == region
    for text in ("", "eu", "eu-central", "eu-central-1.evil.example", "EU-central-1", "a/b-c-1"):
        assert error_of(parse_region, text).code == "bad_region"


def test_each_handle_has_an_alias_of_its_own_that_aws_allows() -> None:
    names = [
        "root-1",
        "root.1",
        "root_1",
        "root~1",
        "root_2e1",
        "root_",
        "_x",
        "x" * 128,
        "." * 128,
    ]
    scopes = ["platform", "domain:0190b3a0-0000-7000-8000-000000000001"]
    handles = [f"{scope}/{name}" for scope, name in itertools.product(scopes, names)]
    aliases = [alias_of("seipd/", handle) for handle in handles]
    assert aliases[0] == "alias/seipd/platform/root-1"
    assert len(set(aliases)) == len(handles)
    for alias in aliases:
        assert len(alias) <= 256
        assert set(alias) <= set("abcdefghijklmnopqrstuvwxyz0123456789/_-")
