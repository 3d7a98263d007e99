"""A relay that is no server follows the mesh: the roster by the root alone, and who left."""

from __future__ import annotations

import hashlib
import json
import stat

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from seipd.relayd.following import Follower, gone_in, places_in
from seipd.relayd.home import KnownMesh, RelayHome, Where
from seipd.relayd.roster import MeshRoster
from services.authority.relays.introductions import introduction_from_text
from services.kernel.errors import (
    ConfigError,
    CorruptError,
    UnauthenticatedError,
    UnreachableError,
    WireError,
)
from services.kernel.ids import MeshId, b64u_decode, b64u_encode
from tests.fakes.neighbour import Neighbour
from tests.fakes.one_server import OneServer
from tests.fakes.public_https import public_https
from tests.unit.api.callers_kit import joined

WHERE = Where(host="203.0.113.9", host6="", port=9103, region="eu-west")


class Carrier:
    """A relay that carries for whom a test says."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.gone: list[bytes] = []
        self.rechecks = 0

    def parties(self):
        return self.keys

    def sessions_count(self):
        return 1

    def load_permille(self):
        return 40

    def revoked(self, wireguard_key):
        self.gone.append(wireguard_key)

    def recheck(self):
        self.rechecks += 1


@pytest.fixture
async def server(tmp_path):
    one = await OneServer.start(tmp_path / "server")
    yield one
    await one.stop()


@pytest.fixture
async def address(server):
    async with public_https(server) as place:
        yield place


@pytest.fixture
def relay(server, address, tmp_path):
    return Relay(server, address, tmp_path / "relay")


class Relay:
    """What a stand-alone relay is made of, but for the forwarding."""

    def __init__(self, server, address, folder, *, mesh_id=None, clock=None) -> None:
        self.home = RelayHome(folder)
        self.key = self.home.key()
        self.mesh_id = mesh_id or server.ledger.mesh_id
        self.roster = MeshRoster(self.mesh_id)
        self.carrier = Carrier()
        self.follower = Follower(
            home=self.home,
            mesh=KnownMesh(mesh_id=self.mesh_id, servers=("127.0.0.1:9", address)),
            roster=self.roster,
            key=self.key,
            carrier=self.carrier,
            clock=server.clock,
        )

    def introduction(self, server, where=WHERE) -> str:
        return self.home.introduction(self.key, self.mesh_id, where, server.clock.now_ms())


async def register(server, relay) -> None:
    found = introduction_from_text(relay.introduction(server))
    body = {
        "relay": found.relay_id,
        "owner": server.ledger.state.get("mesh", "root_node"),
        "introduction": msgspec.structs.asdict(found),
    }
    await server.ledger.submit([server.author.record("relay.register", body)])
    server.relays.look()


async def test_it_learns_the_servers_and_that_it_is_not_registered(server, relay) -> None:
    await relay.follower.turn()
    assert relay.roster.is_server(server.identity.public_key)
    assert not relay.roster.is_server(relay.key.public_key)
    assert relay.follower.state == "not_registered"
    assert relay.carrier.rechecks == 1
    await relay.follower.turn()
    assert relay.carrier.rechecks == 1


async def test_registered_it_tells_that_it_lives_and_hears_who_left(server, relay, address) -> None:
    await register(server, relay)
    async with web_client(server) as public:
        await joined(public, server, "laptop")
    (node,) = [one for _, _, one in server.ledger.state.scan("tree") if one["kind"] == "endpoint"]
    here, gone = b64u_decode(node["wireguard_key"]), hashlib.sha256(b"gone").digest()
    relay.carrier.keys = [here, gone]
    await relay.follower.turn()
    assert relay.follower.state == "usable"
    assert relay.carrier.gone == []
    assert relay.follower.doubted == {gone}
    server.clock.shift_ms += 1
    await relay.follower.turn()
    assert relay.carrier.gone == [gone]
    server.relays.look()
    (known,) = server.relays.all()
    assert (known.load_permille, known.sessions_count) == (40, 1)


def web_client(server):
    return TestClient(TestServer(server.app("public")))


async def test_rly_04_a_server_that_was_revoked_signs_no_tickets(server, relay, tmp_path) -> None:
    other = await Neighbour.join(server, tmp_path / "two")
    await relay.follower.turn()
    assert relay.roster.is_server(other.key.public_key)
    await server.services.root_keys.revoke(other.server_id, heir=None, size=None)
    await relay.follower.turn()
    assert not relay.roster.is_server(other.key.public_key)
    assert relay.carrier.rechecks == 2
    await other.stop()


async def test_another_mesh_is_not_believed(server, address, tmp_path) -> None:
    relay = Relay(server, address, tmp_path / "relay", mesh_id=MeshId("ab" * 32))
    with pytest.raises(UnreachableError):
        await relay.follower.turn()
    assert relay.roster.number < 0


async def test_what_is_not_signed_by_the_root_is_not_believed(server) -> None:
    values = [one.value() for one in server.ledger.charter.records]
    roster = MeshRoster(server.ledger.mesh_id)
    with pytest.raises(UnauthenticatedError):
        roster.take([values[1]])
    forged = json.loads(json.dumps(values[1]))
    forged["body"]["servers"][0]["region"] = "us-east"
    with pytest.raises(UnauthenticatedError):
        roster.take([values[0], forged])
    assert not roster.is_server(server.identity.public_key)
    assert roster.take(values)
    assert roster.is_server(server.identity.public_key)
    assert not roster.take(values)


async def test_after_a_restart_without_a_network_it_knows_the_servers(server, relay) -> None:
    await relay.follower.turn()
    again = MeshRoster(server.ledger.mesh_id)
    assert again.take(relay.home.charter())
    assert again.is_server(server.identity.public_key)


KEY = b64u_encode(bytes(range(32)))


@pytest.mark.parametrize("gone", [None, 7, "x", {"a": 1}, [7], [None], ["short"], [KEY, []]])
def test_a_server_that_says_nonsense_of_who_left_ends_nothing_and_nobody(gone) -> None:
    with pytest.raises(WireError):
        gone_in({"gone": gone})


def test_who_left_is_told_by_keys() -> None:
    assert gone_in({"gone": [KEY, KEY]}) == {bytes(range(32))}
    assert gone_in({}) == frozenset()


@pytest.mark.parametrize("servers", [None, 7, "x", {"a": 1}, [7], [{}], [{"address": 7}]])
def test_a_server_that_says_nonsense_of_servers_is_not_followed(servers) -> None:
    assert places_in({"servers": servers}) == []


def test_what_is_no_place_is_asked_by_no_relay() -> None:
    good = ["198.51.100.1:9100", "[2001:db8::1]:9100"]
    bad = ["evil.example:9100", "198.51.100.1", "198.51.100.1:0", "user@198.51.100.1:9100", ""]
    told = [{"address": one} for one in (*good, *bad, *good)]
    assert places_in({"servers": told}) == good


def test_the_introduction_stays_until_something_in_it_changes(tmp_path) -> None:
    home, mesh_id = RelayHome(tmp_path / "relay"), MeshId("ab" * 32)
    key = home.key()
    first = home.introduction(key, mesh_id, WHERE, 1000)
    assert home.introduction(key, mesh_id, WHERE, 2000) == first
    moved = Where(host="203.0.113.10", host6="", port=9103, region="eu-west")
    second = home.introduction(key, mesh_id, moved, 3000)
    assert second != first
    assert home.introduction(key, MeshId("cd" * 32), moved, 4000) != second


def test_the_key_is_made_once_and_nobody_else_reads_it(tmp_path) -> None:
    home = RelayHome(tmp_path / "relay")
    key = home.key()
    path = tmp_path / "relay" / "key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert home.key() == key
    path.chmod(0o644)
    with pytest.raises(ConfigError):
        home.key()
    path.chmod(0o600)
    path.write_text("damaged")
    with pytest.raises(CorruptError):
        home.key()


def test_the_mesh_is_remembered(tmp_path) -> None:
    home = RelayHome(tmp_path / "relay")
    assert home.mesh() is None
    mesh = KnownMesh(mesh_id=MeshId("ab" * 32), servers=("192.0.2.1:9100",))
    home.save_mesh(mesh)
    assert home.mesh() == mesh
    (tmp_path / "relay" / "mesh.json").write_text("{}")
    with pytest.raises(CorruptError):
        home.mesh()
