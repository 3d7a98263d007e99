"""Catching up from real servers on loopback that serve, fail, ask for peace, or lie."""

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from seipd.daemon.tile_source import HttpTileSource
from services.base.crypto.signatures import SigningKey
from services.base.ledger.checkpoint import Checkpoint, sign_checkpoint
from services.base.ledger.note import sign_text
from services.base.ledger.tiles import parse_tile_path
from services.kernel.errors import RateLimitedError, StorageError
from services.mesh.bulk.download import ForkedError
from services.mesh.bulk.service import catch_up
from services.mesh.bulk.sources import MAX_IN_FLIGHT
from services.runtime.clock import SystemClock
from services.runtime.outbound import HttpClient
from tests.unit.mesh_bulk.bulk_kit import ORIGIN, Feed, LogSink, open_log

BIG = Feed(20_000)
OTHER = Feed(20_000, entry=lambda index: b"other %d" % index)


@dataclass
class Server:
    """Serves a feed on loopback; ``answer`` may put something else in the place of a tile."""

    feed: Feed = BIG
    size: int = 20_000
    note: bytes = b""
    answer: object = None
    tokens: set = field(default_factory=lambda: {"first"})
    paths: list = field(default_factory=list)
    connections: set = field(default_factory=set)
    busy: int = 0
    most_busy: int = 0
    base: str = ""

    @contextlib.asynccontextmanager
    async def serving(self):
        app = web.Application()
        app.router.add_get("/feed/checkpoint", self._checkpoint)
        app.router.add_get("/feed/{path:tile/.+}", self._tile)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    async def _checkpoint(self, request):
        self.connections.add(request.transport.get_extra_info("peername"))
        return web.Response(body=self.note or self.feed.checkpoint(self.size))

    async def _tile(self, request):
        self.connections.add(request.transport.get_extra_info("peername"))
        path = request.match_info["path"]
        self.paths.append(path)
        ref = parse_tile_path(path)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if ref.level is None and token not in self.tokens:
            return web.Response(status=401)
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await asyncio.sleep(0.001)
            special = self.answer and await self.answer(request, ref)
            if special is not None:
                return special
            span = 256 << 8 * (ref.level or 0)
            if ref.index * span + ref.width * span // 256 > self.size:
                return web.Response(status=404)
            return web.Response(body=self.feed.file(ref))
        finally:
            self.busy -= 1


@dataclass
class Mesh:
    """The servers, the copy, and how it catches up."""

    sink: LogSink
    servers: dict
    logins: list = field(default_factory=list)

    async def catch_up(self, sink=None):
        async with contextlib.AsyncExitStack() as stack:
            sources = {}
            for name, server in self.servers.items():
                client = await stack.enter_async_context(HttpClient())
                sources[name] = HttpTileSource(
                    client=client,
                    prefix=f"{server.base}/feed",
                    login=lambda name=name: self._login(name),
                    token="first",
                    timeout_s=3.0,
                )
            return await catch_up(
                sources=sources,
                sink=sink or self.sink,
                clock=SystemClock(),
                rng=random.Random(1),  # noqa: S311 (repeatable)
            )

    async def _login(self, name):
        self.logins.append(name)
        self.servers[name].tokens.add("second")
        return "second"


@pytest.fixture
async def mesh(tmp_path):
    async with contextlib.AsyncExitStack() as stack:

        async def make(**servers):
            for server in servers.values():
                await stack.enter_async_context(server.serving())
            return Mesh(LogSink(open_log(tmp_path / "log")), servers)

        yield make


async def test_it_comes_from_three_servers_over_few_connections(mesh):
    net = await mesh(a=Server(), b=Server(), c=Server())
    outcome = await net.catch_up()
    assert outcome.complete
    assert (outcome.size, outcome.blamed, outcome.failed) == (20_000, {}, {})
    assert net.sink.log.signed_size == 20_000
    assert net.sink.log.root == BIG.root(20_000)
    for server in net.servers.values():
        assert len(server.paths) > 5
        assert server.most_busy <= MAX_IN_FLIGHT
        assert len(server.connections) <= MAX_IN_FLIGHT
    asked = [path for server in net.servers.values() for path in server.paths]
    assert len(asked) == len(set(asked))


async def test_nothing_is_asked_for_when_nothing_is_missing(mesh):
    net = await mesh(a=Server())
    await net.catch_up()
    net.servers["a"].paths.clear()
    outcome = await net.catch_up()
    assert outcome.complete
    assert net.servers["a"].paths == []


async def test_a_liar_is_named_and_what_it_sent_comes_from_another(mesh):
    async def lie(request, ref):
        if ref.level is None and ref.index == 3:
            data = bytearray(BIG.file(ref))
            data[100] ^= 1
            return web.Response(body=bytes(data))
        return None

    net = await mesh(liar=Server(answer=lie))
    outcome = await net.catch_up()
    assert list(outcome.blamed) == ["liar"]
    assert "tile/entries/003" in outcome.blamed["liar"]
    assert not outcome.complete
    honest = Server()
    async with honest.serving():
        net.servers["honest"] = honest
        outcome = await net.catch_up()
    assert outcome.complete
    assert net.sink.log.root == BIG.root(20_000)


async def test_a_checkpoint_of_another_key_is_blamed_and_not_followed(mesh):
    root = OTHER.root(20_000)
    foreign = Checkpoint(origin=ORIGIN, size=30_000, root=root)
    note = sign_checkpoint(foreign, signer=SigningKey(b"x" * 32))
    net = await mesh(forger=Server(note=note, feed=OTHER), junk=Server(note=b"junk"), good=Server())
    outcome = await net.catch_up()
    assert outcome.complete
    assert set(outcome.blamed) == {"forger", "junk"}
    assert net.servers["forger"].paths == []


