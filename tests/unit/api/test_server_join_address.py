"""A server that joins says where it is; what nobody could use is refused before it is admitted."""

from __future__ import annotations

import json

import msgspec
import pytest

from services.authority.enroll import view as enroll_view
from services.authority.enroll.service import Wanted
from services.base.crypto.agreement import generate_x25519
from services.base.crypto.signatures import SigningKey, generate_signing_key
from services.base.ledger.author import Author
from services.kernel.ids import b64u_encode
from services.kernel.invitations import decode_token
from services.mesh.facts import envelope
from services.mesh.facts.kinds import ADDRESS
from services.mesh.facts.payloads import is_loopback
from tests.fakes.one_server import OneServer

OWN = "198.51.100.1"


class Newcomer:
    """A machine with a token for a server."""

    def __init__(self, server: OneServer, token: str) -> None:
        self.server = server
        self.key = generate_signing_key()
        self._invitation = decode_token(token)

    def fact(self, *payload, key: SigningKey | None = None, mesh_id: str | None = None) -> str:
        """Sign an address fact without asking whether it makes sense."""
        signer = key or self.key
        now_ms = self.server.clock.now_ms()
        said = msgspec.msgpack.encode(list(payload))
        body = msgspec.msgpack.encode(
            [ADDRESS, signer.public_key, now_ms, now_ms, now_ms + 3_600_000, said]
        )
        mesh = bytes.fromhex(mesh_id or self.server.ledger.mesh_id)
        return b64u_encode(signer.sign(envelope._PURPOSE + mesh + body) + body)

    def body(self, fact: str) -> str:
        invitation = self._invitation
        signed = enroll_view.redeem_input(
            invitation.mesh_id, invitation.invite_id, self.key.public_key
        )
        redeem = {
            "invite": invitation.invite_id,
            "signature": b64u_encode(SigningKey(invitation.seed).sign(signed)),
            "role": "server",
        }
        author = Author(key=self.key, mesh_id=invitation.mesh_id, clock=self.server.clock)
        return json.dumps(
            {
                "key": b64u_encode(self.key.public_key),
                "wireguard_key": b64u_encode(generate_x25519()[1]),
                "tls_key_hash": b64u_encode(bytes(32)),
                "region": "eu-central",
                "record": author.record("auth.redeem", redeem).value(),
                "address_fact": fact,
            }
        )


@pytest.fixture
async def server(tmp_path):
    one = await OneServer.start(tmp_path)
    one.services.mesh.addresses = lambda: (f"{OWN}:9100",)
    yield one
    await one.stop()


@pytest.fixture
async def newcomer(server):
    issued = await server.enroll.invite(Wanted(role="server"), addresses=(f"{OWN}:9100",))
    return Newcomer(server, issued.token)


async def join(public, newcomer, fact):
    answer = await public.post("/api/servers/join", data=newcomer.body(fact))
    return answer.status, json.loads(await answer.read())


def good(host="198.51.100.2", gossip=9102, http=9100, wireguard=51940, region="eu-central"):
    return host, gossip, http, wireguard, region


@pytest.mark.parametrize(
    "payload",
    [
        good(host="127.0.0.1"),
        good(host="127.1.2.3"),
        good(host="::1"),
        good(host="64:ff9b::7f00:1"),
        good(host="2002:7f00:1::"),
        good(host="::7f00:1"),
        good(host="0.0.0.0"),  # noqa: S104 (an address that nobody has)
        good(host="0.0.0.1"),
        good(host="::"),
        good(host="224.0.0.1"),
        good(host="ff02::1"),
        good(host="255.255.255.255"),
        good(host="240.0.0.1"),
        good(host=OWN),
        good(host="10.64.0.1"),
        good(host="172.16.0.5"),
        good(host="::ffff:172.16.0.5"),
        good(host="169.254.1.1"),
        good(host="fe80::1"),
        good(host="localhost"),
        good(host="evil.example"),
        good(host="127.1"),
        good(host="2130706433"),
        good(host="0x7f.1"),
        good(host="①②⑦.0.0.1"),
        good(host="fe80::1%eth0"),
        good(host="fd00::1%\nHost: x"),
        good(host=""),
        good(gossip=0),
        good(gossip=65536),
        good(http=0),
        good(wireguard=65536),
        good(wireguard=-1),
    ],
    ids=repr,
)
async def test_pub_20_an_address_that_nobody_can_use_is_refused(
    server, public, newcomer, payload
) -> None:
    before = server.ledger.state.root()
    status, said = await join(public, newcomer, newcomer.fact(*payload))
    assert (status, said["code"]) == (400, "bad_endpoint")
    assert server.ledger.state.root() == before
    assert server.services.mesh.facts == []
    # The token is not used up by it.
    status, _ = await join(public, newcomer, newcomer.fact(*good()))
    assert status == 201
    assert len(server.services.mesh.facts) == 1


async def test_pub_20_nor_is_a_fact_of_another_or_of_another_mesh_taken(
    server, public, newcomer
) -> None:
    for fact in (
        newcomer.fact(*good(), key=server.identity.signing_key),
        newcomer.fact(*good(), mesh_id="00" * 32),
        b64u_encode(bytes(100)),
        b64u_encode(bytes(900)),
        "",
    ):
        status, said = await join(public, newcomer, fact)
        assert (status, said["code"]) == (400, "bad_endpoint")
    assert server.services.mesh.facts == []
    assert newcomer.key.public_key not in {
        one.key for one in server.ledger.charter.servers().values()
    }


async def test_servers_on_one_machine_find_each_other(server, public, newcomer) -> None:
    server.services.mesh.addresses = lambda: ("127.0.0.1:9100",)
    status, _ = await join(public, newcomer, newcomer.fact(*good(host="127.0.0.1", http=9200)))
    assert status == 201


@pytest.mark.parametrize(
    ("host", "loops"),
    [
        ("127.0.0.1", True),
        ("126.255.255.255", False),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("64:ff9b::c000:201", False),
        ("2002:c000:201::", False),
        ("fd00::7f00:1", False),
    ],
)
def test_what_leads_back_to_one_s_own_machine(host, loops) -> None:
    assert is_loopback(host) is loops
