"""Anybody asks this server as a C2SP witness: of the mesh's feeds, and as published."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import zlib

import pytest
from aiohttp.test_utils import TestClient, TestServer

from seipd.api.server import PUBLIC_ROUTES, build_app
from services.authority.enroll.service import Wanted
from services.authority.ipam.service import IpamService
from services.base.ledger.checkpoint import (
    Checkpoint,
    sign_checkpoint,
    verify_checkpoint,
    verify_cosignature,
)
from services.base.ledger.note import NoteVerifier, parse_vkey
from services.kernel.errors import CorruptError
from services.kernel.service import HealthState
from tests.fakes.neighbour import Neighbour, hand_over
from tests.vectors.test_witness_vectors import VECTOR, vector_log, vector_witness

ADD = "/witness/add-checkpoint"
INVITES = 3


@pytest.fixture
async def author(one, tmp_path):
    (tmp_path / "author").mkdir(mode=0o700)
    found = await Author.join(one, tmp_path / "author")
    await hand_over(one.ledger, found.ledger)
    await found.write()
    await hand_over(found.ledger, one.ledger)
    yield found
    await found.stop()


@pytest.fixture
async def client(one):
    async with TestClient(TestServer(one.app("public"))) as found:
        yield found


class Author(Neighbour):
    """A server of the mesh, and what it asks the witness about its feed."""

    @property
    def log(self):
        return self.ledger.log(self.server_id)

    async def write(self) -> None:
        ipam = IpamService(ledger=self.ledger, author=self.author)
        await ipam.start()
        for _ in range(INVITES):
            await self.enroll(ipam).invite(Wanted(role="endpoint"), addresses=("127.0.0.1:9100",))

    def request(self, old: int) -> bytes:
        new = self.log.size
        proof = self.log.consistency_proof(old, new) if 0 < old < new else []
        return request(old, self.log.checkpoint, proof)

    def forked(self, size: int) -> bytes:
        """Return a checkpoint of this feed that contradicts the one it gave to all others."""
        other = Checkpoint(origin=self.log.origin, size=size, root=bytes(32))
        return sign_checkpoint(other, signer=self.key)


def request(old: int, note: bytes, proof=()) -> bytes:
    lines = "".join(base64.b64encode(one).decode() + "\n" for one in proof)
    return f"old {old}\n{lines}\n".encode() + note


async def witness_key(client) -> NoteVerifier:
    return parse_vkey((await (await client.get("/witness/vkey")).json())["vkey"])


async def test_the_published_conversation_over_http(one) -> None:
    class Ledger:
        witness = vector_witness(vector_log())

    services = dataclasses.replace(one.services, ledger=Ledger())
    app, _ = build_app(services, PUBLIC_ROUTES, title="public", operator=False)
    async with TestClient(TestServer(app)) as client:
        for case in VECTOR["cases"]:
            answer = await client.post(ADD, data=case["request_body"].encode())
            assert (case["name"], answer.status) == (case["name"], case["want_status"])
            assert case["want_body_contains"] in await answer.text()
            if answer.status == 409:
                assert answer.headers["Content-Type"] == "text/x.tlog.size"
            if answer.status == 200:
                assert answer.content_type == "text/plain"


async def test_what_is_held_of_a_feed_is_signed(one, author, client) -> None:
    size = author.log.size
    answer = await client.post(ADD, data=author.request(size))
    assert answer.status == 200
    line = await answer.read()
    verifier = await witness_key(client)
    assert verifier.public_key == one.identity.signing_key.public_key
    time_s = verify_cosignature(author.log.checkpoint + line, verifier)
    assert abs(time_s - one.clock.now_ms() // 1000) < 60


async def test_led_07_another_size_than_the_one_held_is_told(author, client) -> None:
    answer = await client.post(ADD, data=author.request(0))
    assert answer.status == 409
    assert answer.headers["Content-Type"] == "text/x.tlog.size"
    assert await answer.text() == f"{author.log.size}\n"


async def test_what_is_new_is_signed_once_gossip_has_brought_it(one, author, client) -> None:
    one.ledger.witness._logs._arrival_s = 60.0
    old = author.log.size
    await author.write()
    ask = asyncio.create_task(client.post(ADD, data=author.request(old)))
    await asyncio.sleep(0.1)
    assert not ask.done()
    await hand_over(author.ledger, one.ledger)
    answer = await ask
    assert answer.status == 200
    verify_cosignature(author.log.checkpoint + await answer.read(), await witness_key(client))
    assert author.log.size > old


async def test_what_nobody_has_seen_is_not_signed(one, author, client) -> None:
    one.ledger.witness._logs._arrival_s = 0.2
    old = author.log.size
    await author.write()
    answer = await client.post(ADD, data=author.request(old))
    assert (answer.status, (await answer.json())["code"]) == (503, "not_held")


async def test_led_06_two_at_once_while_the_feed_grows(one, author, client) -> None:
    one.ledger.witness._logs._arrival_s = 60.0
    old = author.log.size
    await author.write()
    first = author.request(old)
    middle = author.log.size
    await author.write()
    second = author.request(old)
    asks = [asyncio.create_task(client.post(ADD, data=body)) for body in (first, second)]
    await asyncio.sleep(0.1)
    await hand_over(author.ledger, one.ledger)
    behind, newest = [await ask for ask in asks]
    assert middle < author.log.size
    assert (behind.status, await behind.text()) == (409, f"{author.log.size}\n")
    assert newest.status == 200


async def test_led_05_another_root_at_the_same_size_ends_its_author(one, author, client) -> None:
    size = author.log.size
    answer = await client.post(ADD, data=request(size, author.forked(size)))
    assert (answer.status, (await answer.json())["code"]) == (422, "proof_invalid")
    async with asyncio.timeout(60):
        while one.ledger.state.get("trust", author.server_id) is None:
            await asyncio.sleep(0.02)
    assert one.ledger.state.get("trust", author.server_id)["state"] == "untrusted"
    answer = await client.post(ADD, data=author.request(size))
    assert (answer.status, (await answer.json())["code"]) == (404, "unknown_log")


async def test_led_05_an_older_checkpoint_of_another_branch_ends_its_author_too(
    one, author, client
) -> None:
    answer = await client.post(ADD, data=request(0, author.forked(author.log.size - 1)))
    assert answer.status == 409
    async with asyncio.timeout(60):
        while one.ledger.state.get("trust", author.server_id) is None:
            await asyncio.sleep(0.02)


async def test_this_servers_own_feed_is_witnessed_like_any_other(one, client) -> None:
    for _ in range(50):
        log = one.ledger.log(one.ledger.server_id)
        answer = await client.post(ADD, data=request(log.size, log.checkpoint))
        # It grows by itself meanwhile; who is told so asks anew, as the protocol says.
        if answer.status != 409:
            break
    assert answer.status == 200


async def test_the_newest_checkpoint_is_read_co_signed(one, author, client) -> None:
    origin_hash = hashlib.sha256(author.log.origin.encode()).hexdigest()
    answer = await client.get(f"/witness/{origin_hash}/checkpoint")
    assert answer.content_type == "text/plain"
    data = await answer.read()
    checkpoint = verify_checkpoint(data, parse_vkey(author.log.vkey), author.log.origin)
    assert (checkpoint.size, checkpoint.root) == (author.log.size, author.log.root)
    verify_cosignature(data, await witness_key(client))
    for unknown in (hashlib.sha256(b"x").hexdigest(), "..", "%2e%2e", origin_hash.upper()):
        assert (await client.get(f"/witness/{unknown}/checkpoint")).status == 404


@pytest.mark.parametrize("encoding", ["identity", "deflate"])
async def test_a_body_over_the_limit_is_refused(client, encoding) -> None:
    body = b"old 0\n\n" + b"x" * (70_000 if encoding == "identity" else 1 << 24)
    packed = zlib.compress(body) if encoding == "deflate" else body
    answer = await client.post(
        ADD, data=packed, headers={"Content-Encoding": encoding}, skip_auto_headers=["Content-Type"]
    )
    assert (answer.status, (await answer.json())["code"]) == (413, "too_large")


async def test_led_18_no_cosignature_of_this_server_goes_back_in_time_over_a_restart(one) -> None:
    log = one.ledger.log(one.ledger.server_id)
    origin_hash = hashlib.sha256(log.origin.encode()).hexdigest()

    def signed_s() -> int:
        key = parse_vkey(one.ledger.witness.vkey)
        return verify_cosignature(one.ledger.witness.newest(origin_hash), key)

    first_s = signed_s()
    await one.stop()
    one.clock.shift_ms = -3_600_000
    await one.begin()
    assert signed_s() >= first_s
    health = one.ledger.health()
    assert health.state is HealthState.DEGRADED
    assert "the clock went back" in health.detail
    # What settles its feed has no earlier time either.
    await one.token()
    async with asyncio.timeout(60):
        while not one.ledger.fold.feeds[one.ledger.server_id].settled_ms >= first_s * 1000:
            await asyncio.sleep(0.05)
    one.clock.shift_ms = 60_000
    assert one.ledger.health().state is HealthState.OK
    assert signed_s() >= first_s + 60


async def test_a_damaged_memory_of_the_time_is_no_empty_one(one) -> None:
    origin = one.ledger.log(one.ledger.server_id).origin
    one.ledger.witness.newest(hashlib.sha256(origin.encode()).hexdigest())
    await one.stop()
    kept = (one.folder / "ledger/witness-time").read_bytes()
    (one.folder / "ledger/witness-time").write_bytes(b"")
    with pytest.raises(CorruptError, match="witness-time"):
        await one.begin()
    (one.folder / "ledger/witness-time").write_bytes(kept)
    await one.begin()


async def test_what_is_asked_stands_in_the_description(client) -> None:
    document = await (await client.get("/openapi.json")).json()
    operation = document["paths"][ADD]["post"]
    assert operation["requestBody"]["content"].keys() == {"text/plain"}
