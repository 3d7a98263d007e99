"""``seip`` takes a key when enough servers signed for it, whatever its own server says."""

from __future__ import annotations

import copy
import json

import pytest
from aiohttp.test_utils import TestClient, TestServer

from seipd.agent.believed import load_believed
from seipd.agent.proving import Prover, certified_server, check_joined
from seipd.agent.trustlines import BELIEVED, PROVEN, REFUSED, WAITING
from services.base.ledger.rootwalk import shown_chain
from services.kernel.errors import CorruptError
from services.kernel.ids import b64u_encode
from services.mesh.proofs.errors import RefusedError
from services.mesh.proofs.report import ReportBook, open_report, signed_report
from tests.fakes.endpoint import Api, agree, joined
from tests.fakes.one_server import OneServer
from tests.fakes.world import curve_key, key_of


@pytest.fixture
async def server(tmp_path):
    one = await OneServer.start(tmp_path / "server")
    yield one
    await one.stop()


@pytest.fixture
async def endpoint(server, tmp_path):
    state = await joined(server, tmp_path / "e1", "e1")
    await joined(server, tmp_path / "e2", "e2")
    await agree(server)
    return state


@pytest.fixture
async def api(server, endpoint):
    async with Api(server, endpoint) as one:
        yield one


class Lies(dict):
    def __call__(self, subject, verdict) -> None:
        self[subject] = verdict.code


def prover(server, endpoint, *, signers: int = 0) -> tuple[Prover, Lies]:
    lies = Lies()
    one = Prover(
        state=endpoint,
        keys=endpoint.keys(),
        signer_count=signers,
        clock=server.clock,
        on_lie=lies,
    )
    return one, lies


async def listed(api: Api, endpoint) -> list[dict]:
    answer = await api.call("GET", f"/api/mesh/peers/{endpoint.mesh()['node_id']}")
    return answer["peers"]


async def test_everything_an_honest_server_says_is_proven(server, endpoint, api) -> None:
    one, lies = prover(server, endpoint)
    trust = await one.own(api)
    assert (trust["server"]["state"], trust["own"]["state"]) == (PROVEN, PROVEN)
    assert trust["signers"] == [server.ledger.server_id]
    assert trust["needed"] == 1
    (peer,) = await one.peers(api, await listed(api, endpoint))
    assert (peer["name"], peer["trust"], peer["why"]) == ("e2", PROVEN, "")
    assert not lies


async def test_rkc_04_an_older_root_than_was_shown_is_refused_after_a_restart_too(
    server, endpoint, api
) -> None:
    old = shown_chain(server.ledger.charter)
    await server.rotation.rotate()
    await server.rotation.go_on()
    await agree(server)
    first, lies = prover(server, endpoint)
    assert (await first.own(api))["server"]["state"] == PROVEN
    assert load_believed(endpoint).root.generation == 2
    assert not lies

    def older(path, value):
        return {**value, "chain": [one.value() for one in old]}

    api.lie = older
    again, lies = prover(server, endpoint)
    trust = await again.own(api)
    assert (trust["server"]["state"], trust["server"]["code"]) == (REFUSED, "root_old")
    assert lies == {server.ledger.server_id: "root_old"}


async def test_a_peer_that_joined_just_now_waits_and_is_proven_later(
    server, endpoint, api, tmp_path
) -> None:
    one, lies = prover(server, endpoint)
    await joined(server, tmp_path / "e3", "e3")
    peers = {peer["name"]: peer for peer in await one.peers(api, await listed(api, endpoint))}
    assert peers["e2"]["trust"] == PROVEN
    assert peers["e3"]["trust"] == WAITING
    await agree(server)
    peers = {peer["name"]: peer for peer in await one.peers(api, await listed(api, endpoint))}
    assert peers["e3"]["trust"] == PROVEN
    assert not lies


async def test_a_lie_about_a_peers_key_is_refused_and_told(server, endpoint, api) -> None:
    one, lies = prover(server, endpoint)
    peers = await listed(api, endpoint)
    peers[0]["wireguard_key"] = curve_key("mallory")
    (peer,) = await one.peers(api, peers)
    assert peer["trust"] == REFUSED
    assert "another in the state that the servers signed" in peer["why"]
    assert lies == {peer["node_id"]: "key_differs"}


