"""Two servers: one sets a secret, the other gets it as soon as it is in tier 1, and not before."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from aiohttp.test_utils import TestClient, TestServer

from services.authority.serversecrets.service import BURST, SecretsService
from services.authority.serversecrets.store import SecretStore
from services.authority.trust.tiers import Tier, TrustRules
from services.authority.trust.verdicts import VERDICT_KIND, founder_verdict
from services.base.storage.journal import JournalFile
from services.kernel.errors import ForbiddenError, NotFoundError, SeipdError, UnavailableError
from services.kernel.ids import b64u_encode
from tests.fakes.neighbour import Neighbour, hand_over
from tests.fakes.one_server import LOOK_S, OneServer

if TYPE_CHECKING:
    from services.authority.serversecrets.messages import Meant

VALUE = b"dns-token-8f1c"


class Straight:
    """The way from one server to another in this process; what passed is kept."""

    def __init__(self, other: Pair) -> None:
        self._pair = other
        self.asked: list[tuple[str, str]] = []
        self.lies: bytes | None = None

    async def ask(self, server_id: str, meant: Meant) -> bytes:
        self.asked.append((server_id, meant.name))
        sealed = await self._pair.one.secrets.hand_out(self._pair.two.server_id, meant)
        return sealed if self.lies is None else self.lies


class Pair:
    """``one`` founded the mesh, ``two`` joined it and is in tier 2."""

    def __init__(self, one: OneServer, two: Neighbour) -> None:
        self.one, self.two = one, two
        self.folder = two.folder.with_name("two-secrets")
        self.wire = Straight(self)
        self.secrets = self.service()

    def service(self) -> SecretsService:
        key, mesh_id = self.two.key, self.one.ledger.mesh_id
        return SecretsService(
            ledger=self.two.ledger,
            author=self.two.author,
            key=key,
            store=SecretStore(folder=self.folder, seed=key.seed, mesh_id=mesh_id),
            wire=self.wire,
            journal=JournalFile(folder=self.folder, stem="audit", clock=self.one.clock),
            clock=self.one.clock,
            rng=random.Random(1),  # noqa: S311 (failures repeat)
            retry_s=LOOK_S,
        )

    async def tell(self, *, tier: int | None = None) -> None:
        if tier is not None:
            body = {**founder_verdict(self.two.server_id), "tier": tier}
            await self.one.ledger.submit([self.one.author.record(VERDICT_KIND, body)])
        await hand_over(self.one.ledger, self.two.ledger)

    async def holds(self, name: str, value: bytes) -> bool:
        for _ in range(500):
            try:
                if self.secrets.get(name).value == value:
                    return True
            except UnavailableError:
                pass
            await asyncio.sleep(0.01)
        return False

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.enc"))


@pytest.fixture
async def pair(tmp_path):
    one = await OneServer.start(
        tmp_path / "one", trust=TrustRules(newcomers=Tier.CERTIFIED, checks=1)
    )
    two = await Neighbour.join(one, tmp_path / "two")
    pair = Pair(one, two)
    await pair.tell()
    await two.ledger.name_roster()
    await hand_over(two.ledger, one.ledger)
    await one.secrets.start()
    await pair.secrets.start()
    yield pair
    await pair.secrets.stop()
    await one.secrets.stop()
    await two.stop()
    await one.stop()


def code_of(service: SecretsService, name: str) -> str:
    with pytest.raises(SeipdError) as caught:
        service.get(name)
    return caught.value.code


async def test_who_is_promoted_gets_it_and_who_is_not_does_not(pair: Pair) -> None:
    await pair.one.secrets.set("dns", VALUE)
    assert pair.one.secrets.get("dns").value == VALUE
    await pair.tell()
    assert code_of(pair.secrets, "dns") == "secret_not_allowed"
    assert pair.wire.asked == []
    await pair.tell(tier=1)
    assert await pair.holds("dns", VALUE)
    assert pair.wire.asked == [(pair.one.ledger.server_id, "dns")]
    assert pair.secrets.shown()[0]["here"]
    entries = await pair.one.secrets.audit(10)
    assert [(one["server_id"], one["outcome"]) for one in entries] == [
        (pair.two.server_id, "granted")
    ]


async def test_who_is_not_in_tier_1_is_refused_whatever_it_asks(pair: Pair) -> None:
    await pair.one.secrets.set("dns", VALUE)
    await pair.tell()
    row = pair.one.ledger.state.get("secret", "name/dns")
    meant = pair.one.secrets.get("dns").meant
    assert row["version"] == meant.version
    for asker in (pair.two.server_id, "server-00000000000000ff"):
        with pytest.raises(ForbiddenError) as caught:
            await pair.one.secrets.hand_out(asker, meant)
        assert caught.value.code == "secret_not_allowed"
    outcomes = [one["outcome"] for one in await pair.one.secrets.audit(10)]
    assert outcomes == ["secret_not_allowed", "secret_not_allowed"]
    with pytest.raises(ForbiddenError):
        await pair.secrets.set("dns", b"another")


async def test_who_asks_too_often_is_put_off_and_pushes_nothing_out_of_the_audit(
    pair: Pair,
) -> None:
    await pair.one.secrets.set("dns", VALUE)
    meant, codes = pair.one.secrets.get("dns").meant, []
    while "rate_limited" not in codes:
        with pytest.raises(SeipdError) as caught:
            await pair.one.secrets.hand_out(pair.two.server_id, meant)
        codes.append(caught.value.code)
    assert BURST <= len(codes) - 1 < 2 * BURST
    assert set(codes[:-1]) == {"secret_not_allowed"}
    assert len(await pair.one.secrets.audit(1000)) == len(codes) - 1
    pair.one.clock.shift_ms += 4_000
    with pytest.raises(ForbiddenError):
        await pair.one.secrets.hand_out(pair.two.server_id, meant)


async def test_a_demoted_server_uses_nothing_and_gets_no_new_version(pair: Pair) -> None:
    await pair.one.secrets.set("dns", VALUE)
    await pair.tell(tier=1)
    assert await pair.holds("dns", VALUE)
    await pair.tell(tier=2)
    assert code_of(pair.secrets, "dns") == "secret_not_allowed"
    await pair.one.secrets.set("dns", b"newer")
    await pair.tell()
    with pytest.raises(ForbiddenError):
        await pair.wire.ask(pair.one.ledger.server_id, pair.one.secrets.get("dns").meant)
    assert len(pair.wire.asked) == 2
    await pair.tell(tier=1)
    assert await pair.holds("dns", b"newer")


async def test_another_value_replaces_the_first_everywhere_and_a_removed_one_is_gone(
    pair: Pair,
) -> None:
    await pair.one.secrets.set("dns", VALUE)
    await pair.tell(tier=1)
    assert await pair.holds("dns", VALUE)
    before = pair.files()
    assert await pair.one.secrets.set("dns", b"newer") == {"name": "dns", "version": 2}
    await pair.tell()
    assert await pair.holds("dns", b"newer")
    assert len(before) == len(pair.files()) == 1
    assert before != pair.files()
    await pair.one.secrets.remove("dns")
    await pair.tell()
    assert code_of(pair.secrets, "dns") == "no_secret"
    while pair.files():
        await asyncio.sleep(0.01)
    with pytest.raises(NotFoundError):
        await pair.one.secrets.remove("dns")


async def test_a_giver_that_lies_is_not_believed(pair: Pair) -> None:
    await pair.one.secrets.set("dns", VALUE)
    pair.wire.lies = b"x" * 200
    await pair.tell(tier=1)
    while len(pair.wire.asked) < 2:
        await asyncio.sleep(0.01)
    assert code_of(pair.secrets, "dns") == "secret_not_here"
    assert "not here yet: dns" in pair.secrets.health().detail
    pair.wire.lies = None
    assert await pair.holds("dns", VALUE)


async def test_after_a_restart_it_is_read_from_the_disk_and_nobody_is_asked(pair: Pair) -> None:
    await pair.one.secrets.set("dns", VALUE)
    await pair.tell(tier=1)
    assert await pair.holds("dns", VALUE)
    await pair.secrets.stop()
    pair.wire.asked.clear()
    pair.secrets = pair.service()
    await pair.secrets.start()
    assert await pair.holds("dns", VALUE)
    assert pair.wire.asked == []


async def test_no_value_is_readable_on_the_disk_nor_in_any_log_of_the_mesh(
    pair: Pair, caplog
) -> None:
    caplog.set_level("DEBUG")
    await pair.one.secrets.set("dns", VALUE)
    await pair.tell(tier=1)
    assert await pair.holds("dns", VALUE)
    texts = (VALUE, b64u_encode(VALUE).encode(), VALUE.hex().encode())
    folders = (pair.folder, pair.one.folder, pair.two.folder)
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".enc" for path in found)
    assert not [path for path in found if any(text in path.read_bytes() for text in texts)]
    for path in pair.folder.glob("*.enc"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert pair.folder.stat().st_mode & 0o777 == 0o700
    assert VALUE.decode() not in caplog.text
    other = SecretStore(folder=pair.folder, seed=bytes(32), mesh_id=pair.one.ledger.mesh_id)
    assert other.get(pair.secrets.get("dns").meant) is None


async def test_a_damaged_file_is_fetched_anew(pair: Pair) -> None:
    await pair.one.secrets.set("dns", VALUE)
    await pair.tell(tier=1)
    assert await pair.holds("dns", VALUE)
    await pair.secrets.stop()
    (path,) = pair.folder.glob("*.enc")
    for data in (b"", path.read_bytes()[:-1], bytes(80)):
        path.write_bytes(data)
        pair.secrets = pair.service()
        await pair.secrets.start()
        assert await pair.holds("dns", VALUE)
        await pair.secrets.stop()


async def test_an_operator_sets_lists_and_removes_and_sees_no_value(pair: Pair) -> None:
    app = pair.one.app("operator")
    async with TestClient(TestServer(app)) as client:
        body = {"name": "dns", "value": b64u_encode(VALUE)}
        answer = await client.post("/api/secrets", json=body)
        assert (answer.status, await answer.json()) == (200, {"name": "dns", "version": 1})
        listed = await (await client.get("/api/secrets")).text()
        assert '"name":"dns"' in listed
        assert VALUE.decode() not in listed
        assert b64u_encode(VALUE) not in listed
        assert (await client.post("/api/secrets/remove", json={"name": "dns"})).status == 200
        assert (await (await client.get("/api/secrets")).json())["secrets"] == []
        assert (await client.post("/api/secrets/remove", json={"name": "dns"})).status == 404


@pytest.mark.parametrize("where", ["public", "private"])
async def test_nobody_but_the_operator_reaches_the_list(pair: Pair, where: str) -> None:
    async with TestClient(TestServer(pair.one.app(where))) as client:
        for method, path in (("GET", "/api/secrets"), ("POST", "/api/secrets/remove")):
            assert (await client.request(method, path, json={"name": "a"})).status in (
                401,
                403,
                404,
            )
        request = {"name": "dns", "version": 1, "commitment": b64u_encode(bytes(32))}
        assert (await client.post("/api/servers/secrets", json=request)).status in (401, 404)
