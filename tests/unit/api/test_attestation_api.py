"""Servers have each other's hardware vouch over HTTPS; an operator enrols it, and reads why not."""

from __future__ import annotations

import json
import stat

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from seipd.api.tls import issue_leaf, server_context
from seipd.daemon.fetcher import HttpTileFetcher
from seipd.daemon.refused_quotes import RefusedQuotes
from services.base.attestation.errors import Refusal, refused
from services.base.attestation.judging import HardwarePolicy, judge
from services.base.attestation.messages import (
    Challenge,
    decode_answer,
    encode_challenge,
)
from services.base.attestation.tpm_structures import name_of
from services.base.attestation.verified import Platform
from services.base.crypto.signatures import generate_signing_key
from services.kernel.errors import SeipdError
from services.kernel.ids import server_id_of
from services.mesh.bulk.ports import Place
from services.runtime.clock import SystemClock
from tests.fakes.neighbour import Neighbour, hand_over
from tests.fakes.one_server import OneServer
from tests.fakes.signing_tpm import SigningTpm, sized

CHALLENGE = "/api/attestation/challenge"
NONCE = bytes(range(32))


class TpmQuoter:
    platform = Platform.TPM2

    def __init__(self) -> None:
        self.tpm = SigningTpm()

    async def quote(self, bound: bytes):
        return self.tpm.quote(bound)


@pytest.fixture
async def server(tmp_path):
    one = await OneServer.start(tmp_path / "data", quoter=TpmQuoter())
    yield one
    await one.stop()


@pytest.fixture
async def other(server, tmp_path):
    found = await Neighbour.join(server, tmp_path / "other")
    await hand_over(server.ledger, found.ledger)
    await hand_over(found.ledger, server.ledger)
    yield found
    await found.stop()


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
async def operator(server):
    async with TestClient(TestServer(server.app("operator"))) as client:
        yield client


def challenge_for(server: OneServer) -> Challenge:
    return Challenge(nonce=NONCE, server_key=server.identity.signing_key.public_key)


def fetcher_of(ledger, key) -> HttpTileFetcher:
    return HttpTileFetcher(ledger=ledger, key=key, clock=SystemClock())


async def test_a_server_of_the_mesh_gets_a_quote_that_is_good_for_its_challenge(
    server, other, place
) -> None:
    challenge = challenge_for(server)
    fetcher = fetcher_of(other.ledger, other.key)
    answer = decode_answer(await fetcher.attest(place, CHALLENGE, encode_challenge(challenge)))
    policy = HardwarePolicy(
        anchors={Platform.TPM2: ()}, enrolled_aks={name_of(server.quoter.tpm.public)}
    )
    quote = judge(answer, challenge, policy=policy, now_ms=server.clock.now_ms())
    assert quote.registers["pcr7"] == "00" * 32
    for_another = Challenge(nonce=NONCE, server_key=other.key.public_key)
    with pytest.raises(SeipdError) as caught:
        await fetcher.attest(place, CHALLENGE, encode_challenge(for_another))
    assert caught.value.code == "quote_other_key"


async def test_att_01_a_stranger_can_t_make_the_device_quote(server, place) -> None:
    stranger = fetcher_of(server.ledger, generate_signing_key())
    with pytest.raises(SeipdError):
        await stranger.attest(place, CHALLENGE, encode_challenge(challenge_for(server)))
    async with TestClient(TestServer(server.app("public"))) as client:
        body = encode_challenge(challenge_for(server))
        answer = await client.post("/api/attestation/challenge", data=body)
        assert (answer.status, (await answer.json())["code"]) == (401, "unauthenticated")


async def test_a_server_without_hardware_or_with_another_question_says_so(
    server, other, place
) -> None:
    fetcher = fetcher_of(other.ledger, other.key)
    with pytest.raises(SeipdError) as caught:
        await fetcher.attest(place, CHALLENGE, b'{"nonce":"AA","server_key":"AA"}')
    assert caught.value.code == "quote_malformed"
    server.attestation._quoter = None
    with pytest.raises(SeipdError) as caught:
        await fetcher.attest(place, CHALLENGE, encode_challenge(challenge_for(server)))
    assert caught.value.code == "attestation_unavailable"


