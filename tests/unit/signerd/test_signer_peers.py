"""The signer asked from other machines: mutual TLS, one good name, and who is allowed."""

from __future__ import annotations

import contextlib
import socket as sockets
import stat

import grpc
import pytest

from seipd.signerd.core import KeyTable
from seipd.signerd.listening import listening_of, serve_peers
from seipd.signerd.peers import parse_allowed
from seipd.signerd.rows import KeyRow, KeyState
from services.base.crypto.signatures import verify
from services.base.signing import signer_pb2, signer_pb2_grpc
from services.base.signing.remote import RemoteSigner
from services.base.signing.svidfiles import SvidFiles
from services.kernel.errors import ConfigError, ForbiddenError, SeipdError
from services.runtime.clock import SystemClock
from tests.fakes.signer_desk import MemoryAudit, Provider, desk_of
from tests.fakes.spiffe_ca import HOUR, SpiffeCa

MESSAGE = b"seipd/record/v1\0" + bytes(32)
DOMAIN = "domain:0190b3a0-0000-7000-8000-000000000001"
DAEMON = "spiffe://mesh.example/server/a"


class Place:
    """A signer that listens, and peers with files of their own."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.ca = SpiffeCa()
        self.audit, self.provider = MemoryAudit(), Provider()
        self.allowed = {DAEMON: None}
        self.own = self.write("signer", self.ca.svid("/signer", dns=["localhost"]))
        self.port = 0

    def write(self, name: str, issued, bundle: bytes | None = None) -> SvidFiles:
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        files = SvidFiles(
            chain=folder / "svid.pem", key=folder / "svid.key", bundle=folder / "bundle.json"
        )
        for path, data in (
            (files.chain, issued.chain_pem),
            (files.key, issued.key_pem),
            (files.bundle, bundle or self.ca.bundle_json()),
        ):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(data)
            fresh.chmod(0o600)
            fresh.replace(path)
        return files

    @contextlib.asynccontextmanager
    async def listening(self, *, address: str = "127.0.0.1:0"):
        row = KeyRow(
            scope="platform", key_id="root-1", state=KeyState.ACTIVE, handle="h0",
            public_key=self.provider.public_key("h0"), purposes=("seipd/record/v1",),
        )  # fmt: skip
        desk = desk_of(KeyTable((row,)), self.provider, audit=self.audit)
        wanted = listening_of(
            address, svid=self.own.chain, svid_key=self.own.key, bundle=self.own.bundle,
            allowed=self.allowed,
        )  # fmt: skip
        async with serve_peers(desk, wanted, SystemClock(), interval_s=0) as self.port:
            yield

    def peer(self, issued, name: str = "peer", host: str = "localhost") -> RemoteSigner:
        return RemoteSigner(f"tls://{host}:{self.port}", self.write(name, issued), timeout_s=60)

    async def sign(self, issued, scope: str = "platform") -> bytes:
        return await self.peer(issued).sign(MESSAGE, scope=scope, key_id="root-1")


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


async def refused(awaitable) -> str:
    with pytest.raises(SeipdError) as caught:
        await awaitable
    return caught.value.code


async def test_a_peer_that_is_allowed_gets_its_signature(place) -> None:
    async with place.listening():
        signature = await place.sign(place.ca.svid("/server/a"))
    assert verify(place.provider.public_key("h0"), MESSAGE, signature)
    assert {one["caller"] for one in place.audit.entries} == {DAEMON}


async def test_one_below_an_intermediate_authority_is_known_too(place) -> None:
    async with place.listening():
        assert await place.sign(SpiffeCa(above=place.ca).svid("/server/a"))


@pytest.mark.parametrize(
    "uris",
    [
        ["spiffe://mesh.example/server/b"],
        ["spiffe://mesh.example/server/a/b"],
        ["spiffe://mesh.example/Server/a"],
        ["spiffe://mesh.example/server/a/"],
        ["spiffe://mesh.example/server/../server/a"],
        ["spiffe://MESH.EXAMPLE/server/a"],
        ["spiffe://other.example/server/a"],
        [DAEMON, "spiffe://mesh.example/server/b"],
        [DAEMON, DAEMON],
        [DAEMON, "https://mesh.example/"],
        [],
    ],
)
async def test_sgn_01_any_other_name_is_refused_and_written_down(place, uris) -> None:
    issued = place.ca.svid(uris=uris)
    async with place.listening():
        assert await call_raw(place, issued) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "caller_unknown: this caller may not ask anything",
        )
        assert await call_raw(place, issued, what="PublicKey") == (
            grpc.StatusCode.PERMISSION_DENIED,
            "caller_unknown: this caller may not ask anything",
        )
    assert [one[1:] for one in place.audit.told()] == [
        ("insufficient_relation", "caller_unknown")
    ] * 2


async def call_raw(place, issued, what: str = "Sign") -> tuple[grpc.StatusCode, str]:
    """Ask with a certificate that our own client would not even show."""
    credentials = grpc.ssl_channel_credentials(
        place.ca.own.chain_pem,
        issued.key_pem if issued else None,
        issued.chain_pem if issued else None,
    )
    async with grpc.aio.secure_channel(f"localhost:{place.port}", credentials) as channel:
        stub = signer_pb2_grpc.SigningStub(channel)
        request = {
            "Sign": signer_pb2.SignRequest(
                canonical_bytes=MESSAGE, scope="platform", key_id="root-1"
            ),
            "PublicKey": signer_pb2.PublicKeyRequest(scope="platform", key_id="root-1"),
        }[what]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(stub, what)(request, timeout=60)
        return caught.value.code(), caught.value.details() or ""


async def test_sgn_01_without_a_certificate_or_by_another_authority_tls_fails(place) -> None:
    async with place.listening():
        for issued in (
            None,
            SpiffeCa("mesh.example").svid("/server/a"),
            place.ca.svid("/server/a", lifetime=(-2 * HOUR, -HOUR)),
            place.ca.svid("/server/a", lifetime=(HOUR, 2 * HOUR)),
        ):
            assert (await call_raw(place, issued))[0] is grpc.StatusCode.UNAVAILABLE
    assert place.audit.entries == []


async def test_sgn_02_a_peer_keeps_to_its_scopes(place) -> None:
    place.allowed = {DAEMON: frozenset({DOMAIN})}
    issued = place.ca.svid("/server/a")
    other = DOMAIN.replace("01", "02")
    async with place.listening():
        for scope in ("platform", other, DOMAIN.upper()):
            with pytest.raises(ForbiddenError) as caught:
                await place.sign(issued, scope)
            assert caught.value.code == "wrong_scope"
        assert await refused(place.sign(issued, DOMAIN)) == "key_unknown"
    assert [one[1] for one in place.audit.told()] == [
        *["insufficient_relation"] * 3,
        "caveat_violation",
    ]


async def test_the_signer_s_other_calls_are_not_there_for_peers(place) -> None:
    issued = place.ca.svid("/server/a")
    credentials = grpc.ssl_channel_credentials(
        place.ca.own.chain_pem, issued.key_pem, issued.chain_pem
    )
    async with (
        place.listening(),
        grpc.aio.secure_channel(f"localhost:{place.port}", credentials) as channel,
    ):
        for method in ("seipd.keys.v1.Keys/Rotate", "seipd.recovery.v1.Recovery/Deal"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(f"/{method}")(b"{}", timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(ForbiddenError) as refusal:
            await place.peer(issued).rotate(
                scope="platform", old_key_id="root-1", new_key_id="x", opens_at_ms=0, closes_at_ms=1
            )
        assert refusal.value.code == "not_on_this_machine"


async def test_a_forwarded_name_in_the_metadata_is_nobody_s(place) -> None:
    issued = place.ca.svid("/server/b")
    credentials = grpc.ssl_channel_credentials(
        place.ca.own.chain_pem, issued.key_pem, issued.chain_pem
    )
    async with (
        place.listening(),
        grpc.aio.secure_channel(f"localhost:{place.port}", credentials) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await signer_pb2_grpc.SigningStub(channel).PublicKey(
                signer_pb2.PublicKeyRequest(scope="platform", key_id="root-1"),
                metadata=[("x-forwarded-client-cert", f"URI={DAEMON}"), ("x-spiffe-id", DAEMON)],
                timeout=60,
            )
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_certificates_are_renewed_without_a_restart(place) -> None:
    async with place.listening():
        assert await place.sign(place.ca.svid("/server/a"))
        newer = place.ca = SpiffeCa()
        place.write(
            "signer", newer.svid("/signer", dns=["localhost"]), newer.bundle_json(sequence=2)
        )
        assert await place.sign(newer.svid("/server/a"))


async def test_files_that_do_not_fit_together_change_nothing(place) -> None:
    before = place.ca
    async with place.listening():
        other = SpiffeCa("other.example")
        for issued, bundle in (
            (place.ca.svid("/signer", dns=["localhost"]), b"{}"),
            (other.svid("/signer", dns=["localhost"]), other.bundle_json(sequence=3)),
            (place.ca.svid("/signer", dns=["localhost"]), SpiffeCa().bundle_json(sequence=0)),
        ):
            place.write("signer", issued, bundle)
            place.ca = before
            assert await place.sign(before.svid("/server/a"))
        place.own.key.write_bytes(b"no key")
        assert await place.sign(before.svid("/server/a"))


async def test_a_bundle_without_keys_revokes_those_that_are_connected(place) -> None:
    issued = place.ca.svid("/server/a")
    credentials = grpc.ssl_channel_credentials(
        place.ca.own.chain_pem, issued.key_pem, issued.chain_pem
    )
    request = signer_pb2.PublicKeyRequest(scope="platform", key_id="root-1")
    async with (
        place.listening(),
        grpc.aio.secure_channel(f"localhost:{place.port}", credentials) as channel,
    ):
        stub = signer_pb2_grpc.SigningStub(channel)
        assert await stub.PublicKey(request, timeout=60)
        own = place.ca.svid("/signer", dns=["localhost"])
        place.write("signer", own, place.ca.bundle_json(sequence=2, keys=False))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PublicKey(request, timeout=60)
        assert (caught.value.details() or "").startswith("caller_unknown: ")
        assert await refused(place.sign(issued)) in {"caller_unknown", "signer_unavailable"}


async def test_a_signer_of_another_name_is_not_asked(place) -> None:
    place.own = place.write("signer", place.ca.svid("/signer", dns=["signer.example"]))
    async with place.listening():
        assert await refused(place.sign(place.ca.svid("/server/a"))) == "signer_unavailable"
    assert place.audit.entries == []


async def test_sgn_11_connections_that_say_nothing_keep_nobody_out(place) -> None:
    async with place.listening():
        idle = [sockets.create_connection(("127.0.0.1", place.port)) for _ in range(50)]
        for one in idle:
            one.sendall(b"\x16\x03\x01")
        assert await place.sign(place.ca.svid("/server/a"))
        for one in idle:
            one.close()


async def test_a_port_that_is_taken_is_said(place) -> None:
    async with place.listening():
        wanted = listening_of(
            f"127.0.0.1:{place.port}", svid=place.own.chain, svid_key=place.own.key,
            bundle=place.own.bundle, allowed=place.allowed,
        )  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            async with serve_peers(desk_of(KeyTable(())), wanted, SystemClock()):
                pass
    assert caught.value.code == "bad_listen"


async def test_sgn_02_over_a_unix_socket_the_certificate_tells_who_asks_too(place) -> None:
    socket = place.folder / "peers.sock"
    async with place.listening(address=f"unix:{socket}"):
        assert stat.S_IMODE(socket.stat().st_mode) == 0o666

        def peer(name: str, issued) -> RemoteSigner:
            return RemoteSigner(f"tls://unix:{socket}", place.write(name, issued), timeout_s=60)

        good = peer("peer", place.ca.svid("/server/a"))
        assert len(await good.sign(MESSAGE, scope="platform", key_id="root-1")) == 64
        other = peer("other", place.ca.svid("/server/b"))
        assert await refused(other.sign(MESSAGE, scope="platform", key_id="root-1")) == (
            "caller_unknown"
        )


def test_a_private_key_that_others_can_read_is_refused(place) -> None:
    from services.base.signing.svidfiles import read_shown

    place.own.key.chmod(0o644)
    with pytest.raises(SeipdError) as caught:
        read_shown(place.own)
    assert caught.value.code == "key_permissions"
    place.own.key.chmod(0o600)
    assert "PRIVATE" not in repr(read_shown(place.own))


@pytest.mark.parametrize(
    "address", ["localhost:1", "127.0.0.1", ":9107", "127.0.0.1:99999", "127.0.0.1:x", "unix:x"]
)
def test_an_address_to_listen_on_is_an_ip_address_and_a_port(tmp_path, address) -> None:
    with pytest.raises(ConfigError) as caught:
        listening_of(address, svid=tmp_path, svid_key=tmp_path, bundle=tmp_path, allowed={})
    assert caught.value.code == "bad_listen"


def test_options_that_go_together_are_asked_for_together(tmp_path) -> None:
    assert listening_of(None, svid=None, svid_key=None, bundle=None, allowed={}) is None
    for given in ({"address": "127.0.0.1:1"}, {"svid": tmp_path}, {"allowed": {DAEMON: None}}):
        wanted = {"svid": None, "svid_key": None, "bundle": None, "allowed": {}} | given
        with pytest.raises(ConfigError):
            listening_of(wanted.pop("address", None), **wanted)


def test_the_list_of_those_allowed() -> None:
    assert parse_allowed([DAEMON]) == {DAEMON: None}
    assert parse_allowed([f"{DAEMON}=platform", f"{DAEMON}={DOMAIN}"]) == {
        DAEMON: frozenset({"platform", DOMAIN})
    }
    for text in ("", "mesh.example/a", f"{DAEMON}=", f"{DAEMON}=all", f"{DAEMON}/=platform"):
        with pytest.raises(ConfigError):
            parse_allowed([text])


@pytest.mark.parametrize(
    "address", ["tls://", "tls://x", "tls://x:y", "x:1", "tls://x:1/y", "tls://unix:x"]
)
def test_what_is_no_address_of_a_signer_is_refused(place, address) -> None:
    with pytest.raises(ConfigError):
        RemoteSigner(address, place.own)


def test_time_and_files_are_looked_at_no_more_than_once_an_interval(place, monkeypatch) -> None:
    from services.base.signing.svidfiles import SvidSource

    now = [0.0]
    source = SvidSource(place.own, monotonic_s=lambda: now[0], interval_s=1.0)
    first = source.current()
    place.write("signer", place.ca.svid("/signer"))
    assert source.current() is first
    now[0] = 1.0
    assert source.current() is not first
    place.own.bundle.unlink()
    now[0] = 2.0
    assert source.current().bundle.authorities
