"""The signer's calls about recovery keys, over a real socket: what the daemon sees of them."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path

import msgspec
import pytest

from seipd.signerd.app import local_caller
from seipd.signerd.core import KeyTable
from seipd.signerd.recovery import RecoveryDesk, recovery_handlers
from seipd.signerd.server import AuditedHandler, serve
from services.base.crypto.signatures import verify
from services.base.signing import recovery_wire as wire
from services.base.signing.dealing import (
    PURPOSE_CLAIM,
    dealing_context,
    key_vouches,
    open_share,
    release_share,
)
from services.base.signing.recovery_client import GrpcRecovery
from services.kernel import canonical
from services.kernel.errors import InputError, NotFoundError, UnavailableError
from services.kernel.ids import b64u_decode, b64u_encode, parse_key
from tests.fakes.signer_desk import MemoryAudit, desk_of, servicer_of
from tests.fakes.world import key_of

MESH = "cd" * 32
CLAIM = PURPOSE_CLAIM + b'{"generation":2}'
KEYS = [key_of(f"holder {at}") for at in range(5)]


@contextlib.asynccontextmanager
async def signer():
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "s"
        servicer = servicer_of(desk_of(KeyTable(())))
        others = [recovery_handlers(RecoveryDesk(Path(folder)))]
        async with serve(servicer, socket, others=others):
            yield GrpcRecovery(str(socket))


async def dealt(client: GrpcRecovery, keys=KEYS, threshold: int = 4):
    """Deal; return the dealing and the sealed shares."""
    holders = [b64u_encode(one.public_key) for one in keys]
    request = wire.DealRequest(mesh=MESH, number=1, threshold=threshold, holders=holders)
    reply = await client.deal(request)
    dealing = wire.dealing_of(
        wire.DealingWire(
            mesh=MESH,
            number=1,
            recovery_key=reply.recovery_key,
            threshold=threshold,
            holders=holders,
            commitments=reply.commitments,
            answer=reply.answer,
        )
    )
    signature = b64u_decode(reply.signature)
    assert key_vouches(dealing.recovery_key, dealing.context, signature)
    return dealing, [b64u_decode(one) for one in reply.sealed]


def finish_of(dealing, sealed, one_time_key: str, *indexes: int) -> wire.FinishRequest:
    released = {}
    for at in indexes:
        opening = open_share(KEYS[at - 1].seed, sealed[at - 1], index=at, dealing=dealing)
        released[at] = release_share(
            opening, one_time_key=parse_key(one_time_key), claim=CLAIM, dealing=dealing
        )
    return wire.FinishRequest(
        one_time_key=one_time_key,
        claim=b64u_encode(CLAIM),
        dealing=wire.wire_of(dealing),
        released=wire.released_wires(released),
    )


async def test_four_released_shares_endorse_a_claim_once() -> None:
    async with signer() as client:
        dealing, sealed = await dealt(client)
        begun = await client.begin(wire.BeginRequest(claim=b64u_encode(CLAIM)))
        three = await client.finish(finish_of(dealing, sealed, begun.one_time_key, 1, 2, 3))
        assert (three.code, three.endorsement) == ("too_few_shares", "")
        four = finish_of(dealing, sealed, begun.one_time_key, 1, 2, 3, 5)
        reply = await client.finish(four)
        assert verify(dealing.recovery_key, CLAIM, b64u_decode(reply.endorsement))
        with pytest.raises(NotFoundError) as caught:
            await client.finish(four)
        assert caught.value.code == "recovery_unknown"


async def test_what_was_begun_is_gone_on_with_for_its_own_claim_alone() -> None:
    async with signer() as client:
        claim = b64u_encode(CLAIM)
        key = (await client.begin(wire.BeginRequest(claim=claim))).one_time_key
        same = await client.begin(wire.BeginRequest(claim=claim, one_time_key=key))
        assert same.one_time_key == key
        other = b64u_encode(PURPOSE_CLAIM + b'{"generation":3}')
        unknown = b64u_encode(bytes(32))
        for wrong in (
            wire.BeginRequest(claim=other, one_time_key=key),
            wire.BeginRequest(claim=claim, one_time_key=unknown),
        ):
            with pytest.raises(NotFoundError) as caught:
                await client.begin(wrong)
            assert caught.value.code == "recovery_unknown"


async def test_a_bad_share_is_named_and_a_doubled_one_refused() -> None:
    async with signer() as client:
        dealing, sealed = await dealt(client)
        begun = await client.begin(wire.BeginRequest(claim=b64u_encode(CLAIM)))
        request = finish_of(dealing, sealed, begun.one_time_key, 1, 2, 3, 4, 5)
        bad = wire.ReleasedWire(index=2, sealed=b64u_encode(bytes(128)))
        rows = [request.released[0], bad, *request.released[2:]]
        doubled = wire.FinishRequest(
            one_time_key=request.one_time_key,
            claim=request.claim,
            dealing=request.dealing,
            released=[*rows, rows[0]],
        )
        with pytest.raises(InputError) as caught:
            await client.finish(doubled)
        assert caught.value.code == "duplicate_share"
        reply = await client.finish(
            wire.FinishRequest(
                one_time_key=request.one_time_key,
                claim=request.claim,
                dealing=request.dealing,
                released=rows,
            )
        )
        assert reply.bad == {"2": "share_unopened"}
        assert reply.endorsement


async def test_the_signer_deals_to_as_many_as_there_can_be() -> None:
    async with signer() as client:
        keys = [key_of(f"many {at}") for at in range(255)]
        dealing, sealed = await dealt(client, keys, threshold=192)
        assert open_share(keys[254].seed, sealed[254], index=255, dealing=dealing)


async def test_a_refused_recovery_stands_in_the_audit_with_its_code() -> None:
    audit = MemoryAudit()
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "s"
        desk = desk_of(KeyTable(()), audit=audit)
        calls = recovery_handlers(RecoveryDesk(Path(folder)))
        others = [AuditedHandler(calls, desk, local_caller)]
        async with serve(servicer_of(desk), socket, others=others):
            client = GrpcRecovery(str(socket))
            dealing, sealed = await dealt(client)
            begun = await client.begin(wire.BeginRequest(claim=b64u_encode(CLAIM)))
            request = finish_of(dealing, sealed, begun.one_time_key, 1, 2, 3, 4)
            altered = wire.ReleasedWire(index=4, sealed=b64u_encode(bytes(128)))
            reply = await client.finish(
                msgspec.structs.replace(request, released=[*request.released[:3], altered])
            )
            assert (reply.code, reply.bad) == ("too_few_shares", {"4": "share_unopened"})
    assert audit.told() == [
        ("deal", "granted", ""),
        ("begin", "granted", ""),
        ("finish", "caveat_violation", "too_few_shares"),
    ]


async def test_claims_of_another_purpose_are_refused_and_old_ones_forgotten() -> None:
    async with signer() as client:
        with pytest.raises(InputError) as caught:
            await client.begin(wire.BeginRequest(claim=b64u_encode(b"seipd/record/v1\0x")))
        assert caught.value.code == "bad_claim"
        dealing, sealed = await dealt(client)
        first = await client.begin(wire.BeginRequest(claim=b64u_encode(CLAIM)))
        for _ in range(4):
            await client.begin(wire.BeginRequest(claim=b64u_encode(CLAIM)))
        with pytest.raises(NotFoundError):
            await client.finish(finish_of(dealing, sealed, first.one_time_key, 1, 2, 3, 4))


async def test_an_offline_file_endorses_and_no_other_does() -> None:
    async with signer() as client:
        reply = await client.write(wire.WriteRequest(mesh=MESH, number=1))
        path = Path(reply.path)
        assert path.stat().st_mode & 0o777 == 0o600
        key = parse_key(reply.recovery_key)
        context = dealing_context(MESH, 1, key, 0, ())
        assert key_vouches(key, context, b64u_decode(reply.signature))
        claim, content = b64u_encode(CLAIM), b64u_encode(path.read_bytes())
        endorsed = await client.endorse(
            wire.EndorseRequest(claim=claim, recovery_key=reply.recovery_key, file=content)
        )
        assert verify(key, CLAIM, b64u_decode(endorsed.endorsement))
        other = b64u_encode(key_of("other").public_key)
        broken = b64u_encode(canonical.encode({"kind": "x"}))
        for file, recovery_key, code in (
            (content, other, "key_mismatch"),
            (broken, reply.recovery_key, "bad_recovery_file"),
            (b64u_encode(b"\xff"), reply.recovery_key, "bad_recovery_file"),
        ):
            with pytest.raises(InputError) as caught:
                await client.endorse(
                    wire.EndorseRequest(claim=claim, recovery_key=recovery_key, file=file)
                )
            assert caught.value.code == code


async def test_a_signer_that_is_away_is_told_so() -> None:
    with pytest.raises(UnavailableError) as caught:
        await GrpcRecovery("/nonexistent/socket").begin(wire.BeginRequest(claim=""))
    assert caught.value.code == "signer_unavailable"


def test_a_dealing_survives_its_way_over_the_socket() -> None:
    from tests.unit.signerd.test_dealing import dealt as dealt_here

    dealing = dealt_here().dealing
    assert wire.dealing_of(wire.wire_of(dealing)) == dealing
    short = dataclasses.replace(dealing, holders=dealing.holders[:4])
    with pytest.raises(InputError):
        wire.dealing_of(wire.wire_of(short))
