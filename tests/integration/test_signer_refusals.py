"""What the real signer refuses, over its unix socket and over TLS: by a code, and with an entry."""

from __future__ import annotations

import asyncio
import os
import socket as sockets
import subprocess
from pathlib import Path

import pytest

from services.base.crypto.signatures import verify
from services.base.signing.client import GrpcSigner
from services.base.signing.keys_client import GrpcKeys
from services.base.signing.remote import RemoteSigner
from services.base.signing.svidfiles import SvidFiles
from services.kernel.errors import SeipdError
from tests.fakes.fake_kms import FakeKms
from tests.fakes.signer_hardware import over_kms, over_token
from tests.fakes.signers import Place, signer_user_can_run, wait_until
from tests.fakes.softhsm import SoftToken, needs_softhsm
from tests.fakes.spiffe_ca import SpiffeCa

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not signer_user_can_run(), reason="needs root and a user seipd-signer"),
]

MESSAGE = b"seipd/record/v1\0" + bytes(32) + b"{}"
DOMAIN = "domain:0190b3a0-0000-7000-8000-000000000001"
ALLOWED = "spiffe://mesh.example/server/a"

MALFORMED = [
    pytest.param(MESSAGE, "platform", "a/b", "bad_key_id", id="a slash in the key id"),
    pytest.param(MESSAGE + bytes(5 << 20), "platform", "root-1", "message_too_long", id="5 MB"),
    pytest.param(MESSAGE, "platform", "root-0", "key_retired", id="a retired key"),
    pytest.param(MESSAGE, "platform", "root-9", "key_unknown", id="no such key"),
    pytest.param(MESSAGE[1:], "platform", "root-1", "purpose_refused", id="no purpose"),
    pytest.param(bytes(32), "platform", "root-1", "purpose_refused", id="a digest"),
    pytest.param(b"seipd/token/v1\0", "platform", "root-1", "purpose_refused", id="a token"),
]


class Listening:
    """A signer that runs, with an active and a retired key, and its peers."""

    def __init__(self, place: Place) -> None:
        self.place, self.ca = place, SpiffeCa()
        self.audit = GrpcKeys(str(place.socket)).audit
        self.keys = GrpcKeys(str(place.socket))
        with sockets.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.signer = None

    def start(self) -> None:
        place = self.place
        place.prepare()
        for words in (["keygen", "--purpose", "seipd/record/v1"], ["retire"]):
            command = place.command(words[0], "--key-id", "root-0", *words[1:])
            subprocess.run(command, check=True, capture_output=True, **place.identity())
        assert place.keygen().returncode == 0
        own = self.show()
        self.signer = place.start(
            "--profile", "selfhosted-multi", "--listen", f"127.0.0.1:{self.port}",
            "--svid", str(own.chain), "--svid-key", str(own.key), "--bundle", str(own.bundle),
            "--allow-spiffe-id", f"{ALLOWED}=platform", "--log-level", "debug",
        )  # fmt: skip
        wait_until(self.listens)
        # Its audit begins with the first call.
        asyncio.run(self.local().public_key(scope="platform", key_id="root-1"))

    def listens(self) -> bool:
        with sockets.socket() as caller:
            return caller.connect_ex(("127.0.0.1", self.port)) == 0

    def show(self, sequence: int = 1) -> SvidFiles:
        """Have the signer show what the authority issues now."""
        bundle = self.ca.bundle_json(sequence=sequence)
        return self.write("signer", self.ca.svid("/signer", dns=["localhost"]), bundle)

    def write(self, name: str, issued, bundle: bytes | None = None) -> SvidFiles:
        folder = self.place.folder / name
        folder.mkdir(mode=0o755, exist_ok=True)
        found = [folder / one for one in ("svid.pem", "svid.key", "bundle.json")]
        wanted = (issued.chain_pem, issued.key_pem, bundle or self.ca.bundle_json())
        for path, data in zip(found, wanted, strict=True):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(data)
            fresh.chmod(0o600)
            if name == "signer":
                os.chown(fresh, self.place.uid, self.place.uid)
            fresh.replace(path)
        return SvidFiles(chain=found[0], key=found[1], bundle=found[2])

    def peer(self, issued=None) -> RemoteSigner:
        files = self.write("peer", issued or self.ca.svid("/server/a"))
        return RemoteSigner(f"tls://localhost:{self.port}", files, timeout_s=10)

    def local(self) -> GrpcSigner:
        return GrpcSigner(str(self.place.socket), timeout_s=10)

    async def told(self, call) -> tuple[str, list[dict]]:
        """Return how a call was refused, and what was written down of it."""
        before = (await self.audit()).size
        with pytest.raises(SeipdError) as caught:
            await call
        entries = (await self.audit(first=before, count=100)).entries
        return caught.value.code, [one for one in entries if one["call"] != "audit"]


