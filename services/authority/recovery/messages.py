r"""The bodies of recovery's records, and the claim that a recovery key endorses.

    root.shares      {answer, holders, number, recovery_key, signature, threshold}
    root.share_part  {first, number, shares: [{commitment, sealed}, ...]}
    root.share_ack   {number, verdict}
    root.recovery    {claim, number, one_time_key}
    root.release     {request, sealed, server}

    claim bytes = "seipd/root-recovery/v1\0" || mesh id, 32 || canonical JSON of the claim

``number`` counts the dealings of a mesh from 1. Holders stand in ascending order, and the first has
share 1. A dealing without holders is an offline file: its threshold is 0, its answer empty.
A claim is the body of the ``root.rotate`` that is to follow, without its endorsement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from services.base.crypto.shamir import MAX_SHARES
from services.base.crypto.verifiable import COMMITMENT_BYTES, PROOF_BYTES
from services.base.signing.dealing import MAX_CLAIM_BYTES, PURPOSE_CLAIM, SEALED_SHARE_BYTES
from services.kernel import canonical
from services.kernel.errors import InputError
from services.kernel.ids import (
    MeshId,
    ServerId,
    b64u_decode,
    b64u_encode,
    parse_key,
    parse_record_id,
    parse_server_id,
    parse_signature,
    parse_wireguard_key,
)

SHARES_KIND = "root.shares"
PART_KIND = "root.share_part"
ACK_KIND = "root.share_ack"
REQUEST_KIND = "root.recovery"
RELEASE_KIND = "root.release"

GOOD = "good"
VERDICTS = (GOOD, "share_unopened", "share_forged")
MIN_HOLDERS = 4
"""Below it three quarters are all of them: the operator keeps a file instead."""
PART_SHARES = 56
MAX_NUMBER = 1 << 40
FIRST_SUCCESSOR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The first record of a dealing."""

    number: int
    recovery_key: bytes
    signature: bytes
    threshold: int
    holders: tuple[ServerId, ...]
    answer: bytes

    @property
    def is_offline(self) -> bool:
        """Whether the operator has the key in a file, and no server a share."""
        return not self.holders

    def body(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "number": self.number,
            "recovery_key": b64u_encode(self.recovery_key),
            "signature": b64u_encode(self.signature),
            "threshold": self.threshold,
            "holders": list(self.holders),
            "answer": b64u_encode(self.answer),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DealtShare:
    """One holder's share as all see it."""

    commitment: bytes
    sealed: bytes

    def value(self) -> dict[str, str]:
        """Return the JSON object."""
        return {"commitment": b64u_encode(self.commitment), "sealed": b64u_encode(self.sealed)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A server's wish to be given shares."""

    number: int
    one_time_key: bytes
    claim: dict[str, Any]

    @property
    def root_key(self) -> bytes:
        """The root key that is claimed."""
        return parse_key(self.claim["root"]["public_key"])

    def body(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "number": self.number,
            "one_time_key": b64u_encode(self.one_time_key),
            "claim": self.claim,
        }


class _HeadWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int
    recovery_key: str
    signature: str
    threshold: int
    holders: list[str]
    answer: str


class _ShareWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    commitment: str
    sealed: str


class _PartWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int
    first: int
    shares: list[_ShareWire]


class _AckWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int
    verdict: str


class _RequestWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int
    one_time_key: str
    claim: dict[str, object]


class _ReleaseWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    server: str
    request: str
    sealed: str


def head_from_body(body: object) -> Head:
    """Check the body of ``root.shares`` as far as it stands alone.

    Raises:
        InputError: malformed; ``bad_holders``; ``bad_threshold``.
    """
    wire = _convert(body, _HeadWire)
    holders = tuple(parse_server_id(one) for one in wire.holders)
    if list(holders) != sorted(set(holders)):
        raise InputError("holders are named once, in ascending order", code="bad_holders")
    if holders and not MIN_HOLDERS <= len(holders) <= MAX_SHARES:
        raise InputError(
            f"a key is dealt to {MIN_HOLDERS} to {MAX_SHARES} holders", code="bad_holders"
        )
    if not (2 <= wire.threshold <= len(holders) or (not holders and wire.threshold == 0)):
        raise InputError("a threshold is 2 to the number of holders", code="bad_threshold")
    answer = b64u_decode(wire.answer)
    if len(answer) != wire.threshold * PROOF_BYTES:
        raise InputError("the proof's answer has another length", code="bad_proof")
    return Head(
        number=_number(wire.number),
        recovery_key=parse_key(wire.recovery_key),
        signature=parse_signature(wire.signature),
        threshold=wire.threshold,
        holders=holders,
        answer=answer,
    )


def part_from_body(body: object) -> tuple[int, int, tuple[DealtShare, ...]]:
    """Check the body of ``root.share_part``; return number, first index and shares.

    Raises:
        InputError: malformed.
    """
    wire = _convert(body, _PartWire)
    if not 1 <= len(wire.shares) <= PART_SHARES or not 1 <= wire.first <= MAX_SHARES:
        raise InputError(f"a part holds 1 to {PART_SHARES} shares", code="bad_part")
    return _number(wire.number), wire.first, tuple(_share(one) for one in wire.shares)


def ack_from_body(body: object) -> tuple[int, str]:
    """Check the body of ``root.share_ack``; return number and verdict.

    Raises:
        InputError: malformed.
    """
    wire = _convert(body, _AckWire)
    if wire.verdict not in VERDICTS:
        raise InputError(f"a verdict is one of {', '.join(VERDICTS)}")
    return _number(wire.number), wire.verdict


def request_from_body(body: object) -> Request:
    """Check the body of ``root.recovery``.

    Raises:
        InputError: malformed.
    """
    wire = _convert(body, _RequestWire)
    return Request(
        number=_number(wire.number),
        one_time_key=parse_wireguard_key(wire.one_time_key),
        claim=_claim(wire.claim),
    )


def claim_bytes(claim: dict[str, Any], mesh_id: MeshId) -> bytes:
    """Return what a recovery key endorses."""
    return PURPOSE_CLAIM + bytes.fromhex(mesh_id) + canonical.encode(claim)


def release_from_body(body: object) -> tuple[ServerId, str, bytes]:
    """Check the body of ``root.release``; return who asked, by which record, and the sealed share.

    Raises:
        InputError: malformed.
    """
    wire = _convert(body, _ReleaseWire)
    return parse_server_id(wire.server), parse_record_id(wire.request), _sealed(wire.sealed)


def _convert(body: object, kind: type[Any]) -> Any:  # noqa: ANN401 (one of the structs)
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"recovery: {error}") from error


def _claim(value: dict[str, Any]) -> dict[str, Any]:
    """Check what tells one claim from another; whether it makes a link is the chain's to say."""
    root = value.get("root")
    root = root if isinstance(root, dict) else {}
    key, generation = root.get("public_key"), root.get("generation")
    if not isinstance(key, str) or type(generation) is not int or generation < FIRST_SUCCESSOR:
        raise InputError("a claim names a root key and its generation", code="bad_claim")
    if root.get("endorser") != "recovery" or len(canonical.encode(value)) > MAX_CLAIM_BYTES // 2:
        raise InputError("a claim is for the recovery key to endorse", code="bad_claim")
    parse_key(key)
    return value


def _number(number: int) -> int:
    if not 1 <= number < MAX_NUMBER:
        raise InputError("a dealing's number is 1 or more")
    return number


def _share(wire: _ShareWire) -> DealtShare:
    commitment = b64u_decode(wire.commitment)
    if len(commitment) != COMMITMENT_BYTES:
        raise InputError(f"a commitment has {COMMITMENT_BYTES} bytes", code="bad_proof")
    return DealtShare(commitment=commitment, sealed=_sealed(wire.sealed))


def _sealed(text: str) -> bytes:
    sealed = b64u_decode(text)
    if len(sealed) != SEALED_SHARE_BYTES:
        raise InputError(f"a sealed share has {SEALED_SHARE_BYTES} bytes", code="bad_share")
    return sealed
