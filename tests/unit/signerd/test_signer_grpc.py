"""The client and the service over a real socket: what a caller of the signer sees."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from seipd.signerd.core import KeyTable
from seipd.signerd.rows import KeyRow, KeyState
from seipd.signerd.server import serve
from services.base.crypto.signatures import SigningKey, verify
from services.base.signing import signer_pb2, signer_pb2_grpc
from services.base.signing.client import GrpcSigner
from services.kernel.errors import (
    ConfigError,
    ForbiddenError,
    InputError,
    NotFoundError,
    SeipdError,
    UnavailableError,
)
from services.kernel.signing import MAX_SIGNED_BYTES
from tests.fakes.signer_desk import MemoryAudit, Provider, desk_of, servicer_of

MESSAGE = b"seipd/record/v1\0" + bytes(32) + b"{}"
DOMAIN = "domain:0190b3a0-0000-7000-8000-000000000001"


class Signerd:
    """A signer in this process; ``restart`` gives it other rows."""

    def __init__(self, socket) -> None:
        self.socket = socket
        self.provider = Provider()
        self.audit = MemoryAudit()
        self.client = GrpcSigner(str(socket))

    def table(self, first: str = "h0") -> KeyTable:
        def row(key_id, handle, state=KeyState.ACTIVE, scope="platform"):
            return KeyRow(
                scope=scope,
                key_id=key_id,
                state=state,
                public_key=self.provider.keys[handle].public_key,
                purposes=("seipd/record/v1",),
                handle=handle,
            )

        return KeyTable(
            (
                row("root-1", first),
                row("root-0", "h1", KeyState.RETIRED),
                row("own", "h2", scope=DOMAIN),
            )
        )

    def serving(self, table: KeyTable | None = None):
        desk = desk_of(table or self.table(), self.provider, audit=self.audit)
        return serve(servicer_of(desk), self.socket)


@pytest.fixture
def signerd(tmp_path):
    return Signerd(tmp_path / "signer.sock")


async def refused(awaitable, kind: type[SeipdError], code: str) -> SeipdError:
    with pytest.raises(SeipdError) as caught:
        await awaitable
    assert (type(caught.value), caught.value.code) == (kind, code)
    return caught.value


async def test_it_signs_and_tells_the_public_half(signerd) -> None:
    async with signerd.serving():
        info = await signerd.client.public_key(scope="platform", key_id="root-1")
        assert (info.key_id, info.state) == ("root-1", "active")
        signature = await signerd.client.sign(MESSAGE, scope="platform", key_id="root-1")
    assert verify(info.public_key, MESSAGE, signature)


async def test_a_retired_key_still_tells_its_public_half(signerd) -> None:
    async with signerd.serving():
        info = await signerd.client.public_key(scope="platform", key_id="root-0")
    assert info.state == "retired"
    assert info.public_key == signerd.provider.keys["h1"].public_key


async def test_what_the_provider_can_t_take_is_refused_before_it_is_asked(signerd) -> None:
    signerd.provider.max_bytes = len(MESSAGE)
    signerd.provider.failure = AssertionError("it was asked")
    async with signerd.serving():
        longer = signerd.client.sign(MESSAGE + b" ", scope="platform", key_id="root-1")
        await refused(longer, InputError, "message_too_long")


async def test_sgn_03_06_refusals_reach_the_caller_by_their_codes(signerd) -> None:
    sign = signerd.client.sign
    async with signerd.serving():
        for data, scope, key_id, kind, code in (
            (MESSAGE, "platform", "root-9", NotFoundError, "key_unknown"),
            (MESSAGE, "platform", "own", NotFoundError, "key_unknown"),
            (MESSAGE, DOMAIN.upper(), "own", ForbiddenError, "wrong_scope"),
            (MESSAGE, "platform", "root-0", ForbiddenError, "key_retired"),
            (bytes(32), "platform", "root-1", ForbiddenError, "purpose_refused"),
            (b"seipd/token/v1\0", "platform", "root-1", ForbiddenError, "purpose_refused"),
            (
                MESSAGE + bytes(MAX_SIGNED_BYTES),
                "platform",
                "root-1",
                InputError,
                "message_too_long",
            ),
            (MESSAGE + bytes(5 << 20), "platform", "root-1", InputError, "message_too_long"),
            (MESSAGE, "platform", "a/b", InputError, "bad_key_id"),
        ):
            await refused(sign(data, scope=scope, key_id=key_id), kind, code)
        await refused(
            signerd.client.public_key(scope="platform", key_id="root-9"),
            NotFoundError,
            "key_unknown",
        )
        assert await sign(MESSAGE, scope="platform", key_id="root-1")


async def test_a_message_over_the_transport_s_limit_is_refused_too(signerd) -> None:
    async with signerd.serving():
        await refused(
            signerd.client.sign(MESSAGE + bytes(8 << 20), scope="platform", key_id="root-1"),
            UnavailableError,
            "signer_unavailable",
        )
        assert await signerd.client.sign(MESSAGE, scope="platform", key_id="root-1")


async def test_no_signer_is_said_with_the_mend(signerd) -> None:
    error = await refused(
        signerd.client.sign(MESSAGE, scope="platform", key_id="root-1"),
        UnavailableError,
        "signer_unavailable",
    )
    assert "seipd-signer" in error.mend


async def test_a_socket_where_nobody_answers_does_not_hold_the_caller(signerd) -> None:
    async def silent(reader, writer) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(silent, signerd.socket)
    client = GrpcSigner(str(signerd.socket), timeout_s=0.2)
    async with server:
        await refused(
            client.public_key(scope="platform", key_id="root-1"),
            UnavailableError,
            "signer_unavailable",
        )


async def test_sgn_10_a_provider_that_signs_with_another_key_is_found_out(signerd) -> None:
    async with signerd.serving():
        signerd.provider.swapped = "h1"
        await refused(
            signerd.client.sign(MESSAGE, scope="platform", key_id="root-1"),
            UnavailableError,
            "provider_unavailable",
        )


async def test_sgn_10_a_provider_that_fails_tells_the_caller_nothing_of_itself(signerd) -> None:
    async with signerd.serving():
        for failure in (
            UnavailableError("pin 1234 locked", code="token_gone"),
            RuntimeError("pin 1234 locked"),
        ):
            signerd.provider.failure = failure
            with pytest.raises(UnavailableError) as caught:
                await signerd.client.sign(MESSAGE, scope="platform", key_id="root-1")
            assert "1234" not in str(caught.value)
        signerd.provider.failure = None
        assert await signerd.client.sign(MESSAGE, scope="platform", key_id="root-1")


class Liar(signer_pb2_grpc.SigningServicer):
    """Answers with somebody else's signature, or with none at all."""

    def __init__(self, signature: bytes) -> None:
        self._signature = signature

    async def Sign(self, request, context):  # noqa: N802 (gRPC names it)
        return signer_pb2.SignReply(signature=self._signature, key_id=request.key_id)

    async def PublicKey(self, request, context):  # noqa: N802
        return signer_pb2.PublicKeyReply(
            public_key=SigningKey(bytes(32)).public_key, key_id=request.key_id, state="active"
        )


