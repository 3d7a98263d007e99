"""Release manifests: what is signed by whom, what is approved, and each refusal by its code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto.signatures import SigningKey
from services.base.release.approval import Running, approve
from services.base.release.manifest import (
    Manifest,
    ReleaseKeys,
    open_manifest,
    parse_version,
    sign_manifest,
)
from services.base.release.store import ManifestStore
from services.kernel.errors import SeipdError
from tests.unit.base_attestation.quote_kit import unnoticed

if TYPE_CHECKING:
    from pathlib import Path

KEY, OLD_KEY = SigningKey(b"k" * 32), SigningKey(b"o" * 32)
KEYS = ReleaseKeys(trusted=frozenset({KEY.public_key}), retired=frozenset({OLD_KEY.public_key}))
NOW_MS, DAY_MS = 1_800_000_000_000, 86_400_000
HERE = Running(version="1.4.0", platform="linux-x86_64", python="3.11.2", measurement="ab" * 32)


def manifest(signer: SigningKey = KEY, **changes: object) -> bytes:
    fields = {
        "version": (1, 4, 0),
        "platform": "linux-x86_64",
        "python": "3.11.2",
        "measurements": ("ab" * 32, "cd" * 32),
        "minimum_version": (1, 0, 0),
        "issued_ms": NOW_MS - DAY_MS,
        "expires_ms": NOW_MS + DAY_MS,
    }
    return sign_manifest(signer, **(fields | changes))


def opened(**changes: object) -> Manifest:
    return open_manifest(manifest(**changes), KEYS)


def code_of(*manifests: Manifest, running: Running = HERE, now_ms: int = NOW_MS) -> str:
    try:
        approve(running, manifests, now_ms=now_ms)
    except SeipdError as error:
        return error.code
    return "good"


def open_code(data: bytes) -> str:
    with pytest.raises(SeipdError) as caught:
        open_manifest(data, KEYS)
    return caught.value.code


def test_a_release_whose_measurement_is_in_a_manifest_is_approved() -> None:
    assert approve(HERE, [opened()], now_ms=NOW_MS).version == (1, 4, 0)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"measurements": ("cd" * 32,)}, "release_unknown"),
        ({"platform": "linux-aarch64"}, "release_other_platform"),
        ({"python": "3.12.1"}, "release_other_platform"),
        ({"version": (1, 5, 0)}, "release_other_version"),
        ({"expires_ms": NOW_MS}, "manifest_expired"),
        ({"issued_ms": NOW_MS + 1}, "manifest_not_yet"),
    ],
)
def test_each_release_refusal_has_its_own_code(changes: dict[str, object], code: str) -> None:
    assert code_of(opened(**changes)) == code


def test_without_manifests_nothing_is_approved() -> None:
    assert code_of() == "release_unknown"


def test_a_newer_manifest_ends_older_releases_even_after_it_expired() -> None:
    newer = opened(
        version=(1, 5, 0),
        measurements=("ef" * 32,),
        minimum_version=(1, 5, 0),
        expires_ms=NOW_MS,
    )
    assert code_of(opened()) == "good"
    assert code_of(opened(), newer) == "release_below_minimum"
    # One that is yet to come ends nothing.
    later = opened(version=(2, 0, 0), minimum_version=(2, 0, 0), issued_ms=NOW_MS + 1)
    assert code_of(opened(), later) == "good"


def test_versions_are_compared_as_numbers() -> None:
    ten = opened(version=(1, 10, 0), minimum_version=(1, 10, 0))
    assert code_of(opened(), ten) == "release_below_minimum"
    for text in ("1.4", "1.4.0rc1", "01.4.0", "1.4.0 ", "1.4.-1", "1.٤.0", ""):
        with pytest.raises(SeipdError):
            parse_version(text)


def test_att_01_a_manifest_by_a_retired_or_an_unknown_key_is_refused() -> None:
    assert open_code(manifest(OLD_KEY)) == "manifest_retired_key"
    assert open_code(manifest(SigningKey(b"x" * 32))) == "manifest_unknown_key"


def test_att_01_a_manifest_with_one_bit_changed_is_refused() -> None:
    data = manifest()
    assert unnoticed(data, lambda altered: open_manifest(altered, KEYS), count=len(data)) == []
    assert open_code(data.replace(b"abab", b"acab", 1)) == "manifest_bad_signature"


def test_a_manifest_that_contradicts_itself_is_never_signed() -> None:
    for changes in (
        {"measurements": ()},
        {"measurements": ("ab" * 32, "ab" * 32)},
        {"measurements": ("AB" * 32,)},
        {"expires_ms": NOW_MS - DAY_MS},
        {"minimum_version": (1, 4, 1)},
        {"platform": "../etc"},
    ):
        with pytest.raises(SeipdError):
            manifest(**changes)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_manifest_or_one_of_our_errors(data: bytes) -> None:
    with pytest.raises(SeipdError):
        open_manifest(data, KEYS)


def test_manifests_outlive_a_restart_and_damaged_ones_are_left_aside(tmp_path: Path) -> None:
    folder = tmp_path / "releases"
    store = ManifestStore(folder=folder, keys=KEYS)
    store.load()
    kept, is_new = store.add(manifest(), now_ms=NOW_MS)
    assert is_new
    assert store.add(manifest(), now_ms=NOW_MS) == (kept, False)
    with pytest.raises(SeipdError):
        store.add(manifest(OLD_KEY), now_ms=NOW_MS)
    (folder / "damaged.json").write_bytes(manifest()[:-9])
    again = ManifestStore(folder=folder, keys=KEYS)
    again.load()
    assert again.manifests == (kept,)
    # A key that is retired takes its manifests with it.
    retired = ReleaseKeys(trusted=frozenset(), retired=KEYS.trusted)
    other = ManifestStore(folder=folder, keys=retired)
    other.load()
    assert other.manifests == ()
    assert len(list(folder.iterdir())) == 2
