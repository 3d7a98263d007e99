"""Release keys and URL are judged when the settings are read, all faults at once."""

from __future__ import annotations

import pytest

from seipd.config.model import BadSettingsError, Settings
from seipd.config.releases import parse_keys
from services.kernel.ids import b64u_encode

ONE, OTHER = b64u_encode(b"1" * 32), b64u_encode(b"2" * 32)


def test_release_keys_stand_apart_by_commas() -> None:
    settings = Settings(
        release_keys=f"{ONE}, {OTHER}", releases_url="https://releases.example.org/seipd/"
    )
    assert parse_keys(settings.release_keys) == [b"1" * 32, b"2" * 32]
    assert parse_keys("") == []


def test_each_wrong_release_setting_is_named() -> None:
    with pytest.raises(BadSettingsError) as caught:
        Settings(
            release_keys="abc",
            retired_release_keys=f"{ONE};",
            releases_url="http://x/",
            releases_from="x",
        )
    names = {name for name, _ in caught.value.faults}
    assert names == {"release_keys", "retired_release_keys", "releases_url", "releases_from"}
