"""Whose word counts about which name while orders for certificates are open."""

from __future__ import annotations

import base64
import hashlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from services.base.crypto.signatures import SigningKey
from services.edge.acme.challenges import endpoint_name, payload_of, records_of
from services.kernel.certificates import ServerCertificate
from services.kernel.errors import InputError, SeipdError
from services.mesh.facts.envelope import Fact, sign_envelope
from services.mesh.facts.kinds import CHALLENGE
from services.mesh.facts.payloads import Challenge, ChallengePayload, encode_payload

if TYPE_CHECKING:
    from services.kernel.ids import ServerId

MESH = hashlib.sha256(b"a mesh").digest()
KEYS = {name: SigningKey(name.encode() * 32) for name in "ab"}
SERVERS = {
    name: ServerCertificate(
        key=key.public_key,
        wireguard_key=bytes(32),
        tls_key_hash=bytes(32),
        region="eu-west",
        backbone="172.16.0.10",
        slices=(f"10.64.{16 * number}.0/20",),
        epoch=1,
    )
    for number, (name, key) in enumerate(KEYS.items())
}
ROSTER = {one.server_id: one for one in SERVERS.values()}
A, B = (one.server_id for one in SERVERS.values())


def charter_of(roster: dict[ServerId, ServerCertificate]) -> Any:
    """Return who is a server, and who holds which slice."""
    slices = {one.slices[0]: one.server_id for one in roster.values()}
    return SimpleNamespace(server=roster.get, slice_holder=slices.get)


CHARTER = charter_of(ROSTER)


class Tree(dict[tuple[str, str], Any]):
    """The views that the names of endpoints come from."""

    def get(self, view: str, key: str) -> Any:  # type: ignore[override]
        return super().get((view, key))


AT_A = {"server": A, "address": "10.64.0.10"}
TREE = Tree(
    {
        ("mesh", "root_node"): "r",
        ("tree", "r"): {"kind": "root", "name": "root", "parent": None},
        ("name", "r/acme"): "c",
        ("tree", "c"): {"kind": "customer", "name": "acme", "parent": "r"},
        ("name", "c/laptop"): "e",
        ("tree", "e"): {"kind": "endpoint", "name": "laptop", "parent": "c", **AT_A},
        ("name", "c/deep"): "d",
        ("tree", "d"): {"kind": "customer", "name": "deep", "parent": "c"},
        ("name", "d/phone"): "p",
        ("tree", "p"): {"kind": "endpoint", "name": "phone", "parent": "d", **AT_A},
    }
)


def moved_to(server_id: ServerId) -> Tree:
    """Return the tree after the laptop attached to a server."""
    moved = Tree(TREE)
    moved["tree", "e"] = {**TREE["tree", "e"], "at": server_id, "moves": 1}
    return moved


def fact(server: str, *names: str, token: bytes = b"t") -> Fact:
    digest = hashlib.sha256(token).digest()
    return sign_envelope(
        KEYS[server],
        MESH,
        kind=CHALLENGE,
        payload=payload_of([Challenge(name=name, digest=digest) for name in names]),
        counter=1,
        now_ms=1,
        lifetime_ms=60_000,
    )


def records(*facts: Fact, tree: Tree = TREE, charter: Any = CHARTER) -> dict[str, tuple[str, ...]]:
    return records_of(
        {one.server_id: one for one in facts}, charter=charter, state=tree, domain="m.example"
    )


