"""Who makes releases: a key, a manifest of an installation, an index beside it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from seipd.cli.release_manifest import main, make_key, make_manifest, read_key
from services.base.release.installed import Installation
from services.base.release.manifest import ReleaseKeys, open_manifest
from services.kernel import canonical
from services.kernel.errors import SeipdError
from tests.unit.base_release.test_manifests import NOW_MS
from tests.unit.base_release.test_measurement import Machine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


def make(machine: Machine, folder: Path, **changes: object) -> Path:
    key = folder / "release.key"
    if not key.exists():
        make_key(key)
    installation = Installation(
        site_folders=(machine.site,),
        scripts=machine.scripts,
        executable=machine.folder / "python",
        library=None,
        stdlib=machine.stdlib,
    )
    if sources := changes.pop("source_folders", ()):
        installation = dataclasses.replace(installation, source_folders=sources)
    arguments = {"minimum": "1.0.0", "days": 30, "further": (), "out": folder / "dist"} | changes
    return make_manifest(installation, read_key(key), now_ms=NOW_MS, **arguments)


def test_a_manifest_approves_of_what_was_measured(machine: Machine, tmp_path: Path) -> None:
    path = make(machine, tmp_path, further=("ab" * 32,))
    keys = ReleaseKeys(trusted=frozenset({read_key(tmp_path / "release.key").public_key}))
    manifest = open_manifest(path.read_bytes(), keys)
    assert set(manifest.measurements) == {machine.measure().digest, "ab" * 32}
    assert (manifest.version, manifest.minimum_version) == ((1, 2, 3), (1, 0, 0))
    assert manifest.expires_ms - manifest.issued_ms == 30 * 86_400_000
    index = canonical.decode((tmp_path / "dist/index.json").read_bytes())
    assert index == {"manifests": [path.name]}


def test_what_is_no_plain_installation_is_not_signed(machine: Machine, tmp_path: Path) -> None:
    for spoil in (
        lambda: {"source_folders": (machine.site / "seipd",)},
        lambda: machine.write(machine.site / "stray.py", "") or {},
        lambda: machine.write(machine.site / "leaf.py", "changed") or {},
    ):
        changes = spoil()
        with pytest.raises(SeipdError) as caught:
            make(machine, tmp_path, **changes)
        assert caught.value.code == "not_a_release"
        (machine.site / "stray.py").unlink(missing_ok=True)
    assert not (tmp_path / "dist").exists()


def test_sto_08_a_release_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "release.key"
    public = make_key(key)
    assert read_key(key).public_key == public
    with pytest.raises(SeipdError) as caught:
        make_key(key)
    assert caught.value.code == "key_exists"
    key.chmod(0o644)
    with pytest.raises(SeipdError) as caught:
        read_key(key)
    assert caught.value.code == "key_permissions"


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [([], 2, "neither"), (["--key", "/nonexistent/key"], 5, "/nonexistent")],
)
def test_wrong_words_are_told_in_one_line(words: list[str], status: int, told: str) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == status
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