@pytest.fixture(scope="module")
def listening():
    place = Place()
    try:
        made = Listening(place)
        made.start()
        yield made
    finally:
        place.close()


@pytest.mark.parametrize(("data", "scope", "key_id", "code"), MALFORMED)
@pytest.mark.parametrize("way", ["unix", "tls"])
async def test_sgn_03_06_what_may_not_be_signed_is_refused_and_written_down(
    listening, way, data, scope, key_id, code
) -> None:
    asked = listening.local() if way == "unix" else listening.peer()
    seen, entries = await listening.told(asked.sign(data, scope=scope, key_id=key_id))
    assert seen == code
    (entry,) = entries
    assert (entry["call"], entry["outcome"], entry["reason"]) == ("sign", "caveat_violation", code)
    assert (entry["scope"], entry["key_id"], entry["size_bytes"]) == (scope, key_id, len(data))
    assert entry["caller"] == ("unix" if way == "unix" else ALLOWED)


@pytest.mark.parametrize(
    ("uris", "caller"),
    [
        pytest.param(["spiffe://mesh.example/server/b"], None, id="unknown"),
        pytest.param(["spiffe://mesh.example/server/a/"], "unidentified", id="a slash too many"),
        pytest.param([], "unidentified", id="missing"),
        pytest.param([ALLOWED, "spiffe://mesh.example/server/b"], "unidentified", id="two"),
    ],
)
async def test_sgn_01_whoever_is_not_in_the_list_is_refused_and_written_down(
    listening, uris, caller
) -> None:
    issued = listening.ca.svid(uris=uris)
    if not uris or len(uris) > 1 or uris[0].endswith("/"):
        # Our own client shows no such thing: somebody else's does.
        seen, entries = await listening.told(raw_sign(listening, issued))
    else:
        call = listening.peer(issued).sign(MESSAGE, scope="platform", key_id="root-1")
        seen, entries = await listening.told(call)
    assert seen == "caller_unknown"
    (entry,) = entries
    assert (entry["outcome"], entry["reason"]) == ("insufficient_relation", "caller_unknown")
    assert entry["caller"] == (caller or uris[0])


async def raw_sign(listening, issued) -> None:
    import grpc

    from services.base.signing import signer_pb2, signer_pb2_grpc
    from services.base.signing.asking import refusal_of

    credentials = grpc.ssl_channel_credentials(
        listening.ca.own.chain_pem, issued.key_pem, issued.chain_pem
    )
    request = signer_pb2.SignRequest(canonical_bytes=MESSAGE, scope="platform", key_id="root-1")
    async with grpc.aio.secure_channel(f"localhost:{listening.port}", credentials) as channel:
        try:
            await signer_pb2_grpc.SigningStub(channel).Sign(request, timeout=10)
        except grpc.aio.AioRpcError as error:
            raise refusal_of(error.details() or "", {}) from error


@pytest.mark.parametrize("scope", [DOMAIN, DOMAIN.upper(), "domain:", "Platform", ""])
async def test_sgn_02_a_peer_keeps_to_its_scopes(listening, scope) -> None:
    call = listening.peer().sign(MESSAGE, scope=scope, key_id="root-1")
    seen, entries = await listening.told(call)
    assert seen == "wrong_scope"
    (entry,) = entries
    assert (entry["caller"], entry["scope"]) == (ALLOWED, scope)
    assert (entry["outcome"], entry["reason"]) == ("insufficient_relation", "wrong_scope")


async def test_what_is_granted_is_written_down_too(listening) -> None:
    signed = await listening.peer().sign(MESSAGE, scope="platform", key_id="root-1")
    info = await listening.local().public_key(scope="platform", key_id="root-1")
    assert verify(info.public_key, MESSAGE, signed)
    page = await listening.audit(count=1000)
    granted = [one for one in page.entries if one["call"] == "sign" and not one["reason"]]
    assert (granted[-1]["caller"], granted[-1]["outcome"]) == (ALLOWED, "granted")


