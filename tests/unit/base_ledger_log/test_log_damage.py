"""A file of a log was changed behind its back: the file is named, nothing is appended."""

import shutil

import pytest

from services.base.ledger.fsck import verify_log
from services.kernel.errors import CorruptError, NotFoundError
from tests.unit.base_ledger_log.log_kit import (
    ORIGIN,
    VERIFIER,
    LazyDisk,
    append,
    entries,
    grow,
    open_log,
)

SIZE = 600
JOURNALLED = 20


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine") / "log"
    log = open_log(folder, disk=LazyDisk())
    grow(log, 590)
    log.publish()
    grow(log, SIZE - 590)
    log.publish()
    grow(log, JOURNALLED)
    log.close()
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "log")
    return tmp_path / "log"


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def use_all(folder):
    """Open the log and read whatever it has; close it again."""
    log = open_log(folder, create=False, disk=LazyDisk())
    try:
        log.read(0, log.size)
        for index in range(0, log.size, 50):
            log.inclusion_proof(index, log.size)
    except CorruptError:
        with pytest.raises(CorruptError):
            grow(log, 1)
        raise
    finally:
        log.close()


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x01
    path.write_bytes(data)


def test_the_undamaged_log_is_good(folder):
    assert verify_log(folder, VERIFIER, ORIGIN).size == SIZE
    use_all(folder)
    assert len(files(folder)) == 11


def test_led_01_one_flipped_byte_in_any_file_is_found_and_named(pristine, tmp_path):
    old_partials = {"tile/0/002.p/78", "tile/entries/002.p/78"}
    for name in files(pristine):
        length = (pristine / name).stat().st_size
        for at in (0, length // 2, length - 1):
            copy = tmp_path / "copy"
            shutil.copytree(pristine, copy)
            flip(copy / name, at)
            with pytest.raises(CorruptError) as caught:
                verify_log(copy, VERIFIER, ORIGIN)
            assert caught.value.path == name
            assert caught.value.code == "ledger_corrupt"
            assert caught.value.mend
            if name not in old_partials:  # which the log itself no longer reads
                with pytest.raises(CorruptError) as caught:
                    use_all(copy)
                assert caught.value.path == name
            shutil.rmtree(copy)


@pytest.mark.parametrize("name", ["tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"])
@pytest.mark.parametrize("damage", ["truncated", "extended", "emptied", "zeroed", "missing"])
def test_led_02_a_tile_of_another_length_or_none(folder, name, damage):
    path = folder / name
    data = path.read_bytes()
    changed = {
        "truncated": data[:-32],
        "extended": data + bytes(32),
        "emptied": b"",
        "zeroed": bytes(len(data)),
    }
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(changed[damage])
    for judge in (lambda: verify_log(folder, VERIFIER, ORIGIN), lambda: use_all(folder)):
        with pytest.raises(CorruptError) as caught:
            judge()
        assert caught.value.path == name


@pytest.mark.parametrize(
    "pair", [("tile/0/000", "tile/0/001"), ("tile/entries/000", "tile/entries/001")]
)
def test_led_02_a_tile_swapped_with_its_sibling(folder, pair):
    one, two = (folder / name for name in pair)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    for judge in (lambda: verify_log(folder, VERIFIER, ORIGIN), lambda: use_all(folder)):
        with pytest.raises(CorruptError) as caught:
            judge()
        assert caught.value.path in pair


def test_led_02_a_tile_and_its_bundle_forged_together_do_not_match_the_parent(folder, tmp_path):
    other = open_log(tmp_path / "other", disk=LazyDisk())
    size, _ = other.root_after([b"forged"] * 256)
    assert size == 256
    forged = [b"forged"] * 256
    append(other, forged)
    other.publish()
    other.close()
    for name in ("tile/0/001", "tile/entries/001"):
        source = tmp_path / "other" / name.replace("001", "000")
        shutil.copy(source, folder / name)
    for judge in (lambda: verify_log(folder, VERIFIER, ORIGIN), lambda: use_all(folder)):
        with pytest.raises(CorruptError) as caught:
            judge()
        assert caught.value.path == "tile/0/001"


def test_a_link_in_the_place_of_a_tile_is_not_followed(folder, tmp_path):
    (folder / "tile/0/001").rename(tmp_path / "elsewhere")
    (folder / "tile/0/001").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="tile/0/001"):
        verify_log(folder, VERIFIER, ORIGIN)


def test_an_older_checkpoint_put_back_beside_newer_tiles_is_still_a_log(pristine, tmp_path):
    """A rollback is a valid log; it is the mesh that knows of the newer checkpoint."""
    log = open_log(tmp_path / "log", disk=LazyDisk())
    grow(log, 590)
    log.publish()
    old = (tmp_path / "log/checkpoint").read_bytes()
    log.close()
    copy = tmp_path / "copy"
    shutil.copytree(pristine, copy)
    (copy / "checkpoint").write_bytes(old)
    (copy / "journal").write_bytes(b"")
    assert verify_log(copy, VERIFIER, ORIGIN).size == 590


def test_tiles_without_a_checkpoint_are_not_an_empty_log(folder):
    (folder / "checkpoint").unlink()
    with pytest.raises(CorruptError) as caught:
        open_log(folder, create=True)
    assert caught.value.path == "checkpoint"
    with pytest.raises(NotFoundError):
        verify_log(folder, VERIFIER, ORIGIN)


def test_a_journal_that_does_not_continue_the_log_is_damage(folder, tmp_path):
    other = open_log(tmp_path / "other", disk=LazyDisk())
    grow(other, SIZE + 30)
    other.publish()
    grow(other, 5)
    other.close()
    shutil.copy(tmp_path / "other/journal", folder / "journal")
    with pytest.raises(CorruptError) as caught:
        open_log(folder)
    assert caught.value.path == "journal"


def test_a_partial_tile_that_was_dropped_is_read_from_the_full_one(folder, tmp_path):
    log = open_log(tmp_path / "longer", disk=LazyDisk())
    grow(log, 768)
    log.publish()
    log.close()
    for kind in ("0", "entries"):
        shutil.rmtree(folder / f"tile/{kind}/002.p")
        shutil.copy(tmp_path / f"longer/tile/{kind}/002", folder / f"tile/{kind}/002")
    assert verify_log(folder, VERIFIER, ORIGIN).size == SIZE
    log = open_log(folder)
    assert log.read(0, log.size) == entries(0, SIZE + JOURNALLED)
    log.close()