async def test_a_proof_made_up_for_the_lie_is_refused_too(server, endpoint, api) -> None:
    one, lies = prover(server, endpoint)
    peers = await listed(api, endpoint)
    honest = peers[0]["wireguard_key"]
    peers[0]["wireguard_key"] = curve_key("mallory")
    api.lie = lambda path, value: json.loads(
        json.dumps(value).replace(honest, curve_key("mallory"))
    )
    (peer,) = await one.peers(api, peers)
    assert peer["trust"] == REFUSED
    assert lies == {peer["node_id"]: "proof_false"}


async def test_no_proof_and_the_proof_of_another_mesh_add_nobody(
    server, endpoint, api, tmp_path
) -> None:
    one, lies = prover(server, endpoint)
    peers = await listed(api, endpoint)
    api.lie = lambda path, value: {**value, "objects": []}
    assert [peer["trust"] for peer in await one.peers(api, peers)] == [WAITING]
    assert not lies
    other = await OneServer.start(tmp_path / "other")
    stranger = await joined(other, tmp_path / "stranger", "stranger")
    await agree(other)
    async with Api(other, stranger) as foreign:
        body = {"servers": [], "nodes": [stranger.mesh()["node_id"]]}
        shown = await foreign.call("POST", "/api/mesh/proofs", body)
    await other.stop()
    api.lie = lambda path, value: shown
    assert [peer["trust"] for peer in await one.peers(api, peers)] == [REFUSED]
    assert set(lies.values()) == {"roster_false"}


async def test_with_too_few_signers_nobody_is_added_and_who_is_believed_stays(
    server, endpoint, api, tmp_path
) -> None:
    one, _ = prover(server, endpoint)
    peers = await listed(api, endpoint)
    assert [peer["trust"] for peer in await one.peers(api, peers)] == [PROVEN]
    await joined(server, tmp_path / "e3", "e3")
    await agree(server)
    strict, lies = prover(server, endpoint, signers=2)
    peers = await strict.peers(api, await listed(api, endpoint))
    told = {peer["name"]: (peer["trust"], peer["why"]) for peer in peers}
    why = "1 of the 2 servers that have to agree signed the state"
    assert told == {"e2": (BELIEVED, why), "e3": (WAITING, why)}
    trust = await strict.own(api)
    assert (trust["server"]["state"], trust["server"]["why"]) == (BELIEVED, why)
    assert "--signers" in trust["server"]["mend"]
    assert not lies


async def test_words_of_two_minutes_ago_prove_nothing_now(server, endpoint, api) -> None:
    one, lies = prover(server, endpoint)
    server.clock.shift_ms += 120_000
    trust = await one.own(api)
    assert trust["server"]["code"] == "not_of_now"
    assert [peer["trust"] for peer in await one.peers(api, await listed(api, endpoint))] == [
        WAITING
    ]
    assert not lies


async def test_before_the_witnesses_agree_the_server_is_believed_by_its_certificate(
    server, endpoint, api
) -> None:
    server.services.mesh.agreed = None
    one, lies = prover(server, endpoint)

    async def call(method, path, body=None):
        from services.kernel.errors import UnavailableError

        raise UnavailableError("the witnesses agree on no state yet", code="no_agreed_state")

    api.call = call
    trust = await one.own(api)
    assert trust["server"]["state"] == BELIEVED
    assert trust["server"]["code"] == "no_agreed_state"
    assert not lies


async def test_a_server_key_other_than_the_one_signed_is_refused(server, endpoint, api) -> None:
    mesh = endpoint.mesh()
    mesh["server"]["wireguard_key"] = curve_key("mallory")
    endpoint.save_mesh(mesh)
    one, lies = prover(server, endpoint)
    trust = await one.own(api)
    assert trust["server"]["state"] == REFUSED
    assert lies == {server.ledger.server_id: "key_differs"}
    with pytest.raises(RefusedError, match="not those that the root signed"):
        certified_server(mesh)


async def test_prv_12_another_customers_endpoint_is_not_proved_to_a_stranger(
    server, endpoint, api, tmp_path
) -> None:
    root = server.ledger.state.get("mesh", "root_node")
    other = "00000000-0000-4000-8000-00000000000b"
    body = {"node": other, "kind": "customer", "parent": root, "name": "other"}
    await server.ledger.submit([server.author.record("tree.create", body)])
    state = AgentStateOf(await server.token(customer="other"))
    node_id = await state.join(server, tmp_path / "foreign")
    await agree(server)
    own = endpoint.mesh()["node_id"]
    body = {"servers": [server.ledger.server_id], "nodes": [own, node_id]}
    answer = await api.call("POST", "/api/mesh/proofs", body)
    assert [one["key"] for one in answer["objects"]] == [server.ledger.server_id, own]
    assert "foreign" not in json.dumps(answer)


