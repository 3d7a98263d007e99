"""A feed comes from a real server: its TLS pinned by the roster, a session, its tiles."""

import asyncio
import random

import pytest
from aiohttp import web

from seipd.api.tls import issue_leaf, server_context
from seipd.daemon.fetcher import HttpTileFetcher
from services.authority.enroll.service import Wanted
from services.base.crypto.signatures import generate_signing_key
from services.base.ledger.feed import feed_origin
from services.base.ledger.log import TileLog
from services.base.ledger.note import NoteVerifier
from services.kernel.ids import server_id_of
from services.mesh.bulk.ports import Place
from services.runtime.clock import SystemClock
from tests.fakes.one_server import OneServer
from tests.unit.mesh_bulk.bulk_kit import LogSink

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


@pytest.fixture
def sink(server, tmp_path):
    name = server.ledger.server_id
    origin = feed_origin(server.ledger.mesh_id, name, 1)
    verifier = NoteVerifier(name=origin, public_key=server.ledger.server_key(name))
    log = TileLog.open(tmp_path / "copy", origin=origin, verifier=verifier, create=True)
    sink = LogSink(log)
    sink.verifier = verifier
    yield sink
    log.close()


async def catch_up(server, places, sink, *, key=None):
    fetcher = HttpTileFetcher(ledger=server.ledger, key=key or server.identity.signing_key)
    return await fetcher.catch_up(
        places,
        server.ledger.server_id,
        sink,
        clock=SystemClock(),
        rng=random.Random(1),  # noqa: S311 (length of pauses)
    )


async def test_a_server_of_the_mesh_gets_the_whole_feed(server, place, sink):
    outcome = await catch_up(server, [place], sink)
    own = server.ledger.log(server.ledger.server_id)
    assert outcome.complete
    assert (outcome.blamed, outcome.failed) == ({}, {})
    assert sink.log.signed_size == own.size > INVITES
    assert sink.log.root == own.root
    assert sink.log.read(0, own.size) == own.read(0, own.size)


async def test_a_stranger_is_refused_the_entries(server, place, sink):
    outcome = await catch_up(server, [place], sink, key=generate_signing_key())
    assert sink.log.size == 0
    assert list(outcome.failed) == [place.server_id]
    assert outcome.blamed == {}


async def test_another_server_at_the_address_is_not_believed(server, place, sink):
    name = server_id_of(generate_signing_key().public_key)
    wrong = Place(server_id=name, host=place.host, port=place.port)
    outcome = await catch_up(server, [wrong], sink)
    assert (sink.log.size, list(outcome.failed)) == (0, [name])
    outcome = await catch_up(server, [wrong, place], sink)
    assert outcome.complete
