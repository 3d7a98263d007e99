"""Two servers hold two stories of one feed on their disks, and compare."""

from __future__ import annotations

import pytest

from services.base.ledger.copies import open_feed
from services.base.ledger.equivocation import find, find_longer
from services.kernel.errors import InputError
from services.kernel.ids import ServerId, server_id_of
from tests.unit.base_ledger_log.fork_kit import KEY, MESH, certificate_of, forked
from tests.unit.base_ledger_log.log_kit import entries

CERTIFICATE = certificate_of()
HOLDER = ServerId("server-0000000000000001")


@pytest.fixture
def copies(tmp_path):
    """Return a function that stores a story as another server's copy, under signed checkpoints."""
    opened = []

    def store(name, *batches):
        log = open_feed(tmp_path / name, MESH, CERTIFICATE, HOLDER)
        opened.append(log)
        author = open_feed(
            tmp_path / f"{name}-author", MESH, CERTIFICATE, server_id_of(KEY.public_key), KEY
        )
        opened.append(author)
        for batch in batches:
            author.commit(batch)
            log.extend(batch, author.checkpoint)
        return log

    yield store
    for log in opened:
        log.close()


def test_led_05_who_holds_more_proves_the_fork_from_the_checkpoint_of_who_holds_less(copies):
    """Over tiles, published or not; the checkpoint is all that the other has to send."""
    one = copies("one", entries(0, 260), entries(260, 300))
    other = copies("other", entries(0, 260), entries(1260, 1800))
    other.publish()
    proof = find(mesh_id=MESH, certificate=CERTIFICATE, held=other, foreign=one.checkpoint)
    found = proof.verify()
    assert (found.size, found.larger_size) == (300, 800)
    assert (found.root, found.other_root) == (one.root, other.root_at(300))
    with pytest.raises(InputError):
        find(mesh_id=MESH, certificate=CERTIFICATE, held=one, foreign=other.checkpoint)


def test_led_05_who_holds_less_proves_it_with_the_help_of_who_holds_more(copies):
    one = copies("one", entries(0, 300))
    other = copies("other", entries(0, 260), entries(1260, 1800))
    proof = find_longer(
        mesh_id=MESH,
        certificate=CERTIFICATE,
        held=one.checkpoint,
        foreign=other.checkpoint,
        root=other.root_at(one.size),
        hashes=other.consistency_proof(one.size, other.size),
    )
    assert proof.verify().size == 300


def test_a_copy_that_lags_behind_is_no_fork(copies):
    one = copies("one", entries(0, 260))
    other = copies("other", entries(0, 260), entries(260, 800))
    assert find(mesh_id=MESH, certificate=CERTIFICATE, held=other, foreign=one.checkpoint) is None


def test_led_05_an_author_s_disk_put_back_to_an_older_day_tells_two_stories(copies):
    before = copies("before", entries(0, 10), entries(10, 20))
    after = copies("after", entries(0, 10), [b"written after the disk was put back"])
    proof = find(mesh_id=MESH, certificate=CERTIFICATE, held=before, foreign=after.checkpoint)
    assert (proof.verify().size, proof.verify().larger_size) == (11, 20)


def test_an_older_checkpoint_shown_again_is_no_lie(copies):
    older = copies("older", entries(0, 10)).checkpoint
    newer = copies("newer", entries(0, 10), entries(10, 20))
    assert find(mesh_id=MESH, certificate=CERTIFICATE, held=newer, foreign=older) is None


def test_a_copy_that_holds_nothing_yet_compares_with_nothing(copies):
    foreign, _ = forked(5, 0, 0)
    with pytest.raises(InputError):
        find(
            mesh_id=MESH,
            certificate=CERTIFICATE,
            held=copies("empty"),
            foreign=foreign.signed(),
        )