class AgentStateOf:
    def __init__(self, token: str) -> None:
        self._token = token

    async def join(self, server, folder) -> str:
        key = key_of("foreign")
        record = server.join_record(self._token, key, "foreign")
        async with TestClient(TestServer(server.app("public"))) as public:
            answer = await public.post("/api/join", json={"record": record})
            return (await answer.json())["node_id"]


async def test_the_record_of_the_join_is_in_the_log_that_the_server_signs(
    server, endpoint, api
) -> None:
    mesh, keys = endpoint.mesh(), endpoint.keys()
    check_joined(mesh, keys)
    again = await api.call("GET", f"/api/mesh/record/{mesh['node_id']}")
    check_joined({**mesh, "record": again}, keys)
    assert again["server_id"] == server.ledger.server_id


def _texts(value, path=()):
    for key, one in value.items():
        if isinstance(one, dict):
            yield from _texts(one, (*path, key))
        elif isinstance(one, str):
            yield (*path, key)


async def test_a_join_whose_keys_or_record_are_false_is_refused(server, endpoint) -> None:
    mesh, keys = endpoint.mesh(), endpoint.keys()
    shown = {name: mesh[name] for name in ("certificate", "record")}
    for path in _texts(shown):
        for at in range(0, len(_at(shown, path)), 7):
            false = copy.deepcopy(mesh)
            holder = _at(false, path[:-1])
            text = holder[path[-1]]
            holder[path[-1]] = text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :]
            with pytest.raises(RefusedError):
                check_joined(false, keys)
    for name in ("key", "wireguard_key"):
        false = copy.deepcopy(mesh)
        false["server"][name] = b64u_encode(key_of("mallory").public_key)
        with pytest.raises(RefusedError):
            check_joined(false, keys)
    with pytest.raises(CorruptError):
        certified_server({name: one for name, one in mesh.items() if name != "certificate"})


def _at(value, path):
    for step in path:
        value = value[step]
    return value


async def test_a_report_is_counted_and_shown_to_the_operator(server, endpoint) -> None:
    keys, mesh = endpoint.keys(), endpoint.mesh()

    def report(key, **changes):
        said = {"server": server.ledger.server_id, "subject": "e2", "code": "key_differs"}
        return signed_report(
            key,
            server.ledger.mesh_id,
            **{**said, "what": "another key", "now_ms": server.clock.now_ms(), **changes},
        )

    async with TestClient(TestServer(server.app("public"))) as public:
        good = report(keys.identity)
        for value, status in (
            (good, 201),
            (good, 201),
            ({**good, "what": "another"}, 403),
            (report(key_of("stranger")), 404),
            (report(keys.identity, now_ms=1), 400),
            (report(keys.identity, what="a\x1b[2J"), 400),
            (report(server.identity.signing_key), 404),
        ):
            answer = await public.post("/api/mesh/report", json=value)
            assert answer.status == status, await answer.text()
    async with TestClient(TestServer(server.app("operator"))) as operator:
        told = await (await operator.get("/api/trust/status")).json()
        (one,) = told["reports"]
        assert (one["by"], one["times"], one["code"]) == (mesh["node_id"], 2, "key_differs")
        findings = (await (await operator.get("/api/doctor")).json())["findings"]
        assert "showed it something false: another key" in findings[0]["what"]
        metrics = await (await operator.get("/metrics")).text()
    assert "seipd_endpoint_reports_total 2.0" in metrics


def test_the_book_of_reports_is_bounded() -> None:
    book, key, mesh_id = ReportBook(), key_of("e1"), "ab" * 32
    for number in range(200):
        value = signed_report(
            key,
            mesh_id,
            server="server-0123456789abcdef",
            subject=str(number),
            code="c",
            what="w",
            now_ms=1_000_000,
        )
        book.add(open_report(value, mesh_id, now_ms=1_000_000))
    assert book.count == 200
    assert [one["subject"] for one in book.values()] == [str(n) for n in range(199, 135, -1)]