@pytest.mark.parametrize(
    "signature",
    [b"", bytes(64), SigningKey(bytes(32)).sign(b"other"), SigningKey(b"x" * 32).sign(MESSAGE)],
)
async def test_sgn_10_a_signature_that_does_not_verify_is_not_handed_on(signerd, signature) -> None:
    async with serve(Liar(signature), signerd.socket):
        await refused(
            signerd.client.sign(MESSAGE, scope="platform", key_id="root-1"),
            UnavailableError,
            "provider_unavailable",
        )


async def test_sgn_10_a_signer_that_comes_back_with_another_key_is_not_believed(signerd) -> None:
    async with signerd.serving():
        await signerd.client.sign(MESSAGE, scope="platform", key_id="root-1")
    async with signerd.serving(signerd.table(first="h2")):
        await refused(
            signerd.client.sign(MESSAGE, scope="platform", key_id="root-1"),
            UnavailableError,
            "provider_unavailable",
        )


async def test_a_signer_that_was_restarted_is_found_again(signerd) -> None:
    for _ in range(2):
        async with signerd.serving():
            assert await signerd.client.sign(MESSAGE, scope="platform", key_id="root-1")


async def test_many_callers_at_once_are_all_answered(signerd) -> None:
    async with signerd.serving(), asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(signerd.client.sign(MESSAGE, scope="platform", key_id="root-1"))
            for _ in range(64)
        ]
    assert len({task.result() for task in tasks}) == 1


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "dns:///signer:9000", "signer.sock", ""])
def test_what_is_not_a_unix_socket_is_refused(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GrpcSigner(address)
    assert caught.value.code == "bad_signer_address"


@pytest.mark.parametrize("prefix", ["", "unix:", "unix://"])
async def test_a_socket_may_be_written_as_a_path_or_a_url(signerd, prefix: str) -> None:
    client = GrpcSigner(f"{prefix}{signerd.socket}")
    async with signerd.serving():
        assert await client.public_key(scope="platform", key_id="root-1")


async def test_a_relative_path_is_one_of_the_caller_s_folder(signerd, monkeypatch) -> None:
    monkeypatch.chdir(signerd.socket.parent)
    client = GrpcSigner(f"./{signerd.socket.name}")
    monkeypatch.chdir("/")
    async with signerd.serving():
        assert await client.public_key(scope="platform", key_id="root-1")


async def test_a_signer_that_is_there_is_seen_without_a_call(signerd, tmp_path) -> None:
    assert not await signerd.client.answers()
    async with signerd.serving():
        assert await signerd.client.answers()
    assert signerd.audit.entries == []

    async def silent(reader, writer) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(silent, tmp_path / "silent.sock")
    async with server:
        assert not await GrpcSigner(str(tmp_path / "silent.sock"), timeout_s=0.2).answers()
