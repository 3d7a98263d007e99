"""The rules of the views, as those who break them see them."""

from __future__ import annotations

import pytest

from services.kernel.ids import b64u_encode, node_id_of
from tests.fakes.world import HOUR_MS, START_MS, World, curve_key, key_of
from tests.unit.authority.views_kit import ACME, BETA, customer, grant, joined, outcome


class TestTree:
    def test_tre_01_a_node_can_t_move_below_itself(self) -> None:
        world = World(1)
        assert outcome(world, customer(world, ACME, "acme")) is None
        assert outcome(world, customer(world, BETA, "beta", ACME)) is None
        move = world.signed(world.servers[0].key, "tree.move", {"node": ACME, "parent": BETA})
        assert outcome(world, move) == "rejected_cycle"

    def test_tre_02_an_orphan_is_attached_nowhere(self) -> None:
        world = World(1)
        assert outcome(world, customer(world, ACME, "acme", BETA)) == "rejected_orphan"

    def test_tre_03_a_foreign_signer_is_refused(self) -> None:
        world = World(1)
        body = {"node": ACME, "kind": "customer", "parent": world.root_node, "name": "acme"}
        record = world.signed(key_of("stranger"), "tree.create", body)
        assert outcome(world, record) == "rejected_unauthorised"

    def test_tre_03_a_right_counts_from_its_grant_on_and_ends_with_it(self) -> None:
        world, friend = World(1), key_of("friend")
        body = {"node": ACME, "kind": "customer", "parent": world.root_node, "name": "acme"}
        assert outcome(world, world.signed(friend, "tree.create", body)) == "rejected_unauthorised"
        assert outcome(world, grant(world, friend.public_key, "operate")) is None
        assert outcome(world, world.signed(friend, "tree.create", body)) is None
        revoke = {"node": world.root_node, "key": b64u_encode(friend.public_key)}
        assert outcome(world, world.signed(world.root, "tree.revoke", revoke)) is None
        rename = world.signed(friend, "tree.rename", {"node": ACME, "name": "other"})
        assert outcome(world, rename) == "rejected_unauthorised"

    def test_tre_04_nobody_grants_to_itself_or_without_being_admin(self) -> None:
        world = World(1)
        server = world.servers[0].key
        assert outcome(world, grant(world, server.public_key, "admin", by=server)) == (
            "rejected_escalation"
        )
        assert outcome(world, grant(world, key_of("x").public_key, "read", by=server)) == (
            "rejected_unauthorised"
        )
        assert outcome(world, grant(world, server.public_key, "admin")) is None
        assert outcome(world, grant(world, server.public_key, "admin", by=server)) == (
            "rejected_escalation"
        )

    def test_tre_05_the_last_admin_of_the_root_stays(self) -> None:
        world, admin = World(1), key_of("admin")
        assert outcome(world, grant(world, admin.public_key, "admin")) is None
        revoke = {"node": world.root_node, "key": b64u_encode(admin.public_key)}
        assert outcome(world, world.signed(admin, "tree.revoke", revoke)) == "rejected_lockout"
        remove = world.signed(admin, "tree.remove", {"node": world.root_node})
        assert outcome(world, remove) == "rejected_lockout"

    def test_tre_05_no_admin_takes_from_itself_and_the_last_is_not_lowered(self) -> None:
        world, admin, other = World(1), key_of("admin"), key_of("other")
        assert outcome(world, grant(world, admin.public_key, "admin")) is None
        lower = grant(world, admin.public_key, "read")
        assert outcome(world, lower) == "rejected_lockout"
        assert outcome(world, grant(world, other.public_key, "admin", by=admin)) is None
        own = {"node": world.root_node, "key": b64u_encode(admin.public_key)}
        assert outcome(world, world.signed(admin, "tree.revoke", own)) == "rejected_lockout"
        assert outcome(world, grant(world, admin.public_key, "read", by=other)) is None
        last = {"node": world.root_node, "key": b64u_encode(other.public_key)}
        assert outcome(world, world.signed(world.root, "tree.revoke", last)) == "rejected_lockout"

    def test_tre_03_a_grant_ends_with_the_node_that_it_was_for(self) -> None:
        """Whoever makes a node of that id again does not bring old rights back."""
        world, friend = World(1), key_of("friend")
        server = world.servers[0].key
        assert outcome(world, customer(world, ACME, "acme")) is None
        assert outcome(world, grant(world, friend.public_key, "admin", ACME)) is None
        assert outcome(world, world.signed(server, "tree.remove", {"node": ACME})) is None
        assert outcome(world, customer(world, ACME, "acme")) is None
        body = {"node": BETA, "kind": "customer", "parent": ACME, "name": "beta"}
        assert outcome(world, world.signed(friend, "tree.create", body)) == (
            "rejected_unauthorised"
        )
        revoke = {"node": ACME, "key": b64u_encode(friend.public_key)}
        assert outcome(world, world.signed(world.root, "tree.revoke", revoke)) == (
            "rejected_orphan"
        )
        assert outcome(world, grant(world, friend.public_key, "operate", ACME)) is None
        assert outcome(world, world.signed(friend, "tree.create", body)) is None

    def test_tre_04_nobody_grants_above_its_own_subtree(self) -> None:
        world, friend, other = World(1), key_of("friend"), key_of("other")
        assert outcome(world, customer(world, ACME, "acme")) is None
        assert outcome(world, grant(world, friend.public_key, "admin", ACME)) is None
        assert outcome(world, grant(world, other.public_key, "admin", ACME, by=friend)) is None
        above = grant(world, other.public_key, "read", by=friend)
        assert outcome(world, above) == "rejected_escalation"

    def test_tre_02_what_stands_below_a_node_removed_elsewhere_is_void(self) -> None:
        """One side of a cut removes the customer, the other puts one below it."""
        world = World(2)
        first, second = world.servers
        world.write(first, customer(world, ACME, "acme"))
        second.hlc = first.hlc
        world.write(first, world.signed(first.key, "tree.remove", {"node": ACME}))
        body = {"node": BETA, "kind": "customer", "parent": ACME, "name": "beta"}
        world.write(second, world.signed(second.key, "tree.create", body), later_ms=1000)
        world.attest(first, len(first.entries), START_MS // 1000)
        world.attest(second, len(second.entries), START_MS // 1000 + 9)
        state = world.folded().state
        assert state.get("tree", BETA) is None
        assert state.get("name", f"{world.root_node}/beta") is None

    def test_tre_06_a_node_id_that_is_taken(self) -> None:
        world = World(1)
        assert outcome(world, customer(world, ACME, "acme")) is None
        assert outcome(world, customer(world, ACME, "acme")) == "duplicate_id"
        assert outcome(world, customer(world, ACME, "other")) == "rejected_conflict"

    def test_tre_08_a_tree_is_thirty_two_deep(self) -> None:
        world = World(1)
        parent = world.root_node
        for depth in range(31):
            node = f"00000000-0000-4000-8000-0000000002{depth:02x}"
            world.write(world.servers[0], customer(world, node, "deep", parent))
            parent = node
        assert world.folded().state.get("tree", parent) is not None
        assert outcome(world, customer(world, ACME, "deeper", parent)) == "limit_exceeded"

    @pytest.mark.parametrize("name", ["__proto__", "constructor", "", "../x", "a" * 64, "Ä", "a.b"])
    def test_tre_09_tre_10_names_are_labels_and_nothing_else(self, name) -> None:
        world = World(1)
        expected = None if name == "constructor" else "bad_name"
        assert outcome(world, customer(world, ACME, name)) == expected

    @pytest.mark.parametrize(
        "node", [f"{{{ACME}}}", ACME.replace("-", ""), f"urn:uuid:{ACME}", "x"]
    )
    def test_tre_11_another_spelling_of_an_id(self, node) -> None:
        assert outcome(World(1), customer(World(1), node, "acme")) == "bad_field"

    def test_tre_12_a_record_of_another_mesh_has_no_valid_signature(self) -> None:
        world = World(1)
        record = customer(world, ACME, "acme")
        other = "00" * 32
        assert record.signed_bytes(other) != record.signed_bytes(world.mesh_id)

    def test_tre_15_a_grant_at_one_customer_is_none_at_another_of_similar_name(self) -> None:
        world, friend = World(1), key_of("friend")
        assert outcome(world, customer(world, ACME, "acme")) is None
        assert outcome(world, customer(world, BETA, "acme-b")) is None
        assert outcome(world, grant(world, friend.public_key, "operate", ACME)) is None
        rename = world.signed(friend, "tree.rename", {"node": BETA, "name": "mine"})
        assert outcome(world, rename) == "rejected_unauthorised"

    def test_tre_16_an_unknown_kind_or_capability_is_refused(self) -> None:
        world = World(1)
        assert outcome(world, world.signed(world.root, "tree.explode", {})) == "unknown_kind"
        assert outcome(world, grant(world, key_of("x").public_key, "omnipotence")) == "bad_field"

    def test_a_customer_with_endpoints_is_not_removed(self) -> None:
        world = World(1)
        node = joined(world)
        remove = world.signed(world.servers[0].key, "tree.remove", {"node": world.customer})
        assert outcome(world, remove) == "rejected_not_empty"
        leave = world.signed(key_of("endpoint laptop"), "tree.remove", {"node": node})
        assert outcome(world, leave) is None


class TestEnrolment:
    def redeemed(self, world: World, **changes) -> str | None:
        server = world.servers[0]
        invite_id, seed = world.invite(server, "one", **changes)
        return outcome(world, world.redeem("laptop", invite_id, seed))

    def test_a_good_token_lets_one_in_and_not_two(self) -> None:
        world = World(1)
        invite_id, seed = world.invite(world.servers[0], "one")
        assert outcome(world, world.redeem("a", invite_id, seed)) is None
        assert outcome(world, world.redeem("b", invite_id, seed)) == "token_used"

    def test_pub_13_expired(self) -> None:
        world = World(1)
        invite_id, seed = world.invite(world.servers[0], "one")
        world.servers[0].hlc = (START_MS + HOUR_MS // 2 + 1) << 16
        assert outcome(world, world.redeem("a", invite_id, seed)) == "token_invalid"

    def test_pub_13_altered_or_for_another_role(self) -> None:
        world = World(1)
        assert self.redeemed(world, role="server", customer=None) == "token_invalid"
        invite_id, _ = world.invite(world.servers[0], "two")
        forged = world.redeem("b", invite_id, key_of("not the seed"))
        assert outcome(world, forged) == "token_invalid"

    def test_only_the_issuing_server_redeems(self) -> None:
        world = World(2)
        invite_id, seed = world.invite(world.servers[0], "one")
        assert outcome(world, world.redeem("a", invite_id, seed), 1) == "rejected_scope"

    def test_pub_16_pub_17_a_key_that_is_enrolled(self) -> None:
        world = World(1)
        invite_id, seed = world.invite(world.servers[0], "many", uses=9)
        assert outcome(world, world.redeem("a", invite_id, seed)) is None
        assert outcome(world, world.redeem("a", invite_id, seed)) == "key_in_use"
        stolen = world.redeem("b", invite_id, seed, wireguard_key=curve_key("a"))
        assert outcome(world, stolen) == "key_in_use"
        zero = world.redeem("c", invite_id, seed, wireguard_key=b64u_encode(bytes(32)))
        assert outcome(world, zero) == "bad_key"

    def test_two_machines_of_one_name_both_stay(self) -> None:
        world = World(1)
        invite_id, seed = world.invite(world.servers[0], "many", uses=9)
        assert outcome(world, world.redeem("a", invite_id, seed)) is None
        assert outcome(world, world.redeem("b", invite_id, seed, name="a")) is None
        names = {node["name"] for _, _, node in world.folded().state.scan("tree")}
        assert {"a", f"a-{node_id_of(key_of('endpoint b').public_key)[:4]}"} <= names

    @pytest.mark.parametrize("uses", [0, -1, 10_001])
    def test_uses_out_of_range(self, uses) -> None:
        world = World(1)
        invite_id, seed = world.invite(world.servers[0], "bad", uses=uses)
        assert outcome(world, world.redeem("a", invite_id, seed)) == "token_invalid"

    def test_a_cancelled_invitation_is_none(self) -> None:
        world = World(1)
        invite_id, seed = world.invite(world.servers[0], "one")
        cancel = world.signed(world.servers[0].key, "auth.cancel", {"invite": invite_id})
        assert outcome(world, cancel) is None
        assert outcome(world, world.redeem("a", invite_id, seed)) == "token_invalid"

    def test_a_stranger_invites_nobody(self) -> None:
        world = World(1)
        server, stranger = world.servers[0], key_of("stranger")
        server.key, real = stranger, server.key
        world.invite(server, "evil")
        server.key = real
        assert list(world.folded().state.scan("invite")) == []
