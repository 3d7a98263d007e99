"""What a backup holds, and what of a bad one becomes a data root: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import secrets
import shutil
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seipd.cli.exits import exit_status_of
from seipd.daemon.archive import BackupError, decode_manifest
from seipd.daemon.backup import write_backup
from seipd.daemon.genesis import save_charter
from seipd.daemon.restore import restore_backup
from seipd.daemon.restored import read_restored, remove_restored
from services.authority.rootkeys.auditcopy import AuditCopy
from services.base.keywrap.identity import create_identity
from services.base.storage.files import write_atomic
from services.base.storage.root import DataRoot
from services.kernel.errors import ConflictError, CorruptError, NotFoundError
from services.kernel.ids import new_uuid, node_id_of
from tests.fakes.one_server import OneServer
from tests.fakes.programs import run_program
from tests.fakes.signer_audit import AuditedSigner

pytestmark = pytest.mark.slow

UNLOCK = b"u" * 32


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """An identity and its files, sealed once for all: that takes its time by design."""
    folder = tmp_path_factory.mktemp("sealed")
    return create_identity(folder, unlock=UNLOCK), folder


@pytest.fixture
async def server(tmp_path, sealed):
    """A mesh of one server on a data root, with its ledger running."""
    root = tmp_path / "root"
    identity, files = sealed
    with DataRoot(root):
        shutil.copytree(files, root / "identity", dirs_exist_ok=True)
    started = await OneServer.start(root, identity=identity)
    save_charter(root / "identity", started.records, "eu-central")
    await started.ledger.publish()
    yield started
    await started.stop()


@pytest.fixture
def backup(server, tmp_path) -> Path:
    file = tmp_path / "backup.tar"
    write_backup(server.folder, file, clock=server.clock)
    return file


def customer(server: OneServer, name: str):
    body = {
        "node": new_uuid(secrets.token_bytes(16)),
        "kind": "customer",
        "parent": node_id_of(server.records[0].actor),
        "name": name,
    }
    return server.author.record("tree.create", body)


def rewritten(backup: Path, change) -> Path:
    """Return a copy of a backup of which ``change`` made other members."""
    with tarfile.open(backup) as tar:
        members = [(one, tar.extractfile(one).read()) for one in tar]
    target = backup.with_name("changed.tar")
    with tarfile.open(target, "w") as tar:
        for info, data in change(members):
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target


def refused(file: Path, root: Path) -> BackupError:
    """Return why a file is refused; nothing of it is left in the data root."""
    with pytest.raises(BackupError) as caught:
        restore_backup(file, root)
    assert {one.name for one in root.iterdir()} <= {"lock", "schema"}
    assert exit_status_of(caught.value) == 2
    return caught.value


async def test_a_restored_data_root_holds_what_the_original_held(server, tmp_path):
    file = tmp_path / "backup.tar"
    log = server.ledger.log(server.ledger.server_id)
    await server.stop()
    told = write_backup(server.folder, file, clock=server.clock)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert told["feeds"] == {"ledger/feed": log.size}
    restored = restore_backup(file, tmp_path / "new")
    assert restored["server_id"] == server.ledger.server_id
    copies = [one for one in (tmp_path / "new" / "ledger").rglob("*") if one.is_file()]
    # Of tiles that were not full the newest alone is needed.
    assert {"checkpoint", str(log.size)} <= {one.name for one in copies}
    for copy in copies:
        if copy.name != "journal":
            path = server.folder / copy.relative_to(tmp_path / "new")
            assert copy.read_bytes() == path.read_bytes()
            assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert read_restored(tmp_path / "new" / "identity").epoch == 1
    assert not (tmp_path / "new" / "restoring").exists()


async def test_the_copy_of_the_signer_s_audit_is_in_it(server, tmp_path):
    server.audit_source = AuditedSigner(tmp_path / "signer")
    server.audit_source.write("sign")
    before = await server.audit.shown(seconds=None, limit=9)
    file = tmp_path / "backup.tar"
    assert set(write_backup(server.folder, file, clock=server.clock)["feeds"]) == {"ledger/feed"}
    restore_backup(file, tmp_path / "new")
    copy = AuditCopy(tmp_path / "new" / "ledger" / "audit")
    assert copy.newest(since_ms=0, limit=9) == before["entries"]
    assert [one["good"] for one in copy.verify()] == [True]


async def test_what_is_appended_after_the_restore_follows_what_was_backed_up(server, tmp_path):
    for number in range(300):
        await server.ledger.submit([customer(server, f"c{number}")])
    await server.ledger.publish()
    await server.ledger.submit([customer(server, "late")])
    file = tmp_path / "second.tar"
    write_backup(server.folder, file, clock=server.clock)
    want = server.ledger.state.root()
    await server.stop()
    restore_backup(file, tmp_path / "new")
    again = OneServer(tmp_path / "new")
    again.identity, again.records = server.identity, server.records
    again.signer, again.tls = server.signer, server.tls
    await again.begin()
    assert again.ledger.state.root() == want
    await again.ledger.submit([customer(server, "later")])
    await again.stop()


async def test_a_backup_while_the_ledger_grows_is_whole(server, tmp_path):
    for number in range(5):
        for step in range(60):
            await server.ledger.submit([customer(server, f"c{number}-{step}")])
        publishing = asyncio.create_task(server.ledger.publish())
        file = tmp_path / f"{number}.tar"
        await asyncio.to_thread(write_backup, server.folder, file, clock=server.clock)
        await publishing
        told = await asyncio.to_thread(restore_backup, file, tmp_path / f"new {number}")
        assert told["feeds"]["ledger/feed"] >= 60 * number


async def test_a_large_file_that_is_replaced_meanwhile_is_kept_as_it_was(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr("seipd.daemon.backup.SMALL_BYTES", 100)
    await server.ledger.save_snapshot()
    state, file = server.folder / "ledger/state", tmp_path / "b.tar"
    before = state.read_bytes()
    real = tarfile.open

    def replacing(*args, **kwargs):
        write_atomic(state, b"another state")
        return real(*args, **kwargs)

    monkeypatch.setattr(tarfile, "open", replacing)
    write_backup(server.folder, file, clock=server.clock)
    monkeypatch.setattr(tarfile, "open", real)
    restore_backup(file, tmp_path / "new")
    assert (tmp_path / "new/ledger/state").read_bytes() == before
    await server.ledger.save_snapshot()


async def test_neither_the_unlock_secret_nor_a_socket_is_in_it(server, backup):
    with tarfile.open(backup) as tar:
        names = tar.getnames()
    assert names[0] == "manifest.json"
    assert not [one for one in names if "unlock" in one or one.startswith(("run", "lock"))]


async def test_a_clone_does_no_job_again(server, tmp_path):
    for suffix in ("", "-wal", "-shm"):
        (server.folder / f"jobs.db{suffix}").write_bytes(b"half written")
    write_backup(server.folder, tmp_path / "b.tar", clock=server.clock)
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert not [one for one in tar.getnames() if "jobs" in one]


def test_a_file_that_exists_is_not_written_over(server, backup):
    before = backup.read_bytes()
    with pytest.raises(ConflictError) as caught:
        write_backup(server.folder, backup, clock=server.clock)
    assert caught.value.code == "file_exists"
    assert backup.read_bytes() == before
    with pytest.raises(ConflictError, match="does not lie in"):
        write_backup(server.folder, server.folder / "b.tar", clock=server.clock)


def test_nothing_is_to_be_backed_up_without_a_mesh(tmp_path, server):
    (tmp_path / "bare").mkdir(mode=0o700)
    with pytest.raises(NotFoundError, match="no mesh"):
        write_backup(tmp_path / "bare", tmp_path / "b.tar", clock=server.clock)
    assert not (tmp_path / "b.tar").exists()


async def test_a_missing_tile_is_named_and_no_backup_is_left(server, tmp_path):
    await server.ledger.stop()  # else it may publish the tile anew
    (victim,) = (server.folder / "ledger/feed/tile/entries").rglob("*.p")
    for part in victim.iterdir():
        part.unlink()
    with pytest.raises(CorruptError, match=r"ledger/feed/tile/entries/000.p/\d+ is missing"):
        write_backup(server.folder, tmp_path / "b.tar", clock=server.clock)
    assert [one.name for one in tmp_path.iterdir()] == ["root"]


def test_only_an_empty_data_root_takes_it(server, backup):
    with pytest.raises(ConflictError) as caught:
        restore_backup(backup, server.folder)
    assert caught.value.code == "not_empty"
    assert exit_status_of(caught.value) == 6


def test_led_12_a_data_root_in_use_takes_nothing(backup, tmp_path):
    with DataRoot(tmp_path / "new"), pytest.raises(ConflictError) as caught:
        restore_backup(backup, tmp_path / "new")
    assert caught.value.code == "locked"


@pytest.mark.parametrize(
    "lost", ["ledger/feed/checkpoint", "identity/keypair.enc", "schema", "ledger/feed/tile/0/"]
)
def test_sto_13_a_partial_backup_is_refused_and_what_is_missing_named(backup, tmp_path, lost):
    changed = rewritten(
        backup, lambda all_: [one for one in all_ if not one[0].name.startswith(lost)]
    )
    error = refused(changed, tmp_path / "new")
    assert error.code == "backup_incomplete"
    assert lost in str(error)


@pytest.mark.parametrize("share", [0.99, 0.7, 0.4])
def test_sto_13_a_backup_that_was_cut_short_is_refused(backup, tmp_path, share):
    data = backup.read_bytes().rstrip(b"\0")
    backup.write_bytes(data[: int(len(data) * share)])
    assert "missing" in str(refused(backup, tmp_path / "new"))


@pytest.mark.parametrize("data", [b"", b"not a tar", bytes(10240), b"\x1f\x8b" + bytes(600)])
def test_what_is_no_backup_is_refused(backup, tmp_path, data):
    backup.write_bytes(data)
    assert "no backup" in str(refused(backup, tmp_path / "new"))


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "ledger/../../evil", "ledger//x", "run/x", "lock", "ledger/.hidden"],
)
def test_sto_10_a_name_that_leads_elsewhere_is_refused(backup, tmp_path, name):
    def evil(members):
        info = tarfile.TarInfo(name)
        return [*members, (info, b"evil")]

    assert refused(rewritten(backup, evil), tmp_path / "new").code == "bad_path"
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_sto_09_a_link_in_place_of_a_file_is_refused(backup, tmp_path, kind):
    def linked(members):
        for info, data in members:
            if info.name == "ledger/feed/checkpoint":
                info.type, info.linkname = kind, "/etc/passwd"
                yield info, b""
            else:
                yield info, data

    refused(rewritten(backup, linked), tmp_path / "new")


def test_a_flipped_byte_is_found_and_named(backup, tmp_path):
    def flipped(members):
        for info, data in members:
            if info.name == "ledger/feed/checkpoint":
                yield info, data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
            else:
                yield info, data

    error = refused(rewritten(backup, flipped), tmp_path / "new")
    assert (error.code, "ledger/feed/checkpoint" in str(error)) == ("backup_damaged", True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"v":1', b'"v":2'),
        (b'"v":1', b'"v":1.0'),
        (b'"v":1', b'"more":1,"v":1'),
        (b'"name":"schema"', b'"name":"ledger/feed/checkpoint"'),
        (b'"kind":"seipd-backup"', b'"kind":"other"'),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(backup, tmp_path, old, new):
    def other(members):
        (info, data), *rest = members
        assert old in data
        return [(info, data.replace(old, new)), *rest]

    refused(rewritten(backup, other), tmp_path / "new")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_or_refused(data):
    with pytest.raises(BackupError):
        decode_manifest(data)


@pytest.mark.parametrize("seed", range(8))
def test_a_backup_with_any_bytes_changed_is_refused_or_the_same(backup, tmp_path, seed):
    rng, good = random.Random(seed), backup.read_bytes()  # noqa: S311 (no secret)
    for number in range(12):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data.rstrip(b"\0")))] = rng.randrange(256)
        backup.write_bytes(data)
        root = tmp_path / f"new {number}"
        with contextlib.suppress(BackupError):
            restore_backup(backup, root)
            # Only what means nothing was changed: times and padding.
            assert (root / "identity" / "restored.json").exists()
            continue
        assert {one.name for one in root.iterdir()} <= {"lock", "schema"}


def seipd(root: Path, *words: str | Path):
    return run_program("seipd", "--data-root", root, *words)


def test_cli_the_commands_say_what_they_did_or_why_not(server, tmp_path):
    file, new = tmp_path / "b.tar", tmp_path / "new"
    made = seipd(server.folder, "backup", file, "--json")
    assert (made.returncode, made.stderr) == (0, "")
    assert json.loads(made.stdout)["mesh_id"] == server.ledger.mesh_id
    assert seipd(server.folder, "backup", file).returncode == 6
    done = seipd(new, "restore", file, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said["server_id"] == server.ledger.server_id
    assert said["missing"] == [f"{new}.unlock"]
    again = seipd(new, "restore", file)
    assert again.returncode == 6
    assert "is not empty" in again.stderr
    assert seipd(tmp_path / "x", "restore", tmp_path / "none").returncode == 5
    file.write_bytes(file.read_bytes()[:8000])
    short = seipd(tmp_path / "y", "restore", file)
    assert short.returncode == 2
    assert short.stderr.startswith("error: ")
    assert "missing" in short.stderr
    assert "Traceback" not in short.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root acts for another user")
def test_root_may_back_up_and_restore_what_is_the_daemon_s(server, tmp_path):
    nobody = 65534
    for path in [server.folder, *server.folder.rglob("*")]:
        os.chown(path, nobody, nobody)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file, new = tmp_path / "b.tar", Path(folder) / "new"
        new.mkdir(mode=0o700)
        os.chown(new, nobody, nobody)
        assert seipd(server.folder, "backup", file).returncode == 0
        assert file.stat().st_uid == 0
        done = seipd(new, "restore", file)
        assert done.returncode == 0, done.stderr
        assert {path.stat().st_uid for path in new.rglob("*")} == {nobody}


async def test_the_mark_of_a_restore_goes_once_it_is_dealt_with(backup, tmp_path):
    restore_backup(backup, tmp_path / "new")
    identity = tmp_path / "new" / "identity"
    remove_restored(identity)
    assert read_restored(identity) is None
    (identity / "restored.json").write_bytes(b"{}")
    with pytest.raises(CorruptError):
        read_restored(identity)