async def test_lines_that_a_source_adds_to_a_checkpoint_are_not_kept(mesh):
    note = BIG.checkpoint()
    text = note.decode().partition("\n\n")[0] + "\n"
    padding = [sign_text(text, name=f"x{one}", signer=SigningKey(b"x" * 32)) for one in range(15)]
    padded = note + "".join(one.line() for one in padding).encode()
    net = await mesh(a=Server(note=padded))
    outcome = await net.catch_up()
    assert outcome.complete
    assert net.sink.log.checkpoint == note


async def test_a_server_that_is_busy_is_asked_again_when_it_said(mesh):
    refused = []

    async def busy(request, ref):
        now_s = asyncio.get_running_loop().time()
        if not refused or now_s - refused[0] < 1.0:
            refused.append(now_s)
            return web.Response(status=429, headers={"Retry-After": "1"})
        return None

    net = await mesh(a=Server(answer=busy))
    outcome = await net.catch_up()
    assert outcome.complete
    # Only what was on its way when the first refusal came was refused, too.
    assert len(refused) <= MAX_IN_FLIGHT


@pytest.mark.parametrize(
    ("text", "wanted_s"), [("7", 7), ("junk", 5), ("-1", 5), ("", 5), ("9999999", 3600)]
)
async def test_what_a_busy_server_says_is_understood(mesh, text, wanted_s):
    async def busy(request, ref):
        return web.Response(status=503, headers={"Retry-After": text})

    server = (await mesh(a=Server(answer=busy))).servers["a"]
    async with HttpClient() as client:
        source = HttpTileSource(
            client=client, prefix=f"{server.base}/feed", login=None, token="first"
        )
        with pytest.raises(RateLimitedError) as caught:
            await source.tile(parse_tile_path("tile/0/000"), max_bytes=8192)
    assert caught.value.retry_after_s == wanted_s


async def test_a_session_that_ended_is_opened_once_more(mesh):
    net = await mesh(a=Server(tokens={"only-later"}))
    outcome = await net.catch_up()
    assert outcome.complete
    assert net.logins == ["a"]


async def test_a_server_that_refuses_for_good_is_left_alone(mesh):
    async def refuse(request, ref):
        return web.Response(status=403)

    net = await mesh(a=Server(answer=refuse), b=Server())
    outcome = await net.catch_up()
    assert outcome.complete
    assert list(outcome.failed) == ["a"]
    assert len(net.servers["a"].paths) <= MAX_IN_FLIGHT


async def test_a_server_that_dies_on_the_way_costs_only_time(mesh):
    async def die(request, ref):
        if len(net.servers["dying"].paths) > 10:
            request.transport.abort()
        return

    net = await mesh(dying=Server(answer=die), good=Server())
    outcome = await net.catch_up()
    assert outcome.complete
    assert outcome.blamed == {}
    assert net.sink.log.root == BIG.root(20_000)


async def test_a_server_that_went_on_meanwhile_is_followed_to_its_newer_checkpoint(mesh):
    async def go_on(request, ref):
        if ref.width < 256 and server.size == 10_000:
            server.size = 20_000
            return web.Response(status=404)
        return None

    server = Server(size=10_000, answer=go_on)
    net = await mesh(a=server)
    outcome = await net.catch_up()
    assert outcome.complete
    assert outcome.size == 20_000


async def test_cancelled_between_chunks_it_goes_on_where_it_was(mesh, tmp_path):
    net = await mesh(a=Server(), b=Server())
    log = net.sink.log
    stored = asyncio.Event()

    class Watched(LogSink):
        async def store(self, chunk):
            await super().store(chunk)
            stored.set()
            await asyncio.sleep(0)

    running = asyncio.get_running_loop().create_task(net.catch_up(Watched(log)))
    await stored.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    held = log.size
    assert 0 < held < 20_000
    assert log.signed_size == 0
    log.close()
    before = sum(len(server.paths) for server in net.servers.values())
    net.sink = LogSink(open_log(tmp_path / "log"))
    outcome = await net.catch_up()
    assert outcome.complete
    assert net.sink.chunks[0][0] == held
    fetched = sum(len(server.paths) for server in net.servers.values()) - before
    assert fetched <= (20_000 - held) // 256 + 6


async def test_a_disk_that_refuses_ends_it(mesh):
    net = await mesh(a=Server())

    class Full(LogSink):
        async def store(self, chunk):
            raise StorageError("no space")

    with pytest.raises(StorageError):
        await net.catch_up(Full(net.sink.log))
    async with asyncio.timeout(60):
        while net.servers["a"].busy:
            await asyncio.sleep(0.01)


async def test_a_feed_that_its_author_rewrote_is_told(mesh):
    net = await mesh(a=Server())
    net.sink.log.append(OTHER.entries[:300], OTHER.checkpoint(300))
    with pytest.raises(ForkedError):
        await net.catch_up()
    assert net.sink.log.size == 300


async def test_nobody_there(mesh):
    net = await mesh(a=Server())
    net.servers["a"].base = "http://127.0.0.1:1"
    outcome = await net.catch_up()
    assert (outcome.size, outcome.target_size, outcome.complete) == (0, 0, False)
    assert list(outcome.failed) == ["a"]
