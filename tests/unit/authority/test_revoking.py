"""Revoking a server, as who holds the root key does it."""

from __future__ import annotations

import pytest

from services.authority.rootkeys.service import RootKeysService
from services.base.ledger.merkle import EMPTY_ROOT
from services.kernel.errors import (
    ConflictError,
    InputError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from services.kernel.ids import ServerId
from tests.fakes.neighbour import Neighbour, hand_over
from tests.fakes.one_server import OneServer

NOBODY = ServerId("server-0000000000000000")
NODES = [f"00000000-0000-4000-8000-0000000000{number:02x}" for number in range(3)]


@pytest.fixture
async def one(tmp_path):
    server = await OneServer.start(tmp_path / "one")
    yield server
    await server.stop()


@pytest.fixture
async def others(one, tmp_path):
    found = [await Neighbour.join(one, tmp_path / name) for name in ("two", "three")]
    for other in found:
        await hand_over(one.ledger, other.ledger)
    yield found
    for other in found:
        await other.stop()


@pytest.fixture
def root_keys(one) -> RootKeysService:
    return one.services.root_keys


async def customers(other: Neighbour, *nodes: str) -> None:
    """Let a server make customers, and hand them to the first server."""
    root = other.ledger.state.get("mesh", "root_node")
    for node in nodes:
        body = {"node": node, "kind": "customer", "parent": root, "name": f"c{node[-2:]}"}
        await other.ledger.submit([other.author.record("tree.create", body)])
    await hand_over(other.ledger, other.one.ledger)


def known(one: OneServer) -> list[str]:
    return [node for node in NODES if one.ledger.state.get("tree", node) is not None]


async def test_what_is_held_counts_and_nothing_after_it(one, others, root_keys) -> None:
    second, third = others
    await customers(third, NODES[0])
    held = one.ledger.feeds()[third.server_id]
    found = await root_keys.revoke(third.server_id)
    assert (found.removal.size, found.removal.root) == (held.size, held.root)
    assert third.server_id not in one.ledger.charter.servers()
    await customers(third, NODES[1])
    assert known(one) == [NODES[0]]
    assert one.ledger.feeds()[third.server_id].size == held.size
    await hand_over(one.ledger, second.ledger)
    assert second.ledger.charter.servers().keys() == {one.ledger.server_id, second.server_id}


async def test_a_smaller_size_takes_back_what_was_done(one, others, root_keys) -> None:
    third = others[1]
    await customers(third, NODES[0])
    size = one.ledger.feeds()[third.server_id].size
    await customers(third, NODES[1])
    assert known(one) == NODES[:2]
    await root_keys.revoke(third.server_id, size=size)
    assert known(one) == [NODES[0]]
    for again in (None, size):
        with pytest.raises(ConflictError) as refused:
            await root_keys.revoke(third.server_id, size=again)
        assert refused.value.code == "already_revoked"
    found = await root_keys.revoke(third.server_id, size=0)
    assert found.removal.root == EMPTY_ROOT
    assert known(one) == []


async def test_the_witnesses_are_chosen_anew(one, others, root_keys) -> None:
    charter = one.ledger.charter
    assert charter.witnesses_at(charter.number) == (
        one.ledger.server_id,
        *(other.server_id for other in others),
    )
    await root_keys.revoke(others[0].server_id)
    assert charter.witnesses_at(charter.number) == (one.ledger.server_id,)


async def test_the_heir_has_the_slices_by_the_same_change(one, others, root_keys) -> None:
    second, third = others
    number = one.ledger.charter.number
    found = await root_keys.revoke(third.server_id, heir=second.server_id)
    assert one.ledger.charter.number == number + 1
    assert found.slices == third.slices
    heir = one.ledger.charter.server(second.server_id)
    assert heir.slices == (*second.slices, *third.slices)
    with pytest.raises(ConflictError) as refused:
        await root_keys.revoke(third.server_id, heir=one.ledger.server_id)
    assert refused.value.code == "nothing_to_inherit"


async def test_without_an_heir_the_slices_rest_until_one_is_named(one, others, root_keys) -> None:
    second, third = others
    await customers(third, NODES[0])
    await root_keys.revoke(third.server_id)
    assert one.ledger.charter.slice_holder(third.slices[0]) == third.server_id
    assert third.slices[0] not in list(one.ledger.charter.free_slices())
    await root_keys.revoke(third.server_id, heir=second.server_id)
    assert known(one) == [NODES[0]]
    assert one.ledger.charter.slice_holder(third.slices[0]) == second.server_id


async def test_who_can_t_be_revoked(one, others, root_keys) -> None:
    second, third = others
    number = one.ledger.charter.number
    held = one.ledger.feeds().get(third.server_id)
    assert held is None
    for error, code, server_id, options in (
        (NotFoundError, "unknown_server", NOBODY, {}),
        (ConflictError, "holds_root", one.ledger.server_id, {}),
        (ConflictError, "size_not_held", third.server_id, {"size": 99}),
        (ConflictError, "size_not_held", third.server_id, {"size": -1}),
        (NotFoundError, "unknown_server", third.server_id, {"heir": NOBODY}),
        (InputError, "bad_heir", third.server_id, {"heir": third.server_id}),
    ):
        with pytest.raises(error) as refused:
            await root_keys.revoke(server_id, **options)
        assert refused.value.code == code
    assert one.ledger.charter.number == number
    await root_keys.revoke(third.server_id)
    with pytest.raises(NotFoundError):
        await root_keys.revoke(second.server_id, heir=third.server_id)
    await root_keys.revoke(second.server_id)
    with pytest.raises(ConflictError) as refused:
        await root_keys.revoke(one.ledger.server_id)
    assert refused.value.code == "last_server"


async def test_only_where_the_root_key_is(one, others) -> None:
    without = RootKeysService(ledger=one.ledger, signer=None, clock=one.clock)
    with pytest.raises(UnavailableError) as refused:
        await without.revoke(others[0].server_id)
    assert refused.value.code == "signer_unavailable"


async def test_prv_10_a_session_of_a_revoked_server_ends_with_it(one, others, root_keys) -> None:
    from services.edge.auth.sessions import auth_input

    auth, third = one.services.auth, others[1]
    nonce = auth.challenge()
    signed = auth_input(one.ledger.mesh_id, one.ledger.server_id, nonce)
    key = third.key
    token = auth.answer(key=key.public_key, nonce=nonce, signature=key.sign(signed))
    assert auth.caller(token).server_id == third.server_id
    await root_keys.revoke(third.server_id)
    with pytest.raises(UnauthenticatedError) as refused:
        auth.caller(token)
    assert refused.value.code == "revoked"
