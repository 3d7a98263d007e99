"""A feed that comes in parts is folded part by part, and shown to others once it is signed."""

import pytest

from services.base.crypto.signatures import BadSignatureError
from services.base.ledger.copies import open_feed
from services.base.ledger.service import LedgerService, LedgerSettings
from services.kernel.errors import ConflictError
from tests.fakes.world import APPLIERS, START_MS, World


class StillClock:
    """A minute after the beginning, always."""

    def now_ms(self):
        return START_MS + 60_000

    def monotonic_s(self):
        return 1.0


def ledger_of(world, folder):
    folder.mkdir(mode=0o700)
    records = [world.genesis, *(one.record for one in world.servers[0].entries[:2])]
    return LedgerService(
        folder=folder,
        signing_key=world.servers[0].key,
        charter_records=records,
        appliers=APPLIERS,
        clock=StillClock(),
        on_fatal=lambda error: pytest.fail(repr(error)),
        settings=LedgerSettings(attest_interval_s=3600),
    )


@pytest.fixture
def world():
    return World(2)


@pytest.fixture
def author(world, tmp_path):
    """The second server, with some invitations on its feed."""
    server = world.servers[1]
    for number in range(20):
        world.invite(server, f"guest {number}")
    (tmp_path / "author").mkdir(mode=0o700)
    certificate = world.charter.server(server.id)
    log = open_feed(tmp_path / "author", world.mesh_id, certificate, server.id, server.key)
    log.commit([entry.encode() for entry in server.entries])
    yield log
    log.close()


@pytest.fixture
async def ledger(world, tmp_path):
    ledger = ledger_of(world, tmp_path / "ledger")
    await ledger.start()
    yield ledger
    await ledger.stop()


async def part(ledger, author, start, stop, **changes):
    given = {
        "entries": author.read(start, stop),
        "checkpoint": author.checkpoint,
        "proof": author.consistency_proof(stop, author.size),
        **changes,
    }
    return await ledger.ingest(author.server_id, 1, start, **given)


async def test_parts_make_the_same_state_as_the_whole(world, author, ledger, tmp_path):
    for start, stop in ((0, 5), (5, 12), (12, author.size)):
        assert await part(ledger, author, start, stop) == stop
    other = ledger_of(world, tmp_path / "other")
    await other.start()
    await other.ingest(author.server_id, 1, 0, author.read(0, author.size), author.checkpoint)
    assert ledger.feeds()[author.server_id] == other.feeds()[author.server_id]
    assert ledger.fold.feeds[author.server_id].size == author.size
    assert ledger.state.root() == other.state.root()
    await other.stop()


async def test_what_is_not_signed_as_such_yet_is_told_to_nobody(world, author, ledger):
    await part(ledger, author, 0, 12)
    assert ledger.feeds()[author.server_id].size == 0
    assert ledger.checkpoint(author.server_id, 1) is None
    assert ledger.log(author.server_id).size == 12
    assert ledger.fold.feeds[author.server_id].size == 12
    await part(ledger, author, 12, author.size)
    head = ledger.feeds()[author.server_id]
    assert (head.size, head.root) == (author.size, author.root)
    assert ledger.checkpoint(author.server_id, 1) == author.checkpoint


async def test_it_goes_on_after_a_start(world, author, ledger, tmp_path):
    await part(ledger, author, 0, 12)
    await ledger.stop()
    await ledger.start()
    assert ledger.log(author.server_id).size == 12
    assert ledger.fold.feeds[author.server_id].size == 12
    await part(ledger, author, 12, author.size)
    assert ledger.feeds()[author.server_id].size == author.size


async def test_parts_may_overlap_and_may_not_leave_a_gap(author, ledger):
    await part(ledger, author, 0, 12)
    assert await part(ledger, author, 5, 10) == 12
    assert await part(ledger, author, 5, 15) == 15
    with pytest.raises(ConflictError):
        await part(ledger, author, 16, 18)


async def test_entries_that_are_not_the_checkpoints_leave_no_trace(author, ledger):
    await part(ledger, author, 0, 5)
    entries = author.read(5, 10)
    with pytest.raises(BadSignatureError):
        await part(ledger, author, 5, 10, entries=[*entries[:-1], entries[0]])
    assert ledger.log(author.server_id).size == 5
    assert ledger.fold.feeds[author.server_id].size == 5
