"""What is due of recovery: a new dealing, a word on one's own share; and what is held. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.authority.recovery.messages import (
    PART_KIND,
    PART_SHARES,
    SHARES_KIND,
    Head,
)
from services.authority.recovery.view import (
    VIEW,
    head_of,
    numbers,
    standing_of,
    threshold_of,
    wanted_holders,
)
from services.authority.trust.tiers import Tier, tier_of
from services.base.crypto.verifiable import Proof
from services.base.signing.dealing import Dealing
from services.kernel.errors import InputError, NotFoundError
from services.kernel.ids import b64u_decode, b64u_encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.authority.ports import Json
    from services.base.ledger.rootchain import RootChain
    from services.base.ledger.roster import Charter
    from services.base.signing.recovery_wire import DealReply
    from services.kernel.ids import MeshId, ServerId
    from services.kernel.views import RosterReader, StateReader

    KeyOf = Callable[[ServerId], bytes | None]


def deal_is_due(state: StateReader, roster: RosterReader) -> bool:
    """Say whether the newest dealing is not to whom, or not by the quorum, that it should be."""
    holders = wanted_holders(state, roster)
    if not holders:
        return False
    head = head_of(state, numbers(state)[1])
    if head is None or head.holders != holders:
        return True
    return head.threshold != threshold_of(state, len(holders))


def key_to_name(state: StateReader, chain: RootChain) -> bytes | None:
    """Return the recovery key that came into force and that the roster does not name yet."""
    head = head_of(state, numbers(state)[0])
    if head is None or head.recovery_key == chain.recovery_key:
        return None
    return head.recovery_key


def is_used(state: StateReader, chain: RootChain) -> bool:
    """Say whether the key in force brought a root back, so that another should follow it.

    A file is the operator's to renew.
    """
    in_force, newest = numbers(state)
    head = head_of(state, in_force)
    if head is None or head.is_offline or in_force != newest or not chain.recovery_keys:
        return False
    named_at, key = chain.recovery_keys[-1]
    recovered_at = max(one.number for one in chain.generations if one.endorser != "root")
    return key == head.recovery_key and named_at < recovered_at


def naming(charter: Charter, key: bytes) -> Json:
    """Return the body of the ``roster.change`` that names a recovery key."""
    return {
        "number": charter.number + 1,
        "prev": charter.head,
        "servers": [],
        "removed": [],
        "witnesses": list(charter.witnesses_at(charter.number)),
        "recovery_key": b64u_encode(key),
    }


def records_of(head: Head, reply: DealReply) -> list[tuple[str, Json]]:
    """Return kinds and bodies of the records that tell a dealing, each within its limit."""
    shares = [
        {"commitment": commitment, "sealed": sealed}
        for commitment, sealed in zip(reply.commitments, reply.sealed, strict=True)
    ]
    parts: list[tuple[str, Json]] = [
        (
            PART_KIND,
            {"number": head.number, "first": at + 1, "shares": shares[at : at + PART_SHARES]},
        )
        for at in range(0, len(shares), PART_SHARES)
    ]
    return [(SHARES_KIND, head.body()), *parts]


def word_due(state: StateReader, own: ServerId) -> tuple[int, int] | None:
    """Return number and index of the share that this server has to speak about, if any."""
    _, newest = numbers(state)
    head = head_of(state, newest)
    if head is None or own not in head.holders:
        return None
    standing, index = standing_of(state, newest), head.holders.index(own) + 1
    told = index in standing["good"] or str(index) in standing["bad"]
    return None if told or standing["have"] < len(head.holders) else (newest, index)


def dealing_of(state: StateReader, number: int, mesh_id: MeshId, key_of: KeyOf) -> Dealing:
    """Return what is public of a dealing whose shares are all here.

    Raises:
        NotFoundError: ``no_dealing``: it is not in force, not whole, or was dealt to nobody.
    """
    head = head_of(state, number)
    rows = [
        state.get(VIEW, f"share/{number}/{index}")
        for index in range(1, len(head.holders if head else ()) + 1)
    ]
    if head is None or head.is_offline or None in rows:
        raise NotFoundError(f"there are no shares of dealing {number} here", code="no_dealing")
    return Dealing(
        mesh_id=mesh_id,
        number=number,
        recovery_key=head.recovery_key,
        holders=tuple(_key(one, key_of) for one in head.holders),
        proof=Proof(
            threshold=head.threshold,
            commitments=tuple(b64u_decode(row["commitment"]) for row in rows),
            answer=head.answer,
        ),
    )


def sealed_share(state: StateReader, number: int, index: int) -> bytes:
    """Return one holder's sealed share of a dealing that ``dealing_of`` gave."""
    return b64u_decode(state.get(VIEW, f"share/{number}/{index}")["sealed"])


def released_shares(state: StateReader, server: ServerId, request: Json) -> dict[int, bytes]:
    """Return what holders released to a server that asked."""
    return {
        index: b64u_decode(state.get(VIEW, f"release/{server}/{index}")["sealed"])
        for index in request["released"]
    }


def able_holders(state: StateReader, number: int, roster: RosterReader) -> frozenset[ServerId]:
    """Return who could release a share of a dealing: it is a server still, and said it is good."""
    head, good = head_of(state, number), standing_of(state, number)["good"]
    return frozenset(
        one
        for index, one in enumerate(head.holders if head else (), 1)
        if index in good and tier_of(state, roster, one) is not Tier.UNTRUSTED
    )


def shown_dealing(state: StateReader, number: int, roster: RosterReader) -> Json | None:
    """Return a dealing as people see it: who said what of its share, and who is gone."""
    head = head_of(state, number)
    if head is None:
        return None
    standing, able = standing_of(state, number), able_holders(state, number, roster)

    def said(index: int, holder: ServerId) -> str:
        if index in standing["good"]:
            return "good" if holder in able else "gone"
        told: str = standing["bad"].get(str(index), "nothing yet")
        return told

    return {
        "number": number,
        "state": "in force" if numbers(state)[0] == number else "under way",
        "recovery_key": head.body()["recovery_key"],
        "offline": head.is_offline,
        "threshold": head.threshold,
        "good": len(standing["good"]),
        "able": len(able),
        "record": standing["record"],
        "holders": [
            {"server_id": holder, "share": index, "said": said(index, holder)}
            for index, holder in enumerate(head.holders, 1)
        ],
    }


def _key(server_id: ServerId, key_of: KeyOf) -> bytes:
    key = key_of(server_id)
    if key is None:
        raise InputError(f"{server_id} is not known here", code="no_dealing")
    return key
