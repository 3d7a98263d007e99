"""Who was proved to lie is untrusted for everyone; who was not, is not."""

from __future__ import annotations

import pytest

from services.authority.trust.view import APPLIERS
from services.base.ledger.equivocation import EQUIVOCATION_KIND, find
from services.base.ledger.state import State
from services.kernel.errors import RejectedError
from services.kernel.hlc import Hlc
from services.kernel.ids import MeshId
from services.kernel.views import FoldContext
from tests.fakes.world import START_MS, World, key_of
from tests.unit.base_ledger_log.fork_kit import certificate_of, forked


def proof_against(world: World, key, *, epoch: int = 1, mesh_id=None) -> dict:
    mesh_id = mesh_id or world.mesh_id
    held, foreign = forked(5, 3, 7, key=key, mesh_id=mesh_id, epoch=epoch)
    certificate = certificate_of(key, epoch=epoch)
    proof = find(mesh_id=mesh_id, certificate=certificate, held=foreign, foreign=held.signed())
    return proof.value()


def brought(world: World, body: dict, by: int = 0, key=None):
    """Write one proof; return the record, why it has no effect (or None), and the fold."""
    server = world.servers[by]
    server.hlc = max(one.hlc for one in world.servers)
    record = world.signed(key or server.key, EQUIVOCATION_KIND, body)
    world.write(server, record)
    fold = world.folded()
    return record, fold.items_of([record.id])[0].refusal, fold


def test_led_05_a_server_that_lied_is_untrusted_and_the_record_says_why() -> None:
    world = World(3)
    liar = world.servers[1]
    record, refused, fold = brought(world, proof_against(world, liar.key))
    assert refused is None
    assert fold.state.get("trust", liar.id) == {
        "state": "untrusted",
        "reason": "equivocation",
        "epoch": 1,
        "size": 8,
        "record": record.id,
    }
    assert list(fold.state.scan("trust")) == [("trust", liar.id, fold.state.get("trust", liar.id))]


@pytest.mark.parametrize(("by", "refusal"), [(0, None), (1, "untrusted"), (2, None)])
def test_any_server_of_the_roster_may_bring_the_proof_and_the_liar_s_feed_counts_no_more(
    by, refusal
) -> None:
    world = World(3)
    _, refused, _ = brought(world, proof_against(world, world.servers[1].key), by=by)
    assert refused == refusal


def test_one_server_may_carry_what_another_signed() -> None:
    world = World(3)
    body = proof_against(world, world.servers[1].key)
    _, refused, _ = brought(world, body, by=0, key=world.servers[2].key)
    assert refused is None


@pytest.mark.parametrize("name", ["root", "endpoint laptop"])
def test_who_is_no_server_brings_no_proof(name) -> None:
    world = World()
    body = proof_against(world, world.servers[1].key)
    _, refused, fold = brought(world, body, key=key_of(name))
    assert refused == "rejected_unauthorised"
    assert fold.state.get("trust", world.servers[1].id) is None


def test_once_is_enough() -> None:
    world = World(3)
    liar = world.servers[1]
    first, _, _ = brought(world, proof_against(world, liar.key))
    _, refused, fold = brought(world, proof_against(world, liar.key), by=2)
    assert refused == "already_untrusted"
    assert fold.state.get("trust", liar.id)["record"] == first.id


def test_two_that_find_it_at_once_agree_on_one_record() -> None:
    world = World(3)
    liar = world.servers[1]
    body = proof_against(world, liar.key)
    for finder in (world.servers[2], world.servers[0]):
        world.write(finder, world.signed(finder.key, EQUIVOCATION_KIND, body))
    one, other = world.fold(), world.fold()
    for fold, order in ((one, world.servers), (other, world.servers[::-1])):
        fold.publish_charter()
        for server in order:
            world.deliver(fold, server)
    assert one.state.get("trust", liar.id) == other.state.get("trust", liar.id) is not None
    assert one.state.root() == other.state.root()


def test_a_proof_of_another_mesh_says_nothing_here() -> None:
    world = World()
    body = proof_against(world, world.servers[1].key, mesh_id=MeshId("cd" * 32))
    assert brought(world, body)[1] == "rejected_scope"


def test_a_stranger_to_the_roster_is_not_accused() -> None:
    world = World()
    assert brought(world, proof_against(world, key_of("stranger")))[1] == "rejected_scope"


def test_a_key_that_shares_the_id_of_a_server_does_not_speak_for_it() -> None:
    """An id is 64 bits of a hash: two keys with one id can be found by who tries long enough."""
    world = World()
    accused = world.certificate(world.servers[1], ("10.64.0.0/20",))

    class Roster:
        server_of_key = staticmethod(lambda key: accused)
        server = staticmethod(lambda server_id: accused)

    record = world.signed(
        world.servers[0].key, EQUIVOCATION_KIND, proof_against(world, key_of("twin"))
    )
    context = FoldContext(
        state=State(),
        record=record,
        hlc=Hlc(START_MS << 16),
        author=accused,
        roster=Roster(),
        root_keys=frozenset(),
        mesh_id=world.mesh_id,
    )
    with pytest.raises(RejectedError) as caught:
        APPLIERS[EQUIVOCATION_KIND](context, record.body)
    assert caught.value.code == "rejected_scope"


def test_an_epoch_that_the_root_never_gave_is_no_feed() -> None:
    world = World()
    body = proof_against(world, world.servers[1].key, epoch=2)
    assert brought(world, body)[1] == "rejected_scope"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"hashes": []}, "proof_invalid"),
        ({"smaller": "nonsense"}, "bad_checkpoint"),
        ({"epoch": "1"}, "bad_field"),
        ({"more": 1}, "bad_field"),
    ],
)
def test_what_proves_nothing_has_no_effect(changes, code) -> None:
    world = World()
    liar = world.servers[1]
    _, refused, fold = brought(world, {**proof_against(world, liar.key), **changes})
    assert refused == code
    assert fold.state.get("trust", liar.id) is None


def test_an_honest_servers_two_checkpoints_have_no_effect() -> None:
    world = World()
    honest = world.servers[1]
    story, _ = forked(8, 0, 0, key=honest.key, mesh_id=world.mesh_id)
    body = proof_against(world, honest.key)
    body |= {"smaller": story.signed(5).decode(), "larger": story.signed().decode()}
    _, refused, fold = brought(world, body)
    assert refused == "proof_invalid"
    assert fold.state.get("trust", honest.id) is None
