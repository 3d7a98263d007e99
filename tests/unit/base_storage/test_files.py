"""What a caller, an attacker on the same host and an operator see of the durable files."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.base.storage import files
from services.kernel.errors import NotFoundError, StorageError, TooLargeError

NOBODY = 65534


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.enc"
    files.write_atomic(path, b"secret")
    return path


@contextmanager
def umask(mask: int):
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


@contextmanager
def as_nobody():
    """Give up root's rights over files for a while; yields a folder of nobody's own."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    home = Path(tempfile.mkdtemp(prefix="seipd-nobody-"))
    os.chown(home, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield home
    finally:
        os.seteuid(0)
        shutil.rmtree(home)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_write_is_read_back_and_replaces_the_old(tmp_path: Path):
    path = tmp_path / "a.json"
    for data in (b"one", b"", b"two" * 500_000):
        files.write_atomic(path, data)
        assert files.read_file(path, 2_000_000) == data
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("mask", [0o000, 0o777, 0o077])
def test_sto_11_modes_do_not_depend_on_the_umask(tmp_path: Path, mask: int):
    with umask(mask):
        files.make_private_dir(tmp_path / "a" / "b")
        files.write_atomic(tmp_path / "a" / "b" / "f", b"x")
        assert files.create_exclusive(tmp_path / "a" / "g", b"x")
    assert mode_of(tmp_path / "a") == mode_of(tmp_path / "a" / "b") == 0o700
    assert mode_of(tmp_path / "a" / "b" / "f") == mode_of(tmp_path / "a" / "g") == 0o600


def test_sto_11_an_unprivileged_daemon_is_not_locked_out_by_its_umask():
    with as_nobody() as home, umask(0o777):
        files.make_private_dir(home / "root")
        files.write_atomic(home / "root" / "f", b"x")
        assert files.read_private(home / "root" / "f", 10) == b"x"
        assert mode_of(home / "root") == 0o700


def test_a_folder_that_was_open_to_others_is_closed(tmp_path: Path):
    (tmp_path / "d").mkdir(0o755)
    files.make_private_dir(tmp_path / "d")
    assert mode_of(tmp_path / "d") == 0o700


def test_a_folder_of_another_user_is_refused():
    with as_nobody() as home, pytest.raises(files.KeyPermissionsError, match="another user"):
        files.make_private_dir(home.parent)


def test_sto_08_reads_a_private_key(key: Path):
    assert files.read_private(key, 100) == b"secret"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o601, 0o604])
def test_sto_08_refuses_world_readable_key(key: Path, mode: int):
    key.chmod(mode)
    with pytest.raises(files.KeyPermissionsError) as caught:
        files.read_private(key, 100)
    assert caught.value.code == "key_permissions"
    assert caught.value.mend == f"chmod 600 {key}"
    key.chmod(0o600)
    assert files.read_private(key, 100) == b"secret"


def test_sto_08_refuses_a_key_of_another_user(key: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    os.chown(key, NOBODY, NOBODY)
    with pytest.raises(files.KeyPermissionsError, match="another user"):
        files.read_private(key, 100)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_sto_08_refuses_a_key_in_a_folder_that_others_may_write(key: Path, mode: int):
    key.parent.chmod(mode)
    with pytest.raises(files.KeyPermissionsError, match="replace") as caught:
        files.read_private(key, 100)
    assert caught.value.mend == f"chmod go-w {key.parent}"
    key.parent.chmod(0o1777)  # as /tmp: others can't replace what is ours
    assert files.read_private(key, 100) == b"secret"


@pytest.mark.parametrize("read", [files.read_file, files.read_private])
def test_sto_09_refuses_links_fifos_devices_and_folders(tmp_path: Path, key: Path, read):
    (tmp_path / "symlink").symlink_to(key)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    names = ["symlink", "dangling", "folder", "fifo"]
    if os.geteuid() == 0:
        os.mknod(tmp_path / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        names.append("device")
    for name in names:
        with pytest.raises(files.UnsafeFileError) as caught:
            read(tmp_path / name, 100)
        assert caught.value.code == "unsafe_file"
        assert caught.value.mend


@pytest.mark.parametrize("read", [files.read_file, files.read_private])
def test_sto_09_refuses_a_hard_link(tmp_path: Path, key: Path, read):
    (tmp_path / "second").hardlink_to(key)
    with pytest.raises(files.UnsafeFileError, match="second name"):
        read(key, 100)


def test_sto_09_a_write_replaces_a_link_and_leaves_its_target_alone(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "state").symlink_to(victim)
    files.write_atomic(tmp_path / "state", b"new")
    assert victim.read_bytes() == b"precious"
    assert files.read_file(tmp_path / "state", 10) == b"new"


def test_sto_09_refuses_a_folder_that_is_a_link(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(files.UnsafeFileError):
        files.write_atomic(tmp_path / "link" / "f", b"x")
    with pytest.raises(files.UnsafeFileError):
        files.make_private_dir(tmp_path / "link")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(files.UnsafeFileError):
        files.make_private_dir(tmp_path / "file")
    assert list((tmp_path / "real").iterdir()) == []


def test_what_is_not_there_is_not_found(tmp_path: Path):
    with pytest.raises(NotFoundError):
        files.read_file(tmp_path / "none", 10)
    with pytest.raises(StorageError, match="No such file") as caught:
        files.write_atomic(tmp_path / "none" / "f", b"x")
    assert caught.value.mend


def test_a_read_is_bounded(tmp_path: Path):
    files.write_atomic(tmp_path / "f", b"x" * 100)
    assert files.read_file(tmp_path / "f", 100) == b"x" * 100
    with pytest.raises(TooLargeError):
        files.read_file(tmp_path / "f", 99)


def test_create_exclusive_leaves_what_is_there_alone(tmp_path: Path):
    assert files.create_exclusive(tmp_path / "f", b"first")
    assert not files.create_exclusive(tmp_path / "f", b"second")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert not files.create_exclusive(tmp_path / "link", b"x")
    assert files.read_file(tmp_path / "f", 10) == b"first"
    assert not (tmp_path / "elsewhere").exists()


def test_sto_04_leftovers_are_swept_and_nothing_else(tmp_path: Path):
    deep = tmp_path / "ledger" / "feed"
    deep.mkdir(parents=True)
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    (outside / ".tmp-other").write_bytes(b"not ours")
    (tmp_path / "door").symlink_to(outside)
    for path in (tmp_path / ".tmp-1", deep / ".tmp-2"):
        path.write_bytes(b"half")
    (deep / "checkpoint").write_bytes(b"whole")
    assert files.sweep_temporaries(tmp_path) == 2
    assert not list(tmp_path.rglob(".tmp-*"))
    assert (deep / "checkpoint").read_bytes() == b"whole"
    assert (outside / ".tmp-other").exists()
