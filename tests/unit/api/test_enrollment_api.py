"""A server asks to be let into a mesh whose servers vote on that."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import TYPE_CHECKING

import pytest
from aiohttp.test_utils import TestClient, TestServer

from services.authority.enroll import view as enroll_view
from services.authority.enroll.service import Wanted
from services.authority.governance import parameters
from services.authority.governance.service import Wish
from services.authority.rootkeys.service import ROOT_KEY_ID
from services.base.crypto.agreement import generate_x25519
from services.base.crypto.signatures import SigningKey, generate_signing_key
from services.base.ledger.author import Author
from services.kernel.ids import b64u_encode, server_id_of
from services.kernel.invitations import decode_token
from tests.fakes.neighbour import hand_over

if TYPE_CHECKING:
    from tests.fakes.one_server import OneServer


class Newcomer:
    """A machine with a token for a server; each ``ask`` is another run of ``seipd join``."""

    def __init__(self, one: OneServer, token: str) -> None:
        self.one = one
        self.key = generate_signing_key()
        self.server_id = server_id_of(self.key.public_key)
        self.wireguard = b64u_encode(generate_x25519()[1])
        self._invitation = decode_token(token)
        self.invite_id = self._invitation.invite_id
        self.ask = self.redeem()

    def redeem(self) -> dict:
        invitation = self._invitation
        signed = enroll_view.redeem_input(
            invitation.mesh_id, invitation.invite_id, self.key.public_key
        )
        body = {
            "invite": invitation.invite_id,
            "signature": b64u_encode(SigningKey(invitation.seed).sign(signed)),
            "role": "server",
        }
        author = Author(key=self.key, mesh_id=invitation.mesh_id, clock=self.one.clock)
        return author.record("auth.redeem", body).value()

    async def join(self, client, **changes) -> tuple[int, dict]:
        body = {
            "key": b64u_encode(self.key.public_key),
            "wireguard_key": self.wireguard,
            "tls_key_hash": b64u_encode(bytes(32)),
            "region": "eu-central",
            "record": self.ask,
            **changes,
        }
        answer = await client.post("/api/servers/join", data=json.dumps(body))
        return answer.status, await answer.json()


@pytest.fixture
async def server(server, monkeypatch):
    """A mesh whose servers vote on who is let in."""
    proposal = await server.governance.propose(
        Wish(parameter=parameters.ENROLLMENT, new_value="quorum", expires_s=60)
    )
    await server.governance.vote(proposal["id"], approve=True)
    # A minute is what a test says it is, however slow the machine.
    now_ms = server.clock.now_ms()
    monkeypatch.setattr(server.clock, "now_ms", lambda: now_ms + server.clock.shift_ms)
    return server


@pytest.fixture
async def newcomer(one):
    issued = await one.enroll.invite(Wanted(role="server"), addresses=("127.0.0.1:9100",))
    return Newcomer(one, issued.token)


async def votes(one, other, newcomer, *, approve: bool) -> None:
    await hand_over(one.ledger, other.ledger)
    await other.ballots().vote(newcomer.server_id, approve=approve)
    await hand_over(other.ledger, one.ledger)


async def test_it_is_let_in_once_enough_servers_approved(one, others, public, newcomer) -> None:
    status, said = await newcomer.join(public)
    assert (status, said["code"]) == (503, "enrollment_pending")
    assert f"seipd server enroll approve {newcomer.server_id}" in said["mend"]
    assert newcomer.server_id not in one.ledger.charter.servers()
    await one.ballots.vote(newcomer.server_id, approve=True)
    assert (await newcomer.join(public))[0] == 503
    await votes(one, others[0], newcomer, approve=True)
    status, said = await newcomer.join(public)
    assert status == 201
    assert newcomer.server_id in one.ledger.charter.servers()
    assert one.ledger.state.get("redeemed", newcomer.server_id) is not None


async def test_a_request_that_waits_is_answered_as_soon_as_the_vote_is_there(
    one, others, newcomer
) -> None:
    one.ballots._hold_s = 10.0
    async with TestClient(TestServer(one.app("public"))) as client:
        assert (await newcomer.join(client))[1]["code"] == "enrollment_pending"
        asked = asyncio.ensure_future(newcomer.join(client))
        for other in others:
            await votes(one, other, newcomer, approve=True)
        assert (await asked)[0] == 201


async def test_a_minute_without_enough_votes_is_a_try_and_three_are_all(
    one, others, public, newcomer
) -> None:
    for left in (2, 1):
        assert (await newcomer.join(public))[1]["code"] == "enrollment_pending"
        one.clock.shift_ms += 61_000
        status, said = await newcomer.join(public)
        assert (status, said["code"]) == (503, "enrollment_timeout")
        assert f"{left} more tries" in said["mend"]
        newcomer.ask = newcomer.redeem()
    assert (await newcomer.join(public))[1]["code"] == "enrollment_pending"
    one.clock.shift_ms += 61_000
    for ask in (newcomer.ask, newcomer.redeem()):
        newcomer.ask = ask
        status, said = await newcomer.join(public)
        assert (status, said["code"]) == (403, "enrollment_refused")
    assert newcomer.server_id not in one.ledger.charter.servers()
    assert one.ballots.ballot(newcomer.server_id)["state"] == "refused"


async def test_it_is_told_that_it_was_denied(one, others, public, newcomer) -> None:
    await newcomer.join(public)
    for other in others:
        await votes(one, other, newcomer, approve=False)
    status, said = await newcomer.join(public)
    assert (status, said["code"]) == (403, "enrollment_denied")


async def test_the_votes_are_for_the_keys_that_were_shown(one, others, public, newcomer) -> None:
    await newcomer.join(public)
    for other in others:
        await votes(one, other, newcomer, approve=True)
    other_key = b64u_encode(generate_x25519()[1])
    status, said = await newcomer.join(public, wireguard_key=other_key)
    assert (status, said["code"]) == (409, "key_in_use")
    assert (await newcomer.join(public))[0] == 201


async def test_nobody_opens_a_ballot_in_another_s_name(one, others, public, newcomer) -> None:
    forged = {**newcomer.ask, "id": "0" * 32}
    status, said = await newcomer.join(public, record=forged)
    assert (status, said["code"]) == (403, "bad_signature")
    status, said = await newcomer.join(public, key=b64u_encode(generate_signing_key().public_key))
    assert status in (400, 401)
    assert list(one.ledger.state.scan("ballot")) == []


async def test_nobody_is_asked_about_a_revoked_server_and_its_token_is_good_for_another(
    one, others, public, newcomer
) -> None:
    gone = others[1]
    await one.root_keys.revoke(gone.server_id)
    newcomer.key, newcomer.server_id = gone.key, gone.server_id
    newcomer.ask = newcomer.redeem()
    status, said = await newcomer.join(public)
    assert (status, said["code"]) == (403, "revoked")
    assert list(one.ledger.state.scan("ballot")) == []
    assert one.ledger.state.get("redeemed", gone.server_id) != newcomer.invite_id
    assert one.ledger.state.get("invite", newcomer.invite_id)["left"] == 1


async def test_nobody_is_asked_where_the_signer_has_not_the_root_key_in_force(
    one, others, public, newcomer
) -> None:
    kept = one.signer.keys.pop(ROOT_KEY_ID)
    status, said = await newcomer.join(public)
    assert (status, said["code"]) == (404, "no_root_key")
    assert list(one.ledger.state.scan("ballot")) == []
    one.signer.keys[ROOT_KEY_ID] = kept
    assert (await newcomer.join(public))[1]["code"] == "enrollment_pending"


async def test_where_the_policy_is_open_nobody_votes(one, public, newcomer) -> None:
    proposal = await one.governance.propose(
        Wish(parameter=parameters.ENROLLMENT, new_value="open", expires_s=60)
    )
    await one.governance.vote(proposal["id"], approve=True)
    assert (await newcomer.join(public))[0] == 201
    assert list(one.ledger.state.scan("ballot")) == []


async def test_the_command_line(one, others, public, newcomer, seipd) -> None:
    server_command = functools.partial(seipd, "server")
    await newcomer.join(public)
    rows = json.loads((await server_command("ls", "--json")).stdout)
    row = next(row for row in rows if row["server_id"] == newcomer.server_id)
    assert (row["state"], row["ballot"]["state"], row["ballot"]["needed"]) == (
        "newcomer",
        "open",
        2,
    )
    done = await server_command("enroll", "approve", newcomer.server_id)
    assert (done.returncode, done.stderr) == (0, "")
    again = await server_command("enroll", "deny", newcomer.server_id)
    assert again.returncode == 6
    unknown = await server_command("enroll", "approve", "server-0000000000000000")
    assert unknown.returncode == 5
    shown = json.loads((await server_command("enroll", "--json")).stdout)
    assert (shown["policy"], shown["ballots"][0]["approvals"]) == ("quorum", 1)
    assert newcomer.server_id in (await server_command("enroll")).stdout
    assert "ballot on" in (await server_command("ls")).stdout
    await votes(one, others[0], newcomer, approve=True)
    assert (await newcomer.join(public))[0] == 201
    rows = json.loads((await server_command("ls", "--json")).stdout)
    assert [row["ballot"]["state"] for row in rows if row["ballot"]] == ["approved"]
