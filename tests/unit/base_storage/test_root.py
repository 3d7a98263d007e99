"""The data root as its daemon, a second daemon and an operator meet it."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.storage import files
from services.base.storage.root import LOW_SPACE_BYTES, SCHEMA_VERSION, DataRoot, is_low
from services.base.storage.service import StorageService
from services.kernel.errors import ConflictError, CorruptError, InputError, StartError, StorageError
from services.kernel.service import HealthState


@pytest.fixture
def root(tmp_path: Path):
    with DataRoot(tmp_path / "data") as opened:
        yield opened


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_opening_makes_a_private_folder_and_says_which_layout(root: DataRoot):
    assert mode_of(root.location) == 0o700
    assert (root.location / "schema").read_text() == f"{SCHEMA_VERSION}\n"
    assert {mode_of(path) for path in root.location.iterdir()} == {0o600}


def test_state_is_found_again_after_a_restart(tmp_path: Path):
    with DataRoot(tmp_path / "data") as first:
        files.write_atomic(first.directory("tree", "nodes") / "n.json", b"{}")
    with DataRoot(tmp_path / "data") as second:
        assert files.read_file(second.path("tree/nodes/n.json"), 10) == b"{}"


def test_cli_10_a_second_daemon_is_told_who_holds_the_root(root: DataRoot):
    with pytest.raises(ConflictError, match="in use") as caught:
        DataRoot(root.location).open()
    assert caught.value.code == "locked"
    assert f"pid {os.getpid()}" in caught.value.mend
    root.close()
    root.close()
    with DataRoot(root.location):
        pass


def _hold(path: Path, ready: object) -> None:
    DataRoot(path).open()
    ready.set()  # type: ignore[attr-defined]
    os.kill(os.getpid(), 9)


def test_cli_10_a_killed_daemon_leaves_no_lock_behind(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "data", ready))
    process.start()
    assert ready.wait(30)
    process.join(30)
    assert process.exitcode == -9
    with DataRoot(tmp_path / "data"):
        pass


def test_a_failed_open_lets_the_lock_go(tmp_path: Path):
    with DataRoot(tmp_path / "data"):
        pass
    (tmp_path / "data" / "schema").write_text("99\n")
    for _ in range(2):
        with pytest.raises(ConflictError) as caught:
            DataRoot(tmp_path / "data").open()
        assert caught.value.code == "schema_newer"


def test_sto_16_a_newer_layout_is_refused_and_not_rewritten(tmp_path: Path):
    data = tmp_path / "data"
    with DataRoot(data):
        pass
    (data / "schema").write_text("2\n")
    (data / ".tmp-newer").write_text("half of the newer program's file")
    with pytest.raises(ConflictError) as caught:
        DataRoot(data).open()
    assert caught.value.code == "schema_newer"
    assert "newer" in caught.value.mend
    assert (data / "schema").read_text() == "2\n"
    assert (data / ".tmp-newer").exists()


@pytest.mark.parametrize("content", [b"", b"\0\0", b"0\n", b"-1\n", b"one\n", b"1_0\n", b"\xff"])
def test_sto_05_an_unreadable_layout_is_refused(tmp_path: Path, content: bytes):
    with DataRoot(tmp_path / "data"):
        pass
    (tmp_path / "data" / "schema").write_bytes(content)
    with pytest.raises(CorruptError) as caught:
        DataRoot(tmp_path / "data").open()
    assert caught.value.path == "schema"
    assert (tmp_path / "data" / "schema").read_bytes() == content


def test_sto_04_leftovers_are_swept_at_start(tmp_path: Path):
    with DataRoot(tmp_path / "data") as first:
        (first.directory("ipam") / ".tmp-0123").write_bytes(b"half")
    with DataRoot(tmp_path / "data") as second:
        assert second.swept_count == 1
        assert not list(second.location.rglob(".tmp-*"))


def test_sto_09_a_root_that_is_a_link_is_refused(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "real")
    with pytest.raises(files.UnsafeFileError):
        DataRoot(tmp_path / "data").open()
    assert list((tmp_path / "real").iterdir()) == []


def test_sto_09_a_linked_folder_below_the_root_is_refused(root: DataRoot, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (root.location / "certs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(files.UnsafeFileError):
        root.directory("certs", "example.org")
    assert list((tmp_path / "elsewhere").iterdir()) == []


BAD_PARTS = [
    "..",
    ".",
    "",
    "../x",
    "a/../../x",
    "/etc/shadow",
    "a//b",
    "a/",
    "nul\0",
    "Upper",
    "trailing.",
    ".hidden",
    ".tmp-1",
    "sp ace",
    "new\nline",
    "café",
    "x" * 300,
    "-rf",
]


@pytest.mark.parametrize("part", BAD_PARTS)
def test_sto_10_a_name_that_is_not_plain_is_refused(tmp_path: Path, part: str):
    root = DataRoot(tmp_path)
    for parts in ((part,), ("ok", part), (part, "ok")):
        with pytest.raises(InputError) as caught:
            root.path(*parts)
        assert caught.value.code == "bad_path"


@given(st.lists(st.text(max_size=12), min_size=1, max_size=4))
def test_sto_10_every_path_lies_below_the_root_and_is_one_of_a_kind(parts: list[str]):
    root = DataRoot(Path("/data"))
    try:
        path = root.path(*parts)
    except InputError:
        return
    assert Path(os.path.normpath(path)) == path
    assert path.is_relative_to("/data")
    assert path != Path("/data")
    assert str(path) == str(path).casefold()


@pytest.mark.parametrize(
    "part",
    ["ledger/feeds/server-0123456789abcdef/tile/0/x001/234.p/5", "certs/example.org", "acl.db"],
)
def test_the_names_of_the_layout_pass(tmp_path: Path, part: str):
    assert DataRoot(tmp_path).path(part) == tmp_path / part


def test_below_64_mib_nothing_more_is_accepted():
    assert LOW_SPACE_BYTES == 64 * 1024 * 1024
    assert is_low(LOW_SPACE_BYTES - 1)
    assert not is_low(LOW_SPACE_BYTES)


async def test_the_service_reports_the_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = DataRoot(tmp_path / "data")
    service = StorageService(root=root)
    assert service.health().state is HealthState.STOPPED
    await service.start()
    monkeypatch.setattr(DataRoot, "free_bytes", lambda _self: LOW_SPACE_BYTES)
    assert service.health().state is HealthState.OK
    assert service.trouble() == ""
    monkeypatch.setattr(DataRoot, "free_bytes", lambda _self: LOW_SPACE_BYTES - 1)
    assert service.health().state is HealthState.DEGRADED
    assert service.health().detail == "read-only: 63 MiB free, 64 needed"
    assert service.trouble()
    await service.stop()
    await service.stop()
    assert service.health().state is HealthState.STOPPED


async def test_a_disk_that_is_gone_makes_the_service_fail_and_read_only(tmp_path: Path):
    root = DataRoot(tmp_path / "data")
    service = StorageService(root=root)
    await service.start()
    for path in root.location.iterdir():
        path.unlink()
    root.location.rmdir()
    assert service.health().state is HealthState.FAILED
    assert service.trouble()
    with pytest.raises(StorageError):
        root.free_bytes()
    await service.stop()


async def test_a_start_that_fails_keeps_code_and_mend_and_leaves_nothing(root: DataRoot):
    second = DataRoot(root.location)
    with pytest.raises(StartError) as caught:
        await StorageService(root=second).start()
    assert caught.value.service == "storage"
    assert caught.value.code == "locked"
    assert "pid" in caught.value.mend
    root.close()
    service = StorageService(root=second)
    await service.start()
    await service.stop()