async def test_an_operator_enrols_the_hardware_of_a_server_by_its_file(
    server, seipd, tmp_path
) -> None:
    own = server.ledger.server_id
    told = await seipd("--json", "attestation", "key")
    device = json.loads(told.stdout)
    ak = name_of(server.quoter.tpm.public).hex()
    assert (device["server"], device["hardware"]) == (own, ak)
    assert device["registers"] == {"pcr0": ["00" * 32], "pcr7": ["00" * 32]}
    (tmp_path / "device.json").write_text(told.stdout)

    done = await seipd("attestation", "enroll", own, tmp_path / "device.json", "--pcr", "7")
    assert done.returncode == 0, done.stderr
    shown = json.loads((await seipd("--json", "attestation", "show", own)).stdout)
    (entry,) = shown[0]["entries"]
    assert entry["registers"] == {"pcr7": ["00" * 32]}
    assert (entry["hardware"], entry["in_force"], entry["held_by"]) == (ak, True, [own])
    assert ak in (await seipd("attestation", "show")).stdout

    again = await seipd("attestation", "approve", own, entry["id"][:8])
    assert (again.returncode, again.stderr) == (6, f"error: {own} said so\n")
    (tmp_path / "ak.pub").write_bytes(sized(server.quoter.tpm.public))
    values = ("--pcr", f"7={'AB' * 32}", "--pcr", f"7={'cd' * 32}")
    done = await seipd("attestation", "enroll", own, tmp_path / "ak.pub", *values)
    assert done.returncode == 0, done.stderr
    policy = server.enrolments.policy_of(server.identity.signing_key.public_key)
    assert policy.registers[Platform.TPM2] == {"pcr7": {"ab" * 32, "cd" * 32}}

    done = await seipd("attestation", "withdraw", own)
    assert done.returncode == 0, done.stderr
    assert "withdrawn" in done.stdout
    assert server.enrolments.policy_of(server.identity.signing_key.public_key) is None
    again = await seipd("attestation", "withdraw", own)
    assert (again.returncode, again.stderr) == (6, f"error: nothing is enrolled for {own}\n")
    assert (await seipd("attestation", "withdraw", "server-" + "0" * 16)).returncode == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("device.json", "--pcr", "9"), "the file has no pcr9"),
        (("device.json", "--pcr", "7=11"), "64 or 96 hex digits"),
        (("device.json", "--register", "PCR=" + "11" * 32), "lower case"),
        (("other.json",), "not of"),
        (("nothing.json",), "can't be read"),
        (("garbage",), "no attestation key"),
        (("half.json",), "half.json: not JSON"),
        (("number.json", "--pcr", "7"), "the file has no pcr7"),
    ],
)
async def test_what_can_t_be_enrolled_is_refused_with_a_word(
    server, seipd, tmp_path, words, said
) -> None:
    device = json.loads((await seipd("--json", "attestation", "key")).stdout)
    (tmp_path / "device.json").write_text(json.dumps(device))
    (tmp_path / "other.json").write_text(json.dumps({**device, "server": "server-" + "0" * 16}))
    (tmp_path / "garbage").write_bytes(b"\0\x23\0\x0b\0\0\0\0")
    (tmp_path / "half.json").write_text('{"platform": ')
    (tmp_path / "number.json").write_text(json.dumps({**device, "registers": {"pcr7": 5}}))
    file, *rest = words
    own = server.ledger.server_id
    done = await seipd("attestation", "enroll", own, tmp_path / file, *rest)
    assert done.returncode != 0
    assert said in done.stderr, done.stderr
    assert server.enrolments.policy_of(server.identity.signing_key.public_key) is None


async def test_what_was_refused_is_listed_with_its_code(server, operator, seipd) -> None:
    key = generate_signing_key().public_key
    for why in Refusal:
        await server.refused_quotes.refused(key, refused(why, "for a reason"))
    answer = await operator.get("/api/attestation/refused?limit=1000")
    told = (await answer.json())["refused"]
    assert [one["code"] for one in told] == [why.value for why in Refusal]
    assert {one["server_id"] for one in told} == {server_id_of(key)}
    assert (await operator.get("/api/attestation/refused?limit=0")).status == 400
    shown = await seipd("attestation", "refused", "--limit", "2")
    assert "quote_not_enrolled" in shown.stdout
    assert "quote_stale" not in shown.stdout


async def test_the_audit_of_quotes_is_bounded_and_private_and_outlives_a_damaged_line(
    tmp_path,
) -> None:
    folder = tmp_path / "attestation"
    audit = RefusedQuotes(folder=folder, clock=SystemClock(), max_bytes=2_000)
    key = generate_signing_key().public_key
    for number in range(50):
        await audit.refused(key, refused(Refusal.DEBUG, f"the {number}th"))
    kept = [one["what"] for one in await audit.newest(1000)]
    assert kept == [f"the {number}th" for number in range(50 - len(kept), 50)]
    assert 10 <= len(kept) < 50
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 4_000
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    with (folder / "refused.jsonl").open("ab") as file:
        file.write(b'{"at_ms":17')
    await audit.refused(key, refused(Refusal.DEBUG, "after a fall"))
    assert len(await audit.newest(3)) == 3