async def test_renewed_certificates_are_taken_without_a_restart(listening) -> None:
    assert await listening.peer().sign(MESSAGE, scope="platform", key_id="root-1")
    before, listening.ca = listening.ca, SpiffeCa()
    old_peer = before.svid("/server/a")
    listening.show(sequence=2)

    async def signs(issued=None) -> str:
        try:
            await listening.peer(issued).sign(MESSAGE, scope="platform", key_id="root-1")
        except SeipdError as error:
            return error.code
        return "signed"

    while await signs() != "signed":  # the files are looked at once a second
        await asyncio.sleep(0.1)
    assert await signs(old_peer) in {"signer_unavailable", "caller_unknown"}
    assert listening.signer.poll() is None
    assert "the SVID and its bundle were read again" in log_of(listening.place)


async def test_sgn_04_a_rotation_at_the_real_signer_ends_when_it_was_said_to(listening) -> None:
    keys, signer = listening.keys, listening.local()
    began = (await listening.audit()).size

    async def rotate(to: str, closes_in_ms: int):
        newest = await listening.audit(first=(await listening.audit()).size - 1, count=1)
        now_ms = newest.entries[0]["at_ms"]
        return await keys.rotate(
            scope="platform", old_key_id="root-1", new_key_id=to,
            opens_at_ms=now_ms, closes_at_ms=now_ms + closes_in_ms,
        )  # fmt: skip

    both = await asyncio.gather(rotate("two", 2500), rotate("three", 2500), return_exceptions=True)
    refused = [one for one in both if isinstance(one, SeipdError)]
    (made,) = [one for one in both if not isinstance(one, BaseException)]
    assert [one.code for one in refused] == ["rotation_in_progress"]
    assert await signer.sign(MESSAGE, scope="platform", key_id=made.new_key_id)

    async def ended() -> str:
        try:
            await signer.sign(MESSAGE, scope="platform", key_id="root-1")
        except SeipdError as error:
            return error.code
        return ""

    while not (code := await ended()):
        await asyncio.sleep(0.02)
    assert code == "key_retired"
    states = {one.key_id: one.state for one in await keys.keys("platform")}
    assert states == {"root-0": "retired", "root-1": "retired", made.new_key_id: "active"}
    entries = (await listening.audit(first=began, count=1000)).entries
    about = [one for one in entries if one["call"] == "sign" and one["key_id"] == "root-1"]
    reasons = [one["reason"] for one in about]
    first = reasons.index("key_retired")
    assert set(reasons[:first]) == {""}
    assert set(reasons[first:]) == {"key_retired"}
    assert about[first]["at_ms"] >= made.closes_at_ms


@pytest.fixture
def place():
    place = Place()
    yield place
    place.close()


async def entries_of(place: Place) -> list[tuple[str, str, str]]:
    page = await GrpcKeys(str(place.socket)).audit(count=1000)
    return [(one["call"], one["outcome"], one["reason"]) for one in page.entries]


async def test_sgn_10_a_provider_that_hangs_is_given_up_and_written_down(place) -> None:
    kms = FakeKms()
    try:
        hardware = over_kms(place, kms)
        assert hardware.keygen().returncode == 0
        hardware.start()
        public_key = await hardware.public_key()
        kms.faults.extend(["hang"] * 4)
        signer = GrpcSigner(str(place.socket), timeout_s=30)
        with pytest.raises(SeipdError) as caught:
            await signer.sign(MESSAGE, scope="platform", key_id="root-1")
        assert caught.value.code == "provider_unavailable"
        assert ("sign", "caveat_violation", "provider_unavailable") in await entries_of(place)
        kms.faults.clear()
        assert verify(public_key, MESSAGE, await hardware.sign())
    finally:
        kms.close()


@needs_softhsm
async def test_sgn_09_a_start_with_the_wrong_pin_is_written_down(place) -> None:
    hardware = over_token(place, SoftToken(place.folder / "hsm"))
    assert hardware.keygen().returncode == 0
    pin_file = Path(hardware.environment["SEIPD_SIGNER_PKCS11_PIN_FILE"])
    good = pin_file.read_text()
    pin_file.write_text("31415926535\n")
    assert hardware.start().wait(30) == 2
    pin_file.write_text(good)
    hardware.start()
    assert await hardware.sign()
    assert (await entries_of(place))[0] == ("start", "caveat_violation", "pin_wrong")
    assert "31415926535" not in log_of(place)


def log_of(place: Place) -> str:
    return (place.folder / "signer.log").read_text()
