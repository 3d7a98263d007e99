"""Root at the data root of the daemon's own user: the commands act as that user."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from seipd.cli.offline_doctor import examine_offline
from seipd.daemon.owner import as_owner_of
from seipd.daemon.teardown import take_down
from services.base.keywrap.identity import create_identity
from services.base.keywrap.unlock import create_unlock_file
from services.base.storage.root import DataRoot

if TYPE_CHECKING:
    from pathlib import Path

OTHER = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def others_root(tmp_path: Path) -> Path:
    """Return a data root with an identity that belongs to another user; its secret is root's."""
    # Others may pass through the folders that pytest made; it makes one more for side by side.
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    root = tmp_path / "root"
    with DataRoot(root):
        create_identity(root / "identity", unlock=create_unlock_file(tmp_path / "root.unlock"))
    for path in (root, *root.rglob("*")):
        os.chown(path, OTHER, OTHER)
    return root


@needs_root
def test_root_is_the_owner_for_a_while_and_root_again(others_root: Path) -> None:
    before = (os.geteuid(), os.getegid())
    with as_owner_of(others_root):
        (others_root / "made").touch()
    with pytest.raises(FileNotFoundError), as_owner_of(others_root):
        (others_root / "missing").stat()
    assert (os.geteuid(), os.getegid()) == before
    made = (others_root / "made").stat()
    assert (made.st_uid, made.st_gid) == (OTHER, OTHER)


def test_nothing_changes_where_the_owner_is_oneself_or_the_file_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with as_owner_of(path):
            assert os.geteuid() == tmp_path.stat().st_uid


@needs_root
def test_doctor_tells_root_what_is_missing_not_whose_it_is(others_root: Path) -> None:
    findings = examine_offline(SimpleNamespace(data_root=others_root))
    assert findings is not None
    told = [one["what"] for one in findings]
    assert told[0] == "the daemon does not run"
    assert not [text for text in told if "another user" in text]
    assert "belongs to no mesh" in told[1]


@needs_root
@pytest.mark.integration
def test_down_as_root_leaves_nothing_of_root_in_the_data_root(others_root: Path) -> None:
    settings = SimpleNamespace(
        data_root=others_root, unlock_file=None, wireguard_interface="seipnone0"
    )
    assert take_down(settings) is False
    assert {path.stat().st_uid for path in (others_root, *others_root.rglob("*"))} == {OTHER}
    with as_owner_of(others_root), DataRoot(others_root):
        pass  # the daemon's own user still gets in
