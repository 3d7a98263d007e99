"""An operator asks whom to trust, and takes the proof away to judge it elsewhere."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from types import SimpleNamespace

import pytest

from seipd.config.model import Settings
from seipd.daemon.mesh_info import DaemonInfo
from services.authority.rootkeys.service import Candidate
from services.base.ledger.equivocation import EQUIVOCATION_KIND, find
from services.kernel.errors import RejectedError
from services.kernel.ids import b64u_encode, server_id_of
from services.kernel.service import Health, HealthState
from services.mesh.facts.statewords import WordKeeper
from tests.fakes.one_server import OneServer
from tests.fakes.programs import run_program
from tests.fakes.world import key_of
from tests.unit.base_ledger_log.fork_kit import forked

LIAR = key_of("liar")
LIAR_ID = server_id_of(LIAR.public_key)


@pytest.fixture
async def server(tmp_path):
    one = await OneServer.start(tmp_path / "data")
    candidate = Candidate(
        key=LIAR.public_key,
        wireguard_key=hashlib.sha256(b"liar").digest(),
        tls_key_hash=bytes(32),
        region="eu-west",
    )
    _, change = await one.root_keys.prepare_admission(candidate)
    await one.ledger.submit([change])
    await one.ledger.name_roster()
    yield one
    await one.stop()


def proof_against(server: OneServer) -> dict:
    certificate = server.ledger.charter.server(LIAR_ID)
    mesh_id = server.ledger.mesh_id
    held, foreign = forked(5, 3, 7, key=LIAR, mesh_id=mesh_id, epoch=certificate.epoch)
    proof = find(mesh_id=mesh_id, certificate=certificate, held=foreign, foreign=held.signed())
    return proof.value()


async def lie(server: OneServer) -> str:
    record = server.author.record(EQUIVOCATION_KIND, proof_against(server))
    await server.ledger.submit([record])
    return record.id


async def test_nothing_proved_is_trusted(server, operator) -> None:
    answer = await operator.get("/api/trust/status")
    trusted = {
        "server_id": LIAR_ID,
        "state": "trusted",
        "tier": 1,
        "reason": None,
        "epoch": None,
        "size": None,
        "record": None,
    }
    own = {**trusted, "server_id": server.ledger.server_id}
    told = sorted((await answer.json())["servers"], key=lambda one: one["server_id"] != LIAR_ID)
    assert told == [trusted, own]
    answer = await operator.get(f"/api/trust/peer/{LIAR_ID}")
    told = await answer.json()
    assert {name: told[name] for name in trusted} == trusted
    assert (told["proof"], told["checks"], told["verdicts"]) == (None, [], {})


async def test_led_05_a_proved_lie_shows_with_its_record_and_proof(server, operator) -> None:
    record_id = await lie(server)
    listed = (await (await operator.get("/api/trust/status")).json())["servers"]
    (told,) = [one for one in listed if one["server_id"] == LIAR_ID]
    assert told == {
        "server_id": LIAR_ID,
        "state": "untrusted",
        "tier": 0,
        "reason": "equivocation",
        "epoch": 1,
        "size": 8,
        "record": record_id,
    }
    for name in (LIAR_ID, b64u_encode(LIAR.public_key)):
        told = await (await operator.get(f"/api/trust/peer/{name}")).json()
        assert (told["state"], told["recorded_by"]) == ("untrusted", server.ledger.server_id)
        assert told["proof"] == proof_against(server)
        assert (told["tier"], told["may"]) == (0, ["read what is public"])


async def test_led_05_a_second_proof_is_a_conflict(server, operator) -> None:
    await lie(server)
    with pytest.raises(RejectedError) as caught:
        await lie(server)
    assert caught.value.code == "already_untrusted"
    record = server.author.record(EQUIVOCATION_KIND, proof_against(server)).value()
    answer = await operator.post("/ledger/feed/append", data=json.dumps({"record": record}))
    assert (answer.status, (await answer.json())["code"]) == (409, "already_untrusted")


async def test_led_05_what_proves_nothing_is_refused_with_422(server, operator) -> None:
    body = {**proof_against(server), "hashes": []}
    record = server.author.record(EQUIVOCATION_KIND, body).value()
    answer = await operator.post("/ledger/feed/append", data=json.dumps({"record": record}))
    assert (answer.status, (await answer.json())["code"]) == (422, "proof_invalid")


async def test_led_05_whoever_watches_the_servers_sees_it(server, operator) -> None:
    class SilentGossip:
        peers = staticmethod(list)
        addresses = staticmethod(dict)
        facts = staticmethod(lambda _: {})

    info = DaemonInfo(
        settings=Settings(data_root=server.folder),
        public_address="127.0.0.1",
        version="test",
        ledger=server.ledger,
        gossip=SilentGossip(),
        wireguard=None,
        names=SimpleNamespace(slots=dict),
        trust=server.trust,
        release_of=lambda _: None,
        words=WordKeeper(lambda: None),
        through=dict,
        clock=server.clock,
    )
    for state, count in (("alive", "0.0"), ("untrusted", "1.0")):
        (told,) = [one["state"] for one in info.servers() if one["server_id"] == LIAR_ID]
        assert told == state
        metrics = await (await operator.get("/metrics")).text()
        assert f"seipd_servers_untrusted {count}\n" in metrics
        if state == "alive":
            await lie(server)


@pytest.mark.parametrize(
    ("name", "status"),
    [("server-0000000000000000", 404), ("server-x", 400), ("A" * 43, 404), ("root", 400)],
)
async def test_a_peer_that_is_none(operator, name, status) -> None:
    assert (await operator.get(f"/api/trust/peer/{name}")).status == status


async def test_the_command_line_while_all_is_well(server, seipd, tmp_path) -> None:
    done = await seipd("trust", "status")
    assert done.returncode == 0
    assert f"{server.ledger.server_id}  trusted" in done.stdout
    done = await seipd("trust", "peer", server.ledger.server_id)
    assert done.returncode == 0
    assert "trusted" in done.stdout
    out = tmp_path / "proof.json"
    done = await seipd("trust", "peer", server.ledger.server_id, "--proof", out)
    assert done.returncode == 5
    assert done.stderr.startswith("error: nothing is proved against")
    assert not out.exists()
    assert (await seipd("trust", "peer", "server-0000000000000000")).returncode == 5
    assert (await seipd("trust", "peer", "../status")).returncode == 2


async def test_led_05_the_proof_leaves_the_mesh_and_holds_outside(server, seipd, tmp_path) -> None:
    record_id = await lie(server)
    done = await seipd("trust", "status", "--json")
    assert done.returncode == 1
    listed = json.loads(done.stdout)["servers"]
    assert [one["record"] for one in listed if one["server_id"] == LIAR_ID] == [record_id]
    done = await seipd("trust", "peer", LIAR_ID)
    assert done.returncode == 1
    assert "equivocation" in done.stdout
    out = tmp_path / "proof.json"
    assert (await seipd("trust", "peer", LIAR_ID, "--proof", out)).returncode == 0
    words = ("equivocation", out, "--json")
    judged = await asyncio.to_thread(run_program, "seipd.cli.verify", *words)
    assert judged.returncode == 0
    assert json.loads(judged.stdout)["server_id"] == LIAR_ID


@pytest.fixture
def alarmed(server):
    """Have the server notice that others tell another state than it does."""
    health = Health(state=HealthState.DEGRADED, detail="00 say server-a; 11 say server-b")
    alarm = SimpleNamespace(name="alarm", health=lambda: health)
    server.services = dataclasses.replace(server.services, all_services=(alarm,))


async def test_gos_18_trust_status_says_who_tells_which_state(server, alarmed, seipd) -> None:
    told = await seipd("trust", "status")
    assert told.returncode == 1
    assert "alarm: 00 say server-a; 11 say server-b" in told.stdout
    told = await seipd("trust", "status", "--json")
    assert json.loads(told.stdout)["alarm"] == "00 say server-a; 11 say server-b"
