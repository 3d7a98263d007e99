"""A secret over real HTTPS: a session of the asking server, its tier, and what is on the wire."""

from __future__ import annotations

import pytest
from aiohttp import web

from seipd.api.tls import issue_leaf, server_context
from seipd.daemon.fetcher import HttpTileFetcher
from services.authority.serversecrets.messages import Meant, open_secret, set_body
from services.authority.trust.tiers import Tier, TrustRules
from services.authority.trust.verdicts import VERDICT_KIND, founder_verdict
from services.base.crypto.signatures import generate_signing_key
from services.kernel.errors import SeipdError
from services.mesh.bulk.ports import Place
from tests.fakes.neighbour import Neighbour, hand_over
from tests.fakes.one_server import OneServer

VALUE = b"dns-token-77aa"


@pytest.fixture
async def one(tmp_path):
    server = await OneServer.start(tmp_path / "one", trust=TrustRules(newcomers=Tier.CERTIFIED))
    await server.secrets.set("dns", VALUE)
    yield server
    await server.stop()


@pytest.fixture
async def two(one, tmp_path):
    server = await Neighbour.join(one, tmp_path / "two")
    await hand_over(one.ledger, server.ledger)
    yield server
    await server.stop()


@pytest.fixture
async def place(one):
    issue_leaf(one.tls, names=["127.0.0.1"], clock=one.clock)
    runner = web.AppRunner(one.app("public"))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(one.tls)).start()
    port = runner.addresses[0][1]
    yield Place(server_id=one.ledger.server_id, host="127.0.0.1", port=port)
    await runner.cleanup()


async def code_of(fetcher: HttpTileFetcher, place: Place, body: dict) -> str:
    with pytest.raises(SeipdError) as caught:
        await fetcher.secret(place, body)
    return caught.value.code


async def test_it_is_given_to_a_server_of_tier_1_and_opens_there_alone(one, two, place) -> None:
    fetcher = HttpTileFetcher(ledger=two.ledger, key=two.key, clock=one.clock)
    meant = one.secrets.get("dns").meant
    assert await code_of(fetcher, place, set_body(meant)) == "secret_not_allowed"
    body = founder_verdict(two.server_id)
    await one.ledger.submit([one.author.record(VERDICT_KIND, body)])
    sealed = await fetcher.secret(place, set_body(meant))
    assert VALUE not in sealed
    keys = {"seed": two.key.seed, "identity_key": two.key.public_key}
    assert open_secret(one.ledger.mesh_id, meant, sealed, **keys).value == VALUE
    own = one.identity.signing_key
    with pytest.raises(SeipdError):
        open_secret(one.ledger.mesh_id, meant, sealed, seed=own.seed, identity_key=own.public_key)


async def test_only_the_version_in_force_is_given_and_to_no_stranger(one, two, place) -> None:
    await one.ledger.submit([one.author.record(VERDICT_KIND, founder_verdict(two.server_id))])
    fetcher = HttpTileFetcher(ledger=two.ledger, key=two.key, clock=one.clock)
    old = one.secrets.get("dns").meant
    await one.secrets.set("dns", b"newer")
    assert await code_of(fetcher, place, set_body(old)) == "no_secret"
    guess = Meant(name="dns", version=2, commitment=bytes(32))
    assert await code_of(fetcher, place, set_body(guess)) == "no_secret"
    new = one.secrets.get("dns").meant
    stranger = HttpTileFetcher(ledger=two.ledger, key=generate_signing_key(), clock=one.clock)
    with pytest.raises(SeipdError):
        await stranger.secret(place, set_body(new))
    assert await fetcher.secret(place, set_body(new))
