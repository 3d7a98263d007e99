"""Signatures that are asked for at once: one call, and each judged and written down by itself."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import grpc
import pytest

from seipd.signerd.core import KeyTable
from seipd.signerd.rows import KeyRow, KeyState
from seipd.signerd.server import serve
from services.base.crypto.signatures import SigningKey, verify
from services.base.signing import signer_pb2, signer_pb2_grpc
from services.base.signing.client import GrpcSigner
from services.kernel.errors import SeipdError, UnavailableError
from services.kernel.signing import MAX_SIGNATURES_PER_CALL, MAX_SIGNED_BYTES
from tests.fakes.signer_desk import MemoryAudit, Provider, desk_of, servicer_of

PURPOSE = b"seipd/record/v1\0"


class Place:
    """A signer with one key that signs and one that is retired, and its client."""

    def __init__(self, socket) -> None:
        self.socket = socket
        self.provider, self.audit = Provider(), MemoryAudit()
        self.client = GrpcSigner(str(socket))
        self.sizes: list[int] = []

    def serving(self):
        def row(key_id, handle, state):
            return KeyRow(
                scope="platform",
                key_id=key_id,
                state=state,
                public_key=self.provider.keys[handle].public_key,
                purposes=("seipd/record/v1",),
                handle=handle,
            )

        rows = (row("root-1", "h0", KeyState.ACTIVE), row("root-0", "h1", KeyState.RETIRED))
        desk = desk_of(KeyTable(rows), self.provider, audit=self.audit)
        sign_all = desk.sign_all

        async def counted(caller, wanted):
            self.sizes.append(len(wanted))
            return await sign_all(caller, wanted)

        desk.sign_all = counted
        return serve(servicer_of(desk), self.socket)

    async def sign(self, data: bytes, key_id: str = "root-1"):
        try:
            return await self.client.sign(data, scope="platform", key_id=key_id)
        except SeipdError as error:
            return error.code

    @contextlib.asynccontextmanager
    async def stub(self):
        async with grpc.aio.insecure_channel(f"unix:{self.socket}") as channel:
            yield signer_pb2_grpc.SigningStub(channel)


@pytest.fixture(params=[True, False], ids=["in memory", "elsewhere"])
def place(request, tmp_path):
    made = Place(tmp_path / "signer.sock")
    made.provider.in_memory = request.param
    return made


def digests_of(entry) -> list[str]:
    """Return the digests of all messages that an audit entry is about."""
    return [entry["sha256"], *(digest for digest, _ in entry.get("more", ()))]


def request_of(data: bytes, *more: signer_pb2.SignRequest, key_id: str = "root-1"):
    return signer_pb2.SignRequest(
        canonical_bytes=data, scope="platform", key_id=key_id, more=list(more)
    )


async def test_who_asks_at_once_shares_calls_and_gets_what_is_his(place) -> None:
    messages = [PURPOSE + bytes([number]) for number in range(100)]
    async with place.serving():
        signatures = await asyncio.gather(*(place.sign(one) for one in messages))
    key = place.provider.keys["h0"].public_key
    assert all(map(verify, [key] * 100, messages, signatures))
    assert sum(place.sizes) == 100
    assert max(place.sizes) == MAX_SIGNATURES_PER_CALL
    assert len(place.sizes) <= 6
    told = [one for one in place.audit.entries if one["call"] == "sign"]
    assert {one["outcome"] for one in told} == {"granted"}
    assert len(told) == len(place.sizes)
    digests = [digest for one in told for digest in digests_of(one)]
    assert sorted(digests) == sorted(hashlib.sha256(one).hexdigest() for one in messages)


async def test_what_is_refused_in_a_call_takes_nobody_along(place) -> None:
    wanted = [
        (PURPOSE + b"1", "root-1"),
        (PURPOSE + b"2", "root-1"),
        (PURPOSE + b"3", "root-0"),
        (PURPOSE + b"4", "a/b"),
        (b"other", "root-1"),
        (PURPOSE + bytes(MAX_SIGNED_BYTES), "root-1"),
        (PURPOSE + bytes(5 << 20), "root-1"),
        (PURPOSE + b"5", "root-1"),
    ]
    async with place.serving():
        answers = await asyncio.gather(*(place.sign(*one) for one in wanted))
    assert [one if isinstance(one, str) else len(one) for one in answers] == [
        64,
        64,
        "key_retired",
        "bad_key_id",
        "purpose_refused",
        "message_too_long",
        "message_too_long",
        64,
    ]
    told = {reason for call, _, reason in place.audit.told() if call == "sign"}
    assert told == {"", "bad_key_id", "key_retired", "message_too_long", "purpose_refused"}
    entries = [one for one in place.audit.entries if one["call"] == "sign"]
    assert sum(len(digests_of(one)) for one in entries) == len(wanted)


async def test_who_leaves_ends_nobody_else_s_call(place) -> None:
    async with place.serving():
        calls = [asyncio.ensure_future(place.sign(PURPOSE + bytes([at]))) for at in range(20)]
        await asyncio.sleep(0)
        calls[0].cancel()
        calls[7].cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [at for at, one in enumerate(answers) if not isinstance(one, bytes)] == [0, 7]


async def test_a_signer_that_is_away_is_said_to_all(place) -> None:
    answers = await asyncio.gather(*(place.sign(PURPOSE) for _ in range(5)))
    assert answers == ["signer_unavailable"] * 5


async def test_too_many_in_one_call_or_one_within_another_are_refused(place) -> None:
    one = request_of(PURPOSE)
    async with place.serving(), place.stub() as stub:
        for many in (
            request_of(PURPOSE, *[one] * MAX_SIGNATURES_PER_CALL),
            request_of(PURPOSE, request_of(PURPOSE, one)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Sign(many)
            assert caught.value.details().startswith("bad_field: ")
    assert place.audit.told() == [("sign", "caveat_violation", "bad_field")] * 2


async def test_an_answer_over_fewer_than_were_asked_for_is_none(place) -> None:
    class Short(signer_pb2_grpc.SigningServicer):
        async def Sign(self, request, context):  # noqa: N802
            return signer_pb2.SignReply(signature=bytes(64), key_id=request.key_id)

    async with serve(Short(), place.socket):
        answers = await asyncio.gather(*(place.sign(PURPOSE) for _ in range(3)))
    assert answers[1:] == ["signer_unavailable"] * 2


async def test_what_can_t_be_written_down_leaves_nothing_out(place) -> None:
    place.audit.full = True
    async with place.serving(), place.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Sign(request_of(PURPOSE, request_of(PURPOSE)))
    assert caught.value.details().startswith("audit_unavailable: ")


@pytest.mark.parametrize("damaged", [1, 2, 4])
async def test_sgn_10_a_key_that_is_damaged_on_the_way_signs_nothing_that_leaves(
    place, damaged: int
) -> None:
    signed, provider = [], place.provider
    sign = provider.sign

    def failing(handle, data):
        if len(signed) >= damaged - 1:
            provider.keys[handle] = SigningKey(b"\xff" * 32)
        signed.append(data)
        return sign(handle, data)

    more = [request_of(PURPOSE + bytes([at])) for at in range(3)]
    async with place.serving(), place.stub() as stub:
        provider.sign = failing
        reply = await stub.Sign(request_of(PURPOSE, *more))
    refusals = [one.refusal.partition(":")[0] for one in (reply, *reply.more)]
    good = [one for one in (reply, *reply.more) if one.signature]
    if provider.in_memory:
        assert refusals == ["provider_unavailable"] * 4
    assert refusals.count("provider_unavailable") >= 5 - damaged
    assert len(good) == refusals.count("")
    reasons = [one["reason"] for one in place.audit.entries for _ in digests_of(one)]
    assert sorted(reasons) == sorted(refusals)


async def test_a_fault_of_ours_is_no_grant(place) -> None:
    desk = desk_of(KeyTable(()), place.provider, audit=place.audit)
    desk._may_sign = None
    async with serve(servicer_of(desk), place.socket), place.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Sign(request_of(PURPOSE, request_of(PURPOSE)))
    assert place.audit.told() == [("sign", "caveat_violation", "not_ended")]
    assert len(digests_of(place.audit.entries[0])) == 2


def test_the_code_of_a_refusal_that_is_new_is_a_fault_of_the_signer() -> None:
    from services.base.signing.asking import refusal_of

    error = refusal_of("weather: it rains", {})
    assert (type(error), error.code, str(error)) == (UnavailableError, "weather", "it rains")
