"""A feed comes from a real server: its TLS pinned by the roster, a session, its tiles."""

import asyncio

import pytest
from aiohttp import web

from seipd.api.tls import issue_leaf, server_context
from seipd.daemon.fetcher import HttpTileFetcher
from services.authority.enroll.service import Wanted
from services.base.crypto.signatures import generate_signing_key
from services.base.ledger.copies import open_feed
from services.kernel.errors import NotFoundError
from services.kernel.ids import server_id_of
from services.mesh.bulk.ports import Place
from services.runtime.clock import SystemClock
from tests.fakes.one_server import OneServer

INVITES = 600


@pytest.fixture
async def server(tmp_path):
    one = await OneServer.start(tmp_path / "data")
    async with asyncio.TaskGroup() as group:
        for _ in range(INVITES):
            group.create_task(one.enroll.invite(Wanted(role="endpoint"), addresses=("x:1",)))
    await one.ledger.publish()
    yield one
    await one.stop()


@pytest.fixture
async def place(server):
    issue_leaf(server.tls, names=["127.0.0.1"], clock=server.clock)
    runner = web.AppRunner(server.app("public"))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(server.tls))
    await site.start()
    port = runner.addresses[0][1]
    yield Place(server_id=server.ledger.server_id, host="127.0.0.1", port=port)
    await runner.cleanup()


class Copy:
    """Another server's ledger, as far as a copy of one feed needs it."""

    def __init__(self, server, folder):
        self.mesh_id = server.ledger.mesh_id
        self.charter = server.ledger.charter
        self.parts = []
        self.learnt = 0
        self._folder = folder
        self._log = None

    def log(self, server_id):
        if self._log is None:
            raise NotFoundError("not held")
        return self._log

    async def learn_roster(self, records):
        self.learnt = len(records)

    async def ingest(self, server_id, epoch, start, entries, checkpoint, *, proof):
        if self._log is None:
            certificate = self.charter.server(server_id)
            self._log = open_feed(self._folder, self.mesh_id, certificate, "nobody")
        assert start == self._log.size
        self._log.extend_verified(entries, checkpoint, proof)
        self.parts.append(start)


@pytest.fixture
def copy(server, tmp_path):
    (tmp_path / "copy").mkdir()
    copy = Copy(server, tmp_path / "copy")
    yield copy
    if copy._log is not None:
        copy._log.close()


async def catch_up(server, places, copy, *, key=None, epoch=1):
    fetcher = HttpTileFetcher(
        ledger=copy, key=key or server.identity.signing_key, clock=SystemClock()
    )
    return await fetcher.catch_up(places, server.ledger.server_id, epoch)


async def test_a_server_of_the_mesh_gets_the_whole_feed(server, place, copy):
    outcome = await catch_up(server, [place], copy)
    own = server.ledger.log(server.ledger.server_id)
    held = copy.log(server.ledger.server_id)
    assert outcome.complete
    assert (outcome.blamed, outcome.failed) == ({}, {})
    # The server may have signed another attest meanwhile.
    assert own.size >= held.size > INVITES
    assert held.root == own.root_at(held.size)
    assert held.read(0, held.size) == own.read(0, held.size)


async def test_what_came_since_is_added_to_what_is_held(server, place, copy):
    await catch_up(server, [place], copy)
    await server.enroll.invite(Wanted(role="endpoint"), addresses=("x:1",))
    await server.ledger.publish()
    held = copy.log(server.ledger.server_id).size
    outcome = await catch_up(server, [place], copy)
    assert outcome.complete
    assert copy.parts == [0, held]
    assert outcome.size > held


async def test_a_stranger_is_refused_the_entries(server, place, copy):
    outcome = await catch_up(server, [place], copy, key=generate_signing_key())
    assert outcome.size == 0
    assert list(outcome.failed) == [place.server_id]
    assert outcome.blamed == {}


async def test_another_server_at_the_address_is_not_believed(server, place, copy):
    name = server_id_of(generate_signing_key().public_key)
    wrong = Place(server_id=name, host=place.host, port=place.port)
    outcome = await catch_up(server, [wrong], copy)
    assert (outcome.size, list(outcome.failed)) == (0, [name])
    outcome = await catch_up(server, [wrong, place], copy)
    assert outcome.complete


async def test_of_an_epoch_that_is_not_known_the_roster_is_asked_for_first(server, place, copy):
    with pytest.raises(NotFoundError):
        await catch_up(server, [place], copy, epoch=2)
    assert copy.learnt == len(server.ledger.charter.records)
    assert copy.parts == []