class TestBelieved:
    def test_a_server_speaks_for_its_own_names_and_its_endpoints(self) -> None:
        own = f"{A}.eu-west.seip"
        text = base64.urlsafe_b64encode(hashlib.sha256(b"t").digest()).rstrip(b"=").decode()
        assert records(fact("a", own, f"private.{own}", "laptop.acme.ep")) == {
            f"_acme-challenge.{own}.m.example": (text,),
            f"_acme-challenge.private.{own}.m.example": (text,),
            "_acme-challenge.laptop.acme.ep.m.example": (text,),
        }

    @pytest.mark.parametrize(
        "name",
        [
            f"{A}.eu-west.seip",
            f"private.{A}.eu-west.seip",
            f"{B}.us-east.seip",
            "eu-west.seip",
            "laptop.acme.ep",
            "other.acme.ep",
            "acme.ep",
            "www.m.example",
            "ns1.m",
        ],
    )
    def test_nobody_proves_anothers_name_to_a_ca(self, name: str) -> None:
        assert records(fact("b", name)) == {}

    def test_who_left_the_roster_is_not_believed(self) -> None:
        said = fact("a", f"{A}.eu-west.seip")
        assert records(said, charter=charter_of({})) == {}

    def test_an_endpoint_that_moved_is_spoken_for_by_the_server_that_carries_it(self) -> None:
        name = "laptop.acme.ep"
        said = {one: fact(one, name) for one in "ab"}
        moved = moved_to(B)
        assert records(said["a"]) == records(said["b"], tree=moved) != {}
        assert records(said["b"]) == records(said["a"], tree=moved) == {}

    def test_where_its_server_is_gone_the_holder_of_its_slice_speaks_for_it_again(self) -> None:
        said, alone = fact("a", "laptop.acme.ep"), charter_of({A: ROSTER[A]})
        assert records(said, tree=moved_to(B), charter=alone) == records(said) != {}

    def test_who_enrolled_it_does_not_speak_for_what_an_heir_carries(self) -> None:
        heir = SimpleNamespace(server=ROSTER.get, slice_holder=lambda _: B)
        assert records(fact("a", "laptop.acme.ep"), charter=heir) == {}
        assert records(fact("b", "laptop.acme.ep"), charter=heir) != {}

    def test_nobody_speaks_for_an_endpoint_that_nobody_carries(self) -> None:
        nowhere = Tree(TREE)
        nowhere["tree", "e"] = {"kind": "endpoint", "name": "laptop", "parent": "c", "server": A}
        assert records(fact("a", "laptop.acme.ep"), tree=nowhere) == {}
        assert endpoint_name(nowhere, CHARTER, "e") is None

    @pytest.mark.parametrize(
        ("node", "name"), [("e", "laptop.acme.ep"), ("p", "phone.deep.acme.ep")]
    )
    def test_an_endpoint_has_the_names_of_its_customers_behind_its_own(
        self, node: str, name: str
    ) -> None:
        found = endpoint_name(TREE, CHARTER, node)
        assert found is not None
        assert (found.relative, found.server_id) == (name, A)
        assert endpoint_name(TREE, CHARTER, "c") is None
        assert endpoint_name(TREE, CHARTER, "r") is None
        assert endpoint_name(TREE, CHARTER, "nobody") is None

    def test_acm_10_two_orders_for_one_name_both_stand_there(self) -> None:
        name = f"{A}.eu-west.seip"
        both = [Challenge(name=name, digest=hashlib.sha256(one).digest()) for one in (b"1", b"2")]
        said = sign_envelope(
            KEYS["a"],
            MESH,
            kind=CHALLENGE,
            payload=payload_of([*both, both[0]]),
            counter=1,
            now_ms=1,
            lifetime_ms=1,
        )
        assert len(records(said)[f"_acme-challenge.{name}.m.example"]) == 2


class TestBounds:
    @pytest.mark.parametrize(
        "name", ["", "a", "A.b", "a..b", ".a.b", "a.b.", "../../x", "a b.c", "a.b\n", "x." * 120]
    )
    def test_acm_09_a_name_is_labels_and_nothing_else(self, name: str) -> None:
        payload = encode_payload(ChallengePayload(challenges=(Challenge(name=name, digest=MESH),)))
        with pytest.raises(InputError):
            sign_envelope(
                KEYS["a"],
                MESH,
                kind=CHALLENGE,
                payload=payload,
                counter=1,
                now_ms=1,
                lifetime_ms=1,
            )

    def test_what_does_not_fit_in_a_datagram_is_refused(self) -> None:
        with pytest.raises(SeipdError) as refused:
            payload_of([Challenge(name=f"{n}.{'a' * 60}.ep", digest=MESH) for n in range(8)])
        assert refused.value.code == "too_many_orders"
