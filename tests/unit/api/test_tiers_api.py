"""A server earns tier 1 and loses it; an operator sees which tier, and each reason."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest
from aiohttp import web

from seipd.cli.options import trust_of
from services.authority.rootkeys.service import Candidate
from services.authority.trust.policy import Attested, Outcome, Released
from services.authority.trust.tiers import Tier, TrustRules
from services.base.ledger.changes import genesis_from_record
from services.kernel.errors import ConfigError, InputError
from services.kernel.ids import server_id_of
from tests.fakes.one_server import OneServer
from tests.fakes.programs import run_program
from tests.fakes.world import World, key_of

OTHER = key_of("other")
OTHER_ID = server_id_of(OTHER.public_key)
APPROVED = Released(outcome=Outcome.GOOD, version="1.2.0", is_known=True)
STRICT = TrustRules(newcomers=Tier.CERTIFIED)


async def two(folder, rules: TrustRules) -> OneServer:
    """Return the founder of a mesh of two: it is the only witness."""
    one = await OneServer.start(folder, trust=rules)
    candidate = Candidate(
        key=OTHER.public_key,
        wireguard_key=hashlib.sha256(b"other").digest(),
        tls_key_hash=bytes(32),
        region="eu-west",
    )
    _, change = await one.root_keys.prepare_admission(candidate)
    await one.ledger.submit([change])
    await one.ledger.name_roster()
    return one


@pytest.fixture
async def server(tmp_path):
    one = await two(tmp_path / "data", STRICT)
    yield one
    await one.stop()


async def looks(server: OneServer, count: int) -> int:
    """Look so often; return the other's tier then."""
    for _ in range(count):
        await server.trust.look()
    return server.trust.tier(OTHER_ID).value


async def test_a_server_earns_tier_1_loses_it_and_earns_it_again(server) -> None:
    assert await looks(server, 5) == 2
    server.seen.uptimes[OTHER_ID] = (1000, 99)
    assert await looks(server, 5) == 2
    server.seen.uptimes[OTHER_ID] = (990, 100)
    assert await looks(server, 1) == 1
    server.seen.uptimes[OTHER_ID] = (899, 128)
    assert await looks(server, 2) == 1
    assert server.trust.describe(OTHER_ID)["warning"]
    assert await looks(server, 1) == 2
    server.seen.uptimes[OTHER_ID] = (910, 128)
    assert await looks(server, 2) == 2
    assert await looks(server, 1) == 1


async def test_a_verdict_is_written_when_it_changes_and_not_before(server) -> None:
    server.seen.uptimes[OTHER_ID] = (990, 100)
    await looks(server, 1)
    (head,) = server.ledger.feeds().values()
    await looks(server, 5)
    server.seen.uptimes[OTHER_ID] = (800, 100)
    await looks(server, 2)
    assert server.ledger.feeds()[server.ledger.server_id].size == head.size


async def test_the_founder_is_tier_1_from_the_first_record_on(server) -> None:
    own = server.ledger.server_id
    assert server.trust.tier(own) is Tier.ATTESTED
    (said,) = server.trust.describe(own)["verdicts"].values()
    assert said["reasons"] == ["founder"]


async def test_gos_27_a_lost_attestation_demotes(tmp_path) -> None:
    rules = TrustRules(attestation=("tpm2",), newcomers=Tier.CERTIFIED)
    server = await two(tmp_path / "data", rules)
    server.seen.uptimes[OTHER_ID] = (1000, 128)
    assert await looks(server, 4) == 2
    server.seen.quotes[OTHER_ID] = Attested(outcome=Outcome.GOOD, platform="tpm2")
    assert await looks(server, 4) == 2
    told = {one["check"]: one["code"] for one in server.trust.describe(OTHER_ID)["checks"]}
    assert told == {
        "certificate": "certified",
        "attestation": "attested",
        "release": "release_not_told",
        "uptime": "up",
    }
    server.seen.releases[OTHER_ID] = APPROVED
    assert await looks(server, 1) == 1
    server.seen.quotes[OTHER_ID] = Attested(outcome=Outcome.LOST, code="quote_registers")
    assert await looks(server, 1) == 2
    said = server.trust.describe(OTHER_ID)["verdicts"][server.ledger.server_id]
    assert said["reasons"] == ["quote_registers"]
    await server.stop()


async def test_revocation_needs_no_look(server) -> None:
    server.seen.uptimes[OTHER_ID] = (1000, 128)
    assert await looks(server, 1) == 1
    await server.root_keys.revoke(OTHER_ID)
    assert server.trust.tier(OTHER_ID) is Tier.UNTRUSTED
    assert await looks(server, 3) == 0


async def test_trust_peer_says_the_tier_and_each_reason(server) -> None:
    server.seen.uptimes[OTHER_ID] = (1000, 128)
    await looks(server, 1)
    server.seen.uptimes[OTHER_ID] = (850, 128)
    await looks(server, 1)
    (server.folder / "run").mkdir()
    runner = web.AppRunner(server.app("operator"))
    await runner.setup()
    await web.UnixSite(runner, str(server.folder / "run/seipd.sock")).start()

    async def run(*arguments: str) -> str:
        words = (f"--data-root={server.folder}", "trust", *arguments)
        done = await asyncio.to_thread(run_program, "seipd", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = json.loads(await run("peer", OTHER_ID, "--json"))
    assert (told["tier"], told["warning"]) == (1, True)
    (low,) = [one for one in told["checks"] if one["outcome"] != "good"]
    assert (low["check"], low["code"]) == ("uptime", "low_uptime")
    assert "85.0 % of 128 checks" in low["what"]
    said = told["verdicts"][server.ledger.server_id]
    assert (said["tier"], said["counts"], said["evidence"]["checks"]) == (1, True, 128)
    assert "85.0 % of 128 checks" in await run("peer", OTHER_ID)
    listed = json.loads(await run("status", "--json"))
    assert listed["rules"] == {
        "attestation": [],
        "checks": 100,
        "newcomers": 2,
        "over_uptime_permille": 900,
    }
    assert [one["tier"] for one in listed["servers"]] == [1, 1]
    await runner.cleanup()


def test_init_says_what_tier_1_takes() -> None:
    assert trust_of((), 100, "tier2") == STRICT
    assert trust_of(("tpm2", "tdx", "tpm2"), 128, "tier2").attestation == ("tpm2", "tdx")
    assert trust_of(("none",), 5, "tier1") == TrustRules(checks=5)
    for wrong in ((("none", "tpm2"), 100, "tier2"), (("tpm2",), 100, "tier1")):
        with pytest.raises(ConfigError):
            trust_of(*wrong)


@pytest.mark.parametrize(
    "said", [{}, {"attestation": [], "checks": 0, "newcomers": 1}, {**STRICT.value(), "x": 1}]
)
def test_a_genesis_that_says_nonsense_of_tiers_founds_no_mesh(said) -> None:
    with pytest.raises(InputError):
        genesis_from_record(World(1, trust=said).genesis)
